"""Pure decisions: the policy and the facts go in, a decision with its reason comes out.

Nothing here reads a file, a clock or a database, and nothing raises for a bad request: whatever
cannot be established is refused. Reasons may leave the node and the service, so they hold policy
values and public run facts only.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal, TypeGuard, get_args

from policies.model import Action, Clipping, Direction, Factors, Policy, Unit
from policies.pii import rule_for

DeclineCode = Literal[
    "unknown_department",
    "invalid_request",
    "policy_mismatch",
    "unit_not_allowed",
    "mechanism_not_allowed",
    "budget_exhausted",
]
"""Why a department declines a round, in the order in which the reasons are looked for."""

DECLINE_CODES: tuple[DeclineCode, ...] = get_args(DeclineCode)

CallCode = Literal[
    "principal_not_allowed",
    "unknown_role",
    "invalid_request",
    "operation_not_allowed",
    "release_not_allowed",
    "too_many_tokens",
]
"""Why the service refuses a call, in the order in which the reasons are looked for."""

CALL_CODES: tuple[CallCode, ...] = get_args(CallCode)


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not; `code` is "allowed", a DeclineCode or a CallCode; `reason` is a sentence."""

    allowed: bool
    code: str
    reason: str

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED = Decision(allowed=True, code="allowed", reason="within the policy")


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What the hub asks of a department in one round, as far as the policy has a say in it.

    `round` counts from 1 to `rounds`. `steps` are the DP-SGD steps of this one round, each with
    Poisson rate `sampling_rate`, noise of standard deviation noise_multiplier x clipping_norm.
    `clipping`, `noise_bands` and `examples_per_unit` say which mechanism it is.
    """

    policy_digest: str
    run_id: str
    round: int
    rounds: int
    steps: int
    sampling_rate: float
    noise_multiplier: float
    clipping_norm: float
    clipping: Clipping
    noise_bands: int
    unit: Unit
    examples_per_unit: int
    factors: Factors


def decide_round(
    policy: Policy, department: str, *, request_facts: RoundFacts, epsilon_after: float
) -> Decision:
    """May this department take part in this round?

    `policy` is the department's own. `epsilon_after` is the composed epsilon of all that the
    department spent on the policy's data block, with the requested round included, at the
    department's delta. A request may ask for less than the policy (fewer steps, a lower sampling
    rate, a smaller clipping norm), never for more, and for no other mechanism.
    """
    if department not in policy.departments:
        known = ", ".join(policy.departments)
        return _no("unknown_department", f"no department {department!r}; the policy names {known}")
    facts = request_facts
    if fault := _malformed(facts, epsilon_after):
        return _no("invalid_request", fault)
    if facts.policy_digest != policy.digest:
        return _no(
            "policy_mismatch",
            f"the request was made under policy {facts.policy_digest[:12]!r}, "
            f"this department holds {policy.digest[:12]!r}",
        )
    if facts.unit != policy.privacy.unit:
        return _no(
            "unit_not_allowed",
            f"unit={facts.unit!r} is not the policy's unit of privacy {policy.privacy.unit!r}",
        )
    if fault := _beyond(facts, policy):
        return _no("mechanism_not_allowed", fault)
    budget = policy.budget_of(department)
    if not budget.allows(epsilon_after):
        return _no(
            "budget_exhausted",
            f"epsilon={_figure(epsilon_after, budget.epsilon)} would exceed the budget of {budget.epsilon} "
            f"for department {department!r}",
        )
    return ALLOWED


def decide_call(
    policy: Policy,
    role: str,
    operation: str,
    release_id: str | None = None,
    max_tokens: int | None = None,
) -> Decision:
    """May a principal with this role make this call?

    `release_id` is the release that is to answer; None means the public base model. `max_tokens`
    is what the caller asked for; None means that the service uses the role's own bound.
    """
    grants = policy.roles.get(role)
    if grants is None:
        return _no("unknown_role", f"no role {role!r} in the policy")
    if max_tokens is not None and not _is_count(max_tokens):
        return _no(
            "invalid_request",
            f"max_tokens={_show(max_tokens)} must be a whole number of at least 1",
        )
    if operation not in grants.operations:
        return _no("operation_not_allowed", f"role {role!r} may not use {operation!r}")
    if release_id is not None and not any(fnmatchcase(release_id, p) for p in grants.releases):
        return _no("release_not_allowed", f"role {role!r} has no grant for release {release_id!r}")
    if max_tokens is not None and max_tokens > grants.max_tokens:
        return _no(
            "too_many_tokens",
            f"max_tokens={max_tokens} exceeds the {grants.max_tokens} of role {role!r}",
        )
    return ALLOWED


def action_for(
    policy: Policy,
    entity: str,
    direction: Direction = "prompt",
    role: str | None = None,
    release: str | None = None,
) -> Action:
    """What happens to an entity of this type in this direction, for holders of this role.

    What is above the sensitivity that `release` may meet is blocked, whatever the rules say.

    Rules that name the entity come before defaults, and among both: the role's for this direction,
    the role's, those of the direction, the section's. A role that the policy does not name has no
    rules of its own; training has no role.
    """
    if release is not None and not policy.sensitivity.allows(release, entity):
        return "block"
    pii = policy.pii
    sources = []
    if (own := policy.roles.get(role or "")) is not None and direction != "training":
        part = own.pii.prompt if direction == "prompt" else own.pii.answer
        sources = [
            (part.entities, part.default_action),
            (own.pii.entities, own.pii.default_action),
        ]
    general = getattr(pii, direction)
    sources += [(general.entities, general.default_action), (pii.entities, None)]
    return rule_for(tuple(sources), entity, pii.default_action)


def _no(code: DeclineCode | CallCode, reason: str) -> Decision:
    return Decision(allowed=False, code=code, reason=reason)


def _malformed(facts: RoundFacts, epsilon_after: float) -> str | None:
    """What makes the request meaningless under any policy, or None."""
    for name in ("run_id", "policy_digest"):
        if not (isinstance(getattr(facts, name), str) and getattr(facts, name)):
            return f"{name} must be a text that is not empty"
    for name in ("round", "rounds", "steps", "noise_bands", "examples_per_unit"):
        value = getattr(facts, name)
        if not _is_count(value):
            return f"{name}={_show(value)} must be a whole number of at least 1"
    if facts.round > facts.rounds:
        return f"round={facts.round} lies after the last of {facts.rounds} rounds"
    for name in ("sampling_rate", "noise_multiplier", "clipping_norm"):
        value = getattr(facts, name)
        if not _is_positive(value):
            return f"{name}={_show(value)} must be a finite number above 0"
    if facts.sampling_rate > 1:
        return f"sampling_rate={facts.sampling_rate!r} must be at most 1"
    if not _is_cost(epsilon_after):
        return f"epsilon_after={_show(epsilon_after)} must be a number of at least 0"
    return None


def _beyond(facts: RoundFacts, policy: Policy) -> str | None:
    """In what the request asks for more than the policy allows, or for something else, or None."""
    training = policy.training
    bounds: tuple[tuple[str, float, str, float], ...] = (
        ("sampling_rate", facts.sampling_rate, "training.sampling_rate", training.sampling_rate),
        ("steps", facts.steps, "training.local_steps", training.local_steps),
        ("rounds", facts.rounds, "training.rounds", training.rounds),
        ("clipping_norm", facts.clipping_norm, "training.clipping_norm", training.clipping_norm),
    )
    for name, value, key, bound in bounds:
        if value > bound:
            return f"{name}={value!r} exceeds the policy's {key}={bound!r}"
    per_unit = policy.examples_per_unit()
    key = "privacy.records_per_subject" if policy.privacy.unit == "subject" else "one a record"
    for name, asked, origin, own in (
        ("factors", facts.factors, "training.factors", training.factors),
        ("clipping", facts.clipping, "training.clipping", training.clipping),
        ("noise_bands", facts.noise_bands, "training.noise_bands", training.noise_bands),
        ("examples_per_unit", facts.examples_per_unit, key, per_unit),
    ):
        if asked != own:
            return f"{name}={_show(asked)} is not the policy's {origin}={own!r}"
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_positive(value: object) -> TypeGuard[float]:
    """A number above 0 that a float can hold: neither a NaN nor an infinity nor a flag."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def _is_cost(value: object) -> TypeGuard[float]:
    """An infinite cost is a cost and exceeds every budget; a NaN or a negative one is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _figure(value: float, bound: Decimal) -> str:
    """Four digits, or all of them where four would hide that the value lies above the bound."""
    short = f"{value:.4g}"
    return short if float(short) > bound else repr(value)


def _show(value: object) -> str:
    """A refused value, in few characters whatever it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "(a number of more than 64 bits)"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
