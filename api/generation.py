"""From a valid body to an answer: decide, redact, generate, scan, restore, record.

Shared by chat, plain completions and responses. Nothing here leaves before its audit entry: the
gate appends it when the response starts, and a stream appends a second one, with outcome and usage,
before its last chunk.
"""

import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api import asking
from api.call import Call
from api.conversation import Answers, Conversation, Piece
from api.engines.base import Engine, EngineBusy, GenerationRequest, Item, Unsupported, Usage
from api.engines.held import Held
from api.errors import (
    ContextTooLong,
    EngineError,
    HttpError,
    UnknownModel,
    internal_error,
    invalid_request,
    unavailable,
)
from api.guards import Prompt
from api.services import Services
from api.shapes import Writer
from api.streaming import EventStream

_log = logging.getLogger(__name__)
# What was said comes first, so that its values get the first numbers.
_FIRST = ("messages", "instructions", "prompt", "input")


@dataclass(frozen=True)
class Wanted:
    """What a route makes of its body.

    Attributes:
        model: as the caller names it.
        body: all that was sent, as JSON.
        stream: whether the answer is to be streamed.
        max_tokens: the bound that the caller names.
        requests: the engine's requests, from the redacted body.
        writer: writes the answer of the model of this id.
    """

    model: str
    body: Mapping[str, Any]
    stream: bool
    max_tokens: int | None
    requests: Callable[[asking.Body, asking.Bounds], list[GenerationRequest]]
    writer: Callable[[str], Writer]


def sent(body: Any) -> dict[str, Any]:
    """A validated body as the JSON that was sent; what was left out, or null, is not in it."""
    made = body.model_dump(mode="python", by_alias=True, exclude_none=True, exclude_unset=True)
    return {key: made[key] for key in sorted(made, key=lambda key: key not in _FIRST)}


async def respond(request: Request, wanted: Wanted) -> Response:
    """Answer a generation request.

    Raises:
        HttpError: it is refused, or could not be answered.
    """
    call, services = Call.of(request), Services.of(request)
    if wanted.body.get("stream_options") and not wanted.stream:
        raise invalid_request(
            "stream_options is allowed only with stream: true",
            code="invalid_value",
            param="stream_options",
        )
    asking.check(wanted.body)
    model = services.model(wanted.model, call)
    call.release = model
    call.stream = wanted.stream
    services.decide(call, model=model, max_tokens=wanted.max_tokens)
    answering = services.answering(call, model)
    conversation = Conversation(services.detector, services.policy, call.role, model)
    asked = await to_thread.run_sync(
        partial(_redacted, services, call, conversation, wanted, answering)
    )
    writer = wanted.writer(model)
    async with AsyncExitStack() as stack:
        with services.metrics.stage("queue"):
            await stack.enter_async_context(services.slots.one())
        ended = services.metrics.began("engine")
        try:
            items = await to_thread.run_sync(
                _engine_stream, services.engine, asked, limiter=services.engine_threads
            )
        except BaseException:
            ended()
            raise
        items = Held(items, ended)
        # A whole answer is scanned as a whole, a stream as it comes.
        lookahead = services.settings.lookahead_chars if wanted.stream else sys.maxsize
        answers = conversation.answers(
            items,
            lookahead,
            json=asked[0].json is not None,
            hold=asked[0].logprobs is not None,
        )
        if not wanted.stream:
            return await _whole(services, call, answers, items, writer)
        events = _events(services, call, answers, items, writer)
        # From here on the response owns the slot.
        return EventStream(events, stack.pop_all())


def _redacted(
    services: Services, call: Call, conversation: Conversation, wanted: Wanted, model: str
) -> list[GenerationRequest]:
    """The requests as the engine may see them; digests and counts go into the call."""
    call.digests["prompt_sent"] = services.recorder.digest(asking.said(wanted.body))
    try:
        with services.metrics.stage("redact"):
            redacted = conversation.redact_body(wanted.body)
    finally:
        call.entities = conversation.counts()
    call.digests["prompt_seen"] = services.recorder.digest(asking.said(redacted))
    services.guards.check(Prompt(asking.heard(wanted.body), call.entities), call)
    role = services.policy.role(call.role)
    bounds = asking.Bounds(
        model,
        wanted.max_tokens or min(role.max_tokens, services.settings.default_max_tokens),
        fit=wanted.max_tokens is None,
        max_context=role.max_context,
    )
    return wanted.requests(redacted, bounds)


