"""Mechanisms that are accounted by a plainer one that dominates them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp.accounting import epsilon
from privacy.dp.correlated import CorrelatedNoise, banded_coefficients
from privacy.dp.events import AdaptiveClipGaussian, BandedGaussian, PoissonGaussian

BANDS = [1, 2, 3, 8]


@given(st.floats(0.1, 100), st.floats(0.51, 100))
def test_the_count_of_unclipped_units_is_paid_as_its_authors_say(
    total: float, share: float
) -> None:
    """Andrew et al. 2021, theorem 1: z_Δ = (z^-2 - (2 σ_b)^-2)^(-1/2), in both directions."""
    count_noise = total * share
    sums_noise = (total**-2 - (2 * count_noise) ** -2) ** -0.5
    event = AdaptiveClipGaussian(0.1, sums_noise, 5, count_noise)
    plain = event.dominated_by()
    assert plain == PoissonGaussian(0.1, plain.noise_multiplier, 5)
    assert plain.noise_multiplier == pytest.approx(total, rel=1e-9)
    back = (plain.noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5
    assert back == pytest.approx(sums_noise, rel=1e-9)


def test_a_noisy_count_costs_little_and_never_nothing() -> None:
    """With noise of a twentieth of a batch of 128 the count adds less than a percent to epsilon."""
    plain = epsilon([PoissonGaussian(0.1, 1.0, 20)], 1e-5)
    assert plain < epsilon([AdaptiveClipGaussian(0.1, 1.0, 20, 6.4)], 1e-5) < 1.01 * plain


@pytest.mark.parametrize(("steps", "taken"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_correlated_noise_is_paid_by_group(steps: int, taken: int) -> None:
    """A unit takes part in each fourth step at most, with four times the probability."""
    event = BandedGaussian(0.1, 1.5, steps, 4)
    assert event.dominated_by() == PoissonGaussian(0.4, 1.5, taken)
    assert BandedGaussian(0.1, 1.5, steps, 1).dominated_by() == PoissonGaussian(0.1, 1.5, steps)


def test_rounds_of_correlated_noise_do_not_merge_into_one() -> None:
    """Two rounds of 3 steps at 4 bands are two participations; 6 steps in one round are two too,
    but two rounds of 5 steps are four, where 10 steps in one round are three."""
    rounds = [BandedGaussian(0.1, 1.5, 5, 4)] * 2
    assert epsilon(rounds, 1e-5) == epsilon([PoissonGaussian(0.4, 1.5, 4)], 1e-5)
    assert epsilon(rounds, 1e-5) > epsilon([BandedGaussian(0.1, 1.5, 10, 4)], 1e-5)


def factor(bands: int, steps: int) -> np.ndarray:
    """C of ``steps`` rows, dense."""
    column = np.zeros(steps)
    column[: min(bands, steps)] = banded_coefficients(bands)[:steps]
    return np.array(
        [[column[i - j] if i >= j else 0.0 for j in range(steps)] for i in range(steps)]
    )


@pytest.mark.parametrize("bands", BANDS)
def test_the_dominating_mechanism_dominates(bands: int) -> None:
    """Columns of C have norm at most 1, and those of one unit's participations no row in common.

    So the sensitivity of participations at steps of one residue, whatever clipped gradients they
    carry, is that of as many separate Gaussian mechanisms.
    """
    steps = 19
    dense = factor(bands, steps)
    assert np.linalg.norm(dense, axis=0).max() <= 1 + 1e-15
    for first in range(bands):
        taken = dense[:, first::bands] != 0
        assert taken.sum(axis=1).max() <= 1
        assert taken.shape[1] <= math.ceil(steps / bands)


@pytest.mark.parametrize("bands", [2, 3, 8])
def test_columns_closer_than_the_bands_do_overlap(bands: int) -> None:
    """The check above would fail for participations one step closer."""
    taken = factor(bands, 19)[:, :: bands - 1] != 0
    assert taken.sum(axis=1).max() > 1


def test_the_coefficients_are_those_of_the_square_root() -> None:
    """Squared as a series, uncut coefficients give 1 / (1 - x): sums of prefixes."""
    series = banded_coefficients(40)
    series = series / series[0]
    assert np.convolve(series, series)[:40] == pytest.approx(np.ones(40))
    assert np.linalg.norm(banded_coefficients(40)) == pytest.approx(1, abs=1e-15)
    assert (np.diff(banded_coefficients(40)) < 0).all()
    with pytest.raises(ValueError, match="bands=0 must be at least 1"):
        banded_coefficients(0)


@pytest.mark.parametrize("bands", BANDS)
def test_noise_of_the_steps_is_the_inverse_factor_times_white_noise(bands: int) -> None:
    """w_0, w_1, ... are the rows of C⁻¹ Z, also where the caller changes what it was given."""
    steps, size, std = 19, 5, 0.7
    white = np.random.default_rng(0).standard_normal((steps, size))
    rows = iter(white)
    noise = CorrelatedNoise(bands, size, std, lambda _: next(rows))
    made = []
    for _ in range(steps):
        step = noise.step()
        made.append(step.copy())
        step *= 0
    assert np.array(made) == pytest.approx(
        np.linalg.solve(factor(bands, steps), std * white), abs=1e-12
    )


def test_correlation_takes_noise_out_of_the_sum_of_the_steps() -> None:
    """What DP-SGD applies is the sum: over 64 steps, 8 bands leave less noise in it on average."""

    def mean_square(bands: int) -> float:
        sums = np.tril(np.ones((64, 64))) @ np.linalg.inv(factor(bands, 64))
        return float(np.mean(np.sum(sums**2, axis=1)))

    figures = [mean_square(bands) for bands in (1, 2, 8)]
    assert all(more > less for more, less in itertools.pairwise(figures))


def test_a_draw_of_another_shape_is_refused() -> None:
    """A source of randomness that broadcasts would give all coordinates the same noise."""
    with pytest.raises(ValueError, match=r"draw gave shape \(1,\), not \(5,\)"):
        CorrelatedNoise(2, 5, 1.0, lambda _: np.zeros(1)).step()
