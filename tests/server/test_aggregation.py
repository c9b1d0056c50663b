"""Combining updates, each rule against an oracle in exact or float64 arithmetic."""

import statistics
import tracemalloc
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.model import least_cohort
from server.aggregation.combine import combination
from server.aggregation.mean import RunningMean
from server.aggregation.optimisers import ServerOptimiser
from server.aggregation.robust import coordinate_median, krum, trimmed_mean
from server.aggregation.stacking import reproject, stacked_mean

Update = Mapping[str, np.ndarray]
# Every finite float32: sums of the largest and the smallest are where float64 alone would fail.
any_value = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-1e3, 1e3, width=32)


def updates_of(values: st.SearchStrategy[float], least: int = 1, most: int = 7):
    return st.lists(npst.arrays(np.float32, (2, 3), elements=values), min_size=least, max_size=most)


def mean(updates: list[np.ndarray]) -> np.ndarray:
    running = RunningMean()
    for place, update in enumerate(updates):
        running.add(f"d{place}", {"t": update})
    return running.result()["t"]


@given(updates_of(any_value))
def test_mean_is_the_exact_mean_rounded_to_float32(updates: list[np.ndarray]) -> None:
    """Each entry is the mean in rational arithmetic, rounded to float64 and then to float32."""
    result = mean(updates)
    assert result.dtype == np.float32
    for place in np.ndindex(2, 3):
        total = sum(Fraction(float(update[place])) for update in updates)
        assert result[place] == np.float32(float(total) / len(updates))


@given(updates_of(any_value, least=2), st.randoms())
def test_no_order_of_arrival_changes_a_bit_of_the_mean(updates: list[np.ndarray], random) -> None:
    """Whoever answers first, the adapter has the same bytes."""
    shuffled = list(updates)
    random.shuffle(shuffled)
    assert mean(shuffled).tobytes() == mean(updates).tobytes()


def test_plain_float64_sums_depend_on_the_order() -> None:
    """The promise above is not an empty one: these three values show it in float64 sums."""
    values = [np.float32(v) for v in (2.0**60, 1.0, -(2.0**60))]
    assert sum(map(float, values)) != sum(map(float, reversed([values[1], *values[::2]])))
    assert mean([np.full((2, 3), v) for v in values])[0, 0] == np.float32(1 / 3)


