"""A department's own limits: each one declines by its code, and none allows more than the policy."""

from dataclasses import replace
from datetime import datetime

import pytest

from policies.errors import PolicyError
from policies.load import parse_policy
from policies.node import LIMIT_CODES, NodeLimits, RunFacts, Window, decide_limits

MONDAY = datetime(2026, 1, 5, 21, 30)  # noqa: DTZ001 - a local wall clock
FACTS = RunFacts(
    account="ada",
    code_digest="c" * 64,
    base_model="smollm2",
    base_model_digest="b" * 64,
    minimum_nodes=3,
    rounds=4,
    steps=5,
    noise_multiplier=0.9,
    clipping_norm=0.5,
)


def test_without_limits_everything_is_left_to_the_policy() -> None:
    """A limit that is not named does not limit."""
    assert decide_limits(NodeLimits(), FACTS, MONDAY)


@pytest.mark.parametrize(
    ("key", "within", "beyond", "code"),
    [
        ("minimum_noise_multiplier", 0.9, 0.91, "noise_too_low"),
        ("maximum_clipping_norm", 0.5, 0.49, "clipping_norm_too_high"),
        ("minimum_cohort", 3, 4, "cohort_too_small"),
        ("maximum_rounds", 4, 3, "too_many_rounds"),
        ("maximum_steps", 5, 4, "too_many_steps"),
        ("base_models", ["smollm2"], ["other"], "base_model_not_allowed"),
        ("base_models", ["b" * 64], [], "base_model_not_allowed"),
        ("accounts", ["ada", "bob"], ["bob"], "account_not_allowed"),
        ("code", ["c" * 64], ["d" * 64], "code_not_allowed"),
        ("hours", ["mon 20:00-06:00"], ["tue 20:00-06:00"], "outside_allowed_hours"),
    ],
)
def test_each_limit_declines_by_its_code(
    key: str, within: object, beyond: object, code: str
) -> None:
    """The bound itself is allowed; what lies beyond is declined, naming the department's key."""
    assert decide_limits(NodeLimits.read({key: within}), FACTS, MONDAY)
    decision = decide_limits(NodeLimits.read({key: beyond}), FACTS, MONDAY)
    assert not decision
    assert decision.code == code
    assert decision.code in LIMIT_CODES


def test_a_figure_that_is_none_is_declined() -> None:
    """A NaN is neither at least nor at most anything."""
    nan = float("nan")
    limits = NodeLimits(minimum_noise_multiplier=0.1)
    assert not decide_limits(limits, replace(FACTS, noise_multiplier=nan), MONDAY)
    limits = NodeLimits(maximum_clipping_norm=9.0)
    assert not decide_limits(limits, replace(FACTS, clipping_norm=nan), MONDAY)


@pytest.mark.parametrize(
    ("window", "day", "hour", "holds"),
    [
        ("mon-fri 20:00-06:00", 5, 20, True),  # Monday evening
        ("mon-fri 20:00-06:00", 5, 19, False),
        ("mon-fri 20:00-06:00", 5, 5, False),  # Monday morning belongs to Sunday
        ("mon-fri 20:00-06:00", 10, 5, True),  # Saturday morning belongs to Friday
        ("mon-fri 20:00-06:00", 10, 6, False),
        ("sat,sun 00:00-24:00", 11, 23, True),
        ("sat,sun 00:00-24:00", 5, 0, False),
        ("sun-tue 09:00-10:00", 5, 9, True),
        ("sun-tue 09:00-10:00", 7, 9, False),
        ("22:00-05:00", 8, 4, True),
        ("22:00-05:00", 8, 5, False),
    ],
)
def test_hours_are_local_and_may_cross_midnight(
    window: str, day: int, hour: int, holds: bool
) -> None:
    """A window past midnight belongs to the day on which it begins; its end is outside."""
    moment = datetime(2026, 1, day, hour)  # noqa: DTZ001 - a local wall clock
    assert Window.parse(window).holds(moment) is holds


def test_every_fault_of_the_table_is_told_at_once() -> None:
    """Keys that are unknown, malformed or out of bounds are each named."""
    table = {"hours": ["mon 5-6", "xyz 01:00-02:00"], "minimum_noise": 1, "maximum_rounds": 0}
    with pytest.raises(PolicyError) as caught:
        NodeLimits.read(table, source="node.toml")
    told = str(caught.value)
    for part in ("node.toml", "limits.hours[0]", "limits.minimum_noise", "limits.maximum_rounds"):
        assert part in told


def test_the_policys_cohort_is_the_least() -> None:
    """A department may ask for a larger cohort than its policy, never for a smaller one."""
    text = b'version = 1\norganisation = "X"\n[departments.a]\n[departments.b]\n[departments.c]\n'
    policy = parse_policy(text + b"[training]\nminimum_nodes = 2\n", "toml")
    assert NodeLimits().under(policy).minimum_cohort == 2
    assert NodeLimits(minimum_cohort=1).under(policy).minimum_cohort == 2
    assert NodeLimits(minimum_cohort=3).under(policy).minimum_cohort == 3
