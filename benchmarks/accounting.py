"""How long the check before a round takes, beside composing the whole history anew.

For histories of 100, 1000 and 5000 rounds, of one run's parameters ("same") and of a new noise
multiplier every 25 rounds ("mixed"), one more round is priced in two ways, in the same process and
alternately: by ``privacy.dp.accounting.epsilon``, and by the peer, ``dp_accounting``'s
``PLDAccountant`` on the same grid, to which the merged history and the round are given. Printed are
medians, with the ratio of the peer's time to ours. "First" is ours with nothing remembered.

    python benchmarks/accounting.py --quick --json accounting.json
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dp_accounting
from dp_accounting import pld

from privacy.dp import accounting
from privacy.dp.composition import CACHE_BYTES, DISCRETISATION, Distributions
from privacy.dp.events import PoissonGaussian

DELTA = 1e-5
STEPS = 4
RATE = 0.1
PER_RUN = 25


def history(kind: str, rounds: int) -> list[PoissonGaussian]:
    """Rounds of 4 steps, with the noise that makes all of them cost an epsilon of 6 to 8."""
    noise = round(RATE * (STEPS * rounds) ** 0.5 / 1.5, 3)
    return [
        PoissonGaussian(
            RATE, noise + (0.001 * (number // PER_RUN) if kind == "mixed" else 0.0), STEPS
        )
        for number in range(rounds)
    ]


def peer(events: Sequence[PoissonGaussian]) -> float:
    """Everything anew, equal events merged, as one would write it."""
    accountant = pld.PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=DISCRETISATION,
    )
    for event, count in Counter(events).items():
        step = dp_accounting.PoissonSampledDpEvent(
            event.sampling_rate, dp_accounting.GaussianDpEvent(event.noise_multiplier)
        )
        accountant.compose(step, count * event.steps)
    return float(accountant.get_epsilon(DELTA))


def forget() -> None:
    """As in a process that has priced nothing yet."""
    accounting._distributions = Distributions(CACHE_BYTES)
    accounting._composed.cache_clear()


def timed(work: Callable[[], float]) -> tuple[float, float, float]:
    """Wall and CPU seconds, and the epsilon."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def measure(kind: str, rounds: int, repeats: int) -> dict[str, Any]:
    events = history(kind, rounds + repeats)
    forget()
    first = timed(lambda: accounting.epsilon(events[:rounds], DELTA))
    ours, theirs = [], []
    for more in range(1, repeats + 1):
        asked = events[: rounds + more]
        pair = [
            (ours, lambda asked=asked: accounting.epsilon(asked, DELTA)),
            (theirs, lambda asked=asked: peer(asked)),
        ]
        for into, work in pair if more % 2 else reversed(pair):
            into.append(timed(work))
    row: dict[str, Any] = {
        "history": kind,
        "rounds": rounds,
        "parameters": len(set(events[:rounds])),
        "epsilon": ours[-1][2],
        "largest_difference": max(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True)),
        "first_wall_s": first[0],
        "first_cpu_s": first[1],
    }
    for name, samples in (("ours", ours), ("peer", theirs)):
        row[f"{name}_wall_s"] = statistics.median(sample[0] for sample in samples)
        row[f"{name}_cpu_s"] = statistics.median(sample[1] for sample in samples)
    row["ratio_wall"] = row["peer_wall_s"] / row["ours_wall_s"]
    row["ratio_cpu"] = row["peer_cpu_s"] / row["ours_cpu_s"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 and 1000 rounds, 3 repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    sizes, repeats = ((100, 1000), 3) if options.quick else ((100, 1000, 5000), 5)

    print(
        "kind   rounds  params  epsilon   first    ours (cpu)      peer (cpu)      peer/ours (cpu)"
    )
    rows = []
    for kind in ("same", "mixed"):
        for rounds in sizes:
            row = measure(kind, rounds, repeats)
            rows.append(row)
            print(
                f"{kind:<6} {rounds:>6} {row['parameters']:>7} {row['epsilon']:>8.4f}"
                f" {row['first_wall_s']:>6.2f}s"
                f" {row['ours_wall_s']:>6.3f}s ({row['ours_cpu_s']:.3f})"
                f" {row['peer_wall_s']:>7.3f}s ({row['peer_cpu_s']:.3f})"
                f" {row['ratio_wall']:>7.1f} ({row['ratio_cpu']:.1f})",
                flush=True,
            )
    if options.json:
        report = {
            "benchmark": "accounting",
            "peer": f"dp-accounting {importlib.metadata.version('dp-accounting')} PLDAccountant",
            "delta": DELTA,
            "repeats": repeats,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "rows": rows,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
