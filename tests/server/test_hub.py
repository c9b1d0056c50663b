"""The hub's process: settings, waiting for nodes, and the whole ServerApp over a tiny Llama."""

import json
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from federation_kit import CODE_DIGEST, DEPARTMENTS, Node, units
from flwr.app import Context, RecordDict

from client.agent import NodeAgent
from client.app import make_client_app
from client.gate import RunGate
from policies.load import load_policy
from privacy.audit.log import verify_log
from privacy.dp.accounting import epsilon
from privacy.dp.encode import Example
from privacy.dp.trainer import LoraTrainer
from privacy.ledger.ledger import Ledger
from privacy.manifest import ManifestInvalid, RunManifest, SignedManifest
from privacy.release import list_releases
from privacy.signing import SigningKey, VerifyKey
from server.accounts import AccountBook
from server.app import app
from server.enrolment import EnrolledNode, Enrolment
from server.errors import EnrolmentInvalid, EvaluationInvalid, PlanInvalid, RoundFailed
from server.evaluate import PublicSet
from server.hub import HubSettings, read_enrolment, wait_for_nodes
from server.local_grid import LocalGrid
from server.rounds import RunPlan
from server.runs import RunFolder, RunInUse

POLICY = """
version = 1
organisation = "Example"
[departments.finance]
[departments.hr]
[departments.it_support]
[training]
rounds = 2
local_steps = 2
target_epsilon = 4.0
rank = 2
targets = ["q_proj", "v_proj"]
last_layers = "all"
minimum_nodes = 2
"""


def test_every_missing_setting_is_named() -> None:
    """One refusal lists all settings that are missing or malformed, with the way to set them."""
    with pytest.raises(PlanInvalid) as caught:
        HubSettings.read({"accounts": "a.json", "run-id": "../etc", "join-timeout": "soon"})
    message = str(caught.value)
    for part in ("enrolment is missing (or set INTRAMURAL_ENROLMENT)", "'../etc'", "'soon'"):
        assert part in message
    assert "accounts is missing" not in message


def test_environment_of_the_hub_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub's operator fixed cannot be changed by whoever may start a run."""
    names = ["enrolment", "accounts", "runs", "output-dir", "signing-key", "audit-origin"]
    config = {name: f"/run/{name}" for name in names} | {"run-id": f"run-{'0' * 20}"}
    monkeypatch.setenv("INTRAMURAL_ENROLMENT", "/hub/enrolment.json")
    monkeypatch.setenv("INTRAMURAL_HUB", "/hub")
    settings = HubSettings.read(config)
    assert settings.enrolment == Path("/hub/enrolment.json")
    assert settings.runs == Path("/hub/runs")
    assert settings.accounts == Path("/run/accounts")


