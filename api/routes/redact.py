"""``POST /v1/redact``: what the service would show a model of a text, and why."""

from functools import partial
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.conversation import Conversation
from api.errors import invalid_request
from api.schemas import RedactBody
from api.services import Services

router = APIRouter()


class EntityOut(BaseModel):
    """``start`` and ``end`` count Unicode code points of the text that was sent.

    ``message`` is the index of the message, ``null`` where a text was sent. Parts of a message's
    content count as one text, with a line break between two parts.
    """

    type: str
    start: int
    end: int
    score: float
    action: str
    message: int | None


class RedactedMessage(BaseModel):
    """One redacted turn."""

    role: str
    content: str


class RedactOut(BaseModel):
    """``text`` or ``messages``, as was sent."""

    object: Literal["redaction"] = "redaction"
    text: str | None
    messages: list[RedactedMessage] | None
    entities: list[EntityOut]
    counts: dict[str, int]


@router.post("/v1/redact", dependencies=[operation("redact")])
async def redact(body: RedactBody, request: Request) -> RedactOut:
    """Redact a text or a conversation, without asking any model."""
    if (body.text is None) == (body.messages is None):
        raise invalid_request("send either text or messages", code="invalid_value", param="text")
    call, services = Call.of(request), Services.of(request)
    conversation = Conversation(services.detector, services.policy, call.role)
    return await to_thread.run_sync(partial(_redacted, services, call, conversation, body))


def _redacted(
    services: Services, call: Call, conversation: Conversation, body: RedactBody
) -> RedactOut:
    texts = [body.text or ""] if body.messages is None else [turn.text() for turn in body.messages]
    call.digests["prompt_sent"] = services.recorder.digest(texts)
    found = conversation.find(texts)
    try:
        redacted = conversation.redact(texts)
    finally:
        call.entities = conversation.counts()
    entities = [
        EntityOut(
            type=span.entity,
            start=span.start,
            end=span.end,
            score=span.score,
            action=conversation.action(span.entity),
            message=None if body.messages is None else index,
        )
        for index, spans in enumerate(found)
        for span in spans
    ]
    call.digests["prompt_seen"] = services.recorder.digest(redacted)
    if body.messages is None:
        return RedactOut(
            text=redacted[0], messages=None, entities=entities, counts=conversation.counts()
        )
    turns = [
        RedactedMessage(role=turn.role, content=text)
        for turn, text in zip(body.messages, redacted, strict=True)
    ]
    return RedactOut(text=None, messages=turns, entities=entities, counts=conversation.counts())
