"""Hub and nodes as separate processes on loopback, and a record of every socket that they use."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intramural.deployment.node_processes import free_port

POLICY = """version = 1
organisation = "Example Ltd"
[privacy]
epsilon = 9.0
[departments.hr]
declared_units = 20
[departments.finance]
declared_units = 20
[training]
rounds = 2
local_steps = 1
sampling_rate = 0.5
target_epsilon = 4.0
max_tokens = 128
"""

WATCHER = """
import os, sys
_file = os.open(os.path.join(os.environ["SOCKET_RECORD"], str(os.getpid())),
                os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def _watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        os.write(_file, f"lookup {arguments[0]}\\n".encode())
    elif event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple):
            os.write(_file, f"{event} {address[0]}\\n".encode())
sys.addaudithook(_watch)
"""
"""A ``sitecustomize`` that writes down each look-up and each internet address of its process."""

COMMAND = Path(sys.executable).with_name("intramural")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Process:
    """A process whose lines can be waited for."""

    def __init__(self, command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._new.put(line.rstrip())
        self._new.put(None)

    def wait_for(self, pattern: str, timeout: float = 120.0) -> str:
        """The next line that ``pattern`` is found in.

        Raises:
            AssertionError: the process ended, or said nothing like it in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._new.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                line = None
            if line is None:
                shown = "\n".join(self.lines[-30:])
                raise AssertionError(f"no line like {pattern!r} in {timeout} s:\n{shown}")
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def forget(self) -> None:
        """Look at nothing that was said until now when a line is waited for."""
        with contextlib.suppress(queue.Empty):
            while (line := self._new.get_nowait()) is not None:
                self.lines.append(line)
            self._new.put(None)  # it has ended, as whoever waits must see

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Send a signal and wait; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


class Deployment:
    """One folder with a hub and nodes in it."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.model = model
        self.record = root / "sockets"
        self.record.mkdir(parents=True)
        (root / "site").mkdir()
        (root / "site" / "sitecustomize.py").write_text(WATCHER)
        (root / "policy.toml").write_text(POLICY)
        self.superlink_port, self.join_port = free_port(), free_port()
        self.environment = {
            "SOCKET_RECORD": str(self.record),
            "PYTHONPATH": str(root / "site"),
            "OMP_NUM_THREADS": "1",
        }
        self.processes: list[Process] = []

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=self.root,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """The JSON value of a command."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> Process:
        """A command that stays."""
        process = Process([str(COMMAND), *arguments], self.root, self.environment)
        self.processes.append(process)
        return process

    def start_supernode(self, key: Path, port: int | None = None) -> Process:
        """Flower's own command with somebody's key, without agent and supervisor."""
        command = [
            str(Path(sys.executable).with_name("flower-supernode")),
            "--root-certificates", str(self.root / "hub" / "ca.crt"),
            "--superlink", f"127.0.0.1:{port or self.superlink_port}",
            "--host", "127.0.0.1", "--port", str(free_port()),
            "--auth-supernode-private-key", str(key),
            "--isolation", "process",
        ]  # fmt: skip
        settings = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        process = Process(command, self.root, {**self.environment, **settings})
        self.processes.append(process)
        return process

    def init_hub(self, *more: str) -> None:
        """``hub init`` at free ports."""
        ports = ("--port", str(self.superlink_port), "--join-port", str(self.join_port))
        self.run("hub", "init", *ports, "--base-model", self.model, *more)

    def init_node(self, department: str) -> None:
        """``node init`` with a dozen invented records."""
        rows = [
            {"text": f"{department} note {i}, write to p{i}@example.org", "label": "ab"[i % 2]}
            for i in range(12)
        ]
        data = self.root / f"{department}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.run("node", "init", "-d", department, "--data", data, "--base-model", self.model)

    def join_node(self, department: str, url: str | None = None) -> None:
        """``hub invite`` and ``node join``."""
        token = self.run("hub", "invite", department).stdout.strip()
        address = url or f"https://127.0.0.1:{self.join_port}"
        self.run("node", "join", address, "--token", token, "--dir", f"node-{department}")

    def audit(self) -> list[dict[str, Any]]:
        """Actor and data of every entry of the hub's log, which verifies."""
        entries = self.json("audit", "show", "hub/audit.db", "--limit", "1000")["entries"]
        return [{"actor": entry["actor"], **entry["data"]} for entry in entries]

    def close(self) -> None:
        """End whatever still runs, the newest first."""
        for process in reversed(self.processes):
            process.end()

    def sockets(self) -> set[str]:
        """Every line of the record."""
        return {line for file in self.record.iterdir() for line in file.read_text().splitlines()}


def marked(home: Path) -> list[int]:
    """Processes that a supervisor of this home has started."""
    wanted = f"INTRAMURAL_SUPERVISED={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found
