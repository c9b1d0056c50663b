"""``POST /v1/chat/completions``."""

from fastapi import APIRouter, Request, Response

from api import asking
from api.access import operation
from api.errors import invalid_request
from api.generation import Wanted, respond, sent
from api.schemas import ChatBody
from api.shapes import ChatWriter

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    dependencies=[operation("chat")],
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def chat(body: ChatBody, request: Request) -> Response:
    """Answer a conversation, also with functions to call and in JSON that fits a schema.

    The model sees placeholders instead of personal data; the answer comes back restored.
    """
    wanted = Wanted(
        model=body.model,
        body=sent(body),
        stream=bool(body.stream),
        max_tokens=_max_tokens(body),
        requests=asking.chat,
        writer=lambda model: ChatWriter(model, count=body.n or 1, with_usage=body.wants_usage()),
    )
    return await respond(request, wanted)


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
