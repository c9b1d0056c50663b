"""What a run would cost each department, before it runs. Charges nothing.

Noise is calibrated as the hub does it (``server.rounds.RunPlan``): one noise multiplier for the
whole run, at the smallest delta of all departments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from policies.model import Policy
from privacy.dp.accounting import calibrate_noise, epsilon
from privacy.dp.events import MechanismEvent, PoissonGaussian
from privacy.ledger.ledger import LedgerHistory


@dataclass(frozen=True)
class RunShape:
    """What decides about a run's cost; ``epsilon`` is the most that the whole run may cost."""

    rounds: int
    steps: int
    sampling_rate: float
    epsilon: float

    @classmethod
    def of(
        cls,
        policy: Policy,
        *,
        rounds: int | None = None,
        steps: int | None = None,
        sampling_rate: float | None = None,
        epsilon: float | None = None,
    ) -> Self:
        """The policy's run, with some figures replaced."""
        training = policy.training
        return cls(
            training.rounds if rounds is None else rounds,
            training.local_steps if steps is None else steps,
            training.sampling_rate if sampling_rate is None else sampling_rate,
            policy.run_epsilon() if epsilon is None else epsilon,
        )

    def beyond(self, policy: Policy) -> list[str]:
        """Keys of the policy that this run would exceed, so that every node declines it."""
        training = policy.training
        asked = {
            "training.rounds": (self.rounds, training.rounds),
            "training.local_steps": (self.steps, training.local_steps),
            "training.sampling_rate": (self.sampling_rate, training.sampling_rate),
        }
        return [key for key, (value, bound) in asked.items() if value > bound]


@dataclass(frozen=True)
class RunCost:
    """One department's account of a planned run; each figure is an epsilon at ``delta``.

    Attributes:
        run: the run by itself.
        spent: the stored history by itself.
        after: history and run, composed.
        affordable_rounds: rounds of the run that fit into the budget.
    """

    department: str
    run: float
    spent: float
    after: float
    budget: float
    delta: float
    affordable_rounds: int
    rounds: int

    @property
    def fits(self) -> bool:
        """Whether the budget pays for the whole run."""
        return self.affordable_rounds == self.rounds

    def to_json(self) -> dict[str, Any]:
        """All figures by name."""
        return {
            "name": self.department,
            "epsilon_run": self.run,
            "epsilon_spent": self.spent,
            "epsilon_after": self.after,
            "budget": self.budget,
            "delta": self.delta,
            "fits": self.fits,
            "affordable_rounds": self.affordable_rounds,
        }


def plan_costs(
    policy: Policy, shape: RunShape, histories: Mapping[str, LedgerHistory]
) -> tuple[float, tuple[RunCost, ...]]:
    """The calibrated noise multiplier, and the cost for each department of the policy.

    Raises:
        EventInvalid: no noise within reach gives this epsilon.
    """
    deltas = {name: policy.budget_of(name).delta for name in policy.departments}
    noise = calibrate_noise(
        sampling_rate=shape.sampling_rate,
        steps=shape.rounds * shape.steps,
        epsilon=shape.epsilon,
        delta=min(deltas.values()),
    )
    costs = []
    for name in policy.departments:
        history = histories.get(name, LedgerHistory(())).events(name)
        costs.append(_cost(policy, name, shape, noise, history))
    return noise, tuple(costs)


def _cost(
    policy: Policy, name: str, shape: RunShape, noise: float, history: tuple[MechanismEvent, ...]
) -> RunCost:
    budget = policy.budget_of(name)

    def after(rounds: int) -> float:
        run = [PoissonGaussian(shape.sampling_rate, noise, rounds * shape.steps)] if rounds else []
        return epsilon([*history, *run], budget.delta)

    whole = after(shape.rounds)
    affordable = shape.rounds
    if whole > budget.epsilon:
        low, high = -1, shape.rounds  # low fits (or nothing does), high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if after(middle) <= budget.epsilon else (low, middle)
        affordable = max(low, 0)
    run = PoissonGaussian(shape.sampling_rate, noise, shape.rounds * shape.steps)
    return RunCost(
        department=name,
        run=epsilon([run], budget.delta),
        spent=epsilon(history, budget.delta),
        after=whole,
        budget=budget.epsilon,
        delta=budget.delta,
        affordable_rounds=affordable,
        rounds=shape.rounds,
    )
