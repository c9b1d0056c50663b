"""The dependency that each route states: which operation of the policy it is."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api.call import Call
from api.errors import invalid_request, unauthenticated
from api.services import Services
from policies.model import Operation

# The gate reads the header; this one describes it in the OpenAPI document.
_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="Bearer",
    description="An API key `im_…`, or a token of an issuer that the policy names.",
)


def operation(name: Operation) -> Any:
    """``Depends`` that lets a call through when its role has the operation ``name``."""
    return Depends(_check(name))


def _check(name: Operation) -> Callable[..., None]:
    def check(request: Request, _: Annotated[object, Depends(_scheme)]) -> None:
        call = Call.of(request)
        call.operation = name
        if not call.principal:
            raise unauthenticated()
        Services.of(request).decide(call)
        _check_query(request)

    check.__dict__["operation"] = name  # so that a test can ask each route for its rule
    return check


def _check_query(request: Request) -> None:
    """Where a query means something, a word that is misspelt must not be ignored.

    Raises:
        HttpError: 400, with the parameters that there are.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    if known and not known.issuperset(request.query_params):
        raise invalid_request(
            f"the query has a parameter that this route does not know; it knows {', '.join(sorted(known))}",
            code="unsupported_field",
        )
