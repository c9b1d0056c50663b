"""The declared policy as frozen objects.

A policy file is one document with the sections below. Every section has defaults, so that the
smallest policy names an organisation and its departments. All numbers are public: a policy is read
by every node, by the hub and by the service, and its SHA-256 stands in receipts, releases and
audit entries.

This module knows values and their bounds. It does not know files (`policies.load`) nor requests
(`policies.decisions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from policies.access import AccessPolicy, PrincipalName, PrincipalPolicy, access_faults
from policies.errors import Fault, PolicyError, UnknownDepartment, UnknownRole
from policies.guards import GuardsPolicy
from policies.limits import Budget as Budget
from policies.limits import Delta, Epsilon, Number
from policies.limits import rounded_down as rounded_down
from policies.pii import Action as Action
from policies.pii import Direction as Direction
from policies.pii import PiiPolicy as PiiPolicy
from policies.pii import PiiRules, clashes, keys_of
from policies.roles import DEFAULT_ROLES as DEFAULT_ROLES
from policies.roles import Name, with_default_roles
from policies.roles import Operation as Operation
from policies.roles import RolePolicy as RolePolicy
from policies.section import Distinct, Phrase, Section
from policies.sensitivity import SensitivityPolicy

Unit = Literal["record", "subject"]
Clipping = Literal["flat", "automatic", "adaptive"]
Optimiser = Literal["adam", "sgd"]
Factors = Literal["B", "AB"]
Aggregation = Literal["mean", "median", "trimmed_mean", "krum"]
ServerOptimiser = Literal["none", "avgm", "adam"]


def _all_is_none(value: object) -> object:
    return None if value == "all" else value


# TOML has no null: a file says "all" where the object holds None.
LastLayers = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None,
    BeforeValidator(_all_is_none),
    PlainSerializer(lambda value: "all" if value is None else value, when_used="json"),
]

Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,100}\z")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]

BlockName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}\z")]


class PrivacyPolicy(Section):
    """The unit of privacy, and the budget of a department that names none of its own.

    Adjacency is always add or remove one unit. `records_per_subject` bounds how many records of a
    sampled subject enter a step; it has no meaning under unit "record".
    """

    unit: Unit = "record"
    records_per_subject: Annotated[int, Field(ge=1, le=1000)] = 4
    epsilon: Epsilon = Decimal("8.0")
    delta: Delta = Decimal("1e-5")


class DepartmentPolicy(Section):
    """One department. What is left out is taken from the section `privacy`.

    `declared_units` is a public, rounded figure for the department's size. It normalises gradients
    and bounds delta; the true count never leaves the node.

    `block` names the data block that the budget is for. A budget is never reset; a new name opens a
    new budget, for records that are in no earlier block, and for these alone.
    """

    title: Annotated[str, StringConstraints(max_length=200)] = ""
    epsilon: Epsilon | None = None
    delta: Delta | None = None
    block: BlockName = "1"
    declared_units: Annotated[int, Field(ge=1, le=1_000_000_000)] = 500


class TrainingPolicy(Section):
    """The public configuration of a run: at the same time the most that a node will agree to.

    `target_epsilon` is the cost of one whole run; left out, it is the smallest department budget.
    `last_layers` counts the adapted layers from the top; "all", or more than there are, adapts every
    layer. `factors` says
    which LoRA factors are trained: B alone keeps the frozen A equal on every node, so that the
    average of adapters is exact (FFA-LoRA, arXiv 2403.12313). `seed` is public and only seeds the
    initial A; noise never comes from it. `noise_bands` above 1 correlates the noise of so many
    consecutive steps of a round. `canaries` synthetic records may be inserted by each node, so that
    what a run reveals can be measured.

    `aggregation` combines a round's updates; all but the mean bear up to `faulty_nodes` arbitrary
    ones. `server_optimiser` takes the hub's step from there. `maximum_update_norm` bounds how far an
    update may lie from the adapter that was sent; left out, by what the steps asked for can reach.
    `personal` lets each department keep an adapter of its own beside the shared one, which costs
    each round twice.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 4
    local_steps: Annotated[int, Field(ge=1, le=100_000)] = 4
    sampling_rate: Annotated[Number, Field(gt=0, le=1)] = 0.1
    target_epsilon: Epsilon | None = None
    clipping_norm: Annotated[Number, Field(gt=0)] = 0.5
    clipping: Clipping = "flat"
    noise_bands: Annotated[int, Field(ge=1, le=1000)] = 1
    optimiser: Optimiser = "adam"
    learning_rate: Annotated[Number, Field(gt=0)] = 0.1
    rank: Annotated[int, Field(ge=1, le=1024)] = 4
    alpha: Annotated[int, Field(ge=1, le=65_536)] = 8
    targets: Annotated[tuple[Module, ...], Field(min_length=1), *Distinct] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    last_layers: LastLayers = 4
    factors: Factors = "B"
    max_tokens: Annotated[int, Field(ge=8, le=131_072)] = 256
    minimum_nodes: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    canaries: Annotated[int, Field(ge=0, le=100_000)] = 0
    aggregation: Aggregation = "mean"
    faulty_nodes: Annotated[int, Field(ge=0, le=10_000)] = 1
    server_optimiser: ServerOptimiser = "none"
    server_learning_rate: Annotated[Number, Field(gt=0)] = 1.0
    server_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    maximum_update_norm: Annotated[Number, Field(gt=0)] | None = None
    personal: bool = False

    @property
    def events_per_round(self) -> int:
        """How often a round's mechanism is charged: for the shared and for the personal adapter."""
        return 2 if self.personal else 1


