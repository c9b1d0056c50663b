"""What a round takes outside training and outside Flower, and what the resident agent saves.

    .venv/bin/python -m benchmarks.federation_overhead
    .venv/bin/python -m benchmarks.federation_overhead --json overhead.json

Each department's agent is a process of its own behind its socket, with gate, policy, ledger, receipts
and reply store as deployed; only its training step is replaced, by an update of the right shape at
once. The hub is the deployed one: signed manifest, checks, sums, checkpoint, audit log. Messages go
through Flower's wire format. What Flower adds (polling, process starts, TLS) is not in it, but for
one figure: the start of the process that Flower makes for each message, with what it imports here,
and with what it would import and load if there were no agent.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flwr.app import Message, UserConfig

from benchmarks.federation import Case, initial_adapter, moved, policy_of
from benchmarks.measure import machine
from client.agent import NodeAgent
from client.agent_socket import AgentServer
from client.app import SOCKET_SETTING, app
from client.gate import RunGate
from intramural.deployment.node_home import base_model
from privacy.audit.log import AuditLog
from privacy.dp.adapter_config import Adapter, AdapterConfig
from privacy.dp.encode import Unit
from privacy.dp.plan import DpPlan
from privacy.ledger.ledger import Ledger
from privacy.manifest import RunManifest, SignedManifest
from privacy.signing import SigningKey, VerifyKey
from server.enrolment import EnrolledNode, Enrolment
from server.events import Event, RoundFinished, RoundStarted
from server.federation import run_federation
from server.local_grid import LocalGrid
from server.publish import audited
from server.rounds import RunPlan

GOAL = 0.5
"""Seconds."""
DEPARTMENTS, UNITS = 3, 100
BASE = "b" * 64


class InstantTrainer:
    """Answers with a random update of the real adapter's shape instead of training."""

    base_digest = BASE

    def initial_adapter(self, config: AdapterConfig, seed: int) -> Adapter:
        """As the real trainer's, but for the numbers."""
        return initial_adapter(config.last_layers or 0)

    def train(
        self,
        adapter: Adapter,
        units: Sequence[Unit],
        plan: DpPlan,
        learning_rate: float,
        config: AdapterConfig,
        progress: Any = None,
    ) -> Adapter:
        """The trained tensors, moved a little."""
        return moved(adapter, config)


class TimedGrid(LocalGrid):
    """Takes the time of each node's answer, wire included; in a deployment they work at once."""

    seconds: tuple[float, ...] = ()

    def pull_messages(self, message_ids: Any) -> list[Message]:
        """As the grid does, one by one."""
        replies = []
        for identifier in list(message_ids):
            began = time.perf_counter()
            replies += super().pull_messages([identifier])
            self.seconds += (time.perf_counter() - began,)
        return replies


def serve(folder: Path, department: str, case: Case, account: str, ready: Connection) -> None:
    """One agent until the other end of ``ready`` closes."""
    policy = policy_of(case)
    key = SigningKey.load(folder / f"{department}.key")
    trusted = {"bench": VerifyKey.parse(account)}
    with Ledger(folder / f"{department}.db", key) as ledger:
        agent = NodeAgent(
            department=department,
            policy=policy,
            gate=RunGate(department, lambda: trusted),
            units=[()] * UNITS,
            trainer=InstantTrainer(),
            ledger=ledger,
            key=key,
            state_dir=folder / f"{department}.state",
            code_digest="c" * 64,
        )
        with AgentServer(agent, folder / f"{department}.sock"):
            ready.send(True)
            ready.poll(None)


@dataclass(frozen=True)
class Rounds:
    """Seconds of each round of one case: all but the nodes', and the slowest node's.

    ``cpu``: the hub's and the busiest agent's CPU time a round, which other programs on the machine
    do not lengthen.
    """

    hub: tuple[float, ...]
    node: tuple[float, ...]
    cpu: float

    def to_json(self) -> dict[str, Any]:
        """The first round, which prices the run, apart from the others."""
        total = [hub + node for hub, node in zip(self.hub, self.node, strict=True)]
        return {
            "hub_s": statistics.median(self.hub[1:]),
            "slowest_node_s": statistics.median(self.node[1:]),
            "overhead_s": statistics.median(total[1:]),
            "overhead_min_s": min(total[1:]),
            "overhead_max_s": max(total[1:]),
            "cpu_s": self.cpu,
            "first_round_s": total[0],
        }


