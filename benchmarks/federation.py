"""What the hub needs for 10, 100 and 1,000 departments, and what travels.

    .venv/bin/python -m benchmarks.federation --quick
    .venv/bin/python -m benchmarks.federation --json federation.json
    .venv/bin/python -m benchmarks.federation --ray

The hub's own code (`server.federation.run_federation`: signatures, receipts, budgets, sums and
checkpoints) over the grid in this process; every message goes through Flower's wire format. Nodes
answer with synthetic updates of the real adapter's shape, SmolLM2-135M, rank 4 on q, k, v, o, and
validly signed receipts; there is no training. Each case is a process of its own. What nodes and the
wire take is measured apart and is not the hub's. ``--ray`` runs 8 training nodes of a tiny model in
Flower's Ray simulation instead.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.common.serde import message_to_proto

from benchmarks.measure import MIB, give_back_memory, machine, resident_bytes
from client.app import make_client_app
from policies.load import parse_policy
from policies.model import Policy
from privacy.dp.accounting import epsilon
from privacy.dp.adapter_config import Adapter, AdapterConfig
from privacy.exchange import Array, RoundReply, RoundRequest, adapter_digest
from privacy.receipts import Receipt
from privacy.signing import SigningKey
from server.enrolment import EnrolledNode, Enrolment
from server.events import Event, RoundFinished, RoundStarted
from server.federation import run_federation
from server.local_grid import LocalGrid
from server.rounds import RunPlan

RANK, LAYERS = 4, 30
# (out, in) of SmolLM2-135M's projections.
PROJECTIONS = {
    "q_proj": (576, 576),
    "k_proj": (192, 576),
    "v_proj": (192, 576),
    "o_proj": (576, 576),
}
MEMORY_GOAL, BYTES_GOAL = 1.2, 0.5


@dataclass(frozen=True)
class Case:
    """One process: how many departments, and what of the adapter is trained."""

    departments: int
    last_layers: int
    factors: str = "B"
    rounds: int = 4
    traced: bool = False


def policy_of(case: Case) -> Policy:
    """The default policy with that many departments."""
    departments = "\n".join(f"[departments.d{i}]" for i in range(case.departments))
    return parse_policy(
        f"""
version = 1
organisation = "Benchmark"
{departments}
[training]
rounds = {case.rounds}
last_layers = {case.last_layers}
factors = "{case.factors}"
minimum_nodes = {case.departments}
""".encode(),
        "toml",
    )


def initial_adapter(last_layers: int) -> dict[str, Array]:
    """Tensors with the names and shapes of the real adapter."""
    rng = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for layer in range(LAYERS - last_layers, LAYERS):
        for module, (height, width) in PROJECTIONS.items():
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            a = np.linalg.qr(rng.standard_normal((width, RANK)))[0].T
            tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
            tensors[f"{stem}.lora_B.weight"] = np.zeros((height, RANK), np.float32)
    return tensors


def moved(adapter: Adapter, config: AdapterConfig) -> dict[str, Array]:
    """The trained tensors, moved a little at random: what stands for training."""
    rng = np.random.default_rng()
    return {
        name: tensor + np.float32(0.1) * rng.standard_normal(tensor.shape, np.float32)
        for name, tensor in adapter.items()
        if config.is_trained(name)
    }


class SyntheticNode:
    """A node without data: a random update within its norm, and a receipt as the real one's."""

    def __init__(self, department: str, plan: RunPlan, frozen: Mapping[str, Array]) -> None:
        self.key = SigningKey.generate()
        self._department = department
        self._config = plan.adapter_config()
        self._frozen = frozen
        self._digest = plan.policy_digest

    def handle(
        self, request: RoundRequest, adapter: Mapping[str, Array], manifest: str | None = None
    ) -> RoundReply:
        """Answer a round; its ledger holds the rounds before it, and nothing else."""
        whole = {**self._frozen, **adapter}
        update = moved(whole, self._config)
        cost = epsilon([request.event()] * request.round, request.expected_delta)
        receipt = Receipt(
            run_id=request.run_id,
            round=request.round,
            department=self._department,
            block="1",
            event=request.event(),
            epsilon=cost,
            lifetime_epsilon=cost,
            delta=request.expected_delta,
            unit=request.unit,
            policy_digest=request.policy_digest,
            code_digest="c" * 64,
            adapter_before=adapter_digest(whole),
            adapter_after=adapter_digest(update),
            key_id=self.key.key_id,
        )
        return RoundReply(update, receipt.sign(self.key))


class MeasuredGrid(LocalGrid):
    """Counts bytes in both directions, and the seconds that are not the hub's."""

    sent = received = 0
    elsewhere = 0.0

    def pull_messages(self, message_ids: Any) -> list[Message]:
        """As the grid does; all of it is the nodes' and the wire's."""
        began = time.process_time()
        for identifier in message_ids:
            if identifier in self._sent:
                self.sent += wire_bytes(self._sent[identifier])
        replies = super().pull_messages(message_ids)
        self.received += sum(map(wire_bytes, replies))
        self.elsewhere += time.process_time() - began
        return replies


