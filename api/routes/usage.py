"""``GET /v1/usage``: calls and tokens, by day, key, principal, release and operation."""

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.errors import unavailable
from api.services import Services

_log = logging.getLogger(__name__)
router = APIRouter()


class UsageOut(BaseModel):
    """Sums of one day (UTC). ``errors`` counts calls that were refused, failed or aborted."""

    object: Literal["usage"] = "usage"
    day: date
    principal: str
    key: str
    release: str
    operation: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class UsagesOut(BaseModel):
    """The caller's own, or everybody's where its role may read the audit log."""

    object: Literal["list"] = "list"
    data: list[UsageOut]
    since: date
    requests: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@router.get("/v1/usage", dependencies=[operation("usage")])
async def usage(
    request: Request,
    days: Annotated[int, Query(ge=1, le=366, description="today and the days before it")] = 30,
) -> UsagesOut:
    """What was used, streams that were aborted included; the call that asks is not in it."""
    call, services = Call.of(request), Services.of(request)
    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    everybody = "audit" in services.policy.role(call.role).operations
    principal = None if everybody else call.principal
    try:
        lines = await to_thread.run_sync(lambda: list(services.usage.lines(since, principal)))
    except Exception as error:
        _log.error("%s: no usage: %s", call.request_id, type(error).__name__)
        raise unavailable(
            "the audit log cannot be read at present", code="audit_unavailable"
        ) from None
    data = [
        UsageOut(
            **vars(line), **vars(made), total_tokens=made.prompt_tokens + made.completion_tokens
        )
        for line, made in lines
    ]
    prompt = sum(one.prompt_tokens for one in data)
    completion = sum(one.completion_tokens for one in data)
    return UsagesOut(
        data=data,
        since=since,
        requests=sum(one.requests for one in data),
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
    )
