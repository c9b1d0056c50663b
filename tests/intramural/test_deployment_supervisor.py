"""The supervisor: starts in order, starts again, leaves nothing behind."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from intramural.deployment.homes import HomeUnusable, is_running, only_one, socket_path
from intramural.deployment.supervisor import (
    MARK,
    MISCONFIGURED,
    Child,
    ChildFailed,
    Supervisor,
    end_leftovers,
)

FOREVER = "import signal; print('here', flush=True); signal.pause()"
LIMIT = 30.0


def python(code: str) -> list[str]:
    """A command that runs ``code``."""
    return [sys.executable, "-c", code]


class Watched:
    """A supervisor that is stopped as soon as ``enough`` of what it said, or by the limit."""

    def __init__(
        self, children: list[Child], mark: str, enough: Callable[["Watched"], bool]
    ) -> None:
        self.said: list[tuple[str, str]] = []
        self.states: list[Mapping[str, Mapping[str, object]]] = []
        self._enough = enough
        self.supervisor = Supervisor(children, mark, self._say, self._changed)

    def _say(self, name: str, text: str) -> None:
        self.said.append((name, text))
        self._look()

    def _changed(self, states: Mapping[str, Mapping[str, object]]) -> None:
        self.states.append(states)
        self._look()

    def _look(self) -> None:
        if self._enough(self):
            self.supervisor.stop()

    def run(self) -> None:
        limit = threading.Timer(LIMIT, self.supervisor.stop)
        limit.start()
        try:
            self.supervisor.run()
        finally:
            limit.cancel()

    def lines(self, name: str) -> list[str]:
        return [text for who, text in self.said if who == name]


def alive(pid: int) -> bool:
    """Whether this process still runs (one that ended and was not waited for does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_child_waits_for_what_it_needs(tmp_path: Path) -> None:
    """It starts only once the other one has said that it works."""
    children = [
        Child("first", python(FOREVER), ready=re.compile("here")),
        Child("second", python(FOREVER), ready=re.compile("here"), after=("first",)),
    ]
    watched = Watched(children, str(tmp_path), lambda w: ("second", "here") in w.said)
    watched.run()
    assert watched.said.index(("first", "here")) < watched.said.index(("second", "starting"))


def test_what_ends_is_started_again_and_the_reason_told(tmp_path: Path) -> None:
    """With a pause that doubles, so that a broken child does not spin."""
    child = Child("broken", python("print('no luck', flush=True); raise SystemExit(3)"))
    watched = Watched([child], str(tmp_path), lambda w: w.lines("broken").count("starting") == 3)
    watched.run()
    told = [line for line in watched.lines("broken") if "again" in line]
    assert told[:2] == [
        "ended with code 3; starting again in 1 s",
        "ended with code 3; starting again in 2 s",
    ]


def test_a_known_end_is_explained_and_waited_for(tmp_path: Path) -> None:
    """What the last lines mean is said in the operator's words."""

    def explain(lines: object) -> tuple[str, float] | None:
        return ("too early", 0.5) if "Exit Code: 305" in str(lines) else None

    child = Child("node", python("print('Exit Code: 305'); raise SystemExit(1)"), explain=explain)
    watched = Watched([child], str(tmp_path), lambda w: w.lines("node").count("starting") == 2)
    watched.run()
    assert "too early; starting again in 0.5 s" in watched.lines("node")


def test_a_misconfigured_child_ends_everything(tmp_path: Path) -> None:
    """Its own words are the error, the others are ended, and nothing is tried again."""
    children = [
        Child("steady", python(FOREVER), ready=re.compile("here")),
        Child(
            "wrong",
            python(f"print('error: no such file', flush=True); raise SystemExit({MISCONFIGURED})"),
            after=("steady",),
        ),
    ]
    watched = Watched(children, str(tmp_path), lambda _: False)
    with pytest.raises(ChildFailed, match="no such file"):
        watched.run()
    assert watched.lines("wrong").count("starting") == 1
    assert end_leftovers(str(tmp_path)) == 0


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Neither a child that will not end nor what it has started in turn."""
    stubborn = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'],"
        " start_new_session=True)\n"
        "print('started', grandchild.pid, flush=True)\n"
        "signal.pause()\n"
    )
    watched = Watched(
        [Child("stubborn", python(stubborn))],
        str(tmp_path),
        lambda w: any("started " in line for line in w.lines("stubborn")),
    )
    watched.run()
    line = next(line for line in watched.lines("stubborn") if line.startswith("started "))
    grandchild = int(line.split()[1])
    assert not alive(grandchild)
    pids = {s["stubborn"]["pid"] for s in watched.states} - {None}
    assert pids
    assert not any(alive(int(str(pid))) for pid in pids)


SUPERVISE = """
import sys
from intramural.deployment.supervisor import Child, Supervisor
child = Child("child", [sys.executable, "-c", {code!r}])
Supervisor([child], {mark!r}, lambda name, text: print(text, flush=True)).run()
"""


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """No second hub is in the way of the next start."""
    code = "import os, signal; print('pid', os.getpid(), flush=True); signal.pause()"
    supervisor = subprocess.Popen(
        python(SUPERVISE.format(code=code, mark=str(tmp_path))), stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    pid = next(int(line.split()[1]) for line in supervisor.stdout if line.startswith("pid "))
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    supervisor.stdout.close()
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # A process descriptor is readable when its process has ended.
        assert select.select([watch], [], [], LIMIT)[0] == [watch]
    finally:
        os.close(watch)


def test_what_a_killed_supervisor_left_is_ended_at_the_next_start(tmp_path: Path) -> None:
    """By the mark in its environment, and nobody else's process."""
    mine, other = (
        subprocess.Popen(
            python(FOREVER),
            env={**os.environ, MARK: str(mark)},
            stdout=subprocess.PIPE,
        )
        for mark in (tmp_path / "a", tmp_path / "ab")
    )
    try:
        for process in (mine, other):
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
        assert end_leftovers(str(tmp_path / "a")) == 1
        assert mine.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    """A second start is refused, and says why."""
    assert not is_running(tmp_path)
    with only_one(tmp_path, "the hub"):
        assert is_running(tmp_path)
        with pytest.raises(HomeUnusable, match="runs already"), only_one(tmp_path, "the hub"):
            pass
    assert not is_running(tmp_path)


def test_a_deep_home_still_has_a_socket(tmp_path: Path) -> None:
    """Unix sockets have short names; a home with a long one gets a folder that is its own."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    found = socket_path(deep, "agent.sock")
    try:
        assert len(os.fsencode(found)) <= 100
        assert found.parent.stat().st_mode & 0o777 == 0o700
        assert found != socket_path(deep / "other", "agent.sock")
        assert found == socket_path(deep, "agent.sock")
    finally:
        for home in (deep, deep / "other"):
            socket_path(home, "agent.sock").parent.rmdir()
