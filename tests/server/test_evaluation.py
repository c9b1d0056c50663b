"""Figures with their intervals, checked against published values and by coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp.adapter import AdapterConfig
from privacy.dp.encode import Example
from server.errors import EvaluationInvalid
from server.evaluate import (
    PublicSet,
    compare_accuracy,
    compare_losses,
    evaluate,
    mcnemar,
    wilson,
)

CONFIG = AdapterConfig(2, 16, ("q_proj",), None, "B")


@pytest.mark.parametrize(
    ("successes", "items", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score without continuity).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(
    successes: int, items: int, low: float, high: float
) -> None:
    """The interval is the score interval, to four digits."""
    estimate = wilson(successes, items)
    assert estimate.low == pytest.approx(low, abs=5e-5)
    assert estimate.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share(pair: tuple[int, int]) -> None:
    """The interval lies within [0, 1] and around the share."""
    estimate = wilson(*pair)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 2 / 1024), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int, p: float) -> None:
    """Twice the smaller tail of the binomial, at most 1; which side is which does not matter."""
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_accuracy_counts_pairs() -> None:
    """Gains and losses are counted on the same prompts, not from the two totals."""
    result = compare_accuracy([True, False, False, True], [True, True, True, False])
    assert (result.gained, result.lost) == (2, 1)
    assert (result.before.value, result.after.value) == (0.5, 0.75)


@pytest.mark.statistical
def test_loss_intervals_cover() -> None:
    """Both intervals cover the truth about 95 times in 100 (fixed seed; false alarm below 1e-6).

    Of 300 repetitions the number covered is binomial(300, 0.95) up to the intervals' own error;
    below 262 (eight standard deviations would be 255) or at all 300 the test fails.
    """
    rng = np.random.default_rng(7)
    covered = {"mean": 0, "change": 0}
    for _ in range(300):
        before = rng.normal(2.0, 0.5, 60)
        after = before + rng.normal(-0.3, 0.4, 60)
        result = compare_losses(before.tolist(), after.tolist())
        covered["mean"] += result.before.low <= 2.0 <= result.before.high
        covered["change"] += result.change.low <= -0.3 <= result.change.high
    assert all(262 <= count < 300 for count in covered.values()), covered


def test_same_losses_give_the_same_figures() -> None:
    """The bootstrap's seed is fixed: a published figure can be recomputed."""
    before, after = [2.0, 1.5, 1.8, 2.2], [1.0, 1.4, 1.1, 1.9]
    assert compare_losses(before, after) == compare_losses(before, after)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], [], "same items"),
        ([1.0], [1.0, 2.0], "same items"),
        ([1.0], [1.0], "at least 2"),
        ([1.0, math.nan], [1.0, 1.0], "not finite"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(before, after, message: str) -> None:
    """No figure is made of nothing."""
    with pytest.raises(EvaluationInvalid, match=message):
        compare_losses(before, after)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one"),
        ({"prompts": ["a"], "answers": [], "candidates": ["x", "y"]}, "as many answers"),
        ({"prompts": ["a"], "answers": [0], "candidates": ["x"]}, "at least 2 candidates"),
        ({"prompts": ["a"], "answers": [2], "candidates": ["x", "y"]}, r"answers\[0\]=2"),
    ],
)
def test_faulty_evaluation_set_is_named(fields: dict, message: str) -> None:
    """A set that cannot be evaluated says why."""
    with pytest.raises(EvaluationInvalid, match=message):
        PublicSet(**fields)


class Scorer:
    """Right on even prompts without an adapter, on all with one; losses 2.0 and 1.0 plus the place."""

    def choose(self, prompts, candidates, config, adapter, max_tokens):
        return [0 if adapter is not None or i % 2 == 0 else 1 for i in range(len(prompts))]

    def losses(self, examples, config, adapter):
        return [(1.0 if adapter is not None else 2.0) + i for i in range(len(examples))]


def test_evaluation_compares_base_and_adapter() -> None:
    """Accuracy and loss before and after, each with its interval and method, as JSON."""
    public = PublicSet(
        prompts=["a", "b", "c", "d"],
        answers=[0, 0, 0, 0],
        candidates=["x", "y"],
        examples=[Example((1, 2), 1)] * 3,
    )
    result = evaluate(Scorer(), public, config=CONFIG, max_tokens=16, after={}).to_json()
    assert result["accuracy"]["before"] == 0.5
    assert result["accuracy"]["after"] == 1.0
    assert (result["loss"]["change"], result["loss"]["change_95"]) == (-1.0, [-1.0, -1.0])
    assert result["accuracy"]["test"].startswith("McNemar")
    only = evaluate(
        Scorer(),
        PublicSet(examples=[Example((1, 2), 1)] * 2),
        config=CONFIG,
        max_tokens=16,
        after={},
    )
    assert list(only.to_json()) == ["loss"]
