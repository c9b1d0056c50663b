"""What tests of node and hub share: a policy, agents with real ledgers, and a trainer without a model."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.agent import NodeAgent, Trainer
from client.app import make_client_app
from policies.load import parse_policy
from policies.model import Policy
from privacy.dp.adapter import AdapterConfig
from privacy.dp.encode import Example, Unit
from privacy.dp.errors import AdapterMismatch
from privacy.dp.plan import DpPlan
from privacy.exchange import Decline, RoundRequest
from privacy.ledger.ledger import Ledger
from privacy.signing import SigningKey
from server.enrolment import EnrolledNode, Enrolment
from server.local_grid import LocalGrid, OnNode
from server.rounds import RunPlan

Array = NDArray[np.float32]
CODE_DIGEST = "c" * 64
DEPARTMENTS = ("finance", "hr", "it_support")
SECRET = "Ada Lovelace, +44 20 7946 0958"

POLICY = """
version = 1
organisation = "Example"
[privacy]
epsilon = 8.0
[departments.finance]
[departments.hr]
[departments.it_support]
[training]
rounds = 3
local_steps = 2
target_epsilon = {target}
rank = 2
targets = ["q_proj"]
last_layers = "all"
{more}
"""


def make_policy(*, target: float = 4.0, more: str = "", tail: str = "") -> Policy:
    """A policy of three departments; ``more`` goes to the training section, ``tail`` after it."""
    return parse_policy((POLICY.format(target=target, more=more) + tail).encode(), "toml")


class FakeTrainer:
    """A trainer without a model: it adds fresh noise, and remembers what it was called with.

    It gives NO privacy (its noise does not depend on the plan). For tests only.
    """

    base_digest = "b" * 64

    def __init__(self, *, fail: BaseException | None = None) -> None:
        self.fail = fail
        self.plans: list[DpPlan] = []
        self.frozen = False
        self._rng = np.random.default_rng()

    def initial_adapter(self, config: AdapterConfig, seed: int) -> dict[str, Array]:
        rng = np.random.default_rng(seed)
        tensors = {}
        for layer in range(2):
            stem = f"base_model.model.layers.{layer}.self_attn.q_proj"
            a = np.linalg.qr(rng.standard_normal((6, config.rank)))[0].T
            tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
            tensors[f"{stem}.lora_B.weight"] = np.zeros((4, config.rank), np.float32)
        return tensors

    def train(
        self,
        adapter: Mapping[str, Array],
        units: Sequence[Unit],
        plan: DpPlan,
        learning_rate: float,
        config: AdapterConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Array]:
        self.plans.append(plan)
        len(units)  # a trainer that fails has read its units by then, unless a test says otherwise
        if self.fail is not None:
            raise self.fail
        expected = self.initial_adapter(config, 0)
        if {n: a.shape for n, a in adapter.items()} != {n: a.shape for n, a in expected.items()}:
            raise AdapterMismatch("the adapter does not fit")
        for step in range(plan.steps):
            if progress is not None:
                progress(step + 1, plan.steps)
        # Small enough that Adam could have come there: farther updates are rejected.
        noise = 0.0 if self.frozen else 0.1
        return {
            name: tensor + np.float32(noise) * self._rng.standard_normal(tensor.shape, np.float32)
            for name, tensor in adapter.items()
            if config.is_trained(name)
        }


class OpenGate:
    """Lets every round through, manifest or not. It protects NOTHING. For tests only."""

    def check(self, request: RoundRequest, manifest: str | None) -> Decline | None:
        return None


def units(count: int = 20) -> list[Unit]:
    """Units of one encoded example of three tokens each."""
    return [(Example((1, 2 + i % 5, 3), 1),) for i in range(count)]


@dataclass
class Node:
    """A department's node in a folder: key, ledger, replies."""

    folder: Path
    department: str
    policy: Policy
    trainer: Trainer = field(default_factory=FakeTrainer)
    count: int = 20

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = SigningKey.load_or_create(self.folder / "node.key")
        self.ledger_path = self.folder / "ledger.db"

    @property
    def replies(self) -> Path:
        return self.folder / "replies"

    def open(self) -> tuple[NodeAgent, Ledger]:
        """The agent, with its ledger open; the caller closes the ledger."""
        ledger = Ledger(self.ledger_path, self.key)
        agent = NodeAgent(
            department=self.department,
            policy=self.policy,
            gate=OpenGate(),
            units=units(self.count),
            trainer=self.trainer,
            ledger=ledger,
            key=self.key,
            state_dir=self.replies,
            code_digest=CODE_DIGEST,
        )
        return agent, ledger


class Federation:
    """Three nodes in one folder, and a grid over them; a context manager that closes the ledgers."""

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        *,
        own_policies: Mapping[str, Policy] | None = None,
        trainers: Mapping[str, Trainer] | None = None,
        dead: Sequence[str] = (),
        on_node: OnNode | None = None,
    ) -> None:
        self.policy = policy
        own = own_policies or {}
        self.nodes = {
            name: Node(
                folder / name,
                name,
                own.get(name, policy),
                (trainers or {}).get(name) or FakeTrainer(),
            )
            for name in DEPARTMENTS
        }
        self.ids = {name: 100 + place for place, name in enumerate(DEPARTMENTS)}
        self.enrolment = Enrolment(
            EnrolledNode(name, self.ids[name], node.key.verify_key)
            for name, node in self.nodes.items()
        )
        self._dead = dead
        self._on_node = on_node
        self.ledgers: dict[str, Ledger] = {}
        self.agents: dict[int, NodeAgent] = {}

    def __enter__(self) -> "Federation":
        for name, node in self.nodes.items():
            self.agents[self.ids[name]], self.ledgers[name] = node.open()
        return self

    def __exit__(self, *_: object) -> None:
        for ledger in self.ledgers.values():
            ledger.close()

    def grid(self) -> LocalGrid:
        return LocalGrid(
            make_client_app(lambda context: self.agents[context.node_id]),
            {node_id: {} for node_id in self.ids.values()},
            dead=[self.ids[name] for name in self._dead],
            on_node=self._on_node,
        )

    def plan(self, run_id: str | None = None) -> RunPlan:
        return RunPlan.from_policy(self.policy, FakeTrainer.base_digest, run_id=run_id)

    def adapter(self) -> dict[str, Array]:
        return FakeTrainer().initial_adapter(self.plan().adapter_config(), 0)


def request_for(
    policy: Policy, department: str = "hr", number: int = 1, **changes: object
) -> RoundRequest:
    """A valid request of the policy's own plan, with some fields changed."""
    plan = RunPlan.from_policy(policy, FakeTrainer.base_digest, run_id="run-1")
    fields = plan.request(number, department).model_dump() | changes
    return RoundRequest.model_validate(fields)


def first_adapter(policy: Policy) -> dict[str, Array]:
    """The adapter that a run under ``policy`` begins with."""
    plan = RunPlan.from_policy(policy, FakeTrainer.base_digest)
    return FakeTrainer().initial_adapter(plan.adapter_config(), plan.seed)


def run_in_thread(work: Callable[[], object]) -> threading.Thread:
    """Start ``work`` in a daemon thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
