"""The hub's process: settings, waiting for nodes, and the whole ServerApp over a tiny Llama."""

import json
from pathlib import Path

import numpy as np
import pytest
from federation_kit import DEPARTMENTS, Node
from flwr.app import Context, RecordDict

from client.app import make_client_app
from policies.load import load_policy
from privacy.audit.log import verify_log
from privacy.dp.accounting import epsilon
from privacy.dp.trainer import LoraTrainer
from privacy.ledger.ledger import Ledger
from privacy.release import list_releases
from privacy.signing import SigningKey, VerifyKey
from server.app import app
from server.enrolment import EnrolledNode, Enrolment
from server.errors import EnrolmentInvalid, PlanInvalid, RoundFailed
from server.hub import HubSettings, read_enrolment, wait_for_nodes
from server.local_grid import LocalGrid

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
        HubSettings.read({"policy": "p.toml", "join-timeout": "soon"})
    message = str(caught.value)
    for part in ("enrolment is missing (or set INTRAMURAL_ENROLMENT)", "base-model", "'soon'"):
        assert part in message
    assert "policy is missing" not in message


def test_environment_of_the_hub_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub's operator fixed cannot be changed by whoever may start a run."""
    names = ["enrolment", "base-model", "checkpoint-dir", "output-dir", "signing-key"]
    config = {name: f"/run/{name}" for name in [*names, "policy", "audit-origin"]}
    monkeypatch.setenv("INTRAMURAL_POLICY", "/hub/policy.toml")
    settings = HubSettings.read(config)
    assert settings.policy == Path("/hub/policy.toml")
    assert settings.enrolment == Path("/run/enrolment")


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


def test_server_app_runs_a_real_federation(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Three nodes with real ledgers train a real model under DP: a release that verifies comes out."""
    policy_file = tmp_path / "policy.toml"
    policy_file.write_text(POLICY)
    policy = load_policy(policy_file)
    trainer = LoraTrainer(tiny_llama_dir)
    nodes = {
        100 + place: Node(tmp_path / name, name, policy, trainer)
        for place, name in enumerate(DEPARTMENTS)
    }
    enrolled = Enrolment(EnrolledNode(n.department, i, n.key.verify_key) for i, n in nodes.items())
    (tmp_path / "enrolment.json").write_text(json.dumps(enrolled.to_json()))
    opened = {node_id: node.open() for node_id, node in nodes.items()}
    grid = LocalGrid(
        make_client_app(lambda context: opened[context.node_id][0]), {i: {} for i in nodes}
    )
    run_config = {
        "policy": str(policy_file),
        "enrolment": str(tmp_path / "enrolment.json"),
        "base-model": str(tiny_llama_dir),
        "checkpoint-dir": str(tmp_path / "checkpoint"),
        "output-dir": str(tmp_path / "hub"),
        "signing-key": str(tmp_path / "hub" / "hub.key"),
        "audit-origin": "example.org/audit",
    }
    context = Context(1, 1, {}, RecordDict(), run_config)  # type: ignore[arg-type]
    app(grid, context)
    app(grid, context)  # the finished run: nobody is asked, the same release is found in its place
    for _, ledger in opened.values():
        ledger.close()

    ((name, release),) = list_releases(tmp_path / "hub")
    assert not isinstance(release, Exception), release
    assert release.id == name
    assert len(release.receipts) == 6
    cost = epsilon([release.receipts[0].event] * 2, 1e-5)
    assert {n: p["epsilon"] for n, p in release.privacy["departments"].items()} == dict.fromkeys(
        DEPARTMENTS, cost
    )
    initial = trainer.initial_adapter(_config(policy), policy.training.seed)
    for tensor_name, tensor in release.tensors().items():
        frozen = "lora_A" in tensor_name
        assert np.array_equal(tensor, initial[tensor_name]) == frozen
    for node in nodes.values():
        assert len(list(node.replies.glob("*.reply"))) == 2
        assert Ledger.verify(node.ledger_path, node.key.verify_key).ok
    hub_key = VerifyKey.load(tmp_path / "hub" / "release-key.pub")
    assert verify_log(tmp_path / "hub" / "audit.db", hub_key).ok


def _config(policy):
    from server.rounds import RunPlan

    return RunPlan.from_policy(policy, "0" * 64).adapter_config()