def measure(case: Case) -> Rounds:
    """Run one case."""
    policy = policy_of(case)
    account = SigningKey.generate()
    plan = RunPlan.from_policy(policy, BASE)
    manifest = RunManifest.draw(
        "bench", "benchmark", plan, tuple(policy.departments),
        code_digest="c" * 64, round_seconds=600.0, valid=timedelta(hours=1),
    )  # fmt: skip
    signed = SignedManifest.sign(manifest, account)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        nodes, agents = [], []
        configs: dict[int, UserConfig] = {}
        for place, department in enumerate(policy.departments):
            key = SigningKey.load_or_create(folder / f"{department}.key")
            near, far = context.Pipe()
            text = account.verify_key.public_text()
            process = context.Process(target=serve, args=(folder, department, case, text, far))
            process.start()
            agents.append(process)
            far.close()
            stack.callback(process.join)
            stack.callback(near.close)
            near.recv()
            nodes.append(EnrolledNode(department, place, key.verify_key))
            configs[place] = {SOCKET_SETTING: str(folder / f"{department}.sock")}
        grid = TimedGrid(app, configs)
        walls: list[float] = []
        slowest: list[float] = []
        started = [0.0]
        cpu: list[tuple[float, ...]] = []

        def watch(event: Event) -> None:
            if isinstance(event, RoundStarted):
                # The ClientApps of all nodes run in this process: their share stays in.
                cpu.append((time.process_time(), *(cpu_seconds(a.pid) for a in agents)))
                grid.seconds = ()
                started[0] = time.perf_counter()
            elif isinstance(event, RoundFinished):
                walls.append(time.perf_counter() - started[0] - sum(grid.seconds))
                slowest.append(max(grid.seconds))
                cpu.append((time.process_time(), *(cpu_seconds(a.pid) for a in agents)))

        log = stack.enter_context(AuditLog(folder / "audit.db", SigningKey.generate(), "bench"))
        run_federation(
            grid, RunPlan.of(manifest), policy, Enrolment(nodes), initial_adapter(case.last_layers),
            folder / "run", audited(log, policy.digest, watch), manifest=signed,
        )  # fmt: skip
    # Without the first round.
    used = [after - before for before, after in zip(cpu[2], cpu[-1], strict=True)]
    return Rounds(tuple(walls), tuple(slowest), (used[0] + max(used[1:])) / (len(walls) - 1))


def cpu_seconds(pid: int | None) -> float:
    """CPU time that a process has used so far, in ticks of a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_seconds(code: str, repeats: int) -> float:
    """Median time of a fresh interpreter that runs ``code``."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def starts(repeats: int) -> Mapping[str, float]:
    """Seconds until the process of one message could work, with the agent and without.

    Raises:
        AssetMissing: the base model is not there.
    """
    folder, _ = base_model("")
    load = f"from pathlib import Path\nimport client.app\nfrom privacy.dp.trainer import LoraTrainer\nLoraTrainer(Path({str(folder)!r}))"
    return {
        "with_agent_s": process_seconds("import client.app", repeats),
        "without_agent_s": process_seconds(load, repeats),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, perhaps write JSON; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="process starts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    facts = machine(1)
    print(facts)
    rows = []
    for layers in (4, 30):
        case = Case(DEPARTMENTS, layers, rounds=options.rounds)
        row = {"last_layers": layers, "departments": DEPARTMENTS, **measure(case).to_json()}
        rows.append(row)
        print(
            f"{layers:2d} layers: {row['overhead_s']:.3f} s a round (hub {row['hub_s']:.3f}, slowest "
            f"node {row['slowest_node_s']:.3f}; {row['overhead_min_s']:.3f} to "
            f"{row['overhead_max_s']:.3f}; first round {row['first_round_s']:.3f}; CPU "
            f"{row['cpu_s']:.3f}); goal {GOAL}: "
            f"{'met' if row['overhead_s'] < GOAL else 'missed'}",
            flush=True,
        )
    started = starts(options.repeats)
    print(
        f"process of a message: {started['with_agent_s']:.2f} s with the agent, "
        f"{started['without_agent_s']:.2f} s without"
    )
    if options.json:
        report = {"machine": vars(facts), "rounds": options.rounds, "rows": rows, "starts": started}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row["overhead_s"] < GOAL for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
