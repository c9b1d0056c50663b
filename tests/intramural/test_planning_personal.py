"""What a run with personal adapters would cost."""

from decimal import Decimal

import pytest

from intramural.planning import RunShape, plan_costs
from policies.load import parse_policy
from policies.model import Policy
from privacy.dp.accounting import epsilon
from privacy.dp.pricing import round_event


def policy(personal: bool) -> Policy:
    text = 'version = 1\norganisation = "E"\n[departments.hr]\n[training]\ntarget_epsilon = 4.0\n'
    return parse_policy(f"{text}personal = {str(personal).lower()}\n".encode(), "toml")


def test_plan_prices_both_adapters_of_a_round() -> None:
    """Each round is two events, under more noise, within the same target."""
    shape = RunShape.of(policy(True))
    (cost,) = plan_costs(policy(True), shape, {})
    event = round_event(shape.training, 500, shape.noise_multiplier)
    assert cost.run == epsilon([event] * 2 * shape.training.rounds, 1e-5)
    assert cost.run == pytest.approx(4.0, rel=0.02)
    assert cost.run <= 4.0
    assert shape.noise_multiplier > RunShape.of(policy(False)).noise_multiplier


def test_rounds_that_fit_are_counted_with_both_charges() -> None:
    """A budget below the run's cost pays for whole rounds of two events, and for no more."""
    small = policy(True).model_copy(
        update={"privacy": policy(True).privacy.model_copy(update={"epsilon": Decimal("3.2")})}
    )
    shape = RunShape.of(policy(True))
    (cost,) = plan_costs(small, shape, {})
    event = round_event(shape.training, 500, shape.noise_multiplier)
    affordable = cost.affordable_rounds
    assert 0 < affordable < shape.training.rounds
    assert epsilon([event] * 2 * affordable, 1e-5) <= 3.2
    assert epsilon([event] * 2 * (affordable + 1), 1e-5) > 3.2
