"""API keys: shown once, stored as keyed digests, revoked with effect on the next request.

The store is a chain of events, never updated: ``created``, ``retired`` and ``revoked``. A key reads
``im_<id>_<secret>``; its id (public, in lists and audit entries) finds the event, the secret holds
256 random bits. What is stored is HMAC-SHA256 (RFC 2104) over the whole key *and* its principal,
role, expiry, name and scope, under a server secret in a file of its own: a stolen database opens
nothing, and a role, expiry or scope changed in the database makes the key unknown.
"""

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from api.clock import utc_now
from api.errors import InvalidKey, KeyRequestInvalid
from api.keys_scope import Scope
from api.keys_table import CHAIN, SCHEMA, Event, events_of, note_use, uses
from privacy.canonical import canonical_json
from privacy.files import load_or_create_secret
from privacy.signing import SigningKey
from privacy.store.database import open_database
from privacy.store.place import Place

_KEY = re.compile(r"im_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SECRET_BYTES = 32
_USE_SECONDS = 60


@dataclass(frozen=True)
class ApiKey:
    """What is known about a key; never its secret. Times are in UTC.

    ``name`` is shared by a key and those that it is rotated into. ``expires`` is the earlier of the
    expiry it was made with and the end of its overlap with the next key. ``used`` is exact to a
    minute, and only filled in lists.
    """

    id: str
    principal: str
    role: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    name: str = ""
    scope: Scope = field(default_factory=Scope)
    used: datetime | None = None

    def state(self, now: datetime) -> str:
        """``active``, ``revoked`` or ``expired``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


@dataclass(frozen=True)
class _Stored:
    key: ApiKey
    tag: str
    made_until: str  # what the tag covers, whatever was retired later


class KeyStore:
    """The keys of one service. Several processes may use it at once, each sees the others' writes.

    Args:
        place: where it is; made where it is missing.
        signing_key: signs the store's heads.
        secret: file of the server secret, created with mode 0600 where it is missing. Without it
            no key can be authenticated any more.
        clock: the current time, in UTC.

    Raises:
        TamperedStore, StoreBusy, StoreUnavailable: see :func:`privacy.store.database.open_database`.
        KeyRequestInvalid: the secret file is unusable.
    """

    def __init__(
        self,
        place: Place,
        *,
        signing_key: SigningKey,
        secret: Path,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._clock = clock
        self._secret = load_or_create_secret(
            secret,
            _SECRET_BYTES,
            what="key secret",
            remedy="replace it and all keys",
            error=KeyRequestInvalid,
        )
        self._database = open_database(place, signing_key, SCHEMA, empty=CHAIN.empty)
        self._noted: dict[str, datetime] = {}
        self._using = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Let go of the database."""
        with self._using:
            self._closed = True
            self._database.close()

    def derive(self, purpose: str) -> bytes:
        """32 bytes for another use of the server secret, the same in every replica.

        HMAC-SHA256 as a pseudorandom function of the purpose (NIST SP 800-108r1, section 4.1).
        """
        label = canonical_json(["intramural/derived", purpose])
        return hmac.digest(self._secret, label, hashlib.sha256)

    def create(
        self,
        principal: str,
        role: str,
        expires: datetime | None = None,
        *,
        name: str = "",
        scope: Scope | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key: its text, which nobody can show again, and what is kept about it.

        Durable once this returns. The role is checked against the policy in force at each call,
        not here.

        Raises:
            KeyRequestInvalid: a malformed principal, role or name, a name that is in use, or an
                expiry that is not in the future.
        """
        now = self._now()
        _check_word("principal", principal)
        if not _ROLE.fullmatch(role):
            raise KeyRequestInvalid(f"role {role!r} must match [a-z][a-z0-9_]{{0,39}}")
        if name:
            _check_word("name", name)
        until = _until(expires, now)
        made = ApiKey(
            secrets.token_hex(8), principal, role, now, until, None, name, scope or Scope()
        )
        with self._database.write() as connection:
            if name and _named(_keys(CHAIN.events(connection)), name, now):
                raise KeyRequestInvalid(
                    f"there is an active key named {name!r}; rotate it, or choose another name"
                )
            text = self._add(connection, made)
        return text, made

    def rotate(
        self, name: str, overlap: timedelta, expires: datetime | None = None
    ) -> tuple[str, ApiKey, list[ApiKey]]:
        """A new key in place of the active ones of this name, or of the one with this id.

        It has their principal, role and scope. They go on to work for ``overlap`` and not longer:
        both facts become durable together.

        Returns:
            The text and the new key, then the retired ones.

        Raises:
            KeyRequestInvalid: there is no active key of this name, or the overlap is negative.
        """
        now = self._now()
        if overlap < timedelta(0):
            raise KeyRequestInvalid(f"overlap={overlap} must not be negative")
        until = _until(expires, now)
        end = now + overlap
        with self._database.write() as connection:
            stored = _keys(CHAIN.events(connection))
            found = _named(stored, name, now)
            if not found:
                raise KeyRequestInvalid(
                    f"there is no active key with the name or id {name!r}; list shows them all"
                )
            last = found[-1]
            made = replace(last, id=secrets.token_hex(8), created=now, expires=until, revoked=None)
            text = self._add(connection, made)
            for old in found:
                CHAIN.append(
                    connection, Event("retired", old.id, at=_text(now), expires=_text(end))
                )
        return text, made, [_retired(old, end) for old in found]

    def revoke(self, key_id: str) -> ApiKey:
        """Make a key useless from the next request on; durable once this returns.

        Raises:
            KeyRequestInvalid: there is no such key. Revoking twice is fine.
        """
        now = self._now()
        with self._database.write() as connection:
            found = _keys(events_of(connection, key_id)).get(key_id)
            if found is None:
                raise KeyRequestInvalid(f"there is no key with id {key_id!r}; list shows them all")
            if found.key.revoked is not None:
                return found.key
            CHAIN.append(connection, Event("revoked", key_id, at=_text(now)))
        return replace(found.key, revoked=now)

    def list(self) -> list[ApiKey]:
        """All keys that ever were, oldest first."""
        with self._database.read() as connection:
            used = uses(connection)
            return [
                replace(key, used=_time(used[key.id]) if key.id in used else None)
                for key in (stored.key for stored in _keys(CHAIN.events(connection)).values())
            ]

    def authenticate(self, text: str, origin: str | None = None) -> ApiKey:
        """The key that this text is, shown by a caller at the address ``origin``.

        Raises:
            InvalidKey: with its reason; each takes the same comparisons.
        """
        if not text:
            raise InvalidKey("missing")
        match = _KEY.fullmatch(text)
        if match is None:
            raise InvalidKey("malformed")
        with self._database.read() as connection:
            found = _keys(events_of(connection, match[1])).get(match[1])
        nobody = ApiKey(match[1], "", "", datetime.fromtimestamp(0, UTC), None, None)
        stored = found or _Stored(nobody, "0" * 64, "")
        tag = self._tag(text, stored.key, stored.made_until)
        if not hmac.compare_digest(tag, stored.tag) or found is None:
            raise InvalidKey("unknown")
        state = stored.key.state(self._clock())
        if state != "active":
            raise InvalidKey(state, stored.key.id)
        if not stored.key.scope.admits(origin):
            raise InvalidKey("origin", stored.key.id)
        return stored.key

    def note_use(self, key_id: str) -> None:
        """Note that a key was used, at most once a minute.

        Raises:
            StoreBusy: another process kept the database locked for long.
        """
        now = self._now()
        before = self._noted.get(key_id)
        if before is not None and abs((now - before).total_seconds()) < _USE_SECONDS:
            return
        # What is noted late, by a thread of a service that ends, must not follow the seal.
        with self._using:
            if self._closed:
                return
            self._noted[key_id] = now
            with self._database.write() as connection:
                note_use(connection, key_id, _text(now))

    def _add(self, connection: Connection, key: ApiKey) -> str:
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
        text = f"im_{key.id}_{secret}"
        until = _text(key.expires)
        CHAIN.append(
            connection,
            Event(
                "created",
                key.id,
                principal=key.principal,
                role=key.role,
                at=_text(key.created),
                expires=until,
                tag=self._tag(text, key, until),
                name=key.name,
                scope=key.scope.text(),
            ),
        )
        return text

    def _tag(self, text: str, key: ApiKey, until: str) -> str:
        bound = [text, key.principal, key.role, _text(key.created), until]
        if key.name or key.scope.text():  # keys from before had neither
            bound += [key.name, key.scope.text()]
        return hmac.digest(self._secret, canonical_json(bound), hashlib.sha256).hex()

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC).replace(microsecond=0)


def _keys(history: Iterable[Any]) -> dict[str, _Stored]:
    """Keys by id, from their events in order."""
    found: dict[str, _Stored] = {}
    for event in history:
        if event.kind == "created":
            key = ApiKey(
                event.key_id,
                event.principal,
                event.role,
                _time(event.at),
                _time(event.expires) if event.expires else None,
                None,
                event.name,
                Scope.parse(event.scope),
            )
            found[event.key_id] = _Stored(key, event.tag, event.expires)
            continue
        stored = found[event.key_id]
        if event.kind == "retired":
            changed = _retired(stored.key, _time(event.expires))
        else:
            changed = replace(stored.key, revoked=_time(event.at))
        found[event.key_id] = replace(stored, key=changed)
    return found


def _retired(key: ApiKey, end: datetime) -> ApiKey:
    """The key as it is once it must end then, if not before."""
    return replace(key, expires=end if key.expires is None else min(key.expires, end))


def _named(stored: dict[str, _Stored], name: str, now: datetime) -> list[ApiKey]:
    """The active keys of this name or id, oldest first."""
    keys = [each.key for each in stored.values()]
    return [key for key in keys if name in (key.name, key.id) and key.state(now) == "active"]


def _check_word(what: str, text: str) -> None:
    if not _WORD.fullmatch(text):
        raise KeyRequestInvalid(
            f"{what} {text!r} must be 1 to 64 letters, digits or ._@- "
            "and begin with a letter or digit"
        )


def _until(expires: datetime | None, now: datetime) -> datetime | None:
    if expires is None:
        return None
    if expires.tzinfo is None:
        raise KeyRequestInvalid(f"expires={expires.isoformat()} needs a time zone")
    until = expires.astimezone(UTC).replace(microsecond=0)
    if until <= now:
        raise KeyRequestInvalid(f"expires={until.isoformat()} is not in the future")
    return until


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
