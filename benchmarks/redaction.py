"""Redaction against stock Presidio: quality, CPU time of a prompt, bulk throughput, memory.

    .venv/bin/python -m benchmarks.redaction --quick
    .venv/bin/python -m benchmarks.redaction --json figures.json

Everything that is compared runs in one process, in turns, on the same texts; a ratio is formed
from turns that lie moments apart. Times are CPU time of the process on one thread. Memory is
measured in a process for each.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measure import MIB, resident_bytes, table
from benchmarks.redaction_arms import OPENERS, STOCK_BATCH, Arm, open_labelling
from intramural.labelled import LabelledText, kinds_for, labels_of, read_labelled
from privacy.pii.entities import ENTITIES
from privacy.pii.evaluation import Evaluation, Mark, Scores

DATA: Final = Path("../shared/data")
ENGLISH: Final = "presidio_synth_pii.jsonl"
PROMPT: Final = 300
BATCH: Final = 256
SEED: Final = 20_260_131
EXACT: Final = ("EMAIL_ADDRESS", "DOMAIN_NAME", "IBAN_CODE", "US_SSN", "CREDIT_CARD")


@dataclass(frozen=True)
class Goal:
    """A figure with its bound: at least, or at most."""

    text: str
    value: float | None
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"goal": self.text, "value": self.value, "bound": self.bound, "met": self.met}


def score(arm: Arm, texts: Sequence[LabelledText], kinds: frozenset[str] | None) -> Scores:
    """The evaluation of all that an arm finds, or of what it finds of some kinds."""
    evaluation = Evaluation()
    for first in range(0, len(texts), BATCH):
        batch = texts[first : first + BATCH]
        found = arm.many([item.text for item in batch])
        for item, spans in zip(batch, found, strict=True):
            wanted = [span for span in spans if kinds is None or span.entity in kinds]
            evaluation.add(len(item.text), item.marks, wanted)
    return evaluation.scores()


def prompts(texts: Sequence[str], count: int) -> list[str]:
    """Texts strung together to prompts of ``PROMPT`` characters, cut where that many are reached."""
    made, current = [], ""
    for text in texts:
        current = f"{current} {text}".strip()
        if len(current) >= PROMPT:
            made.append(current[:PROMPT])
            current = ""
        if len(made) == count:
            break
    return made


def time_prompts(arms: dict[str, Arm], texts: Sequence[str]) -> dict[str, list[float]]:
    """CPU-milliseconds of each arm on each prompt; the order of the arms turns with the prompts."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    for arm in arms.values():
        for text in texts[:3]:
            arm.one(text)
    for place, text in enumerate(texts):
        for turn in range(len(names)):
            name = names[(place + turn) % len(names)]
            taken[name].append(1e3 * _cpu(partial(arms[name].one, text)))
    return taken


def time_bulk(arms: dict[str, Arm], texts: Sequence[str]) -> dict[str, list[float]]:
    """Characters per CPU-second of each arm on each batch, the arms in turns."""
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm.many(texts[:8])
    for first in range(0, len(texts), BATCH):
        batch = texts[first : first + BATCH]
        for name, arm in arms.items():
            rates[name].append(sum(map(len, batch)) / _cpu(partial(arm.many, batch)))
    return rates


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def memory(names: Sequence[str]) -> dict[str, float]:
    """Resident MiB of a process that has opened an arm and read a few prompts with it."""
    found = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.redaction", "--memory-of", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = float(done.stdout.split()[-1])
    return found


def print_memory(name: str) -> None:
    """What the process of :func:`memory` does."""
    arm = OPENERS[name]()
    arm.many(["Ruth Baker lives at 12 High Street, Leeds. Call +44 20 7946 0018."] * 32)
    print(resident_bytes() / MIB)


def chinese(count: int) -> list[LabelledText]:
    """Generated records of the held-out split; tuning saw none of its templates and lists."""
    from benchmarks.redaction_zh import Writer

    return [
        LabelledText(r["id"], r["text"], tuple(Mark(*span) for span in r["spans"]))
        for r in Writer("held-out", SEED).records(count)
    ]


# --- reporting ------------------------------------------------------------------------------------


def quality_table(scores: dict[str, Scores]) -> str:
    """One row an arm, with 95 % intervals."""
    rows = []
    for name, found in scores.items():
        cells = [found.precision, found.recall, found.f1, found.f2]
        rows.append(
            [
                name,
                *(f"{s.value or 0:.3f} [{s.least or 0:.3f}, {s.greatest or 0:.3f}]" for s in cells),
            ]
        )
    return table(["", "precision", "recall", "F1", "F2"], rows)


def kinds_table(scores: dict[str, Scores]) -> str:
    """Recall of each label by each arm."""
    by_label = {
        name: {kind.label: kind.recall.value for kind in found.kinds}
        for name, found in scores.items()
    }
    first = next(iter(scores.values()))
    rows = [
        [
            kind.label,
            str(kind.marks),
            *(f"{by_label[n].get(kind.label) or 0:.3f}" for n in by_label),
        ]
        for kind in first.kinds
    ]
    return table(["recall of", "marks", *by_label], rows)


def times_table(taken: dict[str, list[float]]) -> str:
    """p50 and p99 of each arm."""
    rows = [
        [name, f"{np.percentile(ms, 50):.2f}", f"{np.percentile(ms, 99):.2f}", f"{np.mean(ms):.2f}"]
        for name, ms in taken.items()
    ]
    return table([f"CPU-ms per {PROMPT} characters", "p50", "p99", "mean"], rows)


