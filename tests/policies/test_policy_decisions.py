"""Decisions: allowed exactly within the policy, refused with a code and a reason everywhere else."""

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.decisions import (
    CALL_CODES,
    DECLINE_CODES,
    RoundFacts,
    action_for,
    decide_call,
    decide_round,
)
from policies.load import parse_policy
from policies.model import Direction, Operation

POLICY = parse_policy(
    b"""
    version = 1
    organisation = "Example"
    [departments.hr]
    epsilon = 8
    [departments.finance]
    epsilon = 2
    [pii]
    default_action = "pseudonym"
    [pii.entities]
    CREDIT_CARD = "refuse"
    URL = "keep"
    [roles.app]
    releases = ["r-1*", "r-abc"]
    max_tokens = 100
    """,
    "toml",
)
TRAINING = POLICY.training
FACTS = RoundFacts(
    policy_digest=POLICY.digest,
    run_id="run-1",
    round=1,
    rounds=TRAINING.rounds,
    steps=TRAINING.local_steps,
    sampling_rate=TRAINING.sampling_rate,
    noise_multiplier=1.1,
    clipping_norm=TRAINING.clipping_norm,
    clipping="flat",
    noise_bands=1,
    unit="record",
    examples_per_unit=1,
    factors="B",
)


def decide(department: str = "hr", epsilon_after: Any = 7.9, **changes: Any) -> tuple[str, str]:
    decision = decide_round(
        POLICY,
        department,
        request_facts=replace(FACTS, **changes),
        epsilon_after=epsilon_after,
    )
    assert decision.allowed == (decision.code == "allowed")
    assert bool(decision) == decision.allowed
    return decision.code, decision.reason


def test_a_round_within_the_policy() -> None:
    """What the policy plans is allowed, up to and including the last of the budget."""
    assert decide()[0] == "allowed"
    assert decide(epsilon_after=8.0)[0] == "allowed"
    assert decide(epsilon_after=8)[0] == "allowed"
    assert decide(department="finance", epsilon_after=2.0)[0] == "allowed"


def test_a_request_may_ask_for_less() -> None:
    """Fewer steps, a lower rate, fewer rounds and a smaller clipping norm only tighten."""
    code, _ = decide(steps=1, sampling_rate=0.01, rounds=2, clipping_norm=0.1)
    assert code == "allowed"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"department": "legal"}, "unknown_department", "'legal'; the policy names hr, finance"),
        ({"policy_digest": "0" * 64}, "policy_mismatch", "policy '000000000000'"),
        ({"unit": "subject"}, "unit_not_allowed", "unit='subject'"),
        ({"sampling_rate": 0.26}, "mechanism_not_allowed", "training.sampling_rate=0.1"),
        (
            {"steps": 7},
            "mechanism_not_allowed",
            "steps=7 exceeds the policy's training.local_steps",
        ),
        ({"rounds": 5}, "mechanism_not_allowed", "training.rounds=4"),
        ({"clipping_norm": 0.51}, "mechanism_not_allowed", "training.clipping_norm=0.5"),
        ({"factors": "AB"}, "mechanism_not_allowed", "factors='AB'"),
        (
            {"clipping": "adaptive"},
            "mechanism_not_allowed",
            "clipping='adaptive' is not the policy's training.clipping='flat'",
        ),
        (
            {"noise_bands": 2},
            "mechanism_not_allowed",
            "noise_bands=2 is not the policy's training.noise_bands=1",
        ),
        (
            {"examples_per_unit": 4},
            "mechanism_not_allowed",
            "examples_per_unit=4 is not the policy's one a record=1",
        ),
        ({"noise_bands": 0}, "invalid_request", "noise_bands=0"),
        ({"examples_per_unit": 1.0}, "invalid_request", "examples_per_unit=1.0"),
        ({"run_id": ""}, "invalid_request", "run_id"),
        ({"round": 0}, "invalid_request", "round=0"),
        ({"round": 5}, "invalid_request", "round=5 lies after the last of 4 rounds"),
        ({"steps": 0}, "invalid_request", "steps=0"),
        ({"steps": True}, "invalid_request", "steps=True"),
        ({"steps": 2.0}, "invalid_request", "steps=2.0"),
        ({"steps": 10**5000}, "invalid_request", "more than 64 bits"),
        ({"sampling_rate": 0.0}, "invalid_request", "sampling_rate=0.0"),
        ({"sampling_rate": 1.01}, "invalid_request", "at most 1"),
        ({"noise_multiplier": 0.0}, "invalid_request", "noise_multiplier=0.0"),
        ({"noise_multiplier": -1.0}, "invalid_request", "noise_multiplier=-1.0"),
        ({"noise_multiplier": 10**400}, "invalid_request", "noise_multiplier="),
        ({"noise_multiplier": "1" * 99}, "invalid_request", "'1111"),
        ({"clipping_norm": 0}, "invalid_request", "clipping_norm=0"),
        ({"epsilon_after": -0.1}, "invalid_request", "epsilon_after=-0.1"),
        ({"epsilon_after": math.nan}, "invalid_request", "epsilon_after=nan"),
        ({"epsilon_after": None}, "invalid_request", "epsilon_after=None"),
        ({"epsilon_after": math.inf}, "budget_exhausted", "epsilon=inf"),
    ],
)
def test_a_round_outside_the_policy(changes: dict[str, Any], code: str, words: str) -> None:
    """Each way out of the policy has its code and a reason that names the value and the bound."""
    found, reason = decide(**changes)
    assert (found, words in reason) == (code, True), reason


