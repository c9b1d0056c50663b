"""The answer on its way out: recorded before its first byte, with our headers, to who takes it."""

import json
import logging

import anyio
from starlette.types import Message, Scope, Send

from api.call import Call
from api.errors import HttpError, unavailable
from api.recording import Recorder
from api.settings import ServiceSettings
from api.streaming import event

_log = logging.getLogger("api.access")
_SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")


class Withheld(Exception):
    """The answer was replaced; whoever still writes it may stop."""


class Outgoing:
    """Stands between the application and the wire.

    Attributes:
        recorder: appends the audit entry; None for answers that need none, or have it.
        status: what was answered; 0 until then.
        headers: to add to the answer.
    """

    def __init__(
        self,
        call: Call,
        scope: Scope,
        send: Send,
        settings: ServiceSettings,
        recorder: Recorder | None,
    ) -> None:
        self.recorder = recorder
        self.status = 0
        self.headers: dict[str, str] = {}
        self._call = call
        self._scope = scope
        self._send = send
        self._settings = settings
        self._replaced = False
        self._stream = False

    async def send(self, message: Message) -> None:
        """Pass a message on; record the call before the first one.

        Raises:
            Withheld: another answer was given in the meantime, or the client takes none.
        """
        if self._replaced:
            raise Withheld
        await self._pass(message)

    async def error(self, error: HttpError) -> None:
        """Answer with an error, unless an answer has begun already."""
        if self.status:
            return
        if self._call.outcome == "ok":
            self._call.outcome = error.code
        body = json.dumps(error.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
        ]
        try:
            await self._pass(
                {"type": "http.response.start", "status": error.status, "headers": headers}
            )
            await self._pass({"type": "http.response.body", "body": body})
        except Withheld:
            return

    async def late(self, error: HttpError) -> None:
        """Answer with an error from outside of the application, which is heard no more.

        A stream that has begun ends with the error as its last event.
        """
        self._replaced = True
        if not self.status:
            await self.error(error)
            return
        if not self._stream:
            self._cut()
            return
        try:
            await self._pass({"type": "http.response.body", "body": event(error.body())})
        except Withheld:
            return

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._record(message["status"])
            given = message.get("headers", ())
            kind = dict(given).get(b"content-type", b"")
            self._stream = kind.startswith(b"text/event-stream")
            message = {**message, "headers": [*given, *self._headers()]}
            self.status = message["status"]
        try:
            with anyio.fail_after(self._settings.write_seconds):
                await self._send(message)
        except TimeoutError:
            # What is buffered for who does not read would keep the connection for ever.
            self._call.outcome = "client_stalled"
            self._cut()
            raise Withheld from None

    def _cut(self) -> None:
        cut = self._scope["state"].get("cut")
        if cut is not None:
            cut()

    async def _record(self, status: int) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return
        try:
            with anyio.CancelScope(shield=True):
                await recorder.record(self._call, status)
        except Exception as error:
            _log.error("%s has no audit entry: %s", self._call.request_id, type(error).__name__)
            self._call.outcome = "audit_unavailable"
            await self.error(
                unavailable(
                    "the audit log cannot record this call, so it is not answered",
                    code="audit_unavailable",
                )
            )
            self._replaced = True
            raise Withheld from None

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = [*_SECURITY_HEADERS, (b"x-request-id", self._call.request_id.encode())]
        if self._scope.get("scheme") == "https":
            found.append(_TLS_ONLY)
        if self._call.release:
            found.append((b"x-intramural-release", self._call.release.encode()))
        if self._call.personal:
            found.append((b"x-intramural-personal", self._call.personal.encode()))
        if self._call.audit_index is not None:
            found.append((b"x-intramural-audit-index", str(self._call.audit_index).encode()))
        found += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        return found
