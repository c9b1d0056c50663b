"""What a run would cost each department, before it runs. Charges nothing.

Noise is calibrated as the hub does it (:func:`privacy.dp.pricing.run_noise`), or named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from policies.model import Policy, TrainingPolicy, rounded_down
from privacy.dp.accounting import epsilon
from privacy.dp.pricing import round_event, run_noise
from privacy.ledger.history import LedgerHistory


@dataclass(frozen=True)
class RunShape:
    """What decides about a run's cost.

    Attributes:
        training: the policy's training section, with what is to be planned instead of it.
        noise_multiplier: the same for every department and round.
        target_epsilon: what the noise was calibrated for; None where the noise was named.
    """

    training: TrainingPolicy
    noise_multiplier: float
    target_epsilon: float | None

    @classmethod
    def of(
        cls,
        policy: Policy,
        *,
        rounds: int | None = None,
        steps: int | None = None,
        sampling_rate: float | None = None,
        epsilon: float | None = None,
        noise_multiplier: float | None = None,
    ) -> Self:
        """The policy's run, with some figures replaced.

        Args:
            epsilon: the most that the whole run may cost, instead of the policy's.
            noise_multiplier: nothing is calibrated, and ``epsilon`` is not looked at.

        Raises:
            EventInvalid: no noise within reach gives this epsilon, or no mechanism is like this.
        """
        changed = {"rounds": rounds, "local_steps": steps, "sampling_rate": sampling_rate}
        training = policy.training.model_copy(
            update={key: value for key, value in changed.items() if value is not None}
        )
        if noise_multiplier is not None:
            return cls(training, noise_multiplier, None)
        target = rounded_down(policy.run_epsilon()) if epsilon is None else epsilon
        return cls(training, run_noise(policy, training, target), target)

    @property
    def mechanism(self) -> str:
        """Clipping and noise in a person's words."""
        bands = self.training.noise_bands
        noise = "independent noise" if bands == 1 else f"noise correlated over {bands} steps"
        return f"{self.training.clipping} clipping, {noise}"

    def beyond(self, policy: Policy) -> list[str]:
        """Keys of the policy that this run would exceed, so that every node declines it."""
        return [
            f"training.{key}"
            for key in ("rounds", "local_steps", "sampling_rate")
            if getattr(self.training, key) > getattr(policy.training, key)
        ]


@dataclass(frozen=True)
class RunCost:
    """One department's account of a planned run; each figure is an epsilon at ``delta``.

    Attributes:
        run: the run by itself.
        spent: by itself, the stored history of the data block that the policy names.
        after: history and run, composed.
        expected_batch: units that a step samples on average, by the declared size.
        affordable_rounds: rounds of the run that fit into the budget.
    """

    department: str
    run: float
    spent: float
    after: float
    budget: float
    delta: float
    expected_batch: float
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
            "expected_batch": self.expected_batch,
            "fits": self.fits,
            "affordable_rounds": self.affordable_rounds,
        }


def plan_costs(
    policy: Policy, shape: RunShape, histories: Mapping[str, LedgerHistory]
) -> tuple[RunCost, ...]:
    """The cost of ``shape`` for each department of the policy, after its stored history.

    Raises:
        EventInvalid: no mechanism is like this.
    """
    empty = LedgerHistory(())
    return tuple(
        _cost(policy, name, shape, histories.get(name, empty)) for name in policy.departments
    )


def _cost(policy: Policy, name: str, shape: RunShape, ledger: LedgerHistory) -> RunCost:
    budget = policy.budget_of(name)
    delta = budget.accountant_delta
    history = ledger.events(name, budget.block)
    units = policy.departments[name].declared_units
    event = round_event(shape.training, units, shape.noise_multiplier)
    rounds, per_round = shape.training.rounds, shape.training.events_per_round

    def after(count: int) -> float:
        return epsilon([*history, *[event] * (count * per_round)], delta)

    whole = after(rounds)
    affordable = rounds
    if not budget.allows(whole):
        low, high = -1, rounds  # low fits (or nothing does), high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if budget.allows(after(middle)) else (low, middle)
        affordable = max(low, 0)
    return RunCost(
        department=name,
        run=epsilon([event] * (rounds * per_round), delta),
        spent=epsilon(history, delta),
        after=whole,
        budget=float(budget.epsilon),
        delta=budget.stated_delta,
        expected_batch=shape.training.sampling_rate * units,
        affordable_rounds=affordable,
        rounds=rounds,
    )
