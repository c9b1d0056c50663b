"""What a department does at its node with a published release: its own adapter, and its own audit."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from federation_kit import OpenGate

import intramural.service
from api.channels import Channel
from client.joining import Joined
from intramural.deployment.agent_process import RunAgents
from intramural.deployment.node_home import NodeHome, NodeSettings
from intramural.service import find_release, open_service
from intramural.serving import open_channels
from intramural.workspace import Workspace
from policies.load import load_policy
from privacy.audit.log import read_log
from privacy.dp.adapter import config_of
from privacy.dp.encode import Example
from privacy.dp.trainer import LoraTrainer
from privacy.exchange import RoundReply, adapter_digest
from privacy.joining import HubBundle, now_text, seal
from privacy.ledger.ledger import Ledger
from privacy.pii.patterns import PatternDetector
from privacy.receipts import SignedReceipt
from privacy.release import VerifiedRelease, publish
from privacy.signing import SigningKey
from privacy.statement import ReleaseStatement
from server.rounds import RunPlan
from tests.intramural.cli_kit import Cli

CANARIES = 40
POLICY = f"""version = 1
organisation = "Example Ltd"
[privacy]
epsilon = 9.0
[departments.hr]
[departments.finance]
[principals.payroll]
department = "hr"
[principals.ledger]
department = "finance"
[training]
rounds = 1
local_steps = 2
sampling_rate = 0.2
target_epsilon = 6.0
learning_rate = 0.3
rank = 2
targets = ["q_proj", "v_proj"]
last_layers = 1
minimum_nodes = 1
max_tokens = 64
personal = true
canaries = {CANARIES}
"""
BODY = {
    "model": "intramural",
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 8,
    "temperature": 0,
}


@dataclass(frozen=True)
class Trained:
    """A node that took part in a run, and the release that the hub made of it."""

    home: NodeHome
    hub: SigningKey
    workspace: Workspace
    release: VerifiedRelease

    def copy(self, folder: Path) -> "Trained":
        home = NodeHome(Path(shutil.copytree(self.home.root, folder / "node-hr")))
        root = Path(shutil.copytree(self.workspace.root, folder / "workspace"))
        path = root / "releases" / self.release.id
        return Trained(home, self.hub, Workspace(root), replace(self.release, path=path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> Trained:
    """One round of the real trainer at the node of hr, published by its hub."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "workspace").mkdir()
    file = folder / "workspace" / "policy.toml"
    file.write_text(POLICY)
    policy = load_policy(file)
    home, hub = NodeHome(folder / "node-hr"), SigningKey.generate()
    home.create(NodeSettings("hr", "none", {}, {}, 0.0, str(file), str(tiny_llama_dir)))
    bundle = HubBundle(
        hub="test", department="hr", node_id="1", superlink="127.0.0.1:1", accounts=(),
        policy_digest=None, certificate_expires=now_text(), issued=now_text(),
    )  # fmt: skip
    home.hub.pin(Joined(b"", seal(bundle, hub), bundle, hub.verify_key))
    trainer = LoraTrainer(tiny_llama_dir, name="tiny")
    plan = RunPlan.from_policy(policy, trainer.base_digest, run_id="run-1")
    adapter = trainer.initial_adapter(plan.adapter_config(), plan.seed)
    units = [(Example(tuple(range(4, 20 + i % 5)), 1),) for i in range(40)]
    key = SigningKey.load(home.signing_key)
    with Ledger(home.ledger, key) as ledger:
        agents = RunAgents(home, policy, units, trainer, ledger, key, OpenGate())
        reply = agents.handle(plan.request(1, "hr"), adapter)
    assert isinstance(reply, RoundReply)
    statement = ReleaseStatement(
        run_id="run-1", created=now_text(), base_model="tiny",
        base_model_digest=trainer.base_digest, rounds=1, clipping_norm=plan.clipping_norm,
        factors="B", policy_digest=policy.digest, code_digest="b" * 64, accountant="PLD",
    )  # fmt: skip
    release = publish(
        folder / "workspace",
        {**adapter, **reply.update},
        trainer.adapter_config_json(plan.adapter_config()),
        statement,
        [reply.receipt],
        {},
        hub,
        department_keys={"hr": key.verify_key},
    )
    return Trained(home, hub, Workspace(folder / "workspace"), release)


