"""From a valid body to an answer: decide, redact, generate, scan, restore, record.

Shared by chat and plain completions. Nothing here leaves before its audit entry: the gate appends
it when the response starts, and a stream appends a second one, with outcome and usage, before its
last chunk.
"""

import logging
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.call import Call
from api.conversation import Answer, Conversation
from api.engines.base import Finished, GenerationRequest, Message, TextDelta
from api.errors import (
    ContextTooLong,
    EngineError,
    HttpError,
    UnknownModel,
    internal_error,
    invalid_request,
    unavailable,
)
from api.schemas import GenerationBody
from api.services import Services
from api.shapes import Shape, Writer
from api.streaming import DONE, EventStream, event

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What the caller sent: ``messages``, or one plain ``text``."""

    messages: tuple[Message, ...] = ()
    text: str | None = None

    def pieces(self) -> list[str]:
        """All texts, in order."""
        return [self.text] if self.text is not None else [turn.content for turn in self.messages]

    def with_pieces(self, pieces: Sequence[str]) -> "Prompt":
        """The same with other texts."""
        if self.text is not None:
            return Prompt(text=pieces[0])
        turns = zip(self.messages, pieces, strict=True)
        return Prompt(tuple(Message(turn.role, text) for turn, text in turns))


async def respond(
    request: Request,
    body: GenerationBody,
    prompt: Prompt,
    *,
    max_tokens: int | None,
    shape: Shape,
) -> Response:
    """Answer a generation request.

    Raises:
        HttpError: it is refused, or could not be answered.
    """
    call, services = Call.of(request), Services.of(request)
    if body.stream_options is not None and not body.stream:
        raise invalid_request(
            "stream_options is allowed only with stream: true",
            code="invalid_value",
            param="stream_options",
        )
    model = services.model(body.model)
    call.release = model
    call.stream = bool(body.stream)
    services.decide(call, model=model, max_tokens=max_tokens)
    conversation = Conversation(services.detector, services.policy, call.role)
    asked = await to_thread.run_sync(
        partial(_redacted, services, call, conversation, body, prompt, model, max_tokens)
    )
    writer = Writer(shape, model)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(services.slots.one())
        items = await to_thread.run_sync(_engine_stream, services, asked)
        # A whole answer is scanned as a whole, a stream as it comes.
        lookahead = services.settings.lookahead_chars if body.stream else sys.maxsize
        answer = conversation.answer(items, lookahead)
        if not body.stream:
            return await _whole(services, call, answer, items, writer)
        events = _events(services, call, answer, items, writer, with_usage=body.wants_usage())
        # From here on the response owns the slot.
        return EventStream(events, stack.pop_all())


def _redacted(
    services: Services,
    call: Call,
    conversation: Conversation,
    body: GenerationBody,
    prompt: Prompt,
    model: str,
    max_tokens: int | None,
) -> GenerationRequest:
    """The request as the engine may see it; digests and counts go into the call."""
    sent, stop = prompt.pieces(), body.stop_strings()
    call.digests["prompt_sent"] = services.recorder.digest(sent)
    try:
        redacted = conversation.redact([*sent, *stop])
    finally:
        call.entities = conversation.counts()
    pieces = redacted[: len(sent)]
    call.digests["prompt_seen"] = services.recorder.digest(pieces)
    seen = prompt.with_pieces(pieces)
    bound = services.policy.role(call.role).max_tokens
    return GenerationRequest(
        model=model,
        messages=seen.messages,
        prompt=seen.text,
        max_tokens=max_tokens or min(bound, services.settings.default_max_tokens),
        fit=max_tokens is None,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=tuple(redacted[len(sent) :]),
        seed=body.seed,
    )


def _engine_stream(services: Services, asked: GenerationRequest) -> Iterator[TextDelta | Finished]:
    try:
        return services.engine.stream(asked)
    except Exception as error:
        raise _translated(error) from None


async def _whole(
    services: Services,
    call: Call,
    answer: Answer,
    items: Iterator[TextDelta | Finished],
    writer: Writer,
) -> Response:
    try:
        await to_thread.run_sync(_drain, answer)
    except Exception as error:
        raise _translated(error) from None
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_close, items)
        _note(services, call, answer)
    return JSONResponse(writer.whole(answer.text, answer.finish_reason or "stop", answer.usage))


async def _events(
    services: Services,
    call: Call,
    answer: Answer,
    items: Iterator[TextDelta | Finished],
    writer: Writer,
    *,
    with_usage: bool,
) -> AsyncGenerator[bytes]:
    """The chunks of a stream, then the second audit entry, then the end."""
    extra: dict[str, Any] = {"usage": None} if with_usage else {}
    pieces = iter(answer)
    refusal: HttpError | None = None
    recorded = False
    call.outcome = "aborted"  # unless the end is reached
    try:
        opening = writer.opening(extra)
        if opening is not None:
            yield event(opening)
        while (piece := await to_thread.run_sync(_next, pieces)) is not None:
            yield event(writer.piece(piece, extra))
        call.outcome = "ok"
    except Exception as error:
        refusal = _translated(error)
        call.outcome = refusal.code
    finally:
        recorded = await _end(services, call, answer, items)
    if not recorded:
        refusal = unavailable("the audit log cannot record this call", code="audit_unavailable")
    if refusal is not None:
        yield event(refusal.body())
        return
    yield event(writer.finish(answer.finish_reason or "stop", extra))
    if with_usage:
        yield event(writer.usage(answer.usage))
    yield DONE


async def _end(
    services: Services, call: Call, answer: Answer, items: Iterator[TextDelta | Finished]
) -> bool:
    """Stop the engine and record how the stream ended; False when that cannot be recorded."""
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(_close, items)
        _note(services, call, answer)
        try:
            await services.recorder.record_end(call)
        except Exception as error:
            _log.error("%s has no final audit entry: %s", call.request_id, type(error).__name__)
            return False
    return True


def _note(services: Services, call: Call, answer: Answer) -> None:
    call.digests["answer"] = services.recorder.digest([answer.text])
    call.answer_entities = answer.counts
    call.prompt_tokens = answer.usage.prompt_tokens
    call.completion_tokens = answer.usage.completion_tokens


def _drain(answer: Answer) -> None:
    for _ in answer:
        pass


def _next(pieces: Iterator[str]) -> str | None:
    return next(pieces, None)


def _close(items: Iterator[TextDelta | Finished]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _translated(error: Exception) -> HttpError:
    """What the caller is told when the engine or the scan fails."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, ContextTooLong):
        return invalid_request(str(error), code="context_length_exceeded")
    if isinstance(error, UnknownModel):
        return unavailable(
            "the model was just replaced; send again", code="model_replaced", retry_after=1
        )
    if isinstance(error, EngineError):
        return unavailable("the model engine cannot answer at present", code="engine_unavailable")
    _log.error("generation failed: %s", type(error).__name__)
    return internal_error()
