"""The dependency that each route states: which operation of the policy it is."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api.call import Call
from api.errors import unauthenticated
from api.services import Services
from policies.model import Operation

# The gate reads the header; this one describes it in the OpenAPI document.
_scheme = HTTPBearer(auto_error=False, scheme_name="API key", description="A key `im_…`.")


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

    return check
