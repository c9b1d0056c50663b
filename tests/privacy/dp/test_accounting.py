"""What mechanism events cost."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.dp.accounting import (
    ACCOUNTANT,
    GRID,
    PrivacyLoss,
    calibrate_noise,
    epsilon,
    privacy_loss,
)
from privacy.dp.bounds import renyi_upper_bound
from privacy.dp.composition import Distributions
from privacy.dp.events import (
    AdaptiveClipGaussian,
    BandedGaussian,
    MechanismEvent,
    PoissonGaussian,
    event_from_json,
)
from privacy.errors import AccountingDisagrees, EventInvalid

DELTA = 1e-5


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "expected"),
    [(64 / 2000, 0.8, 300, 5.95), (256 / 10000, 1.0, 400, 3.25), (0.1, 1.0, 1, 1.68)],
)
def test_epsilon_agrees_with_the_reference_to_two_decimals(
    rate: float, noise: float, steps: int, expected: float
) -> None:
    """Figures of the PLD accountant on its finest grid, add-or-remove-one, delta 1e-5."""
    assert epsilon([PoissonGaussian(rate, noise, steps)], DELTA) == pytest.approx(
        expected, abs=5e-3
    )


def test_without_sampling_it_is_the_gaussian_mechanism() -> None:
    """Ten full-batch steps at noise 5 cost what Balle and Wang (2018), theorem 8, says exactly."""
    from statistics import NormalDist

    cost = epsilon([PoissonGaussian(1.0, 5.0, 10)], DELTA)
    mu, cdf = 10**0.5 / 5.0, NormalDist().cdf
    from math import exp

    def delta_at(value: float) -> float:
        return cdf(mu / 2 - value / mu) - exp(value) * cdf(-mu / 2 - value / mu)

    assert delta_at(cost) <= DELTA <= delta_at(cost - 0.005)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([0.01, 0.25, 1.0]))
def test_more_steps_never_cost_less(steps: int, more: int, rate: float) -> None:
    """Epsilon is monotone in the number of steps."""
    few = epsilon([PoissonGaussian(rate, 1.2, steps)], DELTA)
    assert few <= epsilon([PoissonGaussian(rate, 1.2, steps + more)], DELTA)


def test_history_composes_in_any_order_and_split() -> None:
    """One event of 30 steps costs what five of 6 steps cost, whatever stands between them."""
    six, other = PoissonGaussian(0.25, 1.5, 6), PoissonGaussian(0.1, 1.0, 9)
    whole = epsilon([PoissonGaussian(0.25, 1.5, 30), other], DELTA)
    assert epsilon([six, six, other, six, six, six], DELTA) == whole
    assert whole > epsilon([six] * 5, DELTA) > epsilon([six], DELTA) > epsilon([], DELTA) == 0


def test_hopeless_noise_is_priced_at_once_and_not_understated() -> None:
    """Noise of 0.02 costs thousands; the answer does not take minutes."""
    assert epsilon([PoissonGaussian(0.25, 0.02, 24)], DELTA) > 20_000


@pytest.mark.parametrize(
    ("rate", "steps", "target"), [(0.25, 24, 8.0), (0.05, 100, 1.0), (0.25, 24, 3.0), (1.0, 1, 0.5)]
)
def test_calibrated_noise_meets_the_bound_and_is_tight(
    rate: float, steps: int, target: float
) -> None:
    """At most the target, within one percent of it, and one grid point less would pass it."""

    def plan(noise: float) -> list[PoissonGaussian]:
        return [PoissonGaussian(rate, noise, steps)]

    noise = calibrate_noise(plan, target, DELTA)
    cost = epsilon(plan(noise), DELTA)
    assert 0.99 * target <= cost <= target
    assert noise == round(noise * GRID) / GRID
    assert epsilon(plan(noise - 1 / GRID), DELTA) > target


def test_calibration_prices_every_mechanism_of_the_plan() -> None:
    """The history counts, and so does what the mechanism releases beside the gradients."""
    past = PoissonGaussian(0.25, 2.0, 8)

    def plan(noise: float) -> list[MechanismEvent]:
        return [past, AdaptiveClipGaussian(0.25, noise, 8, 4.0), BandedGaussian(0.1, noise, 9, 4)]

    noise = calibrate_noise(plan, 6.0, DELTA)
    assert epsilon(plan(noise), DELTA) <= 6.0 < epsilon(plan(noise - 1 / GRID), DELTA)


def test_an_unreachable_bound_says_the_way_out() -> None:
    """No noise makes epsilon 1e-9; the message names the bound and what to change."""
    with pytest.raises(EventInvalid, match=r"epsilon=1e-09 .* raise epsilon or delta"):
        calibrate_noise(lambda noise: [PoissonGaussian(1.0, noise, 10**6)], 1e-9, 1e-9)
    with pytest.raises(EventInvalid, match="raise the expected batch"):
        calibrate_noise(lambda noise: [AdaptiveClipGaussian(1.0, noise, 9, 0.1)], 1.0, DELTA)
    for rate, target, delta in ((0.25, 0.0, DELTA), (0.25, 1.0, 0.0), (0.0, 1.0, DELTA)):
        with pytest.raises(EventInvalid):
            calibrate_noise(
                lambda noise, rate=rate: [PoissonGaussian(rate, noise, 24)], target, delta
            )


def test_a_price_says_what_it_means() -> None:
    """Epsilon never travels without its delta, its adjacency and its accountant."""
    loss = privacy_loss([PoissonGaussian(0.25, 1.5, 24)], DELTA)
    assert loss == PrivacyLoss(epsilon([PoissonGaussian(0.25, 1.5, 24)], DELTA), DELTA)
    assert (loss.adjacency, loss.accountant) == ("add_or_remove_one", ACCOUNTANT)


@pytest.mark.parametrize("understated", [0.0, 2.5, 4.2])
def test_a_figure_that_an_attack_refutes_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, understated: float
) -> None:
    """Where distributions come out too small, nothing is priced; 4.61 is right, 4.31 is provable."""
    monkeypatch.setattr(Distributions, "epsilon", lambda *_: understated)
    with pytest.raises(AccountingDisagrees, match="an attack on these 1 mechanisms"):
        privacy_loss([PoissonGaussian(0.25, 1.5, 24)], 1.01e-5)


def test_an_overstated_figure_gives_way_to_the_renyi_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are upper bounds, so the smaller one is the answer."""
    monkeypatch.setattr(Distributions, "epsilon", lambda *_: math.inf)
    assert privacy_loss([PoissonGaussian(0.25, 1.5, 24)], 1.02e-5).epsilon == renyi_upper_bound(
        [(0.25, 1.5, 24)], 1.02e-5
    )


