"""The federation benchmark measures the real hub, and says when a goal is missed."""

import numpy as np
import pytest

from benchmarks.federation import PROJECTIONS, RANK, Case, initial_adapter, judge, run_case


def test_shapes_are_those_of_the_real_adapter() -> None:
    """SmolLM2-135M: 61,440 values in four layers at rank 4, of which 24,576 are in B."""
    tensors = initial_adapter(4)
    assert len(tensors) == 4 * 2 * len(PROJECTIONS)
    assert sum(t.size for t in tensors.values()) == 61_440
    assert sum(t.size for n, t in tensors.items() if "lora_B" in n) == 24_576
    (a, *_) = (t for n, t in tensors.items() if "lora_A" in n)
    np.testing.assert_allclose(a @ a.T, np.eye(RANK), atol=1e-6)


def test_case_runs_the_hub_to_the_end_and_measures() -> None:
    """Three departments and two rounds give times, memory and bytes; B alone travels less."""
    ours, plain = (run_case(Case(3, 1, factors, rounds=2)) for factors in ("B", "AB"))
    for row in (ours, plain):
        assert row["hub_cpu_s_per_round"] > 0
        assert row["peak_mib"] >= row["loaded_mib"] > 0
        # The trained values themselves are the least that a reply can weigh.
        assert row["bytes_from_node_per_round"] > 4 * (6144 if row["factors"] == "B" else 15_360)
    assert ours["bytes_from_node_per_round"] < 0.5 * plain["bytes_from_node_per_round"]
    assert ours["bytes_to_node_per_round"] < plain["bytes_to_node_per_round"]


def row(departments: int, factors: str, peak: float, travel: float) -> dict[str, object]:
    return {
        "departments": departments,
        "last_layers": 4,
        "factors": factors,
        "peak_mib": peak,
        "bytes_to_node_per_round": travel / 2,
        "bytes_from_node_per_round": travel / 2,
    }


@pytest.mark.parametrize(
    ("peak", "travel", "memory_met", "bytes_met"),
    [(120.0, 50.0, True, True), (120.1, 50.0, False, True), (100.0, 50.1, True, False)],
)
def test_goals_are_judged_at_their_bounds(
    peak: float, travel: float, memory_met: bool, bytes_met: bool
) -> None:
    """Memory at most 1.2 times that of the fewest departments, bytes at most half of plain LoRA."""
    rows = [row(10, "B", 100, travel), row(1000, "B", peak, travel), row(10, "AB", 100, 100)]
    verdict = judge(rows, 4)
    assert (verdict["memory_met"], verdict["bytes_met"]) == (memory_met, bytes_met)
    assert verdict["departments"] == [10, 1000]
