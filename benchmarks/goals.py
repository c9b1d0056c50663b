"""What the training step ought to reach, and whether the measured medians do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.measure import Timings, fit_line, paired_ratio, spread, table
from benchmarks.variants import PLAIN

Measured = Mapping[str, Mapping[str, Timings]]
"""Timings by variant, by configuration."""

Clock = Literal["wall", "cpu"]

FLAT = 1.10
"""Largest over smallest peak that still counts as memory that does not grow."""

LINEAR = 0.99
"""Least share of the variance of the step times that a line through them must explain."""


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio of ``variant`` to ``reference``, at most or (``at_least``) at least."""

    text: str
    variant: str
    reference: str
    bound: float
    at_least: bool = False
    of: Literal["time", "peak"] = "time"

    def measured(self, timings: Mapping[str, Timings], clock: Clock) -> float | None:
        """The ratio in one configuration; None where one of the two was not measured."""
        variant, reference = timings.get(self.variant), timings.get(self.reference)
        if variant is None or reference is None or variant.missing or reference.missing:
            return None
        if self.of == "peak":
            return variant.peak / reference.peak
        if clock == "cpu":
            return paired_ratio(variant.cpu, reference.cpu).median
        return paired_ratio(variant.wall, reference.wall).median

    def reached(self, ratio: float) -> bool:
        """Whether a measured ratio keeps the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


GOALS = (
    Goal("private step over plain, at most 0.75", "ours-private", PLAIN, 0.75),
    Goal("last quarter over plain, at most 0.28", "ours-last-quarter", PLAIN, 0.28),
    Goal("peak memory over plain, at most 0.55", "ours-private", PLAIN, 0.55, of="peak"),
    Goal("private over public, at most 1.05", "ours-private", "ours-public", 1.05),
    Goal(
        "Opacus hooks over ours, at least 1.5", "opacus-hooks", "ours-private", 1.5, at_least=True
    ),
    Goal(
        "Opacus ghost over ours, at least 2.2", "opacus-ghost", "ours-private", 2.2, at_least=True
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A goal with its ratio in each configuration where it could be formed."""

    goal: Goal
    ratios: Mapping[str, float]

    @property
    def reached(self) -> bool | None:
        """In every configuration; None where none could tell."""
        return all(map(self.goal.reached, self.ratios.values())) if self.ratios else None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "goal": self.goal.text,
            "bound": self.goal.bound,
            "ratios": dict(self.ratios),
            "reached": self.reached,
        }


def judge(measured: Measured, clock: Clock) -> list[Verdict]:
    """Every goal over all configurations.

    ``clock``: process CPU time sees no other process on the machine, but also no waiting for an
    accelerator and no idle thread; then wall time has to judge.
    """
    verdicts = []
    for goal in GOALS:
        ratios = {name: goal.measured(timings, clock) for name, timings in measured.items()}
        verdicts.append(Verdict(goal, {n: r for n, r in ratios.items() if r is not None}))
    return verdicts


def goals_table(verdicts: Sequence[Verdict], configurations: Sequence[str]) -> str:
    """One row to a goal, one column to a configuration."""
    words = {True: "yes", False: "no", None: "not measured"}
    rows = []
    for verdict in verdicts:
        cells = [f"{verdict.ratios[c]:.2f}" if c in verdict.ratios else "-" for c in configurations]
        rows.append([verdict.goal.text, *cells, words[verdict.reached]])
    return table(["goal", *configurations, "reached"], rows)


def judge_scaling(
    by_batch: Mapping[int, Timings], by_units: Mapping[int, Timings], sequence: int, clock: Clock
) -> dict[str, Any]:
    """Time over tokens, and memory over batch and data set, of steps of ``sequence`` tokens a unit."""
    line = fit_line(
        [batch * sequence for batch in by_batch],
        [spread(t.cpu if clock == "cpu" else t.wall).median for t in by_batch.values()],
    )
    batch_growth = _growth(by_batch)
    units_growth = _growth(by_units)
    return {
        "seconds_per_token": line.slope,
        "seconds_at_zero": line.intercept,
        "r_squared": line.r_squared,
        "time_linear": line.slope > 0 and line.r_squared >= LINEAR,
        "peak_growth_with_batch": batch_growth,
        "peak_growth_with_units": units_growth,
        "memory_flat": max(batch_growth, units_growth) <= FLAT,
    }


def _growth(timings: Mapping[int, Timings]) -> float:
    peaks = [t.peak for t in timings.values()]
    return max(peaks) / min(peaks)