class RetentionPolicy(Section):
    """How long the audit log is kept, in days."""

    audit_days: Annotated[int, Field(ge=180, le=36_500)] = 183


class PolicyDocument(Section):
    """Everything that a policy file may say."""

    version: Literal[1]
    organisation: Phrase
    privacy: PrivacyPolicy = PrivacyPolicy()
    departments: Annotated[Mapping[Name, DepartmentPolicy], Field(min_length=1)]
    training: TrainingPolicy = TrainingPolicy()
    pii: PiiPolicy = PiiPolicy()
    guards: GuardsPolicy = GuardsPolicy()
    sensitivity: SensitivityPolicy = SensitivityPolicy()
    roles: Annotated[Mapping[Name, RolePolicy], BeforeValidator(with_default_roles)] = Field(
        default_factory=lambda: dict(DEFAULT_ROLES)
    )
    access: AccessPolicy = AccessPolicy()
    principals: Mapping[PrincipalName, PrincipalPolicy] = Field(default_factory=dict)
    retention: RetentionPolicy = RetentionPolicy()

    @model_validator(mode="after")
    def _sections_agree(self) -> PolicyDocument:
        faults = [
            found.fault
            for found in disagreements(
                self.privacy,
                self.departments,
                self.training,
                self.pii,
                self.roles,
                self.access,
                self.principals,
            )
        ]
        if faults:
            raise PolicyError(faults)
        return self

    def department(self, name: str) -> DepartmentPolicy:
        """The department `name`. Raises UnknownDepartment."""
        found = self.departments.get(name)
        if found is None:
            known = ", ".join(self.departments)
            message = f"no department {name!r}; the policy names {known}"
            raise UnknownDepartment([Fault("departments", message)])
        return found

    def role(self, name: str) -> RolePolicy:
        """The role `name`. Raises UnknownRole."""
        found = self.roles.get(name)
        if found is None:
            message = f"no role {name!r}; the policy names {', '.join(self.roles)}"
            raise UnknownRole([Fault("roles", message)])
        return found

    def budget_of(self, name: str) -> Budget:
        """The budget of the department `name`, with the defaults filled in.

        Raises UnknownDepartment.
        """
        return resolve_budget(self.privacy, self.department(name))

    def pii_tables(self) -> dict[str, PiiRules]:
        """Every table with actions except `pii` itself, by its key."""
        return _pii_tables(self.pii, self.roles)

    def entities_named(self) -> dict[str, str]:
        """Every kind of personal data that the policy names, with the key that does.

        As :meth:`PiiPolicy.named`, the rules of the roles, and the levels of sensitivity.
        """
        roles = {key: value for key, value in self.pii_tables().items() if key.startswith("roles.")}
        of_roles = {entity: key for key, entity in reversed(keys_of(roles).items())}
        return self.sensitivity.named() | of_roles | self.pii.named()

    def examples_per_unit(self) -> int:
        """How many examples of a sampled unit may enter a step."""
        return self.privacy.records_per_subject if self.privacy.unit == "subject" else 1

    def run_epsilon(self) -> Decimal:
        """What one whole run may cost a department: the target, or the smallest budget."""
        if self.training.target_epsilon is not None:
            return self.training.target_epsilon
        return min(self.budget_of(name).epsilon for name in self.departments)


class Policy(PolicyDocument):
    """A policy in force: the document, and the SHA-256 of the very bytes that declared it.

    `digest` is 64 lower-case hexadecimal digits and agrees with `sha256sum` of the file. A file
    cannot state it.
    """

    digest: Digest


