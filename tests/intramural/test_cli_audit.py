"""``intramural audit``: the log is verified with its public key alone, and read only if it is sound."""

import shutil
from pathlib import Path

import pytest

from intramural.parts import open_audit
from intramural.workspace import Workspace
from privacy.audit.entries import AuditEntry
from privacy.signing import SigningKey
from tests.intramural.cli_kit import Cli, flip


def test_sound_log_verifies(cli: Cli, pristine: Workspace) -> None:
    """Verify counts the entries and says how far it could check."""
    done = cli("audit", "verify", "--workspace", pristine.root, "--json")
    assert done.code == 0
    value = done.json
    assert (value["verified"], value["entries"], value["state"]) == (True, 3, "closed")
    text = cli("audit", "verify", "--workspace", pristine.root).out
    assert "every byte is as it was sealed" in text


def test_verifying_changes_nothing(cli: Cli, pristine: Workspace) -> None:
    """Neither a byte nor a file beside the log is touched."""
    folder = pristine.audit.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert cli("audit", "verify", "--workspace", pristine.root).code == 0
    assert cli("audit", "show", "--workspace", pristine.root).code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("file", ["audit.db", "audit.db.seal", "audit.pub"])
def test_changed_log_is_named(cli: Cli, workspace: Workspace, file: str) -> None:
    """One changed byte ends verify and show with 1, and no entry is shown."""
    flip(workspace.audit.parent / file)
    done = cli("audit", "verify", "--workspace", workspace.root)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "audit" in done.err
    done = cli("audit", "show", "--workspace", workspace.root)
    assert (done.code, done.out) == (1, "")
    done = cli("audit", "show", "--workspace", workspace.root, "--json")
    assert done.code == 1
    assert set(done.json) == {"error"}


@pytest.mark.parametrize("place", [0, 100, 5000, 9000, -1])
def test_any_byte_of_the_log_counts(cli: Cli, workspace: Workspace, place: int) -> None:
    """Wherever the byte lies, the change is found, and the faults are in the JSON too."""
    flip(workspace.audit, place)
    done = cli("audit", "verify", "--workspace", workspace.root, "--json")
    assert done.code == 1
    assert done.json["verified"] is False
    assert done.json["faults"]


def test_removed_log_is_told(cli: Cli, workspace: Workspace) -> None:
    """A log whose database is gone, or that never was, ends with 1."""
    workspace.audit.unlink()
    done = cli("audit", "verify", "--workspace", workspace.root)
    assert done.code == 1
    assert "audit.db is missing" in done.err
    shutil.rmtree(workspace.audit.parent)
    assert cli("audit", "verify", "--workspace", workspace.root).code == 1


def test_copied_log_verifies_with_its_key(cli: Cli, pristine: Workspace, tmp_path: Path) -> None:
    """An auditor needs the database and the public key; without the seal that must be said."""
    copy, key = tmp_path / "copy.db", tmp_path / "log.pub"
    shutil.copyfile(pristine.audit, copy)
    shutil.copyfile(pristine.audit_public_key, key)
    assert cli("audit", "verify", copy, "--key", key).code == 1
    done = cli("audit", "verify", copy, "--key", key, "--without-seal")
    assert done.code == 0
    assert "a removed end cannot be seen" in done.out.replace("\n", " ")
    SigningKey.generate().verify_key.save(key)
    assert cli("audit", "verify", copy, "--key", key, "--without-seal").code == 1


def test_log_verifies_while_it_is_written(cli: Cli, workspace: Workspace) -> None:
    """An open log is verified as it stands, without disturbing its writer."""
    with open_audit(workspace) as audit:
        audit.append(AuditEntry.now("policy", "service", {"step": "serving"}))
        value = cli("audit", "verify", "--workspace", workspace.root, "--json").json
        assert (value["verified"], value["entries"], value["state"]) == (True, 4, "in_use")
        audit.append(AuditEntry.now("policy", "service", {"step": "serving"}))
    assert cli("audit", "verify", "--workspace", workspace.root, "--json").json["entries"] == 5


def test_show_gives_the_newest_entries(cli: Cli, pristine: Workspace) -> None:
    """--limit takes the newest, --kind filters, both in the order of the log."""
    value = cli("audit", "show", "--workspace", pristine.root, "--limit", 2, "--json").json
    assert value["total"] == 3
    assert [entry["index"] for entry in value["entries"]] == [1, 2]
    options = ("--kind", "run_step", "--json")
    value = cli("audit", "show", "--workspace", pristine.root, *options).json
    assert [entry["data"]["round"] for entry in value["entries"]] == [1, 2]
    text = cli("audit", "show", "--workspace", pristine.root).out
    assert "2  20" in text
    assert "step=round" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_unknown_kind_is_a_usage_error(cli: Cli, pristine: Workspace) -> None:
    """A kind that no entry can have ends with 2 and names those that there are."""
    done = cli("audit", "show", "--workspace", pristine.root, "--kind", "calls")
    assert done.code == 2
    assert "run_step" in done.err
