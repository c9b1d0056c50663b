"""Keeps processes running in the foreground: starts, watches, restarts with back-off, ends them all.

Each child has a session of its own and dies with the supervisor. What a killed supervisor's children
had started in turn is found by a variable in its environment, and ended at the next start.
"""

import ctypes
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from intramural.errors import IntramuralError

MARK: Final = "INTRAMURAL_SUPERVISED"
MISCONFIGURED: Final = 78
"""Exit code of a child that would fail the same way again (EX_CONFIG of sysexits.h)."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_STEADY = 60.0
_GRACE = 10.0
_TICK = 0.1
_KEPT_LINES = 40
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
State = Literal["waiting", "starting", "running", "pausing", "stopped"]
Say = Callable[[str, str], None]


class ChildFailed(IntramuralError):
    """A child cannot work with what it was given; restarting it would not help."""


@dataclass(frozen=True)
class Child:
    """A process to keep running.

    ``ready``: what a line of its output looks like once it works; None: it works when it runs.
    ``after``: children that must have been ready once. ``explain``: turns the last lines of a
    child that ended into what to tell and the seconds to wait, or None. ``hidden``: lines not to show.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: re.Pattern[str] | None = None
    after: tuple[str, ...] = ()
    folder: Path | None = None
    explain: Callable[[Sequence[str]], tuple[str, float] | None] = lambda _: None
    hidden: re.Pattern[str] | None = None


class _Running:
    def __init__(self, child: Child, say: Say) -> None:
        self.child = child
        self.state: State = "waiting"
        self.restarts = 0
        self.was_ready = False
        self.due = 0.0
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self._say = say
        self._pause = _FIRST_PAUSE
        self._began = 0.0
        self._reader: threading.Thread | None = None

    def start(self, mark: str) -> None:
        self.lines = []
        self._began = time.monotonic()
        self.state = "starting"
        self.process = subprocess.Popen(  # noqa: S603 - our own commands
            list(self.child.command),
            env={**os.environ, **self.child.environment, MARK: mark, "PYTHONUNBUFFERED": "1"},
            cwd=self.child.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if self.child.ready is None:
            self._is_ready()

    def check(self) -> None:
        """Notice an end, and decide when to begin again.

        Raises:
            ChildFailed: beginning again would not help.
        """
        if self.process is None or (code := self.process.poll()) is None:
            return
        if self._reader is not None:
            self._reader.join(timeout=2.0)
        _end_group(self.process, signal.SIGKILL)
        self.process = None
        if code == MISCONFIGURED:
            self.state = "stopped"
            raise ChildFailed(f"{self.child.name}: {' '.join(self.lines[-3:]) or 'misconfigured'}")
        if time.monotonic() - self._began > _STEADY:
            self._pause = _FIRST_PAUSE
        told, pause = self.child.explain(self.lines) or (f"ended with code {code}", self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._say(self.child.name, f"{told}; starting again in {pause:g} s")
        self.state, self.due = "pausing", time.monotonic() + pause
        self.restarts += 1

    def _read(self, process: "subprocess.Popen[str]") -> None:
        if process.stdout is None:
            return
        for line in process.stdout:
            text = "".join(c for c in _COLOUR.sub("", line.rstrip()) if c.isprintable())
            if not text:
                continue
            self.lines = [*self.lines[1 - _KEPT_LINES :], text]
            if self.child.hidden is None or not self.child.hidden.search(text):
                self._say(self.child.name, text)
            if self.child.ready is not None and self.child.ready.search(text):
                self._is_ready()

    def _is_ready(self) -> None:
        self.was_ready = True
        self.state = "running"


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Supervisor:
    """Runs ``children`` until :meth:`stop`; ``mark`` names what they belong to, as a folder's path.

    ``say(name, text)`` gets every line; ``changed(states)`` is called whenever a state has changed.
    """

    def __init__(
        self,
        children: Sequence[Child],
        mark: str,
        say: Say,
        changed: Callable[[Mapping[str, Mapping[str, object]]], None] = lambda _: None,
    ) -> None:
        self._running = {child.name: _Running(child, say) for child in children}
        self._mark = mark
        self._say = say
        self._changed = changed
        self._stopping = threading.Event()
        self._told: Mapping[str, Mapping[str, object]] = {}

    def stop(self) -> None:
        """End; safe in a signal handler and from any thread."""
        self._stopping.set()

    def states(self) -> Mapping[str, Mapping[str, object]]:
        """By child: state, process id, number of restarts."""
        return {
            name: {
                "state": running.state,
                "pid": running.process.pid if running.process else None,
                "restarts": running.restarts,
            }
            for name, running in self._running.items()
        }

    def run(self) -> None:
        """Start everything and keep it running; returns when stopped, leaving nothing behind.

        Must be called in the main thread: children die with the thread that started them.

        Raises:
            ChildFailed: a child cannot work with what it was given.
        """
        end_leftovers(self._mark)
        try:
            while not self._stopping.is_set():
                self._step()
                if (states := self.states()) != self._told:
                    self._told = states
                    self._changed(states)
                self._stopping.wait(_TICK)
        finally:
            self._end_all()
            self._changed(self.states())

    def _step(self) -> None:
        for running in self._running.values():
            running.check()
            ready = all(self._running[name].was_ready for name in running.child.after)
            due = running.state == "pausing" and time.monotonic() >= running.due
            if due or (running.state == "waiting" and ready):
                self._say(running.child.name, "starting")
                running.start(self._mark)

    def _end_all(self) -> None:
        # In the opposite order of their start: a node says good-bye while its hub still listens.
        for running in reversed(self._running.values()):
            process = running.process
            if process is not None:
                _end_group(process, signal.SIGTERM)
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    _end_group(process, signal.SIGKILL)
                    process.wait()
                _end_group(process, signal.SIGKILL)
                running.process = None
            running.state = "stopped"
        end_leftovers(self._mark)


class OnSupervisor:
    """Takes the supervisor once there is one, and stops it at once where that was asked before."""

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._asked = False

    def __call__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        if self._asked:
            supervisor.stop()

    def stop(self) -> None:
        """End it, now or as soon as it is there."""
        self._asked = True
        if self._supervisor is not None:
            self._supervisor.stop()


def end_leftovers(mark: str) -> int:
    """Kill every process of this user that a supervisor with this mark started; how many.

    Returns when they are gone, so that their ports are free. Only where the system has ``/proc``;
    elsewhere children end with their parents alone.
    """
    wanted = f"{MARK}={mark}".encode()
    ending = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if pid != os.getpid() and wanted in variables:
                # The descriptor stays with this very process, whoever gets its number later.
                descriptor = os.pidfd_open(pid)
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                ending.append(descriptor)
        except OSError:
            continue
    for descriptor in ending:
        select.select([descriptor], [], [], _GRACE)
        os.close(descriptor)
    return len(ending)


def _end_group(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _load_prctl() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None


_PRCTL = _load_prctl()


def die_with_parent() -> None:
    """Let the system end this process with SIGTERM when its parent dies."""
    if _PRCTL is not None:
        _PRCTL(_DEATH_SIGNAL, signal.SIGTERM)
