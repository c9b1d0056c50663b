"""What an audit entry may say: digests, counts and short words. Never a text that somebody wrote."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self, get_args

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import AuditEntryInvalid, CanonicalError

Kind = Literal["call", "run_step", "budget", "release", "key", "policy"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LABEL = re.compile(r"[A-Za-z0-9_.:/@+ -]{1,100}")
_LONGEST_TEXT = 200
_MOST_ITEMS = 200
_LARGEST_NUMBER = 2**53


@dataclass(frozen=True)
class AuditEntry:
    """One fact.

    Attributes:
        kind: "call" (an application's request), "run_step", "budget", "release", "key", "policy".
        at: UTC time, RFC 3339 with microseconds.
        actor: who did it: a key id, role, department or component; no person's name.
        data: by short lower-case names: texts of at most 200 characters without line breaks,
            numbers, booleans, None; lists of such texts; mappings from labels to numbers or to
            such texts.

    Raises:
        AuditEntryInvalid: names the field that breaks a rule, never its value.
    """

    type: ClassVar[str] = "intramural/audit-entry"
    version: ClassVar[int] = 1

    kind: Kind
    at: str
    actor: str
    data: dict[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise AuditEntryInvalid(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        if not isinstance(self.at, str) or not _AT.fullmatch(self.at):
            raise AuditEntryInvalid("at must be a UTC time like 2026-01-31T12:00:00.000000+00:00")
        _check_text(self.actor, "actor")
        if not isinstance(self.data, dict):
            raise AuditEntryInvalid("data must be a mapping")
        if len(self.data) > _MOST_ITEMS:
            raise AuditEntryInvalid(f"data has {len(self.data)} fields, at most {_MOST_ITEMS}")
        for name, value in self.data.items():
            if not isinstance(name, str) or not _KEY.fullmatch(name):
                raise AuditEntryInvalid("data has a field whose name is no short lower-case word")
            _check_value(value, name)

    @classmethod
    def now(cls, kind: Kind, actor: str, data: dict[str, Any]) -> Self:
        """An entry about this moment."""
        return cls(kind, datetime.now(UTC).isoformat(timespec="microseconds"), actor, data)

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are the Merkle tree's leaf."""
        return canonical_json(
            {
                "type": self.type,
                "version": self.version,
                "kind": self.kind,
                "at": self.at,
                "actor": self.actor,
                "data": self.data,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a leaf.

        Raises:
            AuditEntryInvalid: it is none.
        """
        try:
            value = parse_canonical(data)
        except CanonicalError as error:
            raise AuditEntryInvalid(str(error)) from None
        fields = {"type", "version", "kind", "at", "actor", "data"}
        if not isinstance(value, dict) or set(value) != fields:
            raise AuditEntryInvalid(f"an audit entry has the fields {sorted(fields)}")
        if (value["type"], str(value["version"])) != (cls.type, str(cls.version)):
            raise AuditEntryInvalid("an audit entry of an unknown type or version")
        return cls(value["kind"], value["at"], value["actor"], value["data"])


def _check_value(value: object, name: str) -> None:
    if value is None or isinstance(value, bool | int | float):
        _check_number(value, name)
    elif isinstance(value, str):
        _check_text(value, name)
    elif isinstance(value, list | dict):
        if len(value) > _MOST_ITEMS:
            raise AuditEntryInvalid(f"{name} has {len(value)} items, at most {_MOST_ITEMS}")
        for item in value if isinstance(value, list) else value.values():
            number = isinstance(item, int | float) and not isinstance(item, bool)
            if number and isinstance(value, dict):
                _check_number(item, name)
            else:
                _check_text(item, name)
        if isinstance(value, dict) and not all(
            isinstance(label, str) and _LABEL.fullmatch(label) for label in value
        ):
            raise AuditEntryInvalid(f"{name} has a label that is no short plain word")
    else:
        raise AuditEntryInvalid(f"{name} is {type(value).__name__}; use texts, numbers or counts")


def _check_number(value: object, name: str) -> None:
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        raise AuditEntryInvalid(f"{name} is not finite")
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise AuditEntryInvalid(f"{name} is beyond 2**53")


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise AuditEntryInvalid(f"{name} holds a {type(value).__name__} where a short text belongs")
    if len(value) > _LONGEST_TEXT:
        raise AuditEntryInvalid(
            f"{name} has {len(value)} characters, at most {_LONGEST_TEXT}; log a digest instead"
        )
    if not value.isprintable():
        raise AuditEntryInvalid(f"{name} holds line breaks or control characters")
