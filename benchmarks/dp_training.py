"""How long a private training step takes, and how much memory, next to the alternatives.

    .venv/bin/python -m benchmarks.dp_training --quick
    .venv/bin/python -m benchmarks.dp_training --fastdp DIR --peers DIR --scaling --json out.json

See benchmarks/README.md for what is compared and how to read it.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.configuration import COMPLETION_SHARE, Configuration
from benchmarks.goals import Clock, goals_table, judge, judge_scaling
from benchmarks.measure import MIB, Timings, machine, paired_ratio, spread, table
from benchmarks.variants import PLAIN, VARIANTS
from benchmarks.workers import VariantFailed, interleave

ASSET = "smollm2-135m-instruct"
CONFIGURATIONS = ",".join(
    f"{t}x{b}:{d}" for d in ("fp32", "bf16") for t in (128, 256) for b in (8, 16)
)
QUICK_CONFIGURATION = "64x8:fp32"
QUICK_VARIANTS = (PLAIN, "opacus-hooks", "ours-private", "ours-last-quarter")
SCALING_BATCHES = (4, 8, 16, 32, 64)
SCALING_UNITS = (100, 1000, 10_000)
SCALING_SEQUENCE = 128
SCALING_ROUNDS = 3
"""At most; a round of these sizes takes minutes where one of a single configuration takes seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, perhaps write JSON; 1 where a variant failed."""
    options = _parser().parse_args(arguments)
    configurations = _configurations(options)
    variants = options.only or (QUICK_VARIANTS if options.quick else VARIANTS)
    rounds = options.rounds or (1 if options.quick else 7)
    facts = machine(options.threads)
    print(facts, f"model: {configurations[0].model}", sep="\n", flush=True)
    report: dict[str, Any] = {"machine": vars(facts), "rounds": rounds, "configurations": []}
    measured: dict[str, dict[str, Timings]] = {}
    try:
        for configuration in configurations:
            timings = interleave({v: (v, configuration) for v in variants}, rounds)
            measured[configuration.name] = timings
            print(f"\n{configuration.name}\n{_timings_table(timings)}", flush=True)
            report["configurations"].append(_as_json(configuration, timings))
        clock: Clock = "wall" if facts.accelerator or facts.threads > 1 else "cpu"
        goals = judge(measured, clock)
        report["clock"] = clock
        print(
            f"\nGoals, by {'wall' if clock == 'wall' else 'CPU'} time\n{goals_table(goals, list(measured))}",
            flush=True,
        )
        report["goals"] = [goal.as_json() for goal in goals]
        if options.scaling:
            report["scaling"] = _scaling(configurations[0], min(rounds, SCALING_ROUNDS), clock)
    except VariantFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        # What was measured before a variant failed took long enough to be worth keeping.
        if options.json is not None:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dp_training",
        description="Time and memory of a private LoRA step next to the alternatives.",
    )
    parser.add_argument("--quick", action="store_true", help="one small configuration, under 60 s")
    parser.add_argument(
        "--scaling", action="store_true", help="also time and memory of ours by size"
    )
    parser.add_argument("--only", type=_variants, metavar="A,B", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument(
        "--configs",
        type=_shapes,
        metavar="TxB:DTYPE,...",
        help=f"sequence x batch:fp32|bf16; default {CONFIGURATIONS}",
    )
    parser.add_argument("--rounds", type=_positive, help="counted rounds; default 7, quick 1")
    parser.add_argument("--threads", type=_positive, default=1, help="of each variant; default 1")
    parser.add_argument("--model", type=Path, help=f"folder of the model; default asset {ASSET}")
    parser.add_argument("--fastdp", help="folder with a checkout of fast-differential-privacy")
    parser.add_argument("--peers", help="folder into which Opake was installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    return parser


def _variants(text: str) -> tuple[str, ...]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no variant {', '.join(unknown)}; choose among {', '.join(VARIANTS)}"
        )
    # Everything is told as a ratio to the plain step, so it is always measured.
    return tuple(dict.fromkeys([PLAIN, *chosen]))


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return value


def _shapes(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sequence, batch and dtype of each configuration named."""
    shapes = []
    for name in text.split(","):
        found = re.fullmatch(r"(\d+)x(\d+):(fp32|bf16)", name)
        if found is None:
            raise argparse.ArgumentTypeError(f"{name!r} is not like 128x8:fp32 or 128x8:bf16")
        sequence, batch = int(found[1]), int(found[2])
        if sequence < COMPLETION_SHARE or batch < 1:
            raise argparse.ArgumentTypeError(
                f"{name!r} needs at least {COMPLETION_SHARE} tokens and 1 unit"
            )
        shapes.append((sequence, batch, found[3]))
    return tuple(shapes)


