"""Batches to processes, and what they made of them back in order.

Processes are spawned, so that no lock, thread or open file of this one comes along; each opens its
own detector once.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Final

from intramural.bulk_rows import Batch
from intramural.bulk_tally import Tally
from intramural.bulk_worker import Task, Worker
from intramural.errors import CommandRefused
from policies.model import PiiPolicy

_WORKER_BYTES: Final = 1200 * 2**20
"""What a worker's models and batch take at most; fewer workers are started where memory is short."""


def usable_cores() -> int:
    """The cores that this process may use: its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def processes(wanted: int | None, batches: int) -> int:
    """Processes to start: no more than there are cores, batches, and memory for their models."""
    if wanted is not None:
        return max(1, min(wanted, batches))
    return max(1, min(usable_cores(), batches, _memory() // _WORKER_BYTES))


def _memory() -> int:
    """Bytes of memory that are available; plenty where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**40


def scrubbed(task: Task, batches: Iterator[Batch], workers: int) -> Iterator[tuple[bytes, Tally]]:
    """What becomes of each batch, in order. At most two batches a worker are waiting."""
    if workers == 1:
        worker = open_worker(task)
        for batch in batches:
            yield worker.scrub(batch)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (task,)) as pool:
        waiting: deque[Future[tuple[bytes, Tally]]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_work, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise CommandRefused(
                "a scrubbing process was ended from outside, perhaps for want of memory; what is "
                "done is kept: repeat the command, with fewer --workers"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def open_worker(task: Task) -> Worker:
    """A worker with its detector, in this process."""
    from intramural import parts

    return Worker(task, parts.detector_for(PiiPolicy() if task.policy is None else task.policy.pii))


_worker: Worker | Exception | None = None


def _start(task: Task) -> None:
    """Open this process's worker. A pool would swallow the error, so that is kept for the first batch."""
    global _worker
    # Whoever asked for the work decides when it ends: not a signal that the terminal sends to all,
    # and, should the asker be killed, nobody is left to be worked for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    try:
        _worker = open_worker(task)
    except Exception as error:
        _worker = error


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(batch: Batch) -> tuple[bytes, Tally]:
    if isinstance(_worker, Exception):
        raise _worker
    if _worker is None:
        raise RuntimeError("this process was not started as a worker")
    return _worker.scrub(batch)