def resolve_budget(privacy: PrivacyPolicy, department: DepartmentPolicy) -> Budget:
    """The department's own figures where it names them, else those of the section `privacy`."""
    return Budget(
        epsilon=privacy.epsilon if department.epsilon is None else department.epsilon,
        delta=privacy.delta if department.delta is None else department.delta,
        block=department.block,
    )


def least_cohort(aggregation: Aggregation, faulty_nodes: int) -> int:
    """The fewest updates at which the rule bears ``faulty_nodes`` arbitrary ones.

    Median and trimmed mean: 2 f + 1 (Yin et al. 2018, arXiv 1803.01498). Krum: 2 f + 3 (Blanchard
    et al. 2017, proposition 4.2). The mean bears none, and needs one.
    """
    if aggregation == "mean":
        return 1
    return 2 * faulty_nodes + (3 if aggregation == "krum" else 1)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A fault between values that are each in bounds, with all the keys that it rests on."""

    fault: Fault
    keys: tuple[str, ...]


def disagreements(
    privacy: PrivacyPolicy,
    departments: Mapping[str, DepartmentPolicy],
    training: TrainingPolicy,
    pii: PiiPolicy,
    roles: Mapping[str, RolePolicy],
    access: AccessPolicy,
    principals: Mapping[str, PrincipalPolicy],
) -> Iterator[Disagreement]:
    """Faults that lie between sections: delta and units, nodes and departments, allow and deny,
    actions that cannot do what they say, grants to nobody.
    """
    for name, department in departments.items():
        budget = resolve_budget(privacy, department)
        units = department.declared_units
        if not budget.protects(units):
            prefix = f"departments.{name}"
            origin = " (from privacy.delta)" if department.delta is None else ""
            message = (
                f"is {budget.delta}{origin}, but must be below 1/declared_units = 1/{units} "
                f"= {1 / units:.3g}: a larger delta would allow one unit to be published outright"
            )
            keys = (f"{prefix}.delta", f"{prefix}.declared_units", "privacy.delta")
            yield Disagreement(Fault(f"{prefix}.delta", message), keys)
    if departments and training.minimum_nodes > len(departments):
        message = (
            f"is {training.minimum_nodes}, but the policy names {len(departments)} "
            f"department{'s' if len(departments) > 1 else ''}: no round could ever succeed"
        )
        key = "training.minimum_nodes"
        yield Disagreement(Fault(key, message), (key, "departments"))
    yield from _training_disagreements(training)
    for phrase in _in_both(pii.allow, pii.deny):
        message = f"{phrase!r} is also in pii.allow; keep it in one of the two"
        yield Disagreement(Fault("pii.deny", message), ("pii.allow", "pii.deny"))
    for key, message in clashes(_pii_tables(pii, roles), pii.default_action, pii.entities):
        yield Disagreement(Fault(key, message), (key,))
    for fault, at in access_faults(access, principals, tuple(roles), tuple(departments)):
        yield Disagreement(fault, at)


def _pii_tables(pii: PiiPolicy, roles: Mapping[str, RolePolicy]) -> dict[str, PiiRules]:
    tables = pii.tables()
    for name, role in roles.items():
        tables |= role.tables(name)
    return tables


def _training_disagreements(training: TrainingPolicy) -> Iterator[Disagreement]:
    least = least_cohort(training.aggregation, training.faulty_nodes)
    if training.minimum_nodes < least:
        message = (
            f"is {training.minimum_nodes}, but aggregation={training.aggregation!r} with "
            f"faulty_nodes={training.faulty_nodes} needs at least {least} contributions: raise it, "
            "or expect fewer faulty nodes"
        )
        key = "training.minimum_nodes"
        keys = (key, "training.aggregation", "training.faulty_nodes")
        yield Disagreement(Fault(key, message), keys)
    if training.server_optimiser == "none" and training.server_learning_rate != 1:
        message = (
            f"is {training.server_learning_rate}, which nothing uses with server_optimiser="
            "'none': choose 'avgm' (with server_momentum = 0 for the rate alone) or 'adam'"
        )
        key = "training.server_learning_rate"
        yield Disagreement(Fault(key, message), (key, "training.server_optimiser"))
    if training.personal and training.factors != "B":
        message = (
            f"is true, but factors={training.factors!r}: a personal adapter shares the frozen A "
            "of the run; train B alone, or leave personal out"
        )
        key = "training.personal"
        yield Disagreement(Fault(key, message), (key, "training.factors"))


def _in_both(left: Sequence[str], right: Sequence[str]) -> list[str]:
    folded = {phrase.casefold() for phrase in left}
    return [phrase for phrase in right if phrase.casefold() in folded]
