"""``intramural serve --check``: every fault of the configuration at once, nothing started."""

import json
from pathlib import Path

import pytest
from joserfc.jwk import OctKey, RSAKey

from intramural.workspace import Workspace
from tests.intramural.cli_kit import Cli

ISSUER = """
[access.issuers.corp]
issuer = "https://login.example.org"
audience = "intramural"
jwks = "{file}"
roles = {{users = "app"}}
"""


def extend(workspace: Workspace, text: str) -> None:
    """Add sections to the workspace's policy."""
    path = workspace.policy()
    assert path is not None
    path.write_text(path.read_text() + text)


def test_a_good_configuration_has_no_fault(cli: Cli, workspace: Workspace, tmp_path: Path) -> None:
    """Exit code 0, and no key store or audit log was made."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [RSAKey.generate_key(2048).as_dict(private=False)]}))
    extend(workspace, ISSUER.format(file=file))
    (workspace.root / "service.toml").write_text('alias = "house"\n')
    before = sorted(workspace.root.rglob("*"))
    done = cli("serve", "--check", "--workspace", workspace.root, "--json")
    assert (done.code, done.json) == (0, {"valid": True, "faults": []})
    assert sorted(workspace.root.rglob("*")) == before


def test_every_fault_at_once(
    cli: Cli, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of file and environment, certificates, key sets and release are all told."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [OctKey.generate_key(256).as_dict(private=True)]}))
    extend(
        workspace,
        ISSUER.format(file=file)
        + "[principals.crm]\nrole='app'\ncertificates=['CN=x']\n[guards.own]\nmissing='log'\n",
    )
    broken = tmp_path / "server.pem"
    broken.write_text("no certificate")
    (workspace.root / "service.toml").write_text(
        f"[tls]\ncertificate = '{broken}'\nkey = '{broken}'\n"
    )
    monkeypatch.setenv("INTRAMURAL_SERVICE_REDIS_URL", "redis://:word@host:port")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "word@collector:4318")
    done = cli("serve", "--check", "--workspace", workspace.root, "--release", "r-none", "--json")
    assert done.code == 1
    assert done.json["valid"] is False
    keys = [fault["key"] for fault in done.json["faults"]]
    assert keys == [
        "settings.tls",
        "settings.tracing",
        "settings.redis_url",
        "policy.guards",
        "settings.tls",
        "policy.access.issuers.corp.jwks",
        "release",
    ]
    assert "word" not in done.out + done.err
    monkeypatch.setenv("INTRAMURAL_SERVICE_BODY_SECONDS", "never")
    again = cli("serve", "--check", "--workspace", workspace.root)
    assert again.code == 1
    assert "INTRAMURAL_SERVICE_BODY_SECONDS" in again.err
    assert "access.issuers.corp.jwks" in again.err


def test_a_faulty_policy_is_told_once(cli: Cli, workspace: Workspace) -> None:
    """A fault of the policy stands under the policy alone, not under each part that reads it."""
    extend(workspace, "[nonsense]\n")
    done = cli("serve", "--check", "--workspace", workspace.root, "--json")
    assert done.code == 1
    assert [fault["key"] for fault in done.json["faults"]] == ["policy"]


def test_a_faulty_configuration_does_not_serve(cli: Cli, workspace: Workspace) -> None:
    """What --check refuses does not start."""
    (workspace.root / "service.toml").write_text("connections = 0\nspeed = 1\n")
    done = cli("serve", "--workspace", workspace.root)
    assert done.code == 1
    assert "connections" in done.err
    assert "speed" in done.err
