"""``POST /v1/completions``."""

from fastapi import APIRouter, Request, Response

from api.access import operation
from api.generation import Prompt, respond
from api.schemas import CompletionBody
from api.shapes import CompletionShape

router = APIRouter()


@router.post(
    "/v1/completions",
    dependencies=[operation("completions")],
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Continue a text. Redacts and restores as chat completions do."""
    prompt = Prompt(text=body.text())
    return await respond(request, body, prompt, max_tokens=body.max_tokens, shape=CompletionShape())
