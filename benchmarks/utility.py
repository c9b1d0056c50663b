"""What privacy costs in accuracy: federated fine-tuning with and without noise, on public data.

    .venv/bin/python -m benchmarks.utility --quick --encoder DIR
    .venv/bin/python -m benchmarks.utility --encoder DIR --json FILE --plot docs/figures/utility.png

Two tasks, each at no privacy and at some epsilons (per department, over the whole run, unit
"record", add or remove one, delta 1e-5):

``intents``: CLINC150 (Larson et al. 2019, arXiv 1909.02027), 150 intents held by six departments,
no intent by two of them; a new head over the mean of a frozen sentence encoder's states. Accuracy
on the test split.

``generation``: E2E NLG (Novikova et al. 2017, arXiv 1706.09254), texts of restaurants dealt out to
three departments; a language model of 135 million parameters, LoRA on its last four blocks. Nats
per completion token on the test split, and BLEU and ROUGE-L of what it says by greedy decoding.

Every round each department takes a step on its own records from the common adapter, and the server
adds the average of what they send, with momentum. Sizes of departments are public facts here;
clipping norm, sampling rate and the normaliser are the same for all, as in a request of the server.

Learning rates were not chosen on the data that is scored. ``--tune`` runs the tries from which they
were taken, at epsilon 8, on other public data: BANKING77's training split, part of it held out, for
the first task; a public handbook for the second. Each recipe serves all settings of its task, the
one without privacy too. Clipping norms were not tuned. What else went into the recipes, a prototype
on CLINC150 among it, is in benchmarks/RESULTS.md. Who tunes on private records instead must charge
every try to the budget; this benchmark shows no such cost.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

from benchmarks.measure import Machine, machine, table
from benchmarks.utility_tasks import (
    DELTA,
    Recipe,
    Scores,
    Task,
    banking,
    generation,
    handbook,
    intents,
)
from privacy.dp.adapter import Adapter
from server.aggregation.checks import apply_update
from server.aggregation.mean import RunningMean

DATA = Path("../shared/data")
CAPTION = f"per department, unit record, add or remove one, delta {DELTA:g}, whole run"

INTENT_TRIES: list[dict[str, Any]] = [
    {"rounds": 40, "learning_rate": 2.0},
    {"rounds": 40, "learning_rate": 4.0},
    {"rounds": 40, "learning_rate": 8.0},
    {"rounds": 40, "learning_rate": 16.0},
    {"learning_rate": 8.0},
    {"learning_rate": 16.0},
]
GENERATION_TRIES: list[dict[str, Any]] = [
    {"learning_rate": 3.0},
    {"learning_rate": 10.0},
    {"learning_rate": 30.0},
]


@dataclass
class Result:
    """Scores of one setting by metric, over the seeds, with the noise that it had."""

    task: str
    setting: str
    epsilon: float | None
    noise_multiplier: float | None
    recipe: Recipe
    scores: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scores: Scores) -> None:
        """Those of one more run."""
        for metric, score in scores.items():
            self.scores.setdefault(metric, []).append(score)


def half_width(scores: Sequence[float]) -> float:
    """Of the 95 % interval of the mean by Student's t; not a number for a single run."""
    runs = len(scores)
    if runs < 2:
        return math.nan
    spread = statistics.stdev(scores) / math.sqrt(runs)
    return float(stats.t.ppf(0.975, runs - 1)) * spread


def federated(task: Task, recipe: Recipe, noise_multiplier: float | None, seed: int) -> Adapter:
    """The adapter after all rounds.

    ``seed`` draws the public start. Sampling and noise come from the operating system, so that the
    same seed gives another run.
    """
    adapter: Adapter = task.trainer.initial_adapter(recipe.config, seed)
    plan = recipe.plan(noise_multiplier)
    velocity: dict[str, Any] = {}
    for _ in range(recipe.rounds):
        summed = RunningMean()
        for department, units in task.departments.items():
            update = task.trainer.train(adapter, units, plan, recipe.learning_rate, recipe.config)
            summed.add(department, update)
        mean = summed.result()
        velocity = {
            name: recipe.server_momentum * velocity.get(name, 0) + mean[name] - adapter[name]
            for name in mean
        }
        moved = {name: adapter[name] + change for name, change in velocity.items()}
        adapter = apply_update(adapter, moved)
    return adapter


def prepared_result(task: Task, target: float | None) -> Result:
    """A setting without a run yet; ``target``: its epsilon, None without privacy."""
    noise, spent = (None, None) if target is None else task.recipe.noise_for(target)
    setting = "not private" if target is None else f"epsilon {target:g}"
    return Result(task.name, setting, spent, noise, task.recipe)


def run(task: Task, result: Result, seed: int) -> None:
    """One more run of a setting."""
    start = time.perf_counter()
    adapter = federated(task, result.recipe, result.noise_multiplier, seed)
    scores = task.score(result.recipe.config, adapter)
    result.add(scores)
    print(
        f"{task.name}: {result.setting}, seed {seed}: {shown(scores)}"
        f" ({time.perf_counter() - start:.0f} s)",
        flush=True,
    )


def shown(scores: Scores) -> str:
    """In one line."""
    return ", ".join(f"{metric} {score:.4f}" for metric, score in scores.items())


def tune(task: Task, tries: Sequence[Mapping[str, Any]], target: float) -> None:
    """Score each of ``tries``, changes to the task's recipe, by one run."""
    print(f"{task.name}: tuned on {task.note}, epsilon {target:g}")
    for tried in tries:
        recipe = replace(task.recipe, **tried)
        noise, _ = recipe.noise_for(target)
        scores = task.score(recipe.config, federated(task, recipe, noise, 0))
        print(f"  {tried}: {shown(scores)}", flush=True)