def _configurations(options: argparse.Namespace) -> list[Configuration]:
    model = options.model
    if model is None:
        from intramural.assets import asset_path

        model = asset_path(ASSET)
    shapes = options.configs or _shapes(QUICK_CONFIGURATION if options.quick else CONFIGURATIONS)
    return [
        Configuration(
            model=str(model),
            sequence=sequence,
            batch=batch,
            dtype=dtype,
            threads=options.threads,
            fastdp=options.fastdp,
            peers=options.peers,
        )
        for sequence, batch, dtype in shapes
    ]


def _timings_table(timings: Mapping[str, Timings]) -> str:
    plain = timings[PLAIN]
    rows = []
    for name, t in timings.items():
        if t.missing:
            continue
        rows.append(
            [
                name,
                f"{spread(t.wall).median:.3f}",
                f"{spread(t.cpu).median:.3f}",
                str(paired_ratio(t.wall, plain.wall)),
                str(paired_ratio(t.cpu, plain.cpu)),
                f"{t.peak / MIB:.0f}",
                f"{t.peak / plain.peak:.2f}",
            ]
        )
    header = [
        "variant",
        "wall s",
        "CPU s",
        "wall over plain",
        "CPU over plain",
        "peak MiB",
        "over plain",
    ]
    said: dict[str, list[str]] = {}
    for name, t in timings.items():
        said.setdefault(t.missing or t.note, []).append(name)
    return "\n".join(
        [table(header, rows), *(f"{', '.join(n)}: {what}" for what, n in said.items())]
    )


def _as_json(configuration: Configuration, timings: Mapping[str, Timings]) -> dict[str, Any]:
    plain = timings[PLAIN]
    variants: dict[str, dict[str, Any]] = {}
    for name, t in timings.items():
        if t.missing:
            variants[name] = {"missing": t.missing}
            continue
        variants[name] = {
            "note": t.note,
            "wall_s": t.wall,
            "cpu_s": t.cpu,
            "wall_ratio": paired_ratio(t.wall, plain.wall).as_json(),
            "cpu_ratio": paired_ratio(t.cpu, plain.cpu).as_json(),
            "peak_bytes": t.peak,
        }
    return {"name": configuration.name, "variants": variants}


def _scaling(configuration: Configuration, rounds: int, clock: Clock) -> dict[str, Any]:
    """Ours at growing batches and at growing data sets, interleaved; printed and returned."""
    base = replace(configuration, sequence=SCALING_SEQUENCE)
    batches = {b: replace(base, batch=b) for b in SCALING_BATCHES}
    sizes = {n: replace(base, batch=SCALING_BATCHES[1], units=n) for n in SCALING_UNITS}
    entries = {f"batch {b}": ("ours-private", c) for b, c in batches.items()}
    entries |= {f"units {n}": ("ours-private", c) for n, c in sizes.items()}
    timings = interleave(entries, rounds)
    rows = [
        [n, str(spread(t.wall)), str(spread(t.cpu)), f"{t.peak / MIB:.0f}"]
        for n, t in timings.items()
    ]
    verdict = judge_scaling(
        {b: timings[f"batch {b}"] for b in batches},
        {n: timings[f"units {n}"] for n in sizes},
        base.sequence,
        clock,
    )
    print(f"\nours-private by size, {base.sequence} tokens a unit, {base.dtype}")
    print(table(["size", "wall s", "CPU s", "peak MiB"], rows))
    print(
        f"time linear in tokens: {'yes' if verdict['time_linear'] else 'no'} "
        f"(R² {verdict['r_squared']:.4f}, {1e6 * verdict['seconds_per_token']:.1f} µs a token, "
        f"{verdict['seconds_at_zero']:.3f} s at none); "
        f"memory flat: {'yes' if verdict['memory_flat'] else 'no'} "
        f"(largest over smallest peak {verdict['peak_growth_with_batch']:.2f} over batches, "
        f"{verdict['peak_growth_with_units']:.2f} over data sets)"
    )
    return verdict | {"peak_bytes": {name: t.peak for name, t in timings.items()}}


if __name__ == "__main__":
    sys.exit(main())
