"""The gate before every route: it lets nobody in without a key, and nothing out without a record.

As ASGI middleware it sees every request and every answer, also those of routes that do not exist
and of code that fails. Under ``/v1`` an answer leaves only after its audit entry is durable; where
the entry cannot be appended, the answer is withheld and a 503 leaves in its place.
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.call import Call
from api.errors import HttpError, InvalidKey, internal_error, unauthenticated, unavailable
from api.keys import KeyStore
from api.limits import RateLimiter
from api.metrics import Metrics
from api.recording import Recorder
from api.settings import ServiceSettings
from policies.model import Policy

_log = logging.getLogger("api.access")
_SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
# Any word may stand where a method belongs; the log takes only those of HTTP.
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}


class _Withheld(Exception):
    """The answer was replaced; whoever still writes it may stop."""


class Gate:
    """Request id, authentication, limits, audit and access log for one application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServiceSettings,
        policy: Policy,
        keys: KeyStore,
        recorder: Recorder,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._settings = settings
        self._policy = policy
        self._keys = keys
        self._recorder = recorder
        self._metrics = metrics
        self._requests = RateLimiter()
        self._strangers = RateLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        call = Call()
        scope.setdefault("state", {})["call"] = call
        recorded = _within(scope["path"], "/v1")
        answer = _Answer(call, send, self._recorder if recorded else None)
        try:
            if recorded or scope["path"] == "/metrics":
                await self._admit(call, scope, answer)
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), answer.send)
        except HttpError as error:
            await answer.error(error)
        except _Withheld:
            pass
        except Exception as error:
            # Neither the text nor the frames of a foreign exception: both may quote a prompt.
            _log.error("%s failed: %s", call.request_id, type(error).__name__)
            await answer.error(internal_error())
        finally:
            self._log_access(call, scope, answer.status)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _admit(self, call: Call, scope: Scope, answer: "_Answer") -> None:
        try:
            key = await to_thread.run_sync(self._keys.authenticate, _bearer(scope))
        except InvalidKey as refused:
            # One bucket for all strangers: an address proves nothing behind a proxy.
            limit = self._settings.failed_authentications_per_minute
            try:
                self._strangers.require("", limit)
            except HttpError:
                answer.recorder = None
                raise
            call.key_id = refused.key_id
            call.outcome = f"key_{refused.reason}"
            raise unauthenticated() from None
        call.principal, call.key_id, call.role = key.principal, key.id, key.role
        grants = self._policy.roles.get(key.role)
        self._requests.require(key.id, grants.requests_per_minute if grants else 1)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole request body.

        Raises:
            HttpError: 413 when it is too long, 408 when it does not arrive in time.
        """
        limit = self._settings.max_body_bytes
        too_long = HttpError(
            413,
            f"the request body exceeds {limit} bytes",
            kind="invalid_request_error",
            code="body_too_large",
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > limit:
            raise too_long
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError(
                            499, "the client left", kind="client_error", code="client_closed"
                        )
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        raise too_long
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise HttpError(
                408,
                f"the request body did not arrive within {self._settings.body_seconds:g} s",
                kind="invalid_request_error",
                code="body_timeout",
            ) from None

    def _log_access(self, call: Call, scope: Scope, status: int) -> None:
        seconds = time.monotonic() - call.started
        self._metrics.answered(call, status, seconds)
        route = scope.get("route")
        # The path that was sent may hold anything; the template of a route is ours.
        template = getattr(route, "path", "-")
        method = scope["method"] if scope["method"] in _METHODS else "-"
        _log.info("%s %s %s %d %.3f", call.request_id, method, template, status, seconds)


class _Answer:
    """Stands between the application and the wire."""

    def __init__(self, call: Call, send: Send, recorder: Recorder | None) -> None:
        self.recorder = recorder
        self.status = 0
        self._call = call
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on; record the call before the first one."""
        if message["type"] == "http.response.start":
            await self._record(message["status"])
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
            self.status = message["status"]
        await self._send(message)

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
            await self.send(
                {"type": "http.response.start", "status": error.status, "headers": headers}
            )
            await self.send({"type": "http.response.body", "body": body})
        except _Withheld:
            return

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
            raise _Withheld from None

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = [*_SECURITY_HEADERS, (b"x-request-id", self._call.request_id.encode())]
        if self._call.release:
            found.append((b"x-intramural-release", self._call.release.encode()))
        if self._call.audit_index is not None:
            found.append((b"x-intramural-audit-index", str(self._call.audit_index).encode()))
        return found


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _bearer(scope: Scope) -> str:
    """The token of ``Authorization: Bearer …``; ``""`` when there is none."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return ""
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A ``receive`` that gives the body once and then what the wire gives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