@pytest.mark.parametrize("name", ["sampling_rate", "noise_multiplier", "clipping_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_mechanism_without_finite_numbers(name: str, value: float) -> None:
    """A NaN or an infinity is never compared with a bound: it is refused as such."""
    assert decide(**{name: value})[0] == "invalid_request"


def test_the_reason_names_cost_budget_and_department() -> None:
    """The one sentence that a department will ask about names the figures."""
    _, reason = decide(epsilon_after=9.2)
    assert reason == "epsilon=9.2 would exceed the budget of 8 for department 'hr'"


@pytest.mark.parametrize(
    ("budget", "epsilon", "allowed"),
    [
        ("8.1", 8.1, True),  # the number next to 8.1 lies below it
        ("8.1", math.nextafter(8.1, 9), False),
        ("0.1", 0.1, False),  # the number next to 0.1 lies above it
        ("0.1", math.nextafter(0.1, 0), True),
    ],
)
def test_the_budget_is_the_decimal_that_is_written(
    budget: str, epsilon: float, allowed: bool
) -> None:
    """A cost is compared with the very text of the policy, not with the binary number next to it."""
    text = f'version = 1\norganisation = "x"\n[departments.hr]\nepsilon = {budget}\n'
    policy = parse_policy(text.encode(), "toml")
    facts = replace(FACTS, policy_digest=policy.digest)
    decision = decide_round(policy, "hr", request_facts=facts, epsilon_after=epsilon)
    assert decision.allowed is allowed
    assert allowed or f"the budget of {budget} " in decision.reason
    assert (Decimal(epsilon) <= Decimal(budget)) is allowed


def test_a_subject_brings_as_many_records_as_the_policy_says() -> None:
    """Under unit "subject" the bound on a subject's records must be the policy's own."""
    text = 'version = 1\norganisation = "x"\n[privacy]\nunit = "subject"\n[departments.hr]\n'
    policy = parse_policy(text.encode(), "toml")
    facts = replace(FACTS, policy_digest=policy.digest, unit="subject", examples_per_unit=4)
    assert decide_round(policy, "hr", request_facts=facts, epsilon_after=1.0).allowed
    more = replace(facts, examples_per_unit=5)
    reason = decide_round(policy, "hr", request_facts=more, epsilon_after=1.0).reason
    assert reason == "examples_per_unit=5 is not the policy's privacy.records_per_subject=4"


@settings(deadline=None)
@given(st.floats(min_value=0, allow_nan=False))
def test_the_budget_is_a_sharp_bound(epsilon: float) -> None:
    """A round is allowed if and only if its composed cost is at most the budget, and the figure
    shown in a refusal always lies above the budget."""
    code, reason = decide(epsilon_after=epsilon)
    assert code == ("allowed" if epsilon <= 8.0 else "budget_exhausted")
    if code != "allowed":
        assert float(reason.split("=")[1].split()[0]) > 8.0


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "record", "subject", "B", "AB", "adaptive", POLICY.digest]),
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {name: st.just(getattr(FACTS, name)) | anything for name in FACTS.__slots__}
    ),
    anything,
)
def test_only_what_is_within_the_policy_is_allowed(facts: dict[str, Any], epsilon: Any) -> None:
    """Whatever the hub sends, nothing is raised, and what is allowed satisfies every bound."""
    code, _ = decide(epsilon_after=epsilon, **facts)
    assert code == "allowed" or code in DECLINE_CODES
    if code == "allowed":
        assert facts["policy_digest"] == POLICY.digest
        assert facts["unit"] == "record"
        assert (facts["factors"], facts["clipping"]) == ("B", "flat")
        assert facts["noise_bands"] == facts["examples_per_unit"] == 1
        assert 1 <= facts["round"] <= facts["rounds"] <= TRAINING.rounds
        assert 1 <= facts["steps"] <= TRAINING.local_steps
        assert 0 < facts["sampling_rate"] <= TRAINING.sampling_rate
        assert 0 < facts["clipping_norm"] <= TRAINING.clipping_norm
        assert 0 < facts["noise_multiplier"] < math.inf
        assert 0 <= epsilon <= 8.0


