"""A deployed federation whose processes can be stopped at a named point, killed, cut off, and healed.

Hub and departments run the installed commands. The one thing that the tests add is a
``sitecustomize`` in their path, by which a process stops or dies at a crash point that a file names.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment_kit import WATCHER, Deployment, Process, marked
from outage_kit import Link

from client.frames import unpack
from intramural.deployment.node_home import NodeHome
from privacy.ledger.history import LedgerHistory
from privacy.ledger.ledger import read_ledger
from privacy.receipts import SignedReceipt
from privacy.release import VerifiedRelease, verify
from privacy.signing import VerifyKey
from server.runs import RunFolder

DEPARTMENTS = ("hr", "finance", "legal")
PATIENCE = 240.0
"""Seconds that anything may take on a machine that is busy with other tests."""

POLICY = """version = 1
organisation = "Example Ltd"
[privacy]
epsilon = 9.0
[departments.hr]
declared_units = 20
[departments.finance]
declared_units = 20
[departments.legal]
declared_units = 20
[training]
rounds = 3
local_steps = 1
sampling_rate = 0.5
target_epsilon = 0.2
max_tokens = 128
minimum_nodes = 2
"""

LIMITS = """minimum_noise_multiplier = 1.0
maximum_clipping_norm = 0.5
"""

FAULTS = """
_home, _faults = os.environ.get("INTRAMURAL_SUPERVISED"), os.environ.get("FAULTS")
if _home and _faults:
    import signal, threading
    from privacy.crashpoints import install
    def _reached(point):
        armed = os.path.join(_faults, os.path.basename(_home), point)
        try:
            with open(armed) as file:
                action, skip = file.read().split()
        except OSError:
            return
        if int(skip):
            with open(armed + ".new", "w") as file:
                file.write(f"{action} {int(skip) - 1}")
            os.rename(armed + ".new", armed)
            return
        with open(armed + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.unlink(armed)
        os.rename(armed + ".new", armed + ".reached")
        # To this very thread, which otherwise goes on until another one has taken the signal.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
    install(_reached)
"""


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """The first true value of ``condition``.

    Raises:
        AssertionError: there was none in time.
    """
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause.wait(0.1)
    return value


@dataclass(frozen=True)
class Fault:
    """A crash point that a process of one home will meet once."""

    armed: Path

    @property
    def reached(self) -> Path:
        """Holds the process id once it has been met."""
        return self.armed.with_name(f"{self.armed.name}.reached")

    def wait(self) -> int:
        """The process that met it, once it stands still."""
        until(self.reached.exists, f"{self.armed.parent.name} at {self.armed.name}")
        pid = int(self.reached.read_text())
        until(lambda: still(pid), f"process {pid} stands still")
        return pid

    def go_on(self) -> None:
        """Let a stopped process continue; one that is dead by now stays dead."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.wait(), signal.SIGCONT)


def still(pid: int) -> bool:
    """Whether a process is stopped, or gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "TZX"


class Federation(Deployment):
    """A hub, three departments, and a run account."""

    def __init__(self, root: Path, model: Path) -> None:
        super().__init__(root, model)
        (root / "policy.toml").write_text(POLICY)
        (root / "site" / "sitecustomize.py").write_text(WATCHER + FAULTS)
        self.faults = root / "faults"
        self.environment["FAULTS"] = str(self.faults)
        inherited = os.environ.get("PYTHONPATH")
        if inherited:
            self.environment["PYTHONPATH"] += os.pathsep + inherited
        for name in ("hub", *map(self.node_name, DEPARTMENTS)):
            (self.faults / name).mkdir(parents=True)
        self.hub_home = root / "hub"
        self.hub: Process | None = None
        self.nodes: dict[str, Process] = {}
        self.link: Link | None = None
        self.started: list[str] = []
        self.doubtful = False

    @staticmethod
    def node_name(department: str) -> str:
        """Name of a department's home."""
        return f"node-{department}"

    def node_home(self, department: str) -> NodeHome:
        """A department's home."""
        return NodeHome(self.root / self.node_name(department))

    def begin(self) -> None:
        """From nothing to everybody online; legal reaches the SuperLink through :attr:`link`."""
        self.init_hub()
        self.run("hub", "account", "add", "ada")
        self.start_hub()
        for department in DEPARTMENTS:
            self.init_node(department)
            config = self.node_home(department).config
            config.write_text(config.read_text() + LIMITS)
        for department in ("hr", "finance"):
            self.join_node(department)
            self.start_node(department)
        self.link = Link(self.superlink_port)
        config = self.hub_home / "hub.toml"
        direct = config.read_text()
        # What legal's node pins at joining is where it connects as long as it runs.
        config.write_text(
            direct.replace(
                f'superlink_address = "127.0.0.1:{self.superlink_port}"',
                f'superlink_address = "127.0.0.1:{self.link.port}"',
            )
        )
        self.join_node("legal")
        self.start_node("legal")
        self.wait_online()
        config.write_text(direct)

    def start_hub(self) -> None:
        """``hub start``, until the SuperLink listens."""
        self.hub = self.start("hub", "start")
        self.hub.wait_for("Uvicorn running", PATIENCE)

    def start_node(self, department: str) -> None:
        """``node start`` of a department."""
        self.nodes[department] = self.start("node", "start", "--dir", self.node_name(department))

    def wait_online(self) -> None:
        """Until the hub lists every department as online."""

        def everybody() -> bool:
            rows = self.json("hub", "nodes")["nodes"]
            return {row["department"] for row in rows if row["online"]} == set(DEPARTMENTS)

        until(everybody, "every department is online")

    def heal(self) -> None:
        """Start again whatever a test left dead, and wait until everybody is online.

        Where a test failed, or this did, everything is :attr:`doubtful` and begins anew.
        """
        doubtful, self.doubtful = self.doubtful, True
        if self.link is not None:
            self.link.heal()
        if doubtful:
            self.end()
        if self.hub is None or self.hub.process.poll() is not None:
            self.start_hub()
        for department in DEPARTMENTS:
            if self.nodes[department].process.poll() is not None:
                self.start_node(department)
        self.wait_online()
        self.doubtful = False

    def end(self) -> None:
        """Cancel what still runs and end everything, the nodes first: they say good-bye to the hub."""
        self.disarm()
        for run_id in self.started:
            self.run("train", "cancel", run_id, check=False)
        for department in DEPARTMENTS:
            end(self.nodes[department], self.node_home(department).root)
        if self.hub is not None:
            end(self.hub, self.hub_home)

    def arm(self, home: str, point: str, action: str = "stop", skip: int = 0) -> Fault:
        """Stop or kill the process of ``home`` that reaches ``point`` the next time but ``skip``."""
        fault = Fault(self.faults / home / point)
        fault.reached.unlink(missing_ok=True)
        fault.armed.write_text(f"{action} {skip}")
        return fault

    def arm_node(self, department: str, point: str, action: str = "stop", skip: int = 0) -> Fault:
        """The same for a department's node."""
        return self.arm(self.node_name(department), point, action, skip)

    def disarm(self) -> None:
        """Forget what nobody met, and let stopped processes continue."""
        for armed in self.faults.glob("*/*"):
            if armed.suffix == ".reached":
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(armed.read_text()), signal.SIGCONT)
            armed.unlink(missing_ok=True)

    def kill_hub(self) -> None:
        """All processes of the hub at once, as when its machine loses power."""
        assert self.hub is not None
        power_off(self.hub, self.hub_home)

    def kill_node(self, department: str) -> None:
        """All processes of a node at once."""
        power_off(self.nodes[department], self.node_home(department).root)

    def end_client_app(self, department: str) -> None:
        """End the process of a node's SuperExec that brings a request to the agent."""
        (pid,) = (
            pid
            for pid in marked(self.node_home(department).root)
            if b"flwr-clientapp" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
        )
        os.kill(pid, signal.SIGTERM)

    def start_run(self, name: str = "run", **settings: object) -> str:
        """``train start`` of a run file with these settings; the run's id."""
        training = settings.pop("training", {"rounds": 2})
        assert isinstance(training, dict)
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += ["[training]", *(f"{key} = {json.dumps(v)}" for key, v in training.items())]
        file = self.root / f"{name}.toml"
        file.write_text("\n".join(lines) + "\n")
        run_id = str(self.json("train", "start", str(file), "--account", "ada")["run_id"])
        self.started.append(run_id)
        return run_id

    def finished(self, run_id: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """What the operator sees of a run once it is finished."""
        done = self.run("train", "watch", run_id, "--timeout", str(timeout), "--json", check=False)
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{self.last_lines()}"
        told: dict[str, Any] = json.loads(done.stdout)
        assert told["state"] == "finished"
        return told

    def status(self, run_id: str) -> dict[str, Any]:
        """What the operator sees of a run now."""
        told: dict[str, Any] = self.json("train", "status", run_id)
        return told

    def last_lines(self) -> str:
        """The end of what hub and nodes said, for a test that fails."""
        every = {"hub": self.hub, **self.nodes}
        shown = []
        for name, process in every.items():
            if process is not None:
                with contextlib.suppress(AssertionError):
                    process.wait_for("(?!)", 0.2)  # matches nothing: reads all that was said
                shown += [f"--- {name}", *process.lines[-25:]]
        return "\n".join(shown)

    def ledger(self, department: str) -> LedgerHistory:
        """A department's ledger, verified."""
        home = self.node_home(department)
        return read_ledger(home.ledger, VerifyKey.load(home.public_key))

    def charged(self, department: str, run_id: str) -> Counter[int]:
        """How often each round of a run was charged and not taken back."""
        history = self.ledger(department)
        return Counter(e.round for e in history.charged(department) if e.run_id == run_id)

    def run_folder(self, run_id: str) -> RunFolder:
        """What the hub keeps of a run."""
        return RunFolder(self.hub_home / "runs" / run_id)

    def receipts(self, run_id: str) -> tuple[SignedReceipt, ...]:
        """The signed receipts of all contributions of a run."""
        state = self.run_folder(run_id).state()
        assert state is not None
        return state.receipts

    def replies(self, department: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Updates that the node has stored for a run, by their digest."""
        found = {}
        for path in self.node_home(department).state.glob("*.reply"):
            frame = unpack(path.read_bytes())
            receipt = SignedReceipt.from_json(str(frame.header["receipt"])).receipt
            if receipt.run_id == run_id:
                found[receipt.adapter_after] = dict(frame.tensors)
        return found

    def release(self, told: Mapping[str, Any]) -> VerifiedRelease:
        """The verified release of a finished run."""
        path = self.hub_home / "releases" / str(told["release"])
        key = VerifyKey.load(self.hub_home / "audit.pub")
        return verify(path, key)

    def close(self) -> None:
        """Kill whatever is left."""
        self.disarm()
        if self.link is not None:
            self.link.close()
        for process in self.processes:
            process.process.kill()
        for home in (self.hub_home, *(self.node_home(d).root for d in DEPARTMENTS)):
            for pid in marked(home):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.process.wait(30)


def end(process: Process, home: Path) -> None:
    """End a supervisor as its operator would, and by force where it does not."""
    try:
        process.end()
    except subprocess.TimeoutExpired:
        power_off(process, home)


def power_off(process: Process, home: Path) -> None:
    """Kill a supervisor and everything that it started, so that nothing can tidy up."""
    process.process.kill()
    process.process.wait(30)

    def gone() -> bool:
        left = marked(home)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    until(gone, f"every process of {home.name} is gone", 30)


def process_of(home: Path, name: str) -> int:
    """Process id of a child of the supervisor of ``home``."""

    def running() -> int:
        status = json.loads((home / "status.json").read_bytes())
        return status["processes"][name]["pid"] or 0

    return int(until(running, f"{name} of {home.name} runs"))