def goals_of(figures: dict[str, Any]) -> Iterator[Goal]:
    """What redaction ought to reach, with what was measured."""
    if english := figures.get("english"):
        ours = english["ours"]
        yield Goal("F2 by characters", ours["f2"]["value"], 0.93)
        yield Goal("precision by characters", ours["precision"]["value"], 0.88)
        for label, bound in (("PERSON", 0.98), *((label, 1.0) for label in EXACT)):
            found = ours["types"].get(label)
            yield Goal(f"recall of {label}", found and found["recall"]["value"], bound)
    if taken := figures.get("prompt_cpu_ms"):
        stock = taken["stock"]["p50"]
        yield Goal("CPU-ms of a prompt, at most stock's", taken["ours"]["p50"], stock, at_most=True)
        yield Goal("CPU-ms of a prompt, at most 35", taken["ours"]["p50"], 35.0, at_most=True)
        yield Goal("CPU-ms of a prompt, fast profile", taken["fast"]["p50"], 5.0, at_most=True)
    if bulk := figures.get("bulk"):
        yield Goal("bulk rate over stock's default batch", bulk["over_stock_default"], 3.0)
        yield Goal(f"bulk rate over stock's batch of {STOCK_BATCH}", bulk["over_stock"], 3.0)
    if rate := figures.get("chinese_characters_per_cpu_second"):
        yield Goal("Chinese characters per CPU-second", rate, 40_000)


def goals_table(goals: Sequence[Goal]) -> str:
    """One row a goal."""
    words = {True: "met", False: "missed", None: "not measured"}
    rows = [
        [
            goal.text,
            "-" if goal.value is None else f"{goal.value:,.3f}",
            f"{'<=' if goal.at_most else '>='} {goal.bound:,.3f}",
            words[goal.met],
        ]
        for goal in goals
    ]
    return table(["goal", "measured", "bound", ""], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a part of everything, under a minute")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help=f"holds {ENGLISH}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--memory-of", choices=sorted(OPENERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        print_memory(options.memory_of)
        return 0
    figures = measure(options.data / ENGLISH, quick=options.quick)
    goals = list(goals_of(figures))
    print(goals_table(goals))
    if options.json:
        report = {**figures, "goals": [goal.as_json() for goal in goals]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(file: Path, *, quick: bool) -> dict[str, Any]:
    """Everything, printed as it comes; without the English file, what needs none."""
    figures: dict[str, Any] = {"benchmark": "redaction", "quick": quick, "seed": SEED}
    arms: dict[str, Arm] = {name: opened() for name, opened in OPENERS.items()}
    if file.is_file():
        english = list(read_labelled(file))[:: 6 if quick else 1]
        kinds = kinds_for(labels_of(english), ENTITIES)
        scores = {
            "stock": score(arms["stock"], english, None),
            "ours": score(open_labelling(), english, kinds),
            "fast": score(arms["fast"], english, kinds),
        }
        figures["english"] = {name: found.as_json() for name, found in scores.items()}
        print(
            f"{file.name}, {len(english)} texts\n\n{quality_table(scores)}\n\n{kinds_table(scores)}\n"
        )
        figures |= _speed(arms, [item.text for item in english], quick=quick)
    else:
        print(f"English: skipped; there is no {file} (--data DIR)\n")
    figures |= _chinese(arms, quick=quick)
    if not quick:
        figures["resident_mib"] = found_memory = memory(list(OPENERS))
        rows = [[name, f"{size:,.0f}"] for name, size in found_memory.items()]
        print(table(["resident MiB", ""], rows) + "\n")
    return figures


def _speed(arms: dict[str, Arm], texts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    taken = time_prompts(arms, prompts(texts, 40 if quick else 300))
    print(times_table(taken) + "\n")
    stock: Any = arms["stock"]
    rates = time_bulk(
        {
            "stock": stock,
            "stock, batch 1": replace(stock, batch=1),
            "ours": arms["ours"],
            "fast": arms["fast"],
        },
        texts,
    )
    means = {name: len(rate) / sum(1 / r for r in rate) for name, rate in rates.items()}
    ratio = {
        name: float(np.median(np.array(rates["ours"]) / np.array(rates[name])))
        for name in ("stock", "stock, batch 1")
    }
    rows = [[name, f"{rate:,.0f}", f"{rate / means['stock']:.2f}"] for name, rate in means.items()]
    print(table(["bulk", "characters per CPU-second", "over stock"], rows) + "\n")
    return {
        "prompt_cpu_ms": {
            name: {"p50": float(np.percentile(ms, 50)), "p99": float(np.percentile(ms, 99))}
            for name, ms in taken.items()
        },
        "bulk": {
            "characters_per_cpu_second": means,
            "over_stock": ratio["stock"],
            "over_stock_default": ratio["stock, batch 1"],
        },
    }


def _chinese(arms: dict[str, Arm], *, quick: bool) -> dict[str, Any]:
    records = chinese(200 if quick else 1000)
    kinds = kinds_for(labels_of(records), ENTITIES)
    scores = {
        "stock, as English": score(arms["stock"], records[:200], None),
        "ours": score(open_labelling(), records, kinds),
    }
    print(f"generated Chinese records, {len(records)} held out\n\n{quality_table(scores)}\n")
    print(kinds_table({"ours": scores["ours"]}) + "\n")
    texts = [record.text for record in records]
    rate = sum(map(len, texts)) / _cpu(lambda: arms["ours"].many(texts))
    print(f"Chinese, bulk: {rate:,.0f} characters per CPU-second\n")
    return {
        "chinese": {name: found.as_json() for name, found in scores.items()},
        "chinese_characters_per_cpu_second": rate,
    }


if __name__ == "__main__":
    sys.exit(main())
