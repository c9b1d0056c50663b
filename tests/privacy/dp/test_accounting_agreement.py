"""The accountant beside those of others, and beside figures that were published."""

import math
import warnings

import dp_accounting
import pytest
from dp_accounting import pld, rdp

from privacy.dp.accounting import epsilon
from privacy.dp.bounds import attack_delta, renyi_upper_bound
from privacy.dp.events import PoissonGaussian

GRID = [
    # rate, noise, steps, delta
    (0.1, 1.0, 1, 1e-5),
    (0.01, 1.1, 1, 1e-6),
    (1.0, 5.0, 10, 1e-5),
    (1.0, 1.0, 1, 1e-6),
    (0.9, 3.0, 10, 1e-5),
    (0.25, 1.5, 24, 1e-5),
    (0.032, 0.8, 300, 1e-5),
    (0.0256, 1.0, 400, 1e-6),
    (0.5, 6.0, 500, 1e-6),
    (1e-3, 0.7, 1000, 1e-6),
    (0.01, 1.1, 5000, 1e-5),
    (0.02, 3.0, 3000, 1e-9),
    (0.01, 4.0, 10_000, 1e-5),
    (1e-5, 1.0, 100_000, 1e-6),
    (1e-6, 0.6, 1000, 1e-7),
]
PRV_ERROR = 0.01
PER_STEP = 4e-6
"""What rounding to the grid of 1e-3 may add to epsilon, per step."""


def reference(
    accountant: dp_accounting.PrivacyAccountant, case: tuple[float, float, int, float]
) -> float:
    rate, noise, steps, delta = case
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    return float(accountant.compose(step, steps).get_epsilon(delta))


def prv(history: list[tuple[float, float, int]], delta: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = history
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own numpy usage
        return float(accountant.get_epsilon(delta, eps_error=PRV_ERROR, delta_error=delta / 1000))


@pytest.mark.parametrize("case", GRID)
def test_three_accountants_agree(case: tuple[float, float, int, float]) -> None:
    """Not below the tightest upper bound of others by more than its stated error, nor far above.

    dp-accounting's distributions on a ten times finer grid (it and ours may round differently by
    1e-4), Opacus' PRV within its error of 0.01 (Gopi et al. 2021, arXiv 2106.02848), and Rényi.
    """
    rate, noise, steps, delta = case
    ours = epsilon([PoissonGaussian(rate, noise, steps)], delta)
    fine = reference(pld.PLDAccountant(value_discretization_interval=1e-4), case)
    other = prv([(noise, rate, steps)], delta)
    renyi = reference(rdp.RdpAccountant(), case)
    assert ours >= fine - 1e-4 - PER_STEP / 10 * steps
    assert ours >= other - 2 * PRV_ERROR
    assert ours <= min(fine, other, renyi) + 5e-4 + PER_STEP * steps
    assert ours <= renyi


def test_mixed_histories_agree() -> None:
    """Events of several parameters compose to what Opacus' PRV and dp-accounting's PLD say."""
    history = [(1.0, 0.0256, 200), (0.8, 0.0256, 100), (1.3, 0.05, 50), (4.0, 1.0, 2)]
    ours = epsilon([PoissonGaussian(rate, noise, steps) for noise, rate, steps in history], 1e-5)
    fine = pld.PLDAccountant(value_discretization_interval=1e-4)
    for noise, rate, steps in history:
        reference(fine, (rate, noise, steps, 1e-5))
    other = prv(history, 1e-5)
    assert other - 2 * PRV_ERROR <= ours <= other + 1e-3
    assert ours == pytest.approx(fine.get_epsilon(1e-5), abs=2e-3)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "published"),
    [
        # Abadi et al. 2016, arXiv 1607.00133, section 3.2: moments accountant.
        (0.01, 4.0, 10_000, 1.26),
        # TensorFlow Privacy's tutorial on MNIST (60 000 records, batches of 256; 15, 60 and 45
        # epochs): Rényi accountant.
        (256 / 60_000, 1.3, 15 * 60_000 // 256, 1.19),
        (256 / 60_000, 1.1, 60 * 60_000 // 256, 3.01),
        (256 / 60_000, 0.7, 45 * 60_000 // 256, 7.10),
    ],
)
def test_at_or_below_published_upper_bounds(
    rate: float, noise: float, steps: int, published: float
) -> None:
    """At delta 1e-5, the looser accountants of the literature report more, and an attack less."""
    ours = epsilon([PoissonGaussian(rate, noise, steps)], 1e-5)
    assert 0.5 * published < ours <= published
    assert attack_delta([(rate, noise, steps)], 0.3 * ours) > 1e-5


@pytest.mark.parametrize("noise", [0.5, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-10])
def test_the_gaussian_mechanism_costs_what_it_costs_exactly(noise: float, delta: float) -> None:
    """Balle and Wang 2018, arXiv 1805.06530, theorem 8: both bounds meet at one step and rate 1."""
    mu = 1 / noise

    def cdf(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2  # keeps its digits in the tail

    def exact(value: float) -> float:
        return cdf(mu / 2 - value / mu) - math.exp(value) * cdf(-mu / 2 - value / mu)

    cost = epsilon([PoissonGaussian(1.0, noise, 1)], delta)
    assert exact(cost) <= delta * (1 + 1e-6)
    assert cost == 0 or exact(cost - 1e-3) > delta
    for value in (0.1 * cost, cost):
        assert attack_delta([(1.0, noise, 1)], value) == pytest.approx(exact(value), rel=1e-5)


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), GRID)
def test_the_witnesses_enclose_the_truth(
    rate: float, noise: float, steps: int, delta: float
) -> None:
    """The Rényi bound is dp-accounting's, and no attack achieves more than a fine grid allows."""
    orders = [*range(2, 65), 80, 96, 128, 192, 256, 512, 1024]
    case = (rate, noise, steps, delta)
    assert renyi_upper_bound([(rate, noise, steps)], delta) == pytest.approx(
        reference(rdp.RdpAccountant(orders), case), rel=1e-6
    )
    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
    allowed = reference(accountant, case)
    for share in (0.3, 0.6, 1.0):
        assert attack_delta([(rate, noise, steps)], share * allowed) <= (
            accountant.get_delta(share * allowed) * (1 + 1e-6)
        )


def test_a_witness_keeps_its_digits_where_sampling_is_rare() -> None:
    """A divergence of 1e-18 is not rounded to nothing: at order 2 it is log(1 + q²(e^(1/σ²) - 1))."""
    rate, steps, delta = 1e-9, 10**9, 1e-9
    divergence = steps * rate**2 * math.expm1(1.0)
    assert -math.expm1(-divergence) > delta**2
    assert renyi_upper_bound([(rate, 1.0, steps)], delta) > 0
