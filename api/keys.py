"""API keys: shown once, stored as keyed digests, revoked with effect on the next request.

The store is a chain of events, never updated: ``created`` and ``revoked``. A key reads
``im_<id>_<secret>``; its id (public, in lists and audit entries) finds the event, the secret holds
256 random bits. What is stored is HMAC-SHA256 (RFC 2104) over the whole key *and* its principal,
role and expiry, under a server secret in a file of its own: a stolen database opens nothing, and a
role or expiry changed in the database makes the key unknown.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from api.errors import InvalidKey, KeyRequestInvalid
from api.keys_table import EMPTY, Event, append, events, schema
from privacy.canonical import canonical_json
from privacy.files import load_or_create_secret
from privacy.signing import SigningKey
from privacy.store.database import Database

_KEY = re.compile(r"im_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SECRET_BYTES = 32


@dataclass(frozen=True)
class ApiKey:
    """What is known about a key; never its secret. Times are in UTC."""

    id: str
    principal: str
    role: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None

    def state(self, now: datetime) -> str:
        """``active``, ``revoked`` or ``expired``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class KeyStore:
    """The keys of one service. Several processes may use it at once, each sees the others' writes.

    Args:
        path: the database file; created where it is missing.
        signing_key: signs the database's seal.
        secret: file of the server secret, created with mode 0600 where it is missing. Without it
            no key can be authenticated any more.
        clock: the current time, in UTC.

    Raises:
        TamperedStore, StoreBusy: see :class:`privacy.store.database.Database`.
        KeyRequestInvalid: the secret file is unusable.
    """

    def __init__(
        self,
        path: Path,
        *,
        signing_key: SigningKey,
        secret: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._secret = load_or_create_secret(
            secret,
            _SECRET_BYTES,
            what="key secret",
            remedy="replace it and all keys",
            error=KeyRequestInvalid,
        )
        self._database = Database(path, signing_key, schema(), empty=EMPTY, exclusive=False)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def create(
        self, principal: str, role: str, expires: datetime | None = None
    ) -> tuple[str, ApiKey]:
        """Make a key: its text, which nobody can show again, and what is kept about it.

        Durable once this returns. The role is checked against the policy in force at each call,
        not here.

        Raises:
            KeyRequestInvalid: a malformed principal or role, or an expiry that is not in the future.
        """
        now = self._clock().astimezone(UTC).replace(microsecond=0)
        if not _PRINCIPAL.fullmatch(principal):
            raise KeyRequestInvalid(
                f"principal {principal!r} must be 1 to 64 letters, digits or ._@- "
                "and begin with a letter or digit"
            )
        if not _ROLE.fullmatch(role):
            raise KeyRequestInvalid(f"role {role!r} must match [a-z][a-z0-9_]{{0,39}}")
        if expires is not None:
            if expires.tzinfo is None:
                raise KeyRequestInvalid(f"expires={expires.isoformat()} needs a time zone")
            expires = expires.astimezone(UTC).replace(microsecond=0)
            if expires <= now:
                raise KeyRequestInvalid(f"expires={expires.isoformat()} is not in the future")
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
        key = ApiKey(secrets.token_hex(8), principal, role, now, expires, None)
        text = f"im_{key.id}_{secret}"
        with self._database.write() as connection:
            append(
                connection,
                Event(
                    "created",
                    key.id,
                    principal,
                    role,
                    _text(now),
                    _text(expires),
                    self._tag(text, key),
                ),
            )
        return text, key

    def revoke(self, key_id: str) -> ApiKey:
        """Make a key useless from the next request on; durable once this returns.

        Raises:
            KeyRequestInvalid: there is no such key. Revoking twice is fine.
        """
        now = self._clock().astimezone(UTC).replace(microsecond=0)
        with self._database.write() as connection:
            found = self._find(connection, key_id)
            if found is None:
                raise KeyRequestInvalid(f"there is no key with id {key_id!r}; list shows them all")
            key, _ = found
            if key.revoked is not None:
                return key
            append(connection, Event("revoked", key_id, "", "", _text(now), "", ""))
        return replace(key, revoked=now)

    def list(self) -> list[ApiKey]:
        """All keys that ever were, oldest first."""
        with self._database.read() as connection:
            return [key for key, _ in _keys(events(connection)).values()]

    def authenticate(self, text: str) -> ApiKey:
        """The key that this text is.

        Raises:
            InvalidKey: with its reason; each takes the same comparisons.
        """
        if not text:
            raise InvalidKey("missing")
        match = _KEY.fullmatch(text)
        if match is None:
            raise InvalidKey("malformed")
        with self._database.read() as connection:
            found = self._find(connection, match[1])
        nobody = ApiKey(match[1], "", "", datetime.fromtimestamp(0, UTC), None, None)
        key, tag = found or (nobody, "0" * 64)
        if not hmac.compare_digest(self._tag(text, key), tag) or found is None:
            raise InvalidKey("unknown")
        state = key.state(self._clock())
        if state != "active":
            raise InvalidKey(state, key.id)
        return key

    def _tag(self, text: str, key: ApiKey) -> str:
        bound = canonical_json(
            [text, key.principal, key.role, _text(key.created), _text(key.expires)]
        )
        return hmac.digest(self._secret, bound, hashlib.sha256).hex()

    def _find(self, connection: Connection, key_id: str) -> tuple[ApiKey, str] | None:
        return _keys(events(connection, key_id)).get(key_id)


def _keys(history: Any) -> dict[str, tuple[ApiKey, str]]:
    """Keys with their tags, by id, from their events in order."""
    found: dict[str, tuple[ApiKey, str]] = {}
    for event in history:
        if event.kind == "created":
            created, expires = _time(event.at), _time(event.expires) if event.expires else None
            key = ApiKey(event.key_id, event.principal, event.role, created, expires, None)
            found[event.key_id] = (key, event.tag)
        else:
            key, tag = found[event.key_id]
            found[event.key_id] = (replace(key, revoked=_time(event.at)), tag)
    return found


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