@pytest.mark.parametrize("role", ["app", "node", "compliance", "admin", "root", ""])
@pytest.mark.parametrize("operation", [*get_args(Operation), "prompts", ""])
def test_operations_are_those_of_the_role(role: str, operation: str) -> None:
    """For every role and operation: allowed exactly where the role's grants name it."""
    decision = decide_call(POLICY, role, operation)
    if role not in POLICY.roles:
        assert decision.code == "unknown_role"
    elif operation in POLICY.roles[role].operations:
        assert decision.allowed
    else:
        assert decision.code == "operation_not_allowed"


@pytest.mark.parametrize(
    ("release", "allowed"),
    [(None, True), ("r-1", True), ("r-12f", True), ("r-abc", True), ("r-2", False), ("R-1", False)],
)
def test_releases_follow_the_patterns(release: str | None, allowed: bool) -> None:
    """A release needs a pattern that matches it, case included; the base model needs none."""
    decision = decide_call(POLICY, "app", "chat", release)
    assert decision.code == ("allowed" if allowed else "release_not_allowed")


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        (None, "allowed"),
        (1, "allowed"),
        (100, "allowed"),
        (101, "too_many_tokens"),
        (0, "invalid_request"),
        (-4, "invalid_request"),
        (True, "invalid_request"),
        (2.5, "invalid_request"),
        pytest.param(10**5000, "invalid_request", id="huge"),
    ],
)
def test_max_tokens(tokens: Any, code: str) -> None:
    """A call may ask for one token up to the role's bound."""
    decision = decide_call(POLICY, "app", "chat", max_tokens=tokens)
    assert decision.code == code
    assert code == "allowed" or code in CALL_CODES


def test_actions() -> None:
    """An entity's own rule comes before the default action, and old names are the new actions."""
    assert action_for(POLICY, "CREDIT_CARD") == "block"
    assert action_for(POLICY, "URL") == "allow"
    assert action_for(POLICY, "PERSON") == "pseudonym"


LAYERED = parse_policy(
    b"""
    version = 1
    organisation = "Example"
    [departments.hr]
    [pii]
    default_action = "replace"
    [pii.entities]
    CREDIT_CARD = "block"
    URL = "allow"
    [pii.training]
    default_action = "hash"
    [pii.training.entities]
    PERSON = "pseudonym"
    URL = "redact"
    [pii.answer.entities]
    CREDIT_CARD = "mask"
    [roles.app.pii]
    default_action = "mask"
    [roles.app.pii.entities]
    URL = "replace"
    [roles.app.pii.answer]
    default_action = "redact"
    [roles.admin.pii.prompt.entities]
    CREDIT_CARD = "encrypt"
    """,
    "toml",
)


@pytest.mark.parametrize(
    ("entity", "direction", "role", "action"),
    [
        ("PERSON", "prompt", None, "replace"),
        ("PERSON", "training", None, "pseudonym"),
        ("PHONE_NUMBER", "training", "app", "hash"),
        ("URL", "training", None, "redact"),
        ("CREDIT_CARD", "training", None, "block"),
        ("URL", "prompt", "admin", "allow"),
        ("URL", "prompt", "app", "replace"),
        ("URL", "answer", "app", "replace"),
        ("PERSON", "prompt", "app", "mask"),
        ("PERSON", "answer", "app", "redact"),
        ("CREDIT_CARD", "prompt", "app", "block"),
        ("CREDIT_CARD", "answer", "app", "mask"),
        ("CREDIT_CARD", "prompt", "admin", "encrypt"),
        ("CREDIT_CARD", "answer", "admin", "mask"),
        ("CREDIT_CARD", "prompt", "nobody", "block"),
    ],
)
def test_actions_by_direction_and_role(
    entity: str, direction: Direction, role: str | None, action: str
) -> None:
    """A rule for the entity beats every default; a role beats a direction, which beats the rest."""
    assert action_for(LAYERED, entity, direction, role) == action
