"""One process for each variant, stepping in turn.

A process of its own keeps the variants honest: what one library patches globally, or what one
variant leaves in the allocator, never touches another, and the peak memory of each can be read.
They take turns, so that only one of them works at any moment and all see the same weather.
"""

import contextlib
import io
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
import transformers

from benchmarks.configuration import Configuration
from benchmarks.measure import PeakMemory, Timings, give_back_memory
from benchmarks.peers import PeerMissing
from benchmarks.variants import prepare


class VariantFailed(Exception):
    """A variant raised; the message carries its traceback."""


def interleave(
    entries: Mapping[str, tuple[str, Configuration]], rounds: int, warm_up: int = 1
) -> dict[str, Timings]:
    """``rounds`` steps of every entry, A B C A B C ..., after ``warm_up`` uncounted rounds.

    ``entries``: variant and configuration by the name of the result. Raises
    :class:`VariantFailed` where a variant that could be had does not work.
    """
    with contextlib.ExitStack() as stack:
        # All of them start before the first is asked: they load side by side.
        workers = {name: stack.enter_context(_worker(*entry)) for name, entry in entries.items()}
        results = {name: Timings() for name in entries}
        for name, worker in workers.items():
            answer = _ask(name, worker)
            results[name].note = answer.get("note", "")
            results[name].missing = answer.get("missing", "")
        present = {name: w for name, w in workers.items() if not results[name].missing}
        for turn in range(warm_up + rounds):
            for name, worker in present.items():
                answer = _ask(name, worker, "step")
                if turn >= warm_up:
                    results[name].wall.append(answer["wall"])
                    results[name].cpu.append(answer["cpu"])
        for name, worker in present.items():
            results[name].peak = _ask(name, worker, "peak")["peak"]
    return results


@contextlib.contextmanager
def _worker(variant: str, configuration: Configuration) -> Iterator[Connection]:
    # Set before the first fork: the numerical libraries read it when they are loaded.
    os.environ["OMP_NUM_THREADS"] = str(configuration.threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.variants"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(variant, configuration, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(timeout=30)
        if process.is_alive():
            process.kill()


def _ask(variant: str, worker: Connection, command: str | None = None) -> dict[str, Any]:
    try:
        if command is not None:
            worker.send(command)
        answer: dict[str, Any] = worker.recv()
    except (EOFError, BrokenPipeError) as error:
        raise VariantFailed(
            f"{variant}: its process ended without an answer; memory may have run out: measure "
            "fewer variants at once with --only"
        ) from error
    if "failed" in answer:
        raise VariantFailed(f"{variant}:\n{answer['failed']}")
    return answer


def _serve(variant: str, configuration: Configuration, parent: Connection) -> None:
    """Prepare, answer, then a step at each request until the parent hangs up."""
    try:
        # Libraries print and warn at will; what a variant has to say goes through the pipe.
        warnings.simplefilter("ignore")
        transformers.utils.logging.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
            _answer(variant, configuration, parent, stack)
    except PeerMissing as error:
        parent.send({"missing": str(error)})
    except EOFError:
        return
    except Exception:
        parent.send({"failed": traceback.format_exc()})


def _answer(
    variant: str, configuration: Configuration, parent: Connection, stack: contextlib.ExitStack
) -> None:
    torch.set_num_threads(configuration.threads)
    memory = PeakMemory()
    prepared = stack.enter_context(prepare(variant, configuration, memory.start))
    parent.send({"note": prepared.note})
    while True:
        if parent.recv() == "peak":
            prepared.check()
            parent.send({"peak": memory.above_start()})
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        prepared.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # Ten idle variants that each keep their largest step's memory would not fit. Before the
        # answer, so that this falls into nobody's time.
        give_back_memory()
        parent.send({"wall": wall, "cpu": cpu})
