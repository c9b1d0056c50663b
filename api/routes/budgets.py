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


class BlockOut(BaseModel):
    """What was spent on one data block."""

    block: str
    epsilon: float
    reservations: int
    committed: int
    voided: int


class BudgetOut(BaseModel):
    """One department's account at its delta: of the current data block, and of its whole life."""

    object: Literal["budget"] = "budget"
    department: str
    block: str
    epsilon: float
    lifetime_epsilon: float
    delta: float
    budget: float | None
    remaining: float | None
    unit: str
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"
    blocks: list[BlockOut]


class BudgetsOut(BaseModel):
    """All departments, and what one person known to all of them has at stake at most."""

    object: Literal["list"] = "list"
    data: list[BudgetOut]
    largest_epsilon: float
    sum_epsilon: float
    largest_lifetime_epsilon: float
    sum_lifetime_epsilon: float
    policy: str


@router.get("/v1/budgets", dependencies=[operation("budgets")])
async def budgets(request: Request) -> BudgetsOut:
    """Epsilon spent (of the data block, and lifetime), delta, budget and unit per department."""
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
            block=account.block,
            epsilon=account.epsilon,
            lifetime_epsilon=account.lifetime_epsilon,
            delta=account.delta,
            budget=None if account.budget is None else float(account.budget),
            remaining=account.remaining,
            unit=services.policy.privacy.unit,
            blocks=[BlockOut(**vars(block)) for block in account.blocks],
        )
        for account in accounts
    ]
    spent = [account.epsilon for account in accounts]
    lifetimes = [account.lifetime_epsilon for account in accounts]
    return BudgetsOut(
        data=data,
        largest_epsilon=max(spent, default=0.0),
        sum_epsilon=sum(spent),
        largest_lifetime_epsilon=max(lifetimes, default=0.0),
        sum_lifetime_epsilon=sum(lifetimes),
        policy=services.policy.digest,
    )
