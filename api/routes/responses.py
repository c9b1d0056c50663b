"""``POST /v1/responses``: text and functions."""

from fastapi import APIRouter, Request, Response

from api import asking
from api.access import operation
from api.generation import Wanted, respond, sent
from api.responses_schema import ResponsesBody
from api.responses_shape import ResponsesWriter

router = APIRouter()


@router.post(
    "/v1/responses",
    dependencies=[operation("chat")],
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def responses(body: ResponsesBody, request: Request) -> Response:
    """Answer a conversation in the form of OpenAI's responses.

    Nothing is stored, so there is no ``previous_response_id``: send the whole conversation.
    """
    given = sent(body)
    wanted = Wanted(
        model=body.model,
        body=given,
        stream=bool(body.stream),
        max_tokens=body.max_output_tokens,
        requests=asking.responses,
        writer=lambda model: ResponsesWriter(model, given),
    )
    return await respond(request, wanted)
