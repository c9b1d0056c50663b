"""Server-sent events: the answer of the OpenAI API piece by piece."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
from fastapi import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any], kind: str = "") -> bytes:
    """One ``data:`` event, named where a ``kind`` is given."""
    # A value restored from JSON may hold a lone surrogate, which only an escape can carry.
    source = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    try:
        line = source.encode()
    except UnicodeEncodeError:
        line = json.dumps(data, separators=(",", ":")).encode()
    head = f"event: {kind}\n".encode() if kind else b""
    return head + b"data: " + line + b"\n\n"


class EventStream(Response):
    """Sends events until they end or the client leaves.

    Args:
        events: what to send; closed when the client leaves too.
        resources: closed at the end, whatever happened.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], resources: AsyncExitStack) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._resources:
            self._resources.push_async_callback(self._close)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_left, receive, tasks.cancel_scope)
                async for data in self._events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                tasks.cancel_scope.cancel()

    async def _close(self) -> None:
        # Cancelled while sending, the generator stands at a yield and would only be closed later.
        with anyio.CancelScope(shield=True):
            await self._events.aclose()


async def _cancel_when_left(
    receive: Callable[[], Awaitable[Any]], scope: anyio.CancelScope
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
