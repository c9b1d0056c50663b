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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from policies.errors import Fault, PolicyError, UnknownDepartment, UnknownRole
from policies.limits import Budget as Budget
from policies.limits import Delta, Epsilon, Number
from policies.limits import rounded_down as rounded_down

Action = Literal["pseudonym", "redact", "keep", "refuse"]
"""What happens to an entity found in a prompt: `pseudonym` puts a consistent placeholder that is
restored in the answer, `redact` puts <ENTITY> for good, `keep` leaves it, `refuse` refuses the
request."""

Language = Literal["en", "zh"]

Operation = Literal[
    "chat",
    "completions",
    "models",
    "redact",
    "budgets",
    "releases",
    "audit",
    "metrics",
    "keys",
]
"""What a principal can ask of the service. No operation reads another principal's prompts."""

Unit = Literal["record", "subject"]
Clipping = Literal["flat", "automatic", "adaptive"]
Optimiser = Literal["adam", "sgd"]
Factors = Literal["B", "AB"]

T = TypeVar("T")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"names {value!r} twice")
    return values


def _all_is_none(value: object) -> object:
    return None if value == "all" else value


# TOML has no null: a file says "all" where the object holds None.
LastLayers = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None,
    BeforeValidator(_all_is_none),
    PlainSerializer(lambda value: "all" if value is None else value, when_used="json"),
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}\z")]
EntityName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,59}\z")]
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,100}\z")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]

Distinct = (BeforeValidator(_as_tuple), AfterValidator(_distinct))

BlockName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}\z")]


class Section(BaseModel):
    """A part of the policy: frozen, no unknown keys, no silent conversions, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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


class PiiPolicy(Section):
    """What counts as personal data, and what happens to it.

    `threshold` is the least score of a finding. `allow` lists texts that are never personal data,
    `deny` texts that always are (both compared without regard to case by the detector).
    """

    languages: Annotated[tuple[Language, ...], Field(min_length=1), *Distinct] = ("en", "zh")
    threshold: Annotated[Number, Field(ge=0, le=1)] = 0.5
    entities: Mapping[EntityName, Action] = Field(default_factory=dict)
    default_action: Action = "pseudonym"
    allow: Annotated[tuple[Phrase, ...], *Distinct] = ()
    deny: Annotated[tuple[Phrase, ...], *Distinct] = ()


class RolePolicy(Section):
    """What the holder of a key with this role may do.

    `releases` are shell-style patterns over release ids (`fnmatch.fnmatchcase`); they do not
    concern the public base model. `max_tokens` bounds the tokens of one answer.
    """

    operations: Annotated[tuple[Operation, ...], *Distinct]
    releases: Annotated[tuple[Phrase, ...], *Distinct] = ("*",)
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 1024


class RetentionPolicy(Section):
    """How long the audit log is kept, in days."""

    audit_days: Annotated[int, Field(ge=180, le=36_500)] = 183


DEFAULT_ROLES: Mapping[str, RolePolicy] = {
    "app": RolePolicy(operations=("chat", "completions", "models", "redact")),
    "node": RolePolicy(operations=("models",)),
    "compliance": RolePolicy(operations=("budgets", "releases", "audit", "metrics", "models")),
    "admin": RolePolicy(
        operations=(
            "chat",
            "completions",
            "models",
            "redact",
            "budgets",
            "releases",
            "audit",
            "metrics",
            "keys",
        )
    ),
}
"""Least privilege: a role that the file does not name keeps these grants."""


def _with_default_roles(given: object) -> object:
    """Lay the file's roles over the defaults, key by key."""
    if not isinstance(given, Mapping):
        return given
    merged: dict[Any, object] = dict(DEFAULT_ROLES)
    for name, role in given.items():
        if name in DEFAULT_ROLES and isinstance(role, Mapping):
            merged[name] = {**dict(DEFAULT_ROLES[name]), **role}
        else:
            merged[name] = role
    return merged


class PolicyDocument(Section):
    """Everything that a policy file may say."""

    version: Literal[1]
    organisation: Phrase
    privacy: PrivacyPolicy = PrivacyPolicy()
    departments: Annotated[Mapping[Name, DepartmentPolicy], Field(min_length=1)]
    training: TrainingPolicy = TrainingPolicy()
    pii: PiiPolicy = PiiPolicy()
    roles: Annotated[Mapping[Name, RolePolicy], BeforeValidator(_with_default_roles)] = Field(
        default_factory=lambda: dict(DEFAULT_ROLES)
    )
    retention: RetentionPolicy = RetentionPolicy()

    @model_validator(mode="after")
    def _sections_agree(self) -> PolicyDocument:
        faults = [
            found.fault
            for found in disagreements(self.privacy, self.departments, self.training, self.pii)
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
) -> Iterator[Disagreement]:
    """Faults that lie between sections: delta and units, nodes and departments, allow and deny."""
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
    for phrase in _in_both(pii.allow, pii.deny):
        message = f"{phrase!r} is also in pii.allow; keep it in one of the two"
        yield Disagreement(Fault("pii.deny", message), ("pii.allow", "pii.deny"))


def _in_both(left: Sequence[str], right: Sequence[str]) -> list[str]:
    folded = {phrase.casefold() for phrase in left}
    return [phrase for phrase in right if phrase.casefold() in folded]