def test_mean_keeps_no_update() -> None:
    """Thirty-fold the updates need no more memory than few."""

    def peak(count: int) -> int:
        tracemalloc.start()
        running, rng = RunningMean(), np.random.default_rng(0)
        for place in range(count):
            running.add(str(place), {"t": rng.standard_normal((200, 100), np.float32)})
        running.result()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)
    assert peak(150) < 1.1 * peak(5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"u": np.zeros(2, np.float32)}, r"'d1' differs in tensors \['t', 'u'\]"),
        ({"t": np.zeros(1, np.float32)}, r"'d1' differs in tensors \['t'\]"),
        ({"t": np.array([0, np.nan], np.float32)}, "'t' of 'd1' is not finite"),
        ({"t": np.array([np.inf, 0], np.float32)}, "'t' of 'd1' is not finite"),
    ],
)
def test_update_that_does_not_fit_leaves_the_sum_as_it_was(other: Update, message: str) -> None:
    """Other names, a shape that would be broadcast, or a value that is no number is refused."""
    running = RunningMean()
    running.add("d0", {"t": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=message):
        running.add("d1", other)
    assert running.result()["t"].tolist() == [1, 1]


def test_mean_of_nothing_is_refused() -> None:
    """No update has no mean."""
    with pytest.raises(ValueError, match="no update"):
        RunningMean().result()


def test_with_a_frozen_the_mean_of_b_is_the_mean_of_the_products() -> None:
    """Averaging B averages the adapter itself; averaging A and B, the baseline, does not."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 6)).astype(np.float32)
    bs = [rng.standard_normal((4, 2)).astype(np.float32) for _ in range(3)]
    products = np.mean([b.astype(np.float64) @ a for b in bs], axis=0)
    np.testing.assert_allclose(mean(bs).astype(np.float64) @ a, products, atol=1e-6)
    others = [a, *(rng.standard_normal((2, 6)).astype(np.float32) for _ in range(2))]
    products = np.mean([b.astype(np.float64) @ o for b, o in zip(bs, others, strict=True)], axis=0)
    assert np.abs(mean(bs).astype(np.float64) @ mean(others) - products).max() > 0.1


# --- robust rules ---------------------------------------------------------------------------------


def as_updates(arrays: list[np.ndarray]) -> list[Update]:
    return [{"t": array} for array in arrays]


@given(updates_of(moderate, least=3))
def test_median_is_the_median_of_each_value(updates: list[np.ndarray]) -> None:
    """Each entry agrees with the median of the rational values, rounded to float32."""
    result = coordinate_median(as_updates(updates), 1)["t"]
    for place in np.ndindex(2, 3):
        exact = statistics.median(Fraction(float(u[place])) for u in updates)
        assert result[place] == np.float32(float(exact))


@given(updates_of(moderate, least=5))
def test_trimmed_mean_is_the_mean_without_the_extremes(updates: list[np.ndarray]) -> None:
    """Each entry agrees with the rational mean of what is left, to float64 accuracy."""
    result = trimmed_mean(as_updates(updates), 2)["t"]
    for place in np.ndindex(2, 3):
        kept = sorted(Fraction(float(u[place])) for u in updates)[2:-2]
        exact = float(sum(kept) / len(kept))
        assert abs(result[place] - exact) <= 2**-23 * max(abs(exact), 1e-30) + 1e-12


@given(updates_of(moderate, least=5))
def test_krum_is_the_update_nearest_to_its_neighbours(updates: list[np.ndarray]) -> None:
    """The chosen update has the smallest score in rational arithmetic, up to float64 rounding."""
    chosen = krum(as_updates(updates), 1)["t"]
    exact = [[Fraction(float(v)) for v in update.ravel()] for update in updates]

    def score(i: int) -> Fraction:
        distances = sorted(
            sum((a - b) ** 2 for a, b in zip(exact[i], other, strict=True))
            for j, other in enumerate(exact)
            if j != i
        )
        return sum(distances[: len(exact) - 3], Fraction(0))

    scores = [score(i) for i in range(len(updates))]
    mine = min(
        s for s, update in zip(scores, updates, strict=True) if np.array_equal(update, chosen)
    )
    assert mine <= min(scores) * (1 + Fraction(1, 10**9)) + Fraction(1, 10**9)


@settings(max_examples=50)
@given(
    st.integers(0, 2),
    npst.arrays(np.float32, (9, 4), elements=st.floats(-1, 1, width=32)),
    npst.arrays(np.float32, (2, 4), elements=any_value),
)
def test_faulty_updates_cannot_move_a_value_beyond_the_honest_ones(
    faulty: int, honest: np.ndarray, bad: np.ndarray
) -> None:
    """With up to f arbitrary updates among 2 f + 1, median and trimmed mean stay among the honest."""
    honest = honest[: max(faulty + 1, 1)]
    updates = as_updates([*honest, *bad[:faulty]])
    for rule in (coordinate_median, trimmed_mean):
        value = rule(updates, faulty)["t"]
        assert (value >= honest.min(axis=0) - 1e-6).all()
        assert (value <= honest.max(axis=0) + 1e-6).all()


def test_krum_never_chooses_far_off_updates() -> None:
    """Two colluding updates among seven are not chosen, though they agree with each other."""
    rng = np.random.default_rng(1)
    honest = [rng.standard_normal(5).astype(np.float32) for _ in range(5)]
    bad = [np.full(5, 100, np.float32)] * 2
    chosen = krum(as_updates([*bad, *honest]), 2)["t"]
    assert any(np.array_equal(chosen, update) for update in honest)


@pytest.mark.parametrize("rule", [coordinate_median, trimmed_mean, krum])
@pytest.mark.parametrize("faulty", [0, 1, 3])
def test_cohort_too_small_for_the_faulty_nodes_is_refused(rule, faulty: int) -> None:
    """One update fewer than the rule needs is an error that names both numbers."""
    name = {"coordinate_median": "median"}.get(rule.__name__, rule.__name__)
    least = least_cohort(name, faulty)
    enough = as_updates([np.full(2, v, np.float32) for v in range(least)])
    assert rule(enough, faulty)["t"].shape == (2,)
    with pytest.raises(ValueError, match=rf"at least {least} updates, there are {least - 1}"):
        rule(enough[1:], faulty)


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed_mean", "krum"])
def test_no_rule_depends_on_the_order_of_arrival(rule) -> None:
    """The same updates in any order give the same bytes, ties included."""
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(40).astype(np.float32) for _ in range(5)]
    named = {f"d{i}": {"t": array} for i, array in enumerate([*arrays, arrays[0]])}
    results = set()
    for order in (sorted(named), sorted(named, reverse=True), ["d3", "d5", "d0", "d4", "d1", "d2"]):
        combined = combination(rule, 1)
        for name in order:
            combined.add(name, named[name])
        results.add(combined.result()["t"].tobytes())
    assert len(results) == 1


# --- server optimisers ----------------------------------------------------------------------------

steps_of_two = st.lists(
    npst.arrays(np.float32, 2, elements=st.floats(-10, 10, width=32)), min_size=1, max_size=4
)


def taken(optimiser: ServerOptimiser, means: list[np.ndarray]) -> list[np.ndarray]:
    """The adapters after each round whose nodes agreed on that mean."""
    adapters, moments = [np.zeros(2, np.float32)], {}
    for update in means:
        after, moments = optimiser.step({"t": adapters[-1]}, {"t": update}, moments)
        adapters.append(after["t"])
    return adapters


def test_no_optimiser_takes_the_update_as_it_is() -> None:
    """FedAvg is the mean itself, bit by bit, and has no state."""
    update = {"t": np.array([0.1, -3], np.float32)}
    after, moments = ServerOptimiser().step({"t": np.ones(2, np.float32)}, update, {})
    assert after["t"].tobytes() == update["t"].tobytes()
    assert moments == {}


@given(steps_of_two, st.floats(0.01, 2), st.floats(0, 0.99))
def test_momentum_is_that_of_the_paper(means: list[np.ndarray], rate: float, beta: float) -> None:
    """Every round agrees with v <- beta v + d, x <- x + rate v in rational arithmetic."""
    adapters = taken(ServerOptimiser("avgm", rate, beta), means)
    for entry in range(2):
        velocity = Fraction(0)
        for (before, after), update in zip(pairwise(adapters), means, strict=True):
            start = Fraction(float(before[entry]))
            velocity = Fraction(beta) * velocity + Fraction(float(update[entry])) - start
            exact = float(start + Fraction(rate) * velocity)
            np.testing.assert_allclose(after[entry], exact, rtol=1e-6, atol=1e-6)


@given(steps_of_two, st.floats(0.01, 1), st.floats(0, 0.99))
def test_adam_is_that_of_the_paper(means: list[np.ndarray], rate: float, beta: float) -> None:
    """Every round agrees with algorithm 2 of FedAdam, value by value in Python floats."""
    adapters = taken(ServerOptimiser("adam", rate, beta), means)
    for entry in range(2):
        m, v = 0.0, 1e-6
        for (before, after), update in zip(pairwise(adapters), means, strict=True):
            change = float(update[entry]) - float(before[entry])
            m = beta * m + (1 - beta) * change
            v = 0.99 * v + 0.01 * change * change
            exact = float(before[entry]) + rate * m / (v**0.5 + 1e-3)
            np.testing.assert_allclose(after[entry], exact, rtol=1e-6, atol=1e-6)


def test_momentum_of_zero_and_rate_one_is_plain_averaging() -> None:
    """The optimiser's simplest case lands on the mean, to float32."""
    update = {"t": np.array([0.25, -3], np.float32)}
    after, _ = ServerOptimiser("avgm", 1.0, 0.0).step({"t": np.ones(2, np.float32)}, update, {})
    assert after["t"].tolist() == update["t"].tolist()


# --- different ranks ------------------------------------------------------------------------------

A, B = "m.lora_A.weight", "m.lora_B.weight"


def adapter(rank: int, seed: int, width: int = 6, height: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        A: rng.standard_normal((rank, width)).astype(np.float32),
        B: rng.standard_normal((height, rank)).astype(np.float32),
    }


def product(tensors: Update) -> np.ndarray:
    return tensors[B].astype(np.float64) @ tensors[A].astype(np.float64)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 2**20))