@pytest.mark.parametrize(
    "fields",
    [
        (0.0, 1.0, 1),
        (1.1, 1.0, 1),
        (0.5, 0.0, 1),
        (0.5, -1.0, 1),
        (0.5, float("nan"), 1),
        (0.5, float("inf"), 1),
        (0.5, 1.0, 0),
        (0.5, 1.0, 1.5),
        (0.5, 1.0, True),
        ("0.5", 1.0, 1),
    ],
)
def test_an_event_that_cannot_be_priced_cannot_exist(fields: tuple[object, ...]) -> None:
    """Sampling rate in (0, 1], noise above 0, whole steps."""
    with pytest.raises(EventInvalid):
        PoissonGaussian(*fields)


@given(st.floats(0, 1, exclude_min=True), st.floats(1e-6, 1e6), st.integers(1, 10**9))
def test_an_event_comes_back_from_json(rate: float, noise: float, steps: int) -> None:
    """Stored events are read back to the last bit."""
    event = PoissonGaussian(rate, noise, steps)
    assert event_from_json(event.to_json()) == event


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"mechanism": "laplace"}, {"seed": 1}, {"steps": "6"}]
)
def test_an_event_of_unknown_meaning_is_refused(change: dict[str, object]) -> None:
    """A reader never guesses."""
    with pytest.raises(EventInvalid):
        event_from_json(PoissonGaussian(0.5, 1.0, 6).to_json() | change)


def test_verifying_needs_neither_accountant_nor_models() -> None:
    """Importing the proofs loads no torch, no dp-accounting, no Presidio and no Alembic."""
    code = (
        "import sys, privacy.release, privacy.audit.log, privacy.ledger.ledger, privacy.exchange;"
        "bad={'torch','dp_accounting','presidio_analyzer','alembic','safetensors'}&set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
