"""``intramural serve``: it starts only on what verifies, ends cleanly, and logs no prompt."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import intramural.service
from intramural.errors import WorkspaceError
from intramural.service import find_release, open_service
from intramural.workspace import Workspace
from policies.model import Policy
from privacy.audit.entries import AuditEntry
from privacy.pii.patterns import PatternDetector
from privacy.release import VerifiedRelease
from privacy.signing import SigningKey
from tests.api.echo import EchoEngine
from tests.intramural.cli_kit import POLICY, Cli, flip
from tests.intramural.service_process import SERVE

EMAIL = "ada.lovelace@example.org"


def light(policy: Policy, release: VerifiedRelease) -> tuple[PatternDetector, EchoEngine]:
    """Detector and engine without models."""
    return PatternDetector(), EchoEngine(release.id)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a model is an error: the refusal must come before."""

    def opened(*_: object) -> None:
        raise AssertionError("models were opened before the refusal")

    monkeypatch.setattr(intramural.service, "detector_for", opened)
    monkeypatch.setattr(intramural.service, "open_backend", opened)


def release_of(workspace: Workspace) -> Path:
    (path,) = workspace.releases.iterdir()
    return path


def damage_release(workspace: Workspace) -> None:
    flip(release_of(workspace) / "adapter_model.safetensors")


def damage_release_key(workspace: Workspace) -> None:
    flip(workspace.root / "release-key.pub")


def remove_releases(workspace: Workspace) -> None:
    release_of(workspace).rename(workspace.root / "elsewhere")


def damage_audit(workspace: Workspace) -> None:
    flip(workspace.audit)


def remove_audit_key(workspace: Workspace) -> None:
    workspace.audit_key.unlink()


def open_audit_key(workspace: Workspace) -> None:
    workspace.audit_key.chmod(0o644)


def damage_keys(workspace: Workspace) -> None:
    flip(workspace.service / "keys.db")


def remove_secret(workspace: Workspace) -> None:
    (workspace.service / "keys.secret").unlink()


def damage_policy(workspace: Workspace) -> None:
    (workspace.root / "policy.toml").write_text(POLICY.replace("version = 1", "version = 2"))


def remove_policy(workspace: Workspace) -> None:
    (workspace.root / "policy.toml").unlink()


def unfollowable_policy(workspace: Workspace) -> None:
    (workspace.root / "policy.toml").write_text(POLICY.replace("IBAN_CODE", "IBAN_COD"))


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (damage_release, "adapter_model.safetensors"),
        (damage_release_key, "trusted"),
        (remove_releases, "no release yet"),
        (damage_audit, "audit.db"),
        (remove_audit_key, "audit.key"),
        (open_audit_key, "mode 0644"),
        (damage_keys, "keys.db"),
        (remove_secret, "keys.secret"),
        (damage_policy, "version"),
        (remove_policy, "policy.toml"),
        (unfollowable_policy, "IBAN_COD"),
    ],
)
def test_service_starts_only_on_what_verifies(
    cli: Cli, workspace: Workspace, damage: Callable[[Workspace], None], word: str
) -> None:
    """A damaged or missing part ends serve with 1, names it, and nothing listens."""
    options = ("--workspace", workspace.root, "--principal", "a", "--role", "app")
    assert cli("keys", "create", *options).code == 0
    damage(workspace)
    done = cli("serve", "--workspace", workspace.root, "--port", "0")
    assert (done.code, done.out) == (1, "")
    assert word in done.err


@pytest.mark.usefixtures("no_models")
def test_release_must_be_signed_by_the_given_key(
    cli: Cli, workspace: Workspace, tmp_path: Path
) -> None:
    """With --key, a release of another key is not served."""
    SigningKey.generate().verify_key.save(tmp_path / "other.pub")
    options = ("--workspace", workspace.root, "--port", "0", "--key", tmp_path / "other.pub")
    done = cli("serve", *options)
    assert done.code == 1
    assert "signed by key" in done.err


@pytest.mark.usefixtures("no_models")
def test_port_in_use_is_told_before_anything_is_loaded(cli: Cli, workspace: Workspace) -> None:
    """A port that somebody else has ends with 1 and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--workspace", workspace.root, "--port", port)
    assert done.code == 1
    assert f"127.0.0.1 port {port}" in done.err
    assert "--port" in done.err


def test_other_model_than_the_release_was_trained_on_is_refused(
    cli: Cli, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base model that is missing, or not the release's, ends with 1."""
    monkeypatch.setattr(intramural.service, "detector_for", lambda *_: PatternDetector())
    options = ("--workspace", workspace.root, "--port", "0", "--model", tmp_path / "none")
    done = cli("serve", *options)
    assert done.code == 1
    assert "cannot be loaded" in done.err