def _engine_stream(engine: Engine, asked: Sequence[GenerationRequest]) -> Iterator[Item]:
    try:
        # The first one now, so that what is wrong with it is told before anything was answered.
        first = engine.stream(asked[0])
    except Exception as error:
        raise translated(error) from None
    return _one_after_another(engine, first, asked)


def _one_after_another(
    engine: Engine, first: Iterator[Item], asked: Sequence[GenerationRequest]
) -> Iterator[Item]:
    """The answers of several requests as those of one: numbered through, their usage summed."""
    before = Usage(0, 0)
    for number, request in enumerate(asked):
        items = engine.stream(request) if number else first
        usage = before
        try:
            for item in items:
                _check_context(request, item.usage)
                usage = Usage(
                    before.prompt_tokens + item.usage.prompt_tokens,
                    before.completion_tokens + item.usage.completion_tokens,
                )
                yield replace(item, usage=usage, index=item.index + number * request.n)
        finally:
            _close(items)
        before = usage


def _check_context(request: GenerationRequest, usage: Usage) -> None:
    """An engine that cannot keep to the role's bound is stopped where it passes it."""
    limit = request.max_context
    if limit is not None and usage.prompt_tokens + usage.completion_tokens > request.n * limit:
        raise ContextTooLong(usage.prompt_tokens, request.max_tokens, limit)


async def _whole(
    services: Services, call: Call, answers: Answers, items: Iterator[Item], writer: Writer
) -> Response:
    try:
        await to_thread.run_sync(_drain, answers, limiter=services.engine_threads)
    except Exception as error:
        raise translated(error) from None
    finally:
        await _stop(services, call, answers, items)
    return JSONResponse(writer.whole(answers))


async def _events(
    services: Services, call: Call, answers: Answers, items: Iterator[Item], writer: Writer
) -> AsyncGenerator[bytes]:
    """The events of a stream, then the second audit entry, then the end."""
    pieces = iter(answers)
    refusal: HttpError | None = None
    recorded = False
    call.outcome = "aborted"  # unless the end is reached
    try:
        for data in writer.start():
            yield data
        while (
            piece := await to_thread.run_sync(_next, pieces, limiter=services.engine_threads)
        ) is not None:
            for data in writer.piece(*piece):
                yield data
        call.outcome = "ok"
    except Exception as error:
        refusal = translated(error)
        call.outcome = refusal.code
    finally:
        recorded = await _end(services, call, answers, items)
    if not recorded:
        refusal = unavailable("the audit log cannot record this call", code="audit_unavailable")
    for data in writer.end(answers) if refusal is None else writer.failed(refusal):
        yield data


async def _end(services: Services, call: Call, answers: Answers, items: Iterator[Item]) -> bool:
    """Stop the engine and record how the stream ended; False when that cannot be recorded."""
    await _stop(services, call, answers, items)
    with anyio.CancelScope(shield=True):
        try:
            await services.recorder.record_end(call)
        except Exception as error:
            _log.error("%s has no final audit entry: %s", call.request_id, type(error).__name__)
            return False
    return True


async def _stop(services: Services, call: Call, answers: Answers, items: Iterator[Item]) -> None:
    """Stop the engine, and note what was said and used until then."""
    try:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_close, items)
    finally:
        # A service that ends cancels the task itself, which no scope shields from.
        _note(services, call, answers)


def _note(services: Services, call: Call, answers: Answers) -> None:
    call.digests["answer"] = services.recorder.digest(answers.texts() or [""])
    call.answer_entities = answers.counts
    call.prompt_tokens = answers.usage.prompt_tokens
    call.completion_tokens = answers.usage.completion_tokens


def _drain(answers: Answers) -> None:
    for _ in answers:
        pass


def _next(pieces: Iterator[Piece]) -> Piece | None:
    return next(pieces, None)


def _close(items: Iterator[Item]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()


def translated(error: Exception) -> HttpError:
    """What the caller is told when the engine or the scan fails."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, ContextTooLong):
        return invalid_request(str(error), code="context_length_exceeded")
    if isinstance(error, Unsupported):
        return invalid_request(str(error), code="unsupported_feature", param=error.field)
    if isinstance(error, EngineBusy):
        return unavailable(
            "the model engine is busy", code="engine_busy", retry_after=error.retry_after
        )
    if isinstance(error, UnknownModel):
        return unavailable(
            "the model was just replaced; send again", code="model_replaced", retry_after=1
        )
    if isinstance(error, EngineError):
        return unavailable("the model engine cannot answer at present", code="engine_unavailable")
    _log.error("generation failed: %s", type(error).__name__)
    return internal_error()
