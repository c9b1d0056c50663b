"""Request bodies: whole, bounded and in time, before anything parses them."""

import re
from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Message, Receive, Scope

from api.errors import HttpError, invalid_request
from api.settings import ServiceSettings

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_OPEN, _CLOSE = b"[{", b"]}"
_NOT_BRACKETS = bytes(code for code in range(256) if code not in _OPEN + _CLOSE)


async def read_body(scope: Scope, receive: Receive, settings: ServiceSettings) -> bytes:
    """The whole body of a request.

    Raises:
        HttpError: 413 when it is too long, 415 when it is compressed, 408 when it does not arrive
            in time, 400 when it is nested too deeply or its length is no number.
    """
    headers = dict(scope["headers"])
    # What unpacks to any size is not unpacked.
    if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
        raise HttpError(
            415,
            "the request body is compressed: send it as it is, without Content-Encoding",
            kind="invalid_request_error",
            code="unsupported_encoding",
            headers={"Connection": "close"},
        )
    limit = settings.max_body_bytes
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise invalid_request("Content-Length must be a whole number", code="invalid_request")
    if len(declared) > 19 or int(declared) > limit:
        raise _too_long(limit)
    try:
        with anyio.fail_after(settings.body_seconds):
            body = await _whole(receive, limit)
    except TimeoutError:
        raise HttpError(
            408,
            f"the request body did not arrive within {settings.body_seconds:g} s",
            kind="invalid_request_error",
            code="body_timeout",
            headers={"Connection": "close"},
        ) from None
    if deeper_than(body, settings.max_json_depth):
        raise invalid_request(
            f"the body is nested deeper than {settings.max_json_depth} levels", code="too_deep"
        )
    return body


def deeper_than(body: bytes, limit: int) -> bool:
    """Whether JSON nests arrays and objects deeper than ``limit``; of other bytes, a guess.

    A parser that recurses must not be shown what would exhaust its stack.
    """
    if sum(body.count(bytes([sign])) for sign in _OPEN) <= limit:
        return False
    depth = 0
    for sign in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if sign in _OPEN else -1
        if depth > limit:
            return True
    return False


def replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A ``receive`` that gives the body once and then what the wire gives."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _whole(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(499, "the client left", kind="client_error", code="client_closed")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_long(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_long(limit: int) -> HttpError:
    return HttpError(
        413,
        f"the request body exceeds {limit} bytes",
        kind="invalid_request_error",
        code="body_too_large",
        headers={"Connection": "close"},
    )
