"""``intramural release``: what is shown was verified first."""

import shutil
from pathlib import Path

import pytest

from intramural.workspace import Workspace
from privacy.signing import SigningKey
from tests.intramural.cli_kit import POLICY, Cli, flip

FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "README.md",
    "receipts.jsonl",
    "manifest.json",
    "manifest.sig",
)


def release(workspace: Workspace) -> Path:
    (path,) = workspace.releases.iterdir()
    return path


def test_list_verifies_while_it_lists(cli: Cli, pristine: Workspace) -> None:
    """Each release has its guarantee beside its id."""
    done = cli("release", "list", "--workspace", pristine.root, "--json")
    assert done.code == 0
    (entry,) = done.json["releases"]
    assert entry["id"] == release(pristine).name
    assert entry["verified"] is True
    assert entry["base_model"] == "tiny"
    text = cli("release", "list", "--workspace", pristine.root).out
    assert entry["id"] in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_workspace_without_releases(cli: Cli, tmp_path: Path) -> None:
    """An empty list is fine; there is nothing to show or verify, and that is said."""
    (tmp_path / "policy.toml").write_text(POLICY)
    assert cli("release", "list", "--workspace", tmp_path, "--json").json == {"releases": []}
    assert cli("release", "list", "--workspace", tmp_path).code == 0
    done = cli("release", "show", "--workspace", tmp_path)
    assert done.code == 1
    assert "no release yet" in done.err
    done = cli("release", "verify", "--workspace", tmp_path, "--json")
    assert done.code == 1
    assert done.json == {"verified": False, "releases": []}


def test_show_states_the_guarantee(cli: Cli, pristine: Workspace) -> None:
    """Unit, adjacency, mechanism, accountant, and epsilon and delta of each department."""
    done = cli("release", "show", "--workspace", pristine.root)
    assert done.code == 0
    for part in ("one record, add_or_remove_one", "DP-SGD", "PLD", "finance", "1e-05", "0.25"):
        assert part in done.out
    value = cli("release", "show", "--workspace", pristine.root, "--json").json
    assert set(value["privacy"]["departments"]) == {"finance", "hr"}
    assert value["receipts"] == 4


@pytest.mark.parametrize("how", ["id", "path", "relative path", "latest"])
def test_release_is_found_by_id_and_by_path(
    cli: Cli, pristine: Workspace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id or `latest` needs the workspace, a path does not."""
    path = release(pristine)
    name: object = {"id": path.name, "path": path, "latest": "latest"}.get(how)
    options = ("--workspace", pristine.root) if how in ("id", "latest") else ()
    if how == "relative path":
        monkeypatch.chdir(pristine.releases)
        name = f"{path.name}/"
    for command in ("show", "verify"):
        done = cli("release", command, name, *options)
        assert done.code == 0
        assert path.name in done.out


def test_unknown_release_is_told(cli: Cli, pristine: Workspace) -> None:
    """An id that is not there ends with 1 and names those that are."""
    done = cli("release", "show", "r-00000000000000000000", "--workspace", pristine.root)
    assert done.code == 1
    assert release(pristine).name in done.err
    done = cli("release", "verify", pristine.root / "releases" / "r-0")
    assert done.code == 1
    assert "there is no release" in done.err


@pytest.mark.parametrize("file", FILES)
def test_changed_file_is_named(cli: Cli, workspace: Workspace, file: str) -> None:
    """One changed byte in any file ends verify, show and list with 1 and names the file."""
    flip(release(workspace) / file)
    for command in ("verify", "show", "list"):
        done = cli("release", command, "--workspace", workspace.root)
        assert done.code == 1
        assert file in done.err
    value = cli("release", "verify", "--workspace", workspace.root, "--json")
    assert value.code == 1
    assert value.json["verified"] is False
    assert file in value.json["releases"][0]["fault"]


def test_added_and_missing_files_are_named(cli: Cli, workspace: Workspace) -> None:
    """A file too many or too few is found like a changed one."""
    (release(workspace) / "notes.txt").write_text("hello")
    assert "unexpected notes.txt" in cli("release", "verify", "-w", workspace.root).err
    (release(workspace) / "notes.txt").unlink()
    (release(workspace) / "README.md").unlink()
    assert "missing README.md" in cli("release", "verify", "-w", workspace.root).err


def test_given_key_must_have_signed(cli: Cli, pristine: Workspace, tmp_path: Path) -> None:
    """With --key, only releases of that key verify."""
    own, other = tmp_path / "own.pub", tmp_path / "other.pub"
    SigningKey.load(pristine.hub_key).verify_key.save(own)
    SigningKey.generate().verify_key.save(other)
    assert cli("release", "verify", release(pristine), "--key", own).code == 0
    done = cli("release", "verify", release(pristine), "--key", other)
    assert done.code == 1
    assert "signed by key" in done.err
    done = cli("release", "verify", release(pristine), "--key", tmp_path / "none.pub")
    assert done.code == 1
    assert "none.pub" in done.err


def test_latest_cannot_be_told_beside_a_damaged_one(cli: Cli, workspace: Workspace) -> None:
    """Where one release does not verify, nobody can say which is the latest."""
    shutil.copytree(release(workspace), workspace.releases / "r-copied")
    done = cli("release", "show", "latest", "--workspace", workspace.root)
    assert done.code == 1
    assert "r-copied" in done.err
    assert cli("release", "verify", "--workspace", workspace.root).code == 1
