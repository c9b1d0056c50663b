"""Accounts of the hub: who may speak to its control port and sign run manifests.

A person's account has an Ed25519 key, which signs, and a bearer token, which opens the port. The hub
keeps the public key and the token's SHA-256. The hub's own account registers nodes and submits what
a person has signed; it has no key that a node would trust.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from privacy.joining import RunAccount, now_text
from privacy.signing import VerifyKey
from server.errors import HubError
from server.state_file import StateFile

INTERNAL = "hub"
"""Name of the hub's own account."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN_BYTES = 32


class AccountInvalid(HubError):
    """An account that cannot be made, or is not there."""


@dataclass(frozen=True)
class Account:
    """One account; ``key`` is None for the hub's own. Times are UTC, RFC 3339; None never ends."""

    name: str
    key: VerifyKey | None
    token_sha256: str
    created: str
    expires: str | None

    def active(self, now: datetime) -> bool:
        """Whether it opens anything at ``now``."""
        return self.expires is None or now < datetime.fromisoformat(self.expires)


class AccountBook:
    """The accounts in one file; every question reads it anew, so a removal holds at once."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path)

    def read(self) -> Sequence[Account]:
        """All accounts in the order of their names.

        Raises:
            StateUnusable: the file is damaged.
        """
        stored = self._file.read().get("accounts", {})
        return [_parse(name, stored[name]) for name in sorted(stored)]

    def add(self, name: str, key: VerifyKey, valid: timedelta | None) -> str:
        """A new account of a person with this key; its token, which is kept nowhere.

        Raises:
            AccountInvalid: the name is malformed or taken.
        """
        check_name(name)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._store(name, key, token, valid, replace=False)
        return token

    def set_internal(self, token: str) -> None:
        """Make ``token`` that of the hub's own account."""
        self._store(INTERNAL, None, token, None, replace=True)

    def remove(self, name: str) -> None:
        """End an account: its token opens nothing from the next request on.

        Raises:
            AccountInvalid: there is none of this name, or it is the hub's own.
        """
        if name == INTERNAL:
            raise AccountInvalid(f"the account {INTERNAL!r} is the hub's own and stays")
        with self._file.edit() as value:
            if name not in value.get("accounts", {}):
                raise AccountInvalid(
                    f"there is no account {name!r}; see `intramural hub account list`"
                )
            del value["accounts"][name]

    def by_token(self, token: str, now: datetime | None = None) -> Account | None:
        """The active account whose token this is."""
        # Digests are compared, so timing tells nothing about a token.
        digest = hashlib.sha256(token.encode()).hexdigest()
        moment = now or datetime.now(UTC)
        return next((a for a in self.read() if a.token_sha256 == digest and a.active(moment)), None)

    def find(self, name: str) -> Account:
        """The active account of this name.

        Raises:
            AccountInvalid: there is none, or it has expired.
        """
        for account in self.read():
            if account.name == name and account.active(datetime.now(UTC)):
                return account
        raise AccountInvalid(
            f"there is no active account {name!r}; see `intramural hub account list`"
        )

    def trusted(self) -> tuple[RunAccount, ...]:
        """Whose manifests nodes may accept: active accounts of persons."""
        now = datetime.now(UTC)
        return tuple(
            RunAccount(name=a.name, key=a.key.public_text())
            for a in self.read()
            if a.key is not None and a.active(now)
        )

    def _store(
        self,
        name: str,
        key: VerifyKey | None,
        token: str,
        valid: timedelta | None,
        *,
        replace: bool,
    ) -> None:
        until = None if valid is None else datetime.now(UTC) + valid
        with self._file.edit() as value:
            accounts = value.setdefault("accounts", {})
            if name in accounts and not replace:
                raise AccountInvalid(f"there is an account {name!r} already; remove it first")
            accounts[name] = {
                "key": None if key is None else key.public_text(),
                "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
                "created": now_text(),
                "expires": None if until is None else until.isoformat(timespec="seconds"),
            }


def check_name(name: str) -> None:
    """Return when an account of a person may have this name.

    Raises:
        AccountInvalid: otherwise.
    """
    if name == INTERNAL or not _NAME.fullmatch(name):
        raise AccountInvalid(
            f"account name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-', and not "
            f"{INTERNAL!r}"
        )


def _parse(name: str, stored: dict[str, Any]) -> Account:
    try:
        key = None if stored["key"] is None else VerifyKey.parse(stored["key"])
        return Account(name, key, stored["token_sha256"], stored["created"], stored["expires"])
    except (KeyError, TypeError) as error:
        raise AccountInvalid(f"account {name!r} is stored without {error}") from None
