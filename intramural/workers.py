"""Several worker processes of one command behind one listening socket, and a parent that watches.

The parent forks before anything is opened: it holds the socket and nothing else, no thread, no model,
no database. A worker that ends is replaced; connections that wait in the socket go to the others.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from intramural.deployment.supervisor import die_with_parent

_READY: Final = signal.SIGRTMIN
"""A worker tells its parent that it accepts requests; queued, so that none is lost."""
_WATCHED: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, _READY}
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_STEADY = 60.0


@dataclass(frozen=True)
class Worker:
    """What a worker process knows of itself; ``number`` counts from 0.

    ``replaces`` an earlier worker of the same number, which had been ready.
    """

    number: int
    replaces: bool
    _parent: int

    def ready(self) -> None:
        """Tell the parent that requests are accepted."""
        os.kill(self._parent, _READY)


@dataclass
class _Child:
    number: int
    pid: int = 0
    began: float = 0.0
    was_ready: bool = False
    pause: float = _FIRST_PAUSE
    due: float | None = None


def fork_workers(count: int, *, patience: float, say: Callable[[str], None]) -> Worker:
    """Become ``count`` workers: returns in each of them, and never in the parent.

    The first starts alone, so that what is wrong is found and said once; then the others. The parent
    ends with 0 on SIGTERM and 130 on SIGINT, after its workers did; and with a worker's code where
    one of the first could not start.

    Args:
        count: at least 1.
        patience: seconds for workers to end once they were told; what is left then is killed.
        say: called in the parent with what happened to a worker.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    children = [_Child(number) for number in range(count)]
    while True:
        for child in children if children[0].was_ready else children[:1]:
            if child.pid or (child.due is not None and time.monotonic() < child.due):
                continue
            parent = os.getpid()
            child.pid = os.fork()
            if not child.pid:
                return _become(Worker(child.number, child.was_ready, parent), before)
            child.began, child.due = time.monotonic(), None
        caught = signal.sigtimedwait(_WATCHED, _next(children))
        if caught is None:
            continue
        if caught.si_signo == _READY:
            for child in children:
                child.was_ready |= child.pid == caught.si_pid
        elif caught.si_signo == signal.SIGCHLD:
            _reap(children, patience, say)
        else:
            _end(children, patience, 0 if caught.si_signo == signal.SIGTERM else 130)


def _become(worker: Worker, mask: set[int | signal.Signals]) -> Worker:
    die_with_parent()
    if os.getppid() != worker._parent:
        raise SystemExit(1)  # it died before this could be asked for
    # A terminal sends SIGINT to all of them; the parent alone decides when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return worker


def _reap(children: list[_Child], patience: float, say: Callable[[str], None]) -> None:
    for child in children:
        if not child.pid or (code := _ended(child.pid)) is None:
            continue
        child.pid = 0
        if not child.was_ready:
            _end(children, patience, code if code > 0 else 1)
        if time.monotonic() - child.began > _STEADY:
            child.pause = _FIRST_PAUSE
        say(f"worker {child.number} ended with code {code}; starting again in {child.pause:g} s")
        child.due = time.monotonic() + child.pause
        child.pause = min(2 * child.pause, _LONGEST_PAUSE)


def _end(children: list[_Child], patience: float, code: int) -> NoReturn:
    """End the workers, then this process."""
    left = [child.pid for child in children if child.pid]
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while left := [pid for pid in left if _ended(pid) is None]:
        rest = deadline - time.monotonic()
        if rest <= 0:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            break
        signal.sigtimedwait({signal.SIGCHLD}, rest)
    raise SystemExit(code)


def _ended(pid: int) -> int | None:
    """The exit code of a child, negative for a signal; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _next(children: list[_Child]) -> float:
    """Seconds until there is something to do without a signal."""
    due = [child.due - time.monotonic() for child in children if child.due is not None]
    return max(0.0, min([*due, 3600.0]))
