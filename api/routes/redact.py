"""``POST /v1/redact`` and ``POST /v1/restore``: redaction as a service of its own.

Nothing is kept between the two: whoever asks for it gets the way back as a sealed token.
"""

from functools import partial
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.asking import text_of
from api.call import Call
from api.conversation import Conversation
from api.errors import invalid_request
from api.restoring import restore as put_back
from api.schemas import RedactBody, RestoreBody
from api.sealing import SealBroken
from api.services import Services

router = APIRouter()
_SAID = {
    "allow": "stays as it is",
    "replace": "is replaced by a numbered placeholder, which is put back in the answer",
    "hash": "is replaced by a keyed digest, which is put back in the answer",
    "pseudonym": "is replaced by an invented value, which is put back in the answer",
    "encrypt": "is replaced by an encrypted token, which is put back in the answer",
    "mask": "is masked for good",
    "redact": "is replaced by its kind for good",
    "block": "makes the service refuse the request",
}


class EntityOut(BaseModel):
    """One finding. ``start`` and ``end`` count Unicode code points of the text that was sent.

    ``message`` is the index of the message, or of the text where ``texts`` were sent, and ``null``
    where one text was. Parts of a message's content count as one text, with a line break between
    two parts. ``source`` names what found it, ``explanation`` says what happens to it.
    """

    type: str
    start: int
    end: int
    score: float
    action: str
    message: int | None
    source: str
    explanation: str


class RedactedMessage(BaseModel):
    """One redacted turn."""

    role: str
    content: str


class RedactOut(BaseModel):
    """``text``, ``texts`` or ``messages``, as was sent.

    ``token`` and ``expires`` (seconds since 1970) are there where ``restorable`` was asked for.
    """

    object: Literal["redaction"] = "redaction"
    text: str | None
    texts: list[str] | None
    messages: list[RedactedMessage] | None
    entities: list[EntityOut]
    counts: dict[str, int]
    token: str | None
    expires: int | None


class RestoreOut(BaseModel):
    """``text`` or ``texts``, as was sent."""

    object: Literal["restoration"] = "restoration"
    text: str | None
    texts: list[str] | None


@router.post("/v1/redact", dependencies=[operation("redact")])
async def redact(body: RedactBody, request: Request) -> RedactOut:
    """Redact a text, several texts or a conversation, without asking any model.

    All that is sent at once shares its placeholders.
    """
    if sum(one is not None for one in (body.text, body.texts, body.messages)) != 1:
        raise invalid_request(
            "send either text, texts or messages", code="invalid_value", param="text"
        )
    call, services = Call.of(request), Services.of(request)
    conversation = Conversation(services.detector, services.policy, call.role)
    return await to_thread.run_sync(partial(_redacted, services, call, conversation, body))


@router.post("/v1/restore", dependencies=[operation("restore")])
async def restore(body: RestoreBody, request: Request) -> RestoreOut:
    """Put the values of a token back into texts that hold their stand-ins."""
    if (body.text is None) == (body.texts is None):
        raise invalid_request("send either text or texts", code="invalid_value", param="text")
    call, services = Call.of(request), Services.of(request)
    return await to_thread.run_sync(partial(_restored, services, call, body))


def _redacted(
    services: Services, call: Call, conversation: Conversation, body: RedactBody
) -> RedactOut:
    if body.messages is not None:
        turns = [turn.model_dump() for turn in body.messages]
        texts = [text_of(turn["content"]) for turn in turns]
    else:
        turns, texts = [], [body.text] if body.text is not None else list(body.texts or ())
    call.digests["prompt_sent"] = services.recorder.digest(texts)
    found = conversation.find(texts)
    try:
        redacted = conversation.redact(texts)
    finally:
        call.entities = conversation.counts()
    call.digests["prompt_seen"] = services.recorder.digest(redacted)
    entities = [
        _entity(span, conversation.action(span.entity), None if body.text is not None else index)
        for index, spans in enumerate(found)
        for span in spans
    ]
    token, expires = None, None
    if body.restorable:
        longest = 60 * services.policy.role(call.role).restore_minutes
        seconds = longest if body.expires_in is None else body.expires_in
        if seconds > longest:
            raise invalid_request(
                f"expires_in={seconds} exceeds the {longest} seconds of role {call.role!r}",
                code="invalid_value",
                param="expires_in",
            )
        token, expires = services.sealer.seal(conversation.originals(), call.principal, seconds)
    return RedactOut(
        text=redacted[0] if body.text is not None else None,
        texts=redacted if body.texts is not None else None,
        messages=None
        if body.messages is None
        else [
            RedactedMessage(role=turn["role"], content=text)
            for turn, text in zip(turns, redacted, strict=True)
        ],
        entities=entities,
        counts=conversation.counts(),
        token=token,
        expires=expires,
    )


def _entity(span: Any, action: str, index: int | None) -> EntityOut:
    return EntityOut(
        type=span.entity,
        start=span.start,
        end=span.end,
        score=span.score,
        action=action,
        message=index,
        source=span.source,
        explanation=f"{span.entity} {_SAID[action]}",
    )


def _restored(services: Services, call: Call, body: RestoreBody) -> RestoreOut:
    texts = [body.text] if body.text is not None else list(body.texts or ())
    call.digests["prompt_sent"] = services.recorder.digest(texts)
    try:
        content = services.sealer.open(body.token, call.principal)
    except SealBroken:
        # One answer for all faults: which of them it was helps only whoever guesses.
        raise invalid_request(
            "the token cannot be opened: it was changed, has expired, or belongs to another "
            "principal; redact again with restorable: true",
            code="invalid_token",
            param="token",
        ) from None
    made = put_back(content, texts, json=bool(body.json_))
    call.digests["answer"] = services.recorder.digest(made)
    return RestoreOut(
        text=made[0] if body.text is not None else None,
        texts=made if body.texts is not None else None,
    )
