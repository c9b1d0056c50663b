"""Lower bounds on epsilon: exact where that can be checked, valid and tight where it cannot."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from privacy.empirical.bound import (
    SHARES,
    auc,
    clopper_pearson_lower,
    one_run_audit,
    one_run_bound,
    one_run_p_value,
    tpr_at_fpr,
    two_sample_bound,
)
from privacy.empirical.errors import BoundInvalid


def randomised_response(
    m: int, epsilon: float, rng: np.random.Generator
) -> tuple[list[float], list[bool]]:
    """Scores and coins of ``m`` bits, each released right with probability e^ε / (1 + e^ε)."""
    coins = rng.random(m) < 0.5
    right = rng.random(m) < 1 / (1 + math.exp(-epsilon))
    scores = np.where(coins == right, 1.0, -1.0)
    return scores.tolist(), coins.tolist()


def test_without_delta_the_p_value_is_a_binomial_tail() -> None:
    """At delta 0, v right guesses of r have the tail of Binomial(r, e^ε / (1 + e^ε))."""
    for r, v, epsilon in [(1, 1, 0.0), (10, 7, 0.5), (200, 150, 1.0), (1000, 900, 2.0)]:
        q = 1 / (1 + math.exp(-epsilon))
        expected = stats.binom.sf(v - 1, r, q)
        assert one_run_p_value(2 * r, r, v, epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


def test_delta_adds_the_worst_steepest_part_of_the_tail() -> None:
    """With delta, the term 2 m δ max_i P[v - i <= W < v] / i is added, as computed by hand.

    r = v = 2 and q = 1/2: P[W >= 2] = 1/4, and max(1/2 / 1, 3/4 / 2) = 1/2.
    """
    assert one_run_p_value(10, 2, 2, 0.0, 0.01) == pytest.approx(0.25 + 2 * 10 * 0.01 * 0.5)


def test_the_p_value_bounds_every_mechanism_of_two_coins() -> None:
    """The worst (ε, δ)-DP mechanism on one canary, enumerated, is never likelier than the p-value."""
    for epsilon, delta in itertools.product((0.0, 0.5, 2.0), (0.0, 0.01, 0.2)):
        # Right guess with the largest probability that both inequalities of (ε, δ)-DP allow.
        worst = (math.exp(epsilon) + delta) / (1 + math.exp(epsilon))
        assert one_run_p_value(1, 1, 1, epsilon, delta) >= worst - 1e-12


def test_a_bound_is_where_the_p_value_crosses_the_level() -> None:
    """Just below the bound epsilon is rejected, just above it is not."""
    bound = one_run_bound(500, 100, 90, 1e-5, 0.95)
    assert one_run_p_value(500, 100, 90, bound - 1e-6, 1e-5) < 0.05
    assert one_run_p_value(500, 100, 90, bound + 1e-6, 1e-5) >= 0.05


def test_bounds_move_the_right_way() -> None:
    """More right guesses raise the bound; a larger delta, confidence or epsilon do not."""
    bounds = [one_run_bound(200, 100, v, 1e-5) for v in range(101)]
    assert bounds == sorted(bounds)
    assert bounds[50] == 0.0
    deltas = [one_run_bound(200, 100, 95, delta) for delta in (0.0, 1e-5, 1e-3, 1e-2)]
    assert deltas == sorted(deltas, reverse=True)
    levels = [one_run_bound(200, 100, 95, 1e-5, level) for level in (0.5, 0.9, 0.99)]
    assert levels == sorted(levels, reverse=True)
    values = [one_run_p_value(200, 100, 95, e, 1e-4) for e in np.linspace(0, 3, 61)]
    assert values == sorted(values)


@pytest.mark.statistical
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_not_accused_too_often(epsilon: float) -> None:
    """Over 400 runs of a mechanism of known epsilon, at most the stated 5 % of bounds exceed it.

    With an error of exactly 5 % a correct bound exceeds it in 20 runs of 400; more than 38 happen
    with probability below 1e-4, which is this test's false-alarm rate.
    """
    rng = np.random.default_rng(11)
    audits = [one_run_audit(*randomised_response(400, epsilon, rng), delta=0.0) for _ in range(400)]
    assert stats.binom.sf(38, 400, 0.05) < 1e-4
    assert sum(audit.epsilon > epsilon for audit in audits) <= 38


@pytest.mark.statistical
def test_a_mechanism_worse_than_claimed_is_found() -> None:
    """Randomised response of 1.5 times the claimed epsilon is refuted in every of 20 runs.

    All canaries are guessed about. A run fails to refute with probability below 1e-6 (its count of
    right guesses lies 8 standard deviations above the threshold).
    """
    rng = np.random.default_rng(12)
    for _ in range(20):
        scores, coins = randomised_response(4000, 1.5, rng)
        assert one_run_audit(scores, coins, 0.0, shares=(1.0,)).epsilon > 1.0


@pytest.mark.statistical
def test_the_bound_is_tight_as_canaries_grow() -> None:
    """For randomised response the bound approaches the true epsilon from below.

    The slack of 0.05 at 100,000 canaries is more than 5 standard deviations of the estimate:
    false-alarm rate below 1e-6.
    """
    rng = np.random.default_rng(13)
    found = {
        m: one_run_audit(*randomised_response(m, 1.0, rng), 0.0, shares=(1.0,)).epsilon
        for m in (100, 100_000)
    }
    assert 0.95 < found[100_000] < 1.03
    assert found[100] < found[100_000]


def test_trying_several_numbers_of_guesses_is_paid_for() -> None:
    """The best of the stated numbers of guesses is bounded at the divided error, not at the whole."""
    scores = [float(i) for i in range(64)]
    coins = [i >= 32 for i in range(64)]
    audit = one_run_audit(scores, coins, 0.0)
    assert (audit.guesses, audit.correct) == (64, 64)
    assert audit.epsilon == one_run_bound(64, 64, 64, 0.0, 1 - 0.05 / len(SHARES))
    assert audit.epsilon == audit.ceiling < one_run_bound(64, 64, 64, 0.0)


def test_the_ceiling_is_what_perfect_guesses_would_show() -> None:
    """Ten canaries cannot refute an epsilon of 2, whatever the attack, and the audit says so."""
    coins = [True, False] * 5
    perfect = one_run_audit([float(coin) for coin in coins], coins, 1e-5)
    useless = one_run_audit([0.0] * 10, coins, 1e-5)
    assert perfect.epsilon == perfect.ceiling == useless.ceiling < 2.0
    assert (useless.epsilon, useless.guesses) == (0.0, 10)


def test_ties_are_broken_without_the_coins() -> None:
    """Equal scores give the same guesses whatever the coins are."""
    coins = [True] * 10 + [False] * 10
    audits = [one_run_audit([1.0] * 20, c, 0.0, shares=(1.0,)) for c in (coins, coins[::-1])]
    assert [audit.correct for audit in audits] == [0, 20]


def test_clopper_pearson_is_the_quantile_of_a_beta_distribution() -> None:
    """The lower bound equals Beta(k, n - k + 1)'s quantile; nothing is known from no success."""
    for k, n in [(1, 1), (5, 10), (99, 100), (100, 100)]:
        expected = stats.beta.ppf(0.025, k, n - k + 1)
        assert clopper_pearson_lower(k, n, 0.025) == pytest.approx(expected, rel=1e-6)
    assert clopper_pearson_lower(0, 10, 0.025) == 0.0