def test_stacking_is_the_mean_of_the_products(ranks: list[int], seed: int) -> None:
    """Adapters of any ranks: the stacked product is the mean of theirs in float64, to 1e-6."""
    adapters = [adapter(rank, seed + place) for place, rank in enumerate(ranks)]
    stacked = stacked_mean(adapters)
    assert stacked[A].shape == (sum(ranks), 6)
    exact = np.mean([product(one) for one in adapters], axis=0)
    np.testing.assert_allclose(product(stacked), exact, atol=1e-6 * np.abs(exact).max() + 1e-6)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**20))
def test_reprojection_is_the_best_of_its_rank(rank: int, target: int, seed: int) -> None:
    """The error equals the singular values that are cut off, computed from the whole product."""
    given_adapter = adapter(rank, seed)
    result = reproject(given_adapter, target)
    values = np.linalg.svd(product(given_adapter), compute_uv=False)
    error = np.linalg.norm(product(result) - product(given_adapter))
    np.testing.assert_allclose(error, np.linalg.norm(values[target:]), atol=1e-5 * values[0])
    assert result[A].shape[0] == result[B].shape[1] <= target
    np.testing.assert_allclose(result[A] @ result[A].T, np.eye(len(result[A])), atol=1e-5)


def test_adapters_that_do_not_belong_together_are_refused() -> None:
    """Other widths, half a pair, or no adapter at all has no mean."""
    with pytest.raises(ValueError, match="different widths"):
        stacked_mean([adapter(2, 0), adapter(2, 1, width=7)])
    with pytest.raises(ValueError, match=r"not pairs of LoRA factors: \['m.lora_A.weight'\]"):
        stacked_mean([{B: adapter(2, 0)[B]}])
    with pytest.raises(ValueError, match="no adapter"):
        stacked_mean([])
    with pytest.raises(ValueError, match="no common rank"):
        stacked_mean([{A: adapter(2, 0)[A], B: adapter(3, 0)[B]}])
    with pytest.raises(ValueError, match="rank=0"):
        reproject(adapter(2, 0), 0)
