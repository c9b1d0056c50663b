"""OpenAI's error shape for what FastAPI and Starlette raise by themselves."""

from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.call import Call
from api.errors import HttpError, invalid_request, not_found
from api.validation import fault


class ErrorDetail(BaseModel):
    """``param`` is the field at fault where there is one; ``code`` is meant for programs."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorOut(BaseModel):
    """OpenAI's error shape."""

    error: ErrorDetail


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(HttpError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)


async def _ours(request: Request, error: Exception) -> Response:
    return _answer(request, cast("HttpError", error))


async def _invalid(request: Request, error: Exception) -> Response:
    return _answer(request, fault(cast("RequestValidationError", error).errors()))


async def _framework(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    if raised.status_code == 404:
        answer = not_found("there is no such route; /docs lists those that there are")
    elif raised.status_code == 405:
        answer = HttpError(
            405,
            "this route does not have this method",
            kind="invalid_request_error",
            code="method_not_allowed",
            headers=raised.headers,
        )
    else:
        answer = invalid_request("the body cannot be read as JSON", code="json_invalid")
    return _answer(request, answer)


def _answer(request: Request, error: HttpError) -> Response:
    call = Call.of(request)
    if call.outcome == "ok":
        call.outcome = error.code
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)
