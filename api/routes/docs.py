"""``/docs``: the API described, without a key and without asking another host."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from api.docs_page import STYLE, page

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_model=None)
async def docs(request: Request) -> Response:
    """The page."""
    return HTMLResponse(page(request.app.openapi()))


@router.get("/docs/style.css", response_model=None)
async def style() -> Response:
    """Its style, which a strict content security policy wants in a file of its own."""
    return Response(STYLE, media_type="text/css")