def test_opened_parts_are_closed_again(workspace: Workspace) -> None:
    """After the block, and after a failure in it, log and keys are sealed and can be opened anew."""

    def failing(policy: Policy, release: VerifiedRelease) -> tuple[PatternDetector, EchoEngine]:
        raise WorkspaceError("no model")

    with (
        pytest.raises(WorkspaceError, match="no model"),
        open_service(workspace, open_models=failing),
    ):
        pass
    for _ in range(2):
        with open_service(workspace, open_models=light) as service:
            assert service.audit.available
            assert service.release.id == release_of(workspace).name
        assert not service.audit.available


def test_two_services_share_a_workspace(workspace: Workspace) -> None:
    """Both write one audit log, without a fork or a gap."""
    from privacy.audit.log import verify_log
    from privacy.signing import VerifyKey

    with (
        open_service(workspace, open_models=light) as one,
        open_service(workspace, open_models=light) as two,
    ):
        indices = [
            service.audit.append(AuditEntry.now("policy", "service", {"step": "x"})).index
            for service in (one, two, one)
        ]
    assert indices == [indices[0], indices[0] + 1, indices[0] + 2]
    assert verify_log(workspace.audit, VerifyKey.load(workspace.audit_public_key)).ok


def test_policy_in_force_is_on_record(workspace: Workspace) -> None:
    """Before it answers, the service notes under which policy it serves which release."""
    from privacy.audit.log import read_log

    with open_service(workspace, open_models=light) as service:
        pass
    with read_log(workspace.audit) as log:
        last = list(log.entries())[-1].entry
    assert last.kind == "policy"
    assert last.data == {
        "step": "serving",
        "policy": service.policy.digest,
        "release": service.release.id,
    }


def test_engine_can_be_watched(workspace: Workspace) -> None:
    """``wrap_engine`` stands between the application and the engine."""
    wrapped = EchoEngine("another")
    with open_service(workspace, open_models=light, wrap_engine=lambda engine: wrapped) as service:
        assert service.engine is wrapped


@pytest.mark.parametrize("name", ["../releases", "", ".", "r-0"])
def test_release_names_do_not_leave_their_folder(pristine: Workspace, name: str) -> None:
    """Only an id of the workspace is a release's name."""
    with pytest.raises(WorkspaceError, match="no release"):
        find_release(pristine, name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_service_answers_and_ends_cleanly(
    cli: Cli, workspace: Workspace, tiny_llama_dir: Path, number: signal.Signals, code: int
) -> None:
    """The real service: a key made while it runs works, the prompt is in no log, the end is sealed."""
    command = [sys.executable, "-c", SERVE, "serve", "--workspace", str(workspace.root)]
    command += ["--model", str(tiny_llama_dir), "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            while (line := process.stdout.readline()) not in ("}\n", ""):
                lines.append(line)
            facts = json.loads("".join([*lines, line]))
            assert facts["release"] == release_of(workspace).name
            options = ("--workspace", workspace.root, "--principal", "a", "--role", "admin")
            key = cli("keys", "create", *options).out.strip()
            with httpx.Client(
                base_url=facts["listening"],
                headers={"Authorization": f"Bearer {key}"},
                timeout=60,
            ) as client:
                answer = client.post(
                    "/v1/chat/completions",
                    json={
                        "model": facts["release"],
                        "messages": [{"role": "user", "content": f"Write to {EMAIL}"}],
                        "max_tokens": 4,
                    },
                )
                assert answer.status_code == 200
                budgets = client.get("/v1/budgets").json()
            assert [part["department"] for part in budgets["data"]] == ["finance", "hr"]
            assert budgets["largest_epsilon"] > 0
        finally:
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "POST /v1/chat/completions 200" in err
    assert EMAIL not in err
    assert key not in err
    verified = cli("audit", "verify", "--workspace", workspace.root, "--json").json
    assert (verified["verified"], verified["state"]) == (True, "closed")
    for path in workspace.root.rglob("*"):
        if path.is_file():
            assert EMAIL.encode() not in path.read_bytes()
    options = ("--workspace", workspace.root, "--kind", "call", "--json")
    calls = cli("audit", "show", *options).json["entries"]
    assert [entry["data"]["operation"] for entry in calls] == ["chat", "budgets"]


def test_missing_ledger_is_warned_about_and_never_read_as_zero(
    workspace: Workspace, cli: Cli
) -> None:
    """Where a ledger does not verify, the budgets are refused rather than understated."""
    from fastapi.testclient import TestClient

    options = ("--workspace", workspace.root, "--principal", "a", "--role", "compliance")
    key = cli("keys", "create", *options).out.strip()
    workspace.node("hr").ledger.unlink()
    with (
        open_service(workspace, open_models=light) as service,
        TestClient(service.app, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        answer = client.get("/v1/budgets")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "ledger_unavailable"
