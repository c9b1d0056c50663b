"""``intramural release promote`` and ``rollback``: only what verifies, kept, followed by a service."""

import threading
import time
from pathlib import Path

import pytest

from intramural.service import open_service
from intramural.serving import open_channels, promoted
from intramural.workspace import Workspace
from policies.model import Policy
from privacy.audit.log import read_log
from privacy.pii.patterns import PatternDetector
from privacy.release import VerifiedRelease
from tests.api.echo import EchoEngine
from tests.intramural.cli_kit import Cli, flip

OTHER = "r-00000000000000000000"


def light(policy: Policy, release: VerifiedRelease) -> tuple[PatternDetector, EchoEngine]:
    """Detector and engine without models."""
    return PatternDetector(), EchoEngine(release.id)


def release(workspace: Workspace) -> Path:
    (path,) = workspace.releases.iterdir()
    return path


def test_a_promotion_is_kept(cli: Cli, workspace: Workspace) -> None:
    """What the command says it promoted is what a service finds, also under another name."""
    name = release(workspace).name
    assert promoted(workspace, "intramural") is None
    done = cli("release", "promote", "latest", "--workspace", workspace.root, "--json")
    assert (done.code, done.json["name"], done.json["stable"]) == (0, "intramural", name)
    done = cli("release", "promote", f"crm@{name}", "--workspace", workspace.root)
    assert f"crm: {name} is stable" in done.out
    assert promoted(workspace, "intramural") == promoted(workspace, "crm") == name


def test_what_does_not_verify_is_not_promoted(cli: Cli, workspace: Workspace) -> None:
    """One changed byte of a release, and it is promoted under no name."""
    flip(release(workspace) / "adapter_model.safetensors")
    done = cli("release", "promote", release(workspace).name, "--workspace", workspace.root)
    assert done.code == 1
    assert promoted(workspace, "intramural") is None


@pytest.mark.parametrize(
    "words",
    [
        ("promote", "latest", "--channel", "canary"),
        ("promote", "latest", "--channel", "beta"),
        ("promote", OTHER),
        ("promote", "a b@latest"),
        ("rollback",),
        ("rollback", "crm"),
    ],
)
def test_senseless_commands_are_refused(
    cli: Cli, workspace: Workspace, words: tuple[str, ...]
) -> None:
    """A canary beside nothing, an unknown channel, release or name: exit code 1, nothing changes."""
    done = cli("release", *words, "--workspace", workspace.root)
    assert (done.code, done.out) == (1, "")
    with open_channels(workspace) as store:
        assert store.version() == 0


def test_a_running_service_follows(cli: Cli, workspace: Workspace) -> None:
    """A promotion of what is loaded is served within a second, and is on record."""
    name = release(workspace).name

    with open_service(workspace, open_models=light) as service:
        channels = service.app.state.services.releases
        assert channels.channels["intramural"].stable == name
        done = cli("release", "promote", f"crm@{name}", "--workspace", workspace.root)
        assert done.code == 0
        until = time.monotonic() + 1.0
        while "crm" not in channels.channels:
            if time.monotonic() > until:
                raise TimeoutError
            threading.Event().wait(0.01)
    with read_log(workspace.audit) as log:
        steps = [stored.entry.data for stored in log.entries() if stored.entry.kind == "policy"]
    assert [step["step"] for step in steps][-3:] == ["released", "serving", "released"]
    assert (steps[-1]["name"], steps[-1]["release"]) == ("crm", name)


def test_a_service_with_a_named_release_follows_nothing(cli: Cli, workspace: Workspace) -> None:
    """With ``--release`` one release is served, whatever is promoted."""
    name = release(workspace).name
    with open_service(workspace, release=name, open_models=light) as service:
        releases = service.app.state.services.releases
        with open_channels(workspace) as store:
            store.promote("crm", name)
        assert list(releases) == [name]
        assert not releases.channels
