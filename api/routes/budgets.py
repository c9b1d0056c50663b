"""``GET /v1/budgets``: what each department has spent of its privacy budget."""

import logging
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.errors import unavailable
from api.services import Services

_log = logging.getLogger(__name__)
router = APIRouter()


class BudgetOut(BaseModel):
    """One department's account: (epsilon, delta) of its whole history, composed."""

    object: Literal["budget"] = "budget"
    department: str
    epsilon: float
    delta: float
    budget: float | None
    remaining: float | None
    unit: str
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"


class BudgetsOut(BaseModel):
    """All departments, and what one person known to all of them has at stake at most."""

    object: Literal["list"] = "list"
    data: list[BudgetOut]
    largest_epsilon: float
    sum_epsilon: float
    policy: str


@router.get("/v1/budgets", dependencies=[operation("budgets")])
async def budgets(request: Request) -> BudgetsOut:
    """Epsilon spent, delta, budget and unit of privacy per department."""
    services = Services.of(request)
    try:
        accounts = await to_thread.run_sync(services.ledgers)
    except Exception as error:
        _log.error("%s: no ledger: %s", Call.of(request).request_id, type(error).__name__)
        raise unavailable(
            "the budget ledgers cannot be read and verified at present", code="ledger_unavailable"
        ) from None
    data: list[Any] = [
        BudgetOut(
            department=account.department,
            epsilon=account.epsilon,
            delta=account.delta,
            budget=account.budget,
            remaining=account.remaining,
            unit=services.policy.privacy.unit,
        )
        for account in accounts
    ]
    spent = [account.epsilon for account in accounts]
    return BudgetsOut(
        data=data,
        largest_epsilon=max(spent, default=0.0),
        sum_epsilon=sum(spent),
        policy=services.policy.digest,
    )
