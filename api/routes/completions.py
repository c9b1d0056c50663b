"""``POST /v1/completions``."""

from fastapi import APIRouter, Request, Response

from api import asking
from api.access import operation
from api.errors import invalid_request
from api.generation import Wanted, respond, sent
from api.schemas import CompletionBody
from api.shapes import CompletionWriter

router = APIRouter()


@router.post(
    "/v1/completions",
    dependencies=[operation("completions")],
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Continue a text, or several. Redacts and restores as chat completions do."""
    if body.echo and body.logprobs is not None:
        raise invalid_request(
            "echo is not supported together with logprobs: send one of them",
            code="unsupported_field",
            param="echo",
        )
    prompts = body.prompts()
    wanted = Wanted(
        model=body.model,
        body=sent(body),
        stream=bool(body.stream),
        max_tokens=body.max_tokens,
        requests=asking.completions,
        writer=lambda model: CompletionWriter(
            model,
            prompts if body.echo else (),
            count=len(prompts) * (body.n or 1),
            with_usage=body.wants_usage(),
        ),
    )
    return await respond(request, wanted)
