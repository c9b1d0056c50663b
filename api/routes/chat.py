"""``POST /v1/chat/completions``."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.access import operation
from api.engines.base import Message
from api.errors import invalid_request
from api.generation import Prompt, respond
from api.schemas import ChatBody
from api.shapes import ChatShape

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    dependencies=[operation("chat")],
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def chat(body: ChatBody, request: Request) -> Response:
    """Answer a conversation.

    The model sees placeholders instead of personal data; the answer comes back restored.
    """
    prompt = Prompt(tuple(_message(turn.role, turn.text()) for turn in body.messages))
    return await respond(request, body, prompt, max_tokens=_max_tokens(body), shape=ChatShape())


def _message(role: Any, text: str) -> Message:
    return Message("system" if role == "developer" else role, text)


def _max_tokens(body: ChatBody) -> int | None:
    if body.max_completion_tokens is None:
        return body.max_tokens
    if body.max_tokens not in (None, body.max_completion_tokens):
        raise invalid_request(
            "max_tokens and max_completion_tokens differ: send one of them",
            code="invalid_value",
            param="max_tokens",
        )
    return body.max_completion_tokens
