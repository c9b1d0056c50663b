"""The gate before every route: it lets nobody in without a key, and nothing out without a record.

As ASGI middleware it sees every request and every answer, also those of routes that do not exist
and of code that fails. Under ``/v1`` an answer leaves only after its audit entry is durable; where
the entry cannot be appended, the answer is withheld and a 503 leaves in its place.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import anyio
from anyio import to_thread
from opentelemetry.trace import Span
from starlette.types import ASGIApp, Receive, Scope, Send

from api.admission import Admission
from api.authentication import Authenticator
from api.bodies import read_body, replay
from api.call import Call
from api.errors import (
    HttpError,
    InvalidCredential,
    internal_error,
    shutting_down,
    unauthenticated,
)
from api.metrics import Metrics
from api.outgoing import Outgoing, Withheld
from api.recording import Recorder
from api.settings import ServiceSettings
from api.tracing import Tracing, describe
from policies.model import Policy

_log = logging.getLogger("api.access")
# Any word may stand where a method belongs; the log takes only those of HTTP.
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_TOKEN_THREADS = 8
_STOP_SECONDS = 3.0

UnderWay = Callable[[str], AbstractContextManager[None]]
"""Counts a request to a path while it is answered; raises HttpError where none may begin."""


class Gate:
    """Request id, authentication, limits, deadline, audit and access log for one application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServiceSettings,
        policy: Policy,
        authenticator: Authenticator,
        admission: Admission,
        recorder: Recorder,
        metrics: Metrics,
        tracing: Tracing,
        under_way: UnderWay = lambda path: nullcontext(),
    ) -> None:
        self._app = app
        self._settings = settings
        self._policy = policy
        self._authenticator = authenticator
        self._admission = admission
        self._recorder = recorder
        self._metrics = metrics
        self._tracing = tracing
        self._under_way = under_way
        self._noting = anyio.CapacityLimiter(1)
        self._judging_tokens = anyio.CapacityLimiter(_TOKEN_THREADS)
        self._abandoned: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        call = Call()
        scope.setdefault("state", {})["call"] = call
        recorded = _within(scope["path"], "/v1")
        # Whoever watches the service would fill its traces.
        with self._tracing.call(scope) if recorded else nullcontext() as span:
            await self._one(call, scope, receive, send, recorded, span)
        await self._note_use(call)

    async def _one(
        self,
        call: Call,
        scope: Scope,
        receive: Receive,
        send: Send,
        recorded: bool,
        span: Span | None,
    ) -> None:
        answer = Outgoing(call, scope, send, self._settings, self._recorder if recorded else None)
        try:
            with self._under_way(scope["path"]):
                places: AbstractContextManager[None] = nullcontext()
                if recorded or scope["path"] == "/metrics":
                    places = await self._admit(call, scope, answer)
                await self._answer(call, scope, receive, answer, places)
        except HttpError as error:
            await answer.error(error)
        except Withheld:
            pass
        except Exception as error:
            # Neither the text nor the frames of a foreign exception: both may quote a prompt.
            _log.error("%s failed: %s", call.request_id, type(error).__name__)
            await answer.error(internal_error())
        finally:
            self._tell(call, scope, answer.status, span)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _admit(
        self, call: Call, scope: Scope, answer: Outgoing
    ) -> AbstractContextManager[None]:
        """Let the caller in, within its limits; the places that its request takes.

        Raises:
            HttpError: it stays outside.
        """
        client = scope.get("client")
        bearer = _bearer(scope)
        try:
            caller = await to_thread.run_sync(
                partial(
                    self._authenticator.caller,
                    bearer,
                    scope["state"].get("certificate_names", ()),
                    client[0] if client else None,
                ),
                # An issuer that hangs holds up who shows its tokens, and nobody else.
                limiter=self._judging_tokens if "." in bearer else None,
            )
        except InvalidCredential as refused:
            try:
                self._admission.stranger()
            except HttpError:
                answer.recorder = None
                raise
            call.key_id = refused.key_id
            call.outcome = refused.outcome
            raise unauthenticated() from None
        call.caller = caller
        call.principal, call.role, call.department = (
            caller.principal,
            caller.role,
            caller.department,
        )
        # Who a token is of stands in the entry as the principal, once.
        call.key_id = caller.credential.removesuffix(f":{caller.principal.partition(':')[2]}")
        role = self._policy.roles.get(caller.role)
        if role is not None:
            call.retention = role.retention
        return await self._admission.admit(caller, answer)

    async def _answer(
        self,
        call: Call,
        scope: Scope,
        receive: Receive,
        answer: Outgoing,
        places: AbstractContextManager[None],
    ) -> None:
        """Run the application, for as long as it may take.

        What is late is answered for here and goes on to its end unheard: a place is free only once
        nothing works for it any more.
        """
        # Not the task is cancelled but this scope: it waits for threads, which cannot be stopped.
        stop = anyio.CancelScope()
        task = asyncio.ensure_future(self._run(call, scope, receive, answer, places, stop))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        try:
            await asyncio.wait({task}, timeout=self._settings.request_seconds)
            if not task.done() and answer.status:
                await asyncio.wait({task}, timeout=self._settings.stream_seconds)
        except asyncio.CancelledError:
            await self._cut_off(call, task, answer)
            return
        if task.done():
            task.result()
            return
        call.outcome = "deadline_exceeded"
        late = HttpError(
            504,
            f"there was no answer within {self._settings.request_seconds:g} s",
            kind="server_error",
            code="deadline_exceeded",
        )
        task.add_done_callback(_heard)
        try:
            await answer.late(late)
        finally:
            stop.cancel()

    async def _cut_off(self, call: Call, task: "asyncio.Task[None]", answer: Outgoing) -> None:
        """The service ends and has waited: its server cancels what is left, once.

        The application stops its engine and tells what was used; then the caller is answered, and
        that is recorded. A stream has its second entry already.
        """
        own = asyncio.current_task()
        if own is not None:
            own.uncancel()
        if task.done():  # just in time
            task.result()
            return
        task.cancel()
        task.add_done_callback(_heard)
        await asyncio.wait({task}, timeout=_STOP_SECONDS)
        call.outcome = "aborted"
        await answer.late(shutting_down())

    async def _run(
        self,
        call: Call,
        scope: Scope,
        receive: Receive,
        answer: Outgoing,
        places: AbstractContextManager[None],
        stop: anyio.CancelScope,
    ) -> None:
        with stop, places:
            try:
                body = await read_body(scope, receive, self._settings)
                await self._app(scope, replay(body, receive), answer.send)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._settle(call)

    async def _settle(self, call: Call) -> None:
        """What is known only at the end: how a stream ended, and what was used."""
        if call.caller is None:
            return
        try:
            if call.stream and call.audit_index is not None and not call.ended:
                call.outcome = "aborted" if call.outcome == "ok" else call.outcome
                await self._recorder.record_end(call)
            await self._admission.used(call.caller, call.prompt_tokens + call.completion_tokens)
        except Exception as error:
            _log.error("%s is not settled: %s", call.request_id, type(error).__name__)

    async def _note_use(self, call: Call) -> None:
        """Note that a key was used: for information, so after the answer, and one at a time.

        A database that another process keeps locked must not take the threads that answer.
        """
        if call.caller is None:
            return
        try:
            await to_thread.run_sync(
                self._authenticator.note_use, call.caller, limiter=self._noting
            )
        except Exception as error:
            _log.warning("%s: use not noted: %s", call.request_id, type(error).__name__)

    def _tell(self, call: Call, scope: Scope, status: int, span: Span | None) -> None:
        """What came of the call: to metrics, trace and access log."""
        seconds = time.monotonic() - call.started
        self._metrics.answered(call, status, seconds)
        route = scope.get("route")
        # The path that was sent may hold anything; the template of a route is ours.
        template = getattr(route, "path", "-")
        method = scope["method"] if scope["method"] in _METHODS else "-"
        describe(span, call, method, template, status)
        _log.info("%s %s %s %d %.3f", call.request_id, method, template, status, seconds)


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _bearer(scope: Scope) -> str:
    """The token of ``Authorization: Bearer …``; ``""`` when there is none.

    Of two such headers nobody can say which is meant; they are as good as a malformed key.
    """
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        return ""
    text: str = values[0].decode("latin-1")
    scheme, _, token = text.partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        return "-"
    return token.strip()


def _heard(task: "asyncio.Task[None]") -> None:
    # Its answer has been given; what it raises now concerns nobody.
    if not task.cancelled():
        task.exception()
