"""``run.toml``: what a run is to be, within the policy, and what it would cost each department.

A run may ask for less than the policy, never for more: whatever would be weaker is refused here
already, and by every node once more.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from intramural.durations import parse_duration
from intramural.errors import IntramuralError
from policies.errors import Fault
from policies.model import Policy, PolicyDocument, TrainingPolicy
from policies.section import Distinct, Phrase, Section
from policies.wording import faults_of
from privacy.dp.accounting import epsilon
from privacy.receipts import Receipt
from server.members import Member
from server.rounds import RunPlan

STRATEGY: Final = (
    "aggregation",
    "faulty_nodes",
    "server_optimiser",
    "server_learning_rate",
    "server_momentum",
    "maximum_update_norm",
)
_AT_MOST: Final = ("rounds", "local_steps", "sampling_rate", "clipping_norm", "target_epsilon")
_FIXED: Final = ("clipping", "noise_bands", "factors", "max_tokens", "canaries", "personal")


def _checked_span(text: str) -> str:
    span(text)
    return text


Span = Annotated[str, AfterValidator(_checked_span)]


class RunFileInvalid(IntramuralError):
    """A run file that cannot be used.

    Attributes:
        faults: every fault by its key.
    """

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        listed = "".join(f"\n  {fault.key or 'file'}: {fault.message}" for fault in self.faults)
        super().__init__(f"{source} cannot be used:{listed}")


class RunFile(Section):
    """The file's content; what it leaves out is the policy's, or the hub's.

    Attributes:
        base_model: folder or asset; the hub's by default.
        departments: the cohort; all of the policy by default.
        minimum_nodes: fewest contributions of a round.
        enough: contributions after which a round is closed without waiting for more.
        round_deadline: how long a round waits, as in "30m".
        valid: how long nodes may answer, as in "7d".
        training, strategy: keys of the policy's section ``training``.
    """

    base_model: Phrase | None = None
    departments: Annotated[tuple[Phrase, ...], Field(min_length=1), *Distinct] | None = None
    minimum_nodes: Annotated[int, Field(ge=1)] | None = None
    enough: Annotated[int, Field(ge=1)] | None = None
    round_deadline: Span = "1h"
    valid: Span = "7d"
    training: Mapping[str, Any] = {}
    strategy: Mapping[str, Any] = {}


@dataclass(frozen=True)
class RunWish:
    """A checked run file: the policy with the run's own training section, and the cohort."""

    policy: Policy
    departments: tuple[str, ...]
    enough: int | None
    round_seconds: float
    valid: timedelta
    base_model: str | None

    def plan(self, base_model_digest: str) -> RunPlan:
        """The plan with calibrated noise.

        Raises:
            PlanInvalid: no noise gives the target epsilon.
        """
        return RunPlan.from_policy(self.policy, base_model_digest)


