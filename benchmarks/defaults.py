"""Which learning rate, batch, clipping norm and number of steps suit DP, by size of the data.

    .venv/bin/python -m benchmarks.defaults --quick
    .venv/bin/python -m benchmarks.defaults --json defaults.json

One department's training at epsilon 8, delta 1e-5, on records of CLINC150 (public), scored by the
completion loss on its validation split. Settings are varied around the policy's defaults, for
several numbers of records; each run has its own start, sample and noise. What is printed was tuned
on public records; the same search on private ones would have to be charged.
"""

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine
from client.rows import label_completion, label_prompt
from intramural.assets import asset_path
from privacy.dp.accounting import calibrate_noise
from privacy.dp.adapter import AdapterConfig
from privacy.dp.encode import Example, encode_completion
from privacy.dp.events import PoissonGaussian
from privacy.dp.plan import DpPlan
from privacy.dp.trainer import LoraTrainer

DATA = Path("../shared/data/clinc150.jsonl.gz")
EPSILON, DELTA = 8.0, 1e-5
CONFIG = AdapterConfig(4, 8, ("q_proj", "k_proj", "v_proj", "o_proj"), last_layers=4)
HELD_OUT = 100


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    units: int
    sampling_rate: float = 0.1
    steps: int = 16
    learning_rate: float = 0.1
    clipping_norm: float = 0.5
    clipping: str = "flat"


def variations(units: int) -> Iterator[Setting]:
    """The defaults, and others that differ from them in one or two things.

    A step costs as many passes as its batch has records, so fewer are tried where there are more.
    """
    start = Setting(units)
    yield start
    yield replace(start, sampling_rate=0.05)
    yield replace(start, learning_rate=0.03)
    if units <= 1000:
        yield replace(start, sampling_rate=0.3)
    if units <= 250:
        yield replace(start, clipping_norm=0.1)
        yield replace(start, steps=48, learning_rate=0.03)
        yield replace(start, learning_rate=0.3)
        yield replace(start, steps=32, sampling_rate=0.05)
        yield replace(start, steps=48)
        yield replace(start, clipping="automatic")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, perhaps write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="CLINC150 as JSON Lines (.gz)")
    parser.add_argument("--units", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--seeds", type=int, default=2, help="runs of each setting")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two settings of 100 records")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        print(f"error: no records at {options.data}; name them with --data", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    host = machine(options.threads)
    print(host)
    trainer = LoraTrainer(asset_path("smollm2-135m-instruct"))
    train, held_out = (read(options.data, split, trainer) for split in ("train", "validation"))
    held_out = held_out[:: max(1, len(held_out) // HELD_OUT)][:HELD_OUT]
    before = statistics.fmean(trainer.losses(held_out, CONFIG, None))
    print(f"held-out loss before: {before:.3f} nats per token of {len(held_out)} records")
    print("units  rate   steps  lr     clip            noise  loss (each seed)        CPU s")
    rows: list[dict[str, Any]] = []
    for units in [100] if options.quick else options.units:
        # Evenly spread over a file that is sorted by label.
        chosen = [(train[i * len(train) // units],) for i in range(units)]
        settings = list(variations(units))[: 2 if options.quick else None]
        for setting in settings:
            noise = calibrate_noise(
                lambda z, s=setting: [PoissonGaussian(s.sampling_rate, z, s.steps)], EPSILON, DELTA
            )
            plan = DpPlan(
                setting.sampling_rate,
                setting.steps,
                noise,
                setting.clipping_norm,
                setting.sampling_rate * units,
                clipping=setting.clipping,  # type: ignore[arg-type]
            )
            began, losses = time.process_time(), []
            for seed in range(options.seeds):
                adapter = trainer.initial_adapter(CONFIG, seed)
                update = trainer.train(adapter, chosen, plan, setting.learning_rate, CONFIG)
                after = trainer.losses(held_out, CONFIG, {**adapter, **update})
                losses.append(statistics.fmean(after))
            seconds = (time.process_time() - began) / options.seeds
            rows.append(asdict(setting) | {"noise": noise, "losses": losses, "cpu_s": seconds})
            shown = " ".join(f"{loss:.3f}" for loss in losses)
            print(
                f"{units:5d}  {setting.sampling_rate:<5g}  {setting.steps:<5d}  "
                f"{setting.learning_rate:<5g}  {setting.clipping_norm:<4g} {setting.clipping:<10s} "
                f"{noise:6.3f}  {shown:22s}  {seconds:.0f}",
                flush=True,
            )
            if options.json:  # hours of work: what is measured is kept at once
                report = {"machine": vars(host), "before": before, "rows": rows}
                options.json.write_text(json.dumps(report, indent=1))
    return 0


def read(path: Path, split: str, trainer: LoraTrainer) -> list[Example]:
    """The split's records as label completions."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        encode_completion(
            trainer.tokenizer, label_prompt(r["text"]), label_completion(r["label"]), 96
        )
        for r in rows
        if r["split"] == split and r["department"] != "none"
    ]


if __name__ == "__main__":
    sys.exit(main())
