"""The benchmark of the training step runs, and says what it cannot do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dp_training import main
from benchmarks.goals import Goal, judge, judge_scaling
from benchmarks.measure import Timings, fit_line, paired_ratio

ROOT = Path(__file__).parents[2]


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """--help succeeds without a model and names the options that the README names."""
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in ("--quick", "--scaling", "--only", "--configs", "--fastdp", "--peers", "--json"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--only", "ours-privat"], "ours-privat"),
        (["--rounds", "0"], "at least 1"),
        (["--threads", "two"], "two"),
        (["--model", "x", "--configs", "128x8"], "128x8:fp32"),
        (["--model", "x", "--configs", "2x8:fp32"], "at least 4 tokens"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument that makes no sense stops before anything is loaded, naming value and way out."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code not in (0, None)
    assert named in f"{stopped.value.code} {capsys.readouterr().err}"


def test_a_run_reports_every_variant(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """A run writes times, ratios and peaks of each variant, or why one was not measured."""
    path = tmp_path / "figures.json"
    only = "plain-B,opacus-hooks,opacus-ghost,fastdp,ours-private,ours-public,ours-private-AB,ours-last-quarter"
    command = [sys.executable, "-m", "benchmarks.dp_training", "--model", str(tiny_llama_dir)]
    command += ["--configs", "32x2:fp32", "--rounds", "2", "--only", only, "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert report["machine"]["threads"] == 1
    (configuration,) = report["configurations"]
    variants = configuration["variants"]
    assert "--fastdp" in variants.pop("fastdp")["missing"]
    assert set(variants) == {"plain", *only.split(",")} - {"fastdp"}
    for figures in variants.values():
        assert len(figures["wall_s"]) == len(figures["cpu_s"]) == 2
        assert figures["wall_ratio"]["least"] <= figures["wall_ratio"]["median"]
        assert figures["peak_bytes"] > 0
    assert variants["plain"]["wall_ratio"]["median"] == 1.0
    assert [set(goal["ratios"]) for goal in report["goals"]] == [{"32x2:fp32"}] * 6


def test_ratios_are_paired_by_round() -> None:
    """A slow round slows both of a pair and leaves their ratio as it was."""
    assert paired_ratio([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]).median == 0.5
    with pytest.raises(ValueError, match="argument 2"):
        paired_ratio([1.0], [1.0, 2.0])


def test_a_goal_is_reached_in_every_configuration_or_not_at_all() -> None:
    """One configuration beyond the bound, or none measured, is never reported as reached."""
    plain = Timings(wall=[1.0], cpu=[1.0], peak=100)

    def reached(*private: Timings) -> bool | None:
        measured = {str(i): {"plain": plain, "ours-private": t} for i, t in enumerate(private)}
        return judge(measured, "wall")[0].reached

    fast, slow = Timings(wall=[0.7]), Timings(wall=[0.8])
    assert reached(fast) is True
    assert reached(fast, slow) is False
    assert reached(Timings(missing="not there")) is None
    assert Goal("", "", "", 2.0, at_least=True).reached(1.9) is False


def test_growth_is_told_from_flatness() -> None:
    """Time off a line, and memory that grows with batch or data set, are called so."""
    assert fit_line([1, 2, 3], [3.0, 5.0, 7.0]).slope == pytest.approx(2.0)
    flat = {b: Timings(wall=[0.1 + b], peak=100) for b in (1, 2, 4)}
    verdict = judge_scaling(flat, flat, 8, "wall")
    assert verdict["time_linear"]
    assert verdict["memory_flat"]
    grown = {b: Timings(wall=[float(b**3)], peak=100 + 10 * b) for b in (1, 2, 4)}
    assert not judge_scaling(grown, flat, 8, "wall")["time_linear"]
    assert not judge_scaling(grown, flat, 8, "wall")["memory_flat"]
    assert not judge_scaling(flat, grown, 8, "wall")["memory_flat"]