def test_unreadable_enrolment_is_named(tmp_path: Path) -> None:
    """A missing or malformed enrolment file is said with its path."""
    with pytest.raises(EnrolmentInvalid, match="cannot be read"):
        read_enrolment(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(EnrolmentInvalid, match="no JSON"):
        read_enrolment(tmp_path / "bad.json")


class Arriving:
    """A grid whose nodes connect one by one, each time somebody looks."""

    def __init__(self, *arrivals: int) -> None:
        self.arrivals = list(arrivals)
        self.online: list[int] = []

    def get_node_ids(self) -> list[int]:
        self.online += self.arrivals[:1]
        del self.arrivals[:1]
        return self.online


def enrolment(count: int) -> Enrolment:
    keys = [SigningKey.generate().verify_key for _ in range(count)]
    return Enrolment(EnrolledNode(f"d{i}", i, key) for i, key in enumerate(keys))


def test_waiting_ends_with_the_minimum() -> None:
    """The run starts as soon as enough enrolled nodes are there; strangers do not count."""
    pauses: list[float] = []
    grid = Arriving(77, 0, 1, 2)
    wait_for_nodes(grid, enrolment(3), 2, timeout=60, clock=lambda: 0.0, pause=pauses.append)  # type: ignore[arg-type]
    assert grid.online == [77, 0, 1]
    assert len(pauses) == 2


def test_waiting_has_an_end() -> None:
    """When too few nodes join in time, the error says how many were there."""
    times = iter([0.0, 1.0, 99.0])
    with pytest.raises(RoundFailed, match="has 1 contributions"):
        wait_for_nodes(
            Arriving(0),  # type: ignore[arg-type]
            enrolment(3),
            2,
            timeout=10,
            clock=lambda: next(times),
            pause=lambda _: None,
        )


@dataclass
class Deployed:
    """A hub's folder with a stored run over a real model, and nodes that verify its manifest."""

    root: Path
    base_model: Path
    key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.policy_file = self.root / "policy.toml"
        self.policy_file.write_text(POLICY)
        self.policy = load_policy(self.policy_file)
        self.trainer = LoraTrainer(self.base_model)
        self.accounts = AccountBook(self.root / "accounts.json")
        self.accounts.add("ada", self.key.verify_key, None)
        self.nodes = {
            100 + place: Node(self.root / name, name, self.policy, self.trainer)
            for place, name in enumerate(DEPARTMENTS)
        }
        enrolled = Enrolment(
            EnrolledNode(n.department, i, n.key.verify_key) for i, n in self.nodes.items()
        )
        (self.root / "enrolment.json").write_text(json.dumps(enrolled.to_json()))

    def store(self, public: PublicSet | None = None, **changes: object) -> RunFolder:
        """A new signed run in ``runs``, with some of the manifest's arguments changed."""
        given: dict[str, object] = {
            "account": "ada",
            "base_model": self.trainer.name,
            "terms": RunPlan.from_policy(self.policy, self.trainer.base_digest),
            "departments": DEPARTMENTS,
            "code_digest": "c" * 64,
            "round_seconds": 60.0,
            "valid": timedelta(days=1),
        }
        manifest = RunManifest.draw(**{**given, **changes})  # type: ignore[arg-type]
        signed = SignedManifest.sign(manifest, self.key)
        runs, policy = self.root / "runs", self.policy_file
        return RunFolder.create(runs, signed, policy, self.base_model, public)

    def run(self, run: RunFolder, nodes: Collection[int] | None = None) -> None:
        """The ServerApp over the given nodes, all by default, each with its ledger open."""
        with ExitStack() as stack:
            agents = {}
            for node_id, node in self.nodes.items():
                ledger = stack.enter_context(Ledger(node.ledger_path, node.key))
                trusted = {"ada": self.key.verify_key}
                agents[node_id] = NodeAgent(
                    department=node.department,
                    policy=self.policy,
                    gate=RunGate(node.department, lambda t=trusted: t),
                    units=units(),
                    trainer=self.trainer,
                    ledger=ledger,
                    key=node.key,
                    state_dir=node.replies,
                    code_digest=CODE_DIGEST,
                )
            present = self.nodes if nodes is None else nodes
            grid = LocalGrid(make_client_app(lambda c: agents[c.node_id]), {i: {} for i in present})
            run_config = {
                "run-id": run.run_id,
                "runs": str(self.root / "runs"),
                "enrolment": str(self.root / "enrolment.json"),
                "accounts": str(self.root / "accounts.json"),
                "output-dir": str(self.root / "hub"),
                "signing-key": str(self.root / "hub" / "hub.key"),
                "audit-origin": "example.org/audit",
                "join-timeout": 0.001,
            }
            app(grid, Context(1, 1, {}, RecordDict(), run_config))  # type: ignore[arg-type]


def test_server_app_runs_a_real_federation(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Three nodes with real ledgers train a real model under DP: a release that verifies comes out."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    run = hub.store()
    hub.run(run)
    hub.run(run)  # the finished run: nobody is asked, the same release is found in its place

    ((name, release),) = list_releases(tmp_path / "hub")
    assert not isinstance(release, Exception), release
    assert release.id == name == run.keeping().release
    assert {receipt.run_id for receipt in release.receipts} == {run.run_id}
    assert len(release.receipts) == 6
    cost = epsilon([release.receipts[0].event] * 2, 1e-5)
    assert {n: p["epsilon"] for n, p in release.privacy["departments"].items()} == dict.fromkeys(
        DEPARTMENTS, cost
    )
    initial = hub.trainer.initial_adapter(_config(hub.policy), hub.policy.training.seed)
    for tensor_name, tensor in release.tensors().items():
        frozen = "lora_A" in tensor_name
        assert np.array_equal(tensor, initial[tensor_name]) == frozen
    for node in hub.nodes.values():
        assert len(list(node.replies.glob("*.reply"))) == 2
        assert Ledger.verify(node.ledger_path, node.key.verify_key).ok
    hub_key = VerifyKey.load(tmp_path / "hub" / "release-key.pub")
    assert verify_log(tmp_path / "hub" / "audit.db", hub_key).ok


def test_release_has_the_figures_of_public_records(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Before against after on the hub's own records; asked again, the same release with the same."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    public = PublicSet(
        prompts=["a note", "a bill"],
        answers=[0, 1],
        candidates=[" calm", " angry"],
        examples=[Example(tuple(range(4, 12 + i)), 1) for i in range(3)],
    )
    run = hub.store(public)
    assert run.public() == public
    assert run.metrics() is None
    hub.run(run)
    hub.run(run)
    ((_, release),) = list_releases(tmp_path / "hub")
    assert not isinstance(release, Exception), release
    assert release.metrics == run.metrics()
    assert release.metrics["accuracy"]["items"] == 2
    assert release.metrics["loss"]["items"] == 3
    expected = hub.trainer.losses(public.examples, _config(hub.policy), release.tensors())
    assert release.metrics["loss"]["after"] == pytest.approx(float(np.mean(expected)), abs=1e-5)


def test_damaged_public_records_publish_nothing(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """The run is trained and waits for a person: a release without its figures is none of it."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    run = hub.store(PublicSet(examples=[Example((4, 5, 6), 1)] * 2))
    file = run.root / "public.json"
    whole = file.read_bytes()
    file.write_bytes(b'{"prompts": []}')
    with pytest.raises(EvaluationInvalid, match="no set of public records"):
        hub.run(run)
    assert run.keeping().hopeless
    assert list(list_releases(tmp_path / "hub")) == []
    file.write_bytes(whole)
    hub.run(run)
    assert run.keeping().release is not None


def test_hub_asks_the_cohort_alone(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """A department that is enrolled and not in the manifest is neither asked nor charged."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    run = hub.store(departments=("finance", "hr"))
    hub.run(run)
    state = run.state()
    assert state is not None
    assert {r.receipt.department for r in state.receipts} == {"finance", "hr"}
    outside = next(n for n in hub.nodes.values() if n.department == "it_support")
    assert list(outside.replies.glob("*.reply")) == []


def test_failed_round_is_noted_as_passing(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Too few nodes now may be enough later: the reason is kept, and the run is not hopeless."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    run = hub.store()
    with pytest.raises(RoundFailed):
        hub.run(run, nodes=[100])
    assert not run.keeping().hopeless
    assert "has 1 contributions" in run.keeping().reason
    hub.run(run)
    assert run.keeping().release is not None


def test_what_a_person_must_mend_is_noted_as_hopeless(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """A signature that is not the account's, or another base model, ends the run for good."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    unsigned = hub.store(account="bob")
    with pytest.raises(ManifestInvalid, match="'bob' is not trusted"):
        hub.run(unsigned)
    terms = RunPlan.from_policy(hub.policy, "0" * 64)
    other = hub.store(terms=terms)
    with pytest.raises(PlanInvalid, match="put the right one there"):
        hub.run(other)
    for run in (unsigned, other):
        assert run.keeping().hopeless
        assert run.state() is None


def test_one_process_works_on_a_run(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """A second process is turned away while the first lives, and the run says so."""
    hub = Deployed(tmp_path, tiny_llama_dir)
    run = hub.store()
    with run.working():
        assert RunFolder(run.root).in_work
        with pytest.raises(RunInUse):
            hub.run(run)
    assert not run.in_work


def _config(policy):
    return RunPlan.from_policy(policy, "0" * 64).adapter_config()
