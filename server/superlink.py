"""Flower's SuperLink with accounts and an audit log: what the hub starts instead of the bare command.

The open build of Flower lets everybody who reaches its control port start runs. Here a bearer token
of a hub account is asked, every start is on record before it happens, and so is every caller who is
turned away at any of Flower's three interfaces. A request that was lost on its way to a node is given
again (:mod:`server.redelivery`).
"""

import asyncio
import hashlib
import logging
import os
import sys
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.server.superlink.linkstate import SqlLinkState
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

from privacy.audit.entries import AuditEntry
from privacy.errors import AuditError
from server.accounts import Account, AccountBook
from server.audit_socket import RemoteAudit, Sink
from server.redelivery import redelivering

_log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
App = Callable[
    [
        Message,
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]

ACCOUNTS_VARIABLE = "INTRAMURAL_ACCOUNTS"
_CONTROL, _FLEET, _RUNTIME = "/v1/control/", "/v1/fleet/", "/v1/runtime/"
_READS = ("list-", "show-", "get-", "stream-", "pull-")
_NOT_ALLOWED = (400, 401, 403, 415)


class AccountTokens(NoOpControlAuthnPlugin):
    """Accepts the tokens of active accounts.

    Everybody is the same owner to Flower, whose open build has no federations of several; who it
    was is in the audit log.
    """

    def __init__(self, accounts: AccountBook) -> None:
        super().__init__()
        self._accounts = accounts

    def validate_tokens_in_metadata(self, metadata: Any) -> tuple[bool, AccountInfo | None]:
        """Flower's question whether a caller may speak."""
        token = dict(metadata).get(ACCESS_TOKEN_KEY, "")
        if not isinstance(token, str) or self._accounts.by_token(token) is None:
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


class Watched:
    """An ASGI application around Flower's: audits starts before, and refusals after, they happen.

    Paths outside of Flower's interfaces (its API pages) are not there.
    """

    def __init__(self, app: App, accounts: AccountBook, audit: Sink) -> None:
        self._app = app
        self._accounts = accounts
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if not path.startswith((_CONTROL, _FLEET, _RUNTIME)):
            await _answer(send, 404)
            return
        account = self._account(scope) if path.startswith(_CONTROL) else None
        what = path.removeprefix(_CONTROL)
        if account is not None and not what.startswith(_READS):
            entry = {"step": "control", "call": what[:60], "account": account.name}
            if not await self._note(account.name, entry):
                await _answer(send, 503)
                return

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = int(message["status"])
                if _worth_noting(path, status):
                    await self._note("unknown", _refusal(scope, path, status))
            await send(message)

        await self._app(scope, receive, watch)

    def _account(self, scope: Message) -> Account | None:
        kind, _, token = _header(scope, b"authorization").partition(" ")
        return self._accounts.by_token(token.strip()) if kind.lower() == "bearer" else None

    async def _note(self, actor: str, facts: dict[str, Any]) -> bool:
        entry = AuditEntry.now("key", actor, facts)
        try:
            await asyncio.to_thread(self._audit.append, entry)
        except AuditError as error:
            _log.error("an audit entry was not taken: %s", error)
            return False
        return True


def _worth_noting(path: str, status: int) -> bool:
    """Whoever is not who they should be; other client errors are part of Flower's normal work."""
    entering = path in (f"{_FLEET}activate-node", f"{_FLEET}register-node")
    return status in _NOT_ALLOWED or (entering and status in range(400, 500))


def _refusal(scope: Message, path: str, status: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"step": "refused", "path": _plain(path), "status": status}
    key = _header(scope, FLEET_HTTP_PUBLIC_KEY_HEADER.encode())
    if key:
        facts["key"] = key_id(key)
    client = scope.get("client")
    if client:
        facts["address"] = str(client[0])[:60]
    return facts


def key_id(header: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a node's public key (PEM), sent as base64."""
    try:
        raw = b64decode(header, validate=True)
    except ValueError:
        return "malformed"
    return hashlib.sha256(raw).hexdigest()[:16]


def _header(scope: Message, name: bytes) -> str:
    wanted = name.lower()
    values = [value for key, value in scope["headers"] if key.lower() == wanted]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _plain(path: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in path)[:100]


async def _answer(send: Callable[[Message], Awaitable[None]], status: int) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Run ``flower-superlink`` with the arguments of this process."""
    accounts = AccountBook(Path(os.environ[ACCOUNTS_VARIABLE]))
    audit = RemoteAudit.from_environment()
    # Flower has no setting for an own plugin, middleware or store; these names are looked up at the
    # call. The exact version is pinned, and a test fails where one is gone.
    command = import_module("flwr.superlink.cli.flower_superlink")
    application = import_module("flwr.superlink.main")
    if not hasattr(command, "load_control_authn_plugin") or not hasattr(application, "create_app"):
        sys.exit("this version of Flower cannot be given accounts; install flwr==1.41.0")
    SqlLinkState.get_message_ins = redelivering(SqlLinkState.get_message_ins)  # type: ignore[method-assign]
    create = application.create_app
    command.load_control_authn_plugin = lambda: AccountTokens(accounts)  # type: ignore[attr-defined]
    application.create_app = lambda *given: Watched(create(*given), accounts, audit)  # type: ignore[attr-defined]
    command.flower_superlink()


if __name__ == "__main__":
    main()