def wire_bytes(message: Message) -> int:
    """Its length as Flower serialises it."""
    return len(message_to_proto(message).SerializeToString())


def peak() -> int:
    """Most bytes resident since :func:`reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def reset_peak() -> None:
    """Let the peak begin at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def run_case(case: Case) -> dict[str, Any]:
    """Measure one case in this process."""
    policy = policy_of(case)
    plan = RunPlan.from_policy(policy, "b" * 64)
    adapter = initial_adapter(case.last_layers)
    frozen = {n: a for n, a in adapter.items() if not plan.adapter_config().is_trained(n)}
    nodes = {i: SyntheticNode(f"d{i}", plan, frozen) for i in range(case.departments)}
    enrolment = Enrolment(EnrolledNode(f"d{i}", i, n.key.verify_key) for i, n in nodes.items())
    epsilon([plan.request(1, "d0").event()] * case.rounds, plan.deltas["d0"])
    app = make_client_app(lambda context: nodes[context.node_id])
    grid = MeasuredGrid(app, {i: {} for i in nodes})
    rounds: list[float] = []
    began: dict[str, float] = {}

    def watch(event: Event) -> None:
        if isinstance(event, RoundStarted):
            began.update(cpu=time.process_time(), elsewhere=grid.elsewhere)
        elif isinstance(event, RoundFinished):
            elsewhere = grid.elsewhere - began["elsewhere"]
            rounds.append(time.process_time() - began["cpu"] - elsewhere)

    gc.collect()
    give_back_memory()
    loaded = resident_bytes()
    reset_peak()
    if case.traced:
        tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        run_federation(grid, plan, policy, enrolment, adapter, Path(folder), watch)
        checkpoint = sum(path.stat().st_size for path in Path(folder).iterdir())
    exchanges = case.departments * case.rounds
    return asdict(case) | {
        "hub_cpu_s_per_round": statistics.median(rounds),
        "loaded_mib": loaded / MIB,
        "peak_mib": peak() / MIB,
        "allocated_peak_mib": tracemalloc.get_traced_memory()[1] / MIB if case.traced else None,
        "bytes_to_node_per_round": grid.sent / exchanges,
        "bytes_from_node_per_round": grid.received / exchanges,
        "checkpoint_bytes": checkpoint,
    }


def in_a_child(case: Case) -> dict[str, Any]:
    """The case in a process that has run nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run_case, case).result()


def judge(rows: list[dict[str, Any]], last_layers: int) -> dict[str, Any]:
    """Both goals at one depth of the adapter: ratio and whether it was met."""
    ours = {
        r["departments"]: r for r in rows if (r["last_layers"], r["factors"]) == (last_layers, "B")
    }
    (plain,) = (r for r in rows if (r["last_layers"], r["factors"]) == (last_layers, "AB"))
    least, most = min(ours), max(ours)
    memory = ours[most]["peak_mib"] / ours[least]["peak_mib"]
    travel = both_ways(ours[plain["departments"]]) / both_ways(plain)
    return {
        "last_layers": last_layers,
        "departments": [least, most],
        "memory_ratio": memory,
        "memory_met": memory <= MEMORY_GOAL,
        "bytes_ratio": travel,
        "bytes_met": travel <= BYTES_GOAL,
    }


def both_ways(row: Mapping[str, Any]) -> float:
    """Bytes of a node and round, request and reply."""
    return float(row["bytes_to_node_per_round"] + row["bytes_from_node_per_round"])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, perhaps write JSON; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 and 100 departments, 4 layers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--ray", action="store_true", help="8 training nodes in Ray; needs ray")
    options = parser.parse_args(arguments)
    if options.ray:
        from benchmarks.federation_ray import simulate

        report = simulate()
        print(json.dumps(report, indent=1))
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
        return 0
    sizes, depths = ((10, 100), (4,)) if options.quick else ((10, 100, 1000), (4, 30))
    facts = machine(1)
    print(facts)
    print("departments layers trained  hub CPU s/round  peak MiB  to node B  from node B")
    rows = []
    for depth in depths:
        cases = [Case(size, depth) for size in sizes]
        for case in [*cases, Case(sizes[0], depth, "AB")]:
            row = in_a_child(case)
            rows.append(row)
            print(
                f"{row['departments']:11d} {depth:6d} {row['factors']:>7s}  "
                f"{row['hub_cpu_s_per_round']:15.3f}  {row['peak_mib']:8.1f}  "
                f"{row['bytes_to_node_per_round']:9.0f}  {row['bytes_from_node_per_round']:11.0f}",
                flush=True,
            )
    verdicts = [judge(rows, depth) for depth in depths]
    for verdict in verdicts:
        for goal, bound in (("memory", MEMORY_GOAL), ("bytes", BYTES_GOAL)):
            met = "met" if verdict[f"{goal}_met"] else "missed"
            print(
                f"{verdict['last_layers']} layers, {goal} ratio {verdict[f'{goal}_ratio']:.3f}, "
                f"at most {bound}: {met}"
            )
    if options.json:
        report = {"machine": vars(facts), "rows": rows, "goals": verdicts}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(v["memory_met"] and v["bytes_met"] for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