def read_run_file(path: Path, policy: Policy) -> RunWish:
    """Read and check a run file against the policy that it runs under.

    Raises:
        RunFileInvalid: with every fault by its key.
    """
    source = str(path)
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFileInvalid(source, [Fault("", f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise RunFileInvalid(source, [Fault("", f"is no TOML: {error}")]) from None
    faults = [
        Fault(key, f"is unknown; known: {', '.join(RunFile.model_fields)}")
        for key in data
        if key not in RunFile.model_fields
    ]
    try:
        file = RunFile.model_validate({k: v for k, v in data.items() if k in RunFile.model_fields})
    except ValidationError as error:
        raise RunFileInvalid(source, [*faults, *faults_of(error)]) from None
    faults += _misplaced(file)
    departments = file.departments or tuple(policy.departments)
    faults += [
        Fault("departments", f"names {name!r}, which the policy does not")
        for name in departments
        if name not in policy.departments
    ]
    training = _training(file, policy, faults)
    if training is not None:
        faults += _weaker(policy, training)
        count, least = len(departments), training.minimum_nodes
        if least > count:
            faults.append(Fault("minimum_nodes", f"is {least}, but the cohort has {count}"))
        if file.enough is not None and not least <= file.enough <= count:
            message = f"is {file.enough}, but must lie from minimum_nodes={least} to {count}"
            faults.append(Fault("enough", message))
    if faults or training is None:
        raise RunFileInvalid(source, faults)
    return RunWish(
        policy=policy.model_copy(update={"training": training}),
        departments=departments,
        enough=file.enough,
        round_seconds=span(file.round_deadline).total_seconds(),
        valid=span(file.valid),
        base_model=file.base_model,
    )


def span(text: str) -> timedelta:
    """A length of time such as 30m.

    Raises:
        ValueError: it is none.
    """
    length = parse_duration(text)
    if length is None:
        raise ValueError(f"{text!r} must be like 90s, 30m, 24h, 7d or 8w")
    return length


@dataclass(frozen=True)
class DepartmentCost:
    """What a run would cost one department of its cohort, as far as the hub can know it.

    Attributes:
        run: epsilon of the run by itself.
        spent: as known from the receipts that the hub holds; the node's ledger may hold more.
        after: both, composed.
        approval: what somebody has to do before this department can take part in the whole run.
    """

    name: str
    run: float
    spent: float
    after: float
    budget: float
    delta: float
    enrolled: bool
    fits: bool
    approval: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All by name."""
        return {
            "name": self.name,
            "epsilon_run": self.run,
            "epsilon_spent": self.spent,
            "epsilon_after": self.after,
            "budget": self.budget,
            "delta": self.delta,
            "enrolled": self.enrolled,
            "fits": self.fits,
            "approval": list(self.approval),
        }


def run_costs(
    wish: RunWish,
    plan: RunPlan,
    receipts: Iterable[Receipt],
    members: Mapping[str, Member],
) -> tuple[DepartmentCost, ...]:
    """The cost for each department of the cohort, after what its ``receipts`` state."""
    known = list(receipts)
    return tuple(_cost(wish, plan, name, known, members.get(name)) for name in wish.departments)


def _cost(
    wish: RunWish, plan: RunPlan, name: str, receipts: Iterable[Receipt], member: Member | None
) -> DepartmentCost:
    policy, budget = wish.policy, wish.policy.budget_of(name)
    delta = budget.accountant_delta
    own = [r for r in receipts if r.department == name and r.block == budget.block]
    history = [receipt.event for receipt in own]
    event = plan.request(1, name).event()
    rounds = [event] * (plan.rounds * policy.training.events_per_round)
    composed = epsilon(history, delta)
    # A node states all that it spent, lost rounds included: more than what reached the hub cost.
    spent = max([composed, *(receipt.epsilon for receipt in own)])
    after = epsilon([*history, *rounds], delta) + (spent - composed)
    fits = budget.allows(after)
    return DepartmentCost(
        name=name,
        run=epsilon(rounds, delta),
        spent=spent,
        after=after,
        budget=float(budget.epsilon),
        delta=budget.stated_delta,
        enrolled=member is not None,
        fits=fits,
        approval=_approval(policy, name, member, fits=fits),
    )


def _approval(policy: Policy, name: str, member: Member | None, *, fits: bool) -> tuple[str, ...]:
    needed = []
    if member is None:
        needed.append(f"invite it: intramural hub invite {name}")
    elif member.policy_digest != policy.digest:
        needed.append("its node follows another policy and would decline: it must take this one")
    if not fits:
        needed.append(
            f"the run does not fit into its budget: the department must agree to a larger epsilon "
            f"or a new data block in the policy (departments.{name})"
        )
    return tuple(needed)


def _misplaced(file: RunFile) -> Iterable[Fault]:
    for key in file.strategy:
        if key not in STRATEGY:
            yield Fault(f"strategy.{key}", f"is unknown; known: {', '.join(STRATEGY)}")
        elif key in file.training:
            yield Fault(f"strategy.{key}", "stands in [training] too; keep one")
    for key in file.training:
        if key not in TrainingPolicy.model_fields:
            yield Fault(f"training.{key}", "is no key of the policy's section training")
    if file.minimum_nodes is not None and "minimum_nodes" in file.training:
        yield Fault("minimum_nodes", "stands in [training] too; keep one")


def _training(file: RunFile, policy: Policy, faults: list[Fault]) -> TrainingPolicy | None:
    given = {k: v for k, v in file.training.items() if k in TrainingPolicy.model_fields}
    given |= {k: v for k, v in file.strategy.items() if k in STRATEGY}
    if file.minimum_nodes is not None:
        given["minimum_nodes"] = file.minimum_nodes
    try:
        training = TrainingPolicy.model_validate(policy.training.model_dump() | given)
    except ValidationError as error:
        faults += [Fault(f"training.{fault.key}", fault.message) for fault in faults_of(error)]
        return None
    sections = {name: getattr(policy, name) for name in PolicyDocument.model_fields}
    try:
        # The sections of a policy check each other: cohort and rule, personal and factors.
        PolicyDocument(**sections | {"training": training})
    except ValidationError as error:
        faults += faults_of(error)
    return training


def _weaker(policy: Policy, wanted: TrainingPolicy) -> Iterable[Fault]:
    """Where the run would be weaker than the policy, or another mechanism."""
    own = policy.training
    for key in _AT_MOST:
        asked: Any = getattr(wanted, key)
        bound: Any = policy.run_epsilon() if key == "target_epsilon" else getattr(own, key)
        if asked is not None and Decimal(asked) > Decimal(bound):
            yield Fault(f"training.{key}", f"is {asked}, above the policy's {bound}")
    if wanted.minimum_nodes < own.minimum_nodes:
        yield Fault(
            "minimum_nodes", f"is {wanted.minimum_nodes}, below the policy's {own.minimum_nodes}"
        )
    for key in _FIXED:
        if getattr(wanted, key) != getattr(own, key):
            yield Fault(f"training.{key}", f"must be the policy's {getattr(own, key)!r}")