def report(results: Sequence[Result]) -> str:
    """The table, one line a setting."""
    header = (
        "task, setting",
        "noise multiplier",
        "epsilon",
        "metric",
        "mean",
        "95 % interval",
        "runs",
    )
    return table(
        header,
        [
            (
                f"{r.task}, {r.setting}",
                "-" if r.noise_multiplier is None else f"{r.noise_multiplier:.3f}",
                "-" if r.epsilon is None else f"{r.epsilon:.3f}",
                metric,
                f"{statistics.fmean(scores):.4f}",
                "-" if len(scores) < 2 else f"± {half_width(scores):.4f}",
                str(len(scores)),
            )
            for r in results
            for metric, scores in r.scores.items()
        ],
    )


def as_json(host: Machine, notes: Sequence[str], results: Sequence[Result]) -> str:
    """Everything that was measured so far."""
    rows = [
        asdict(r)
        | {
            "mean": {metric: statistics.fmean(s) for metric, s in r.scores.items()},
            "half_width_95": {m: half_width(s) for m, s in r.scores.items() if len(s) > 1},
        }
        for r in results
        if r.scores
    ]
    content = {
        "benchmark": "utility",
        "machine": asdict(host),
        "delta": DELTA,
        "notes": notes,
        "results": rows,
    }
    return json.dumps(content, indent=2) + "\n"


def plot(results: Sequence[Result], file: Path) -> None:
    """A panel for each task, by its first metric: its settings with their intervals.

    Says so where it cannot.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{file} is not drawn: matplotlib is not installed (pip install matplotlib)")
        return
    tasks = list(dict.fromkeys(r.task for r in results))
    figure = Figure(figsize=(4.2 * len(tasks), 3.4), layout="constrained")
    for place, name in enumerate(tasks, start=1):
        axes = figure.add_subplot(1, len(tasks), place)
        drawn = [r for r in results if r.task == name and r.scores]
        metric = next(iter(drawn[0].scores))
        for x, result in enumerate(drawn):
            scores = result.scores[metric]
            axes.plot([x], [statistics.fmean(scores)], "C0o")
            axes.plot([x + 0.12] * len(scores), scores, "k.", markersize=3)
            if len(scores) > 1:
                axes.errorbar(
                    [x], [statistics.fmean(scores)], [half_width(scores)], color="C0", capsize=5
                )
        axes.set_xticks(range(len(drawn)), [r.setting for r in drawn], fontsize=8)
        axes.set_xlim(-0.5, len(drawn) - 0.5)
        axes.set_ylabel(metric)
        axes.set_title(name)
        axes.grid(axis="y", alpha=0.3)
    figure.supxlabel(CAPTION, fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def tasks_of(options: argparse.Namespace) -> list[Callable[[], Task]]:
    """How to make each task that the options and what is on this machine allow."""
    tasks: list[Callable[[], Task]] = []
    if options.task in ("both", "intents"):
        if options.encoder is None:
            print("intents: skipped; give --encoder DIR, the folder of a sentence encoder")
        elif not (options.data / "clinc150.jsonl.gz").exists():
            print(f"intents: skipped; {options.data} holds no clinc150.jsonl.gz (--data DIR)")
        else:
            tasks.append(lambda: intents(options.data, options.encoder, quick=options.quick))
    if options.task in ("both", "generation"):
        if not (options.data / "e2e_nlg.jsonl.gz").exists():
            print(f"generation: skipped; {options.data} holds no e2e_nlg.jsonl.gz (--data DIR)")
        else:
            tasks.append(lambda: generation(options.data, quick=options.quick))
    return tasks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute; figures of no use")
    parser.add_argument("--task", choices=("both", "intents", "generation"), default="both")
    parser.add_argument("--seeds", type=int, default=3, help="runs a setting (default 3)")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="JSONL files")
    parser.add_argument("--encoder", type=Path, metavar="DIR", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--tune", action="store_true", help="run the grids on public stand-ins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (PNG or SVG)")
    options = parser.parse_args(arguments)
    host = machine(int(os.environ.get("OMP_NUM_THREADS", "0")) or (os.cpu_count() or 1))
    print(host)
    if options.tune:
        if options.encoder is not None and options.task != "generation":
            tune(banking(options.data, options.encoder), INTENT_TRIES, 8.0)
        if options.task != "intents":
            tune(handbook(options.data), GENERATION_TRIES, 8.0)
        return
    results: list[Result] = []
    notes: list[str] = []
    targets = (None, 8.0) if options.quick else (None, 8.0, 3.0)
    for make in tasks_of(options):
        task = make()
        notes.append(f"{task.name}: {task.note}")
        print(notes[-1], flush=True)
        results.append(Result(task.name, "untrained", None, None, task.recipe))
        results[-1].add(task.score(task.recipe.config, None))
        settings = [prepared_result(task, target) for target in targets]
        results += settings
        for seed in range(1 if options.quick else options.seeds):
            for setting in settings:
                run(task, setting, seed)
                if options.json:  # runs take minutes: what is measured is kept at once
                    options.json.write_text(as_json(host, notes, results))
    if not results:
        return
    print(f"\n{report(results)}\n{CAPTION}")
    print("tuned on public stand-ins only (see --tune); tuning on private data would be charged")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