@pytest.fixture
def trained(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A copy to change, and an empty folder to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made.copy(tmp_path)


def export(cli: Cli, trained: Trained) -> Path:
    """The file that the department's service gets."""
    done = cli("node", "personal", trained.release.path, "--dir", trained.home.root, "--json")
    assert done.code == 0, done.err
    return Path(done.json["file"])


@pytest.fixture
def patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector without models of 100 MB."""
    monkeypatch.setattr(intramural.service, "detector_for", lambda *_: PatternDetector())


def ask(app: Any, key: str) -> Any:
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        answer = client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    return answer


def key_of(cli: Cli, trained: Trained, principal: str) -> str:
    options = ("--workspace", trained.workspace.root, "--principal", principal, "--role", "app")
    return str(cli("keys", "create", *options).out.strip())


# --- personal adapters ----------------------------------------------------------------------------


@pytest.mark.usefixtures("patterns")
def test_from_the_node_to_the_departments_callers(
    cli: Cli, trained: Trained, tiny_llama_dir: Path
) -> None:
    """Trained, taken out, put in and served: hr's callers get both adapters, finance's the release."""
    file = export(cli, trained)
    assert file.stat().st_mode & 0o777 == 0o600
    options = ("--workspace", trained.workspace.root, "--json")
    done = cli("release", "add-personal", file, *options)
    assert done.code == 0, done.err
    placed = Path(done.json["file"])
    assert placed == trained.workspace.personal(trained.release.id) / "hr.personal"
    assert (placed.stat().st_mode & 0o777, placed.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    keys = {name: key_of(cli, trained, name) for name in ("payroll", "ledger")}
    with open_service(trained.workspace, model=tiny_llama_dir) as service:
        answers = {name: ask(service.app, key) for name, key in keys.items()}
    named = {name: answer.headers.get("x-intramural-personal") for name, answer in answers.items()}
    assert named == {"payroll": "hr", "ledger": None}
    assert {a.headers["x-intramural-release"] for a in answers.values()} == {trained.release.id}
    with read_log(trained.workspace.audit) as log:
        entries = [stored.entry for stored in log.entries()]
    noted = [entry.data for entry in entries if entry.data.get("step") == "personal"]
    assert noted == [{"step": "personal", "release": trained.release.id, "departments": ["hr"]}]
    calls = [entry.data for entry in entries if entry.kind == "call"]
    assert [call["personal"] for call in calls] == ["hr", ""]


def test_what_is_served_is_what_the_node_trained(cli: Cli, trained: Trained) -> None:
    """Bit by bit: the release's tensors and the node's own, added."""
    from client.personal import PersonalAdapters
    from intramural.personal import put_in, with_personal

    put_in(trained.workspace, trained.release, export(cli, trained).read_bytes())
    found = with_personal(trained.workspace, find_release(trained.workspace))
    own = PersonalAdapters(trained.home.state).composed("run-1", trained.release.tensors())
    assert adapter_digest(found.of("hr").tensors()) == adapter_digest(own)
    assert any(np.any(tensor) for tensor in found.personal["hr"].values())


@pytest.mark.usefixtures("patterns")
def test_it_comes_with_a_promotion_while_the_service_runs(
    cli: Cli, trained: Trained, tiny_llama_dir: Path
) -> None:
    """A release that is promoted later brings its departments' adapters with it, on record first."""
    other = publish_again(trained)
    key = key_of(cli, trained, "payroll")
    workspace = trained.workspace
    with open_channels(workspace) as store:
        store.promote("intramural", trained.release.id, "stable", 0)
    with open_service(workspace, model=tiny_llama_dir) as service:
        assert "x-intramural-personal" not in ask(service.app, key).headers
        moved = replace(trained, release=other)
        assert cli("release", "add-personal", export(cli, moved), "-w", workspace.root).code == 0
        with open_channels(workspace) as store:
            store.promote("intramural", other.id, "stable", 0)
        releases = service.app.state.services.releases
        wait_for(lambda: releases.channels["intramural"] == Channel(
            "intramural", other.id, earlier=(trained.release.id,)))  # fmt: skip
        answer = ask(service.app, key)
    assert answer.headers["x-intramural-release"] == other.id
    assert answer.headers["x-intramural-personal"] == "hr"


def publish_again(trained: Trained) -> VerifiedRelease:
    """Another release of the same run, as after another evaluation."""
    receipts = [
        SignedReceipt.from_json(line)
        for line in (trained.release.path / "receipts.jsonl").read_text().splitlines()
    ]
    run = {name: value for name, value in trained.release.run.items() if name != "type"}
    return publish(
        trained.workspace.root,
        trained.release.tensors(),
        trained.release.adapter_config,
        ReleaseStatement(**run),
        receipts,
        {"note": "again"},
        trained.hub,
        department_keys={
            "hr": SigningKey.load(trained.home.signing_key).verify_key,
        },
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_damaged_one_keeps_the_service_from_starting(
    cli: Cli, trained: Trained, tiny_llama_dir: Path
) -> None:
    """No silent answer without it: serve and its check name the file and the way out."""
    assert cli("release", "add-personal", export(cli, trained),
               "-w", trained.workspace.root).code == 0  # fmt: skip
    placed = trained.workspace.personal(trained.release.id) / "hr.personal"
    data = bytearray(placed.read_bytes())
    data[-1] ^= 1
    placed.write_bytes(bytes(data))
    options = ("--workspace", trained.workspace.root, "--model", tiny_llama_dir, "--port", "0")
    done = cli("serve", *options)
    assert done.code == 1
    assert "hr.personal" in done.err
    assert "take it away" in done.err
    checked = cli("serve", "--workspace", trained.workspace.root, "--check", "--json").json
    assert [fault["key"] for fault in checked["faults"]] == ["release"]
    placed.rename(placed.with_name("finance.personal"))
    placed.with_name("finance.personal").write_bytes(export(cli, trained).read_bytes())
    assert "adapter of department 'hr'" in cli("serve", *options).err


def test_upstream_servers_are_refused_one(
    cli: Cli, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters are put on top in this process alone; another server would answer without."""
    from api.engines.settings import EngineSettings
    from api.engines.switching import SwitchingEngine
    from api.errors import EngineError
    from intramural.personal import put_in, with_personal
    from intramural.serving import open_backend

    put_in(trained.workspace, trained.release, export(cli, trained).read_bytes())
    found = with_personal(trained.workspace, trained.release)
    settings = EngineSettings.model_validate(
        {"upstream": {"urls": ["http://127.0.0.1:9"], "allow_private": True}}
    )
    with open_backend(settings, lambda: tmp_path) as backend:
        switching = SwitchingEngine(backend.open, backend.close, backend.beside)
        with pytest.raises(EngineError, match="local engine"):
            switching.load(found)


def test_what_cannot_be_taken_out_is_said(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    """No adapter of the run, a release of another hub, one that was changed: each with 1."""
    options = ("--dir", trained.home.root)
    (trained.home.state / "run-1.personal").rename(tmp_path / "moved")
    done = cli("node", "personal", trained.release.path, *options)
    assert (done.code, "training.personal = true" in done.err) == (1, True)
    SigningKey.generate().verify_key.save(tmp_path / "other.pub")
    done = cli("node", "personal", trained.release.path, *options, "--key", tmp_path / "other.pub")
    assert (done.code, "signed by key" in done.err) == (1, True)
    with (trained.release.path / "README.md").open("a") as card:
        card.write("x")
    done = cli("node", "personal", trained.release.path, *options)
    assert (done.code, "README.md was changed" in done.err) == (1, True)


def test_another_departments_file_is_not_put_in(cli: Cli, trained: Trained) -> None:
    """Nor anything that is no such file, nor one of a release that the workspace does not have."""
    file = export(cli, trained)
    # A copy of the release where the command runs is not the workspace's.
    shutil.copytree(trained.release.path, trained.release.id)
    nothing = Path("nothing")
    nothing.write_bytes(b"\0" * 100)
    for given in (nothing, Path("absent")):
        assert cli("release", "add-personal", given, "-w", trained.workspace.root).code == 1
    trained.release.path.rename(trained.workspace.root / "elsewhere")
    done = cli("release", "add-personal", file, "-w", trained.workspace.root)
    assert (done.code, trained.release.id in done.err) == (1, True)
    assert not trained.workspace.personal(trained.release.id).exists()


# --- audit ----------------------------------------------------------------------------------------


def test_a_deployed_run_is_audited_at_the_node(cli: Cli, trained: Trained) -> None:
    """Claim and proved bound of this department, from canaries that the node itself inserted."""
    done = cli("node", "audit", trained.release.path, "--dir", trained.home.root, "--json")
    assert done.code == 0, done.err
    (part,) = done.json["departments"]
    (receipt,) = trained.release.receipts
    assert (part["name"], part["canaries"]) == ("hr", CANARIES)
    assert done.json["run_id"] == "run-1"
    assert done.json["refuted"] == []
    assert 0 <= part["epsilon_lower_bound"] <= part["epsilon_run"] < part["epsilon_history"]
    assert part["epsilon_history"] == receipt.epsilon
    report = trained.home.canary_report("run-1")
    assert json.loads(report.read_bytes()) == {"run_id": "run-1", **part}
    scores = trained.home.canary_scores("run-1")
    assert {path.stat().st_mode & 0o777 for path in (report, scores)} == {0o600}
    assert len(json.loads(scores.read_bytes())["scores"]) == CANARIES
    assert "texts" not in done.out


def test_scores_are_those_of_the_published_adapter(cli: Cli, trained: Trained) -> None:
    """Loss before less loss after, under the shape that the release itself names."""
    from privacy.empirical.attack import loss_scores
    from privacy.empirical.canaries import CanarySet, load_scores

    assert cli("node", "audit", trained.release.path, "--dir", trained.home.root).code == 0
    policy = load_policy(trained.workspace.root / "policy.toml")
    trainer = LoraTrainer(Path(trained.home.settings().base_model), name="tiny")
    config = RunPlan.from_policy(policy, trainer.base_digest).adapter_config()
    read = config_of(trained.release.adapter_config, "B")
    assert replace(read, targets=()) == replace(config, targets=())
    assert set(read.targets) == set(config.targets)
    canaries = CanarySet.load(trained.home.canaries("run-1"))
    tensors = trained.release.tensors()
    expected = loss_scores(trainer, canaries.examples(trainer.tokenizer, 64), config, tensors)
    kept = load_scores(trained.home.canary_scores("run-1"), adapter_digest(tensors))
    assert kept == pytest.approx(expected, abs=1e-5)


def test_a_leaking_run_is_refuted_at_the_node(
    cli: Cli, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every canary is found, the bound passes the claim and the command ends with 1."""
    from privacy.empirical import attack
    from privacy.empirical.canaries import CanarySet

    coins = CanarySet.load(trained.home.canaries("run-1")).included
    monkeypatch.setattr(attack, "loss_scores", lambda *_: [float(coin) for coin in coins])
    monkeypatch.setattr("intramural.auditing.composed_epsilon", lambda events, delta: 0.5)
    done = cli("node", "audit", trained.release.path, "--dir", trained.home.root)
    assert done.code == 1
    assert "the claim of run run-1 is refuted: hr" in done.err


def test_what_cannot_be_audited_is_said(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    """No canaries, exposed coins, another node's receipts, an impossible confidence."""
    options = ("node", "audit", trained.release.path, "--dir", trained.home.root)
    assert cli(*options, "--confidence", "1").code == 2
    trained.home.canaries("run-1").chmod(0o644)
    done = cli(*options)
    assert (done.code, "chmod 600" in done.err) == (1, True)
    trained.home.canaries("run-1").unlink()
    done = cli(*options)
    assert (done.code, "training.canaries" in done.err) == (1, True)
    SigningKey.generate().verify_key.save(trained.home.public_key)
    done = cli(*options)
    assert (done.code, "no receipt of this node" in done.err) == (1, True)


def test_a_hub_says_who_audits(cli: Cli, tmp_path: Path) -> None:
    """Asked where no simulation ran, `budget audit` names the node's command."""
    (tmp_path / "policy.toml").write_text(POLICY)
    done = cli("budget", "audit", "run-1", "--workspace", tmp_path)
    assert (done.code, "intramural node audit" in done.err) == (1, True)