def test_the_two_sample_bound_uses_both_inequalities() -> None:
    """A test that never accuses falsely, and one that never misses, prove the same epsilon."""
    assert two_sample_bound(50, 100, 0, 100, 1e-5) == pytest.approx(
        two_sample_bound(100, 100, 50, 100, 1e-5)
    )
    assert two_sample_bound(50, 100, 0, 100, 1e-5) > 2.0
    assert two_sample_bound(5, 100, 5, 100, 1e-5) == 0.0
    assert two_sample_bound(5, 100, 0, 100, 0.2) == 0.0


@pytest.mark.statistical
def test_the_two_sample_bound_is_not_exceeded_too_often() -> None:
    """Over 400 experiments of randomised response at most the stated 5 % of bounds lie above it.

    False-alarm rate below 1e-4, as for the audit of one run.
    """
    rng = np.random.default_rng(14)
    q = 1 / (1 + math.exp(-1.0))
    true, false = rng.binomial(500, q, 400), rng.binomial(500, 1 - q, 400)
    bounds = [
        two_sample_bound(int(t), 500, int(f), 500, 0.0) for t, f in zip(true, false, strict=True)
    ]
    assert sum(bound > 1.0 for bound in bounds) <= 38
    assert np.median(bounds) > 0.6


def test_auc_counts_pairs() -> None:
    """The area is the share of pairs in the right order, ties counting one half."""
    assert auc([1, 2, 3, 4], [False, True, False, True])[0] == 0.75
    area, low, high = auc([1.0] * 20, [True, False] * 10)
    assert area == 0.5
    assert low < 0.3
    assert high > 0.7


def test_a_perfect_area_from_few_scores_keeps_a_wide_interval() -> None:
    """Four scores in the right order prove little, and the interval says so."""
    area, low, high = auc([1, 2, 3, 4], [False, False, True, True])
    assert (area, high) == (1.0, 1.0)
    assert low < 0.5


def test_the_threshold_lets_at_most_the_stated_share_pass() -> None:
    """At 1 % of 200 left-out canaries two may pass, at fewer than 100 none."""
    outside = [float(i) for i in range(200)]
    scores, coins = [*outside, 197.5, 196.5], [False] * 200 + [True] * 2
    assert tpr_at_fpr(scores, coins) == 0.5
    assert tpr_at_fpr([0.0, 5.0, 5.0, 6.0], [False, False, True, True]) == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: one_run_p_value(10, 11, 3, 1.0, 0.0), "canaries=10"),
        (lambda: one_run_p_value(10, 5, 6, 1.0, 0.0), "correct=6"),
        (lambda: one_run_p_value(10, 5, 3, math.nan, 0.0), "epsilon=nan"),
        (lambda: one_run_bound(10, 5, 3, 1.0), "delta=1.0"),
        (lambda: one_run_bound(10, 5, 3, 0.0, 1.0), "confidence=1.0"),
        (lambda: one_run_audit([1.0, math.nan], [True, False], 0.0), "not finite"),
        (lambda: one_run_audit([1.0], [True], 0.0), "at least two"),
        (lambda: one_run_audit([1.0, 2.0], [True, False], 0.0, shares=(0.0,)), "shares"),
        (lambda: two_sample_bound(5, 4, 0, 4, 0.0), "true_positives=5"),
        (lambda: auc([1.0, 2.0], [True, True]), "all canaries"),
    ],
)
def test_impossible_numbers_are_named(call: object, words: str) -> None:
    """What no audit can have produced is refused with the value and its bound."""
    with pytest.raises(BoundInvalid, match=words):
        call()  # type: ignore[operator]
