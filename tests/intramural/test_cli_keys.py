"""``intramural keys``: shown once, stored as digests, recorded."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.errors import InvalidKey
from intramural.parts import open_audit, open_keys
from intramural.stores import keys_place
from intramural.workspace import Workspace
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog, read_log
from privacy.errors import AuditUnavailable
from privacy.store.reading import store_exists
from tests.intramural.cli_kit import Cli, flip

APP = ("--principal", "helpdesk", "--role", "app")


def create(cli: Cli, workspace: Workspace, *options: str) -> dict[str, str]:
    done = cli("keys", "create", "--workspace", workspace.root, *APP, *options, "--json")
    assert done.code == 0
    value: dict[str, str] = done.json
    return value


def test_created_key_opens_the_service(cli: Cli, workspace: Workspace) -> None:
    """What is printed is the key, alone on standard output; the store accepts it."""
    done = cli("keys", "create", "--workspace", workspace.root, *APP)
    assert done.code == 0
    key = done.out.strip()
    assert key.startswith("im_")
    assert "only time" in done.err
    assert key not in done.err
    with closing(open_keys(workspace)) as store:
        known = store.authenticate(key)
    assert (known.principal, known.role) == ("helpdesk", "app")
    assert known.expires is not None
    assert timedelta(days=89) < known.expires - datetime.now(UTC) <= timedelta(days=90)


def test_key_is_stored_nowhere(cli: Cli, workspace: Workspace) -> None:
    """No file of the workspace holds the key or its secret part."""
    key = create(cli, workspace)["key"]
    secret = key.rpartition("_")[2].encode()
    for path in workspace.root.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()
    assert key not in cli("keys", "list", "--workspace", workspace.root, "--json").out


def test_creating_and_revoking_are_audited(cli: Cli, workspace: Workspace) -> None:
    """Both leave an entry with the key's id in the audit log."""
    key = create(cli, workspace)
    cli("keys", "revoke", key["id"], "--workspace", workspace.root)
    options = ("--workspace", workspace.root, "--kind", "key", "--json")
    entries = cli("audit", "show", *options).json["entries"]
    assert [(e["data"]["step"], e["data"]["key"]) for e in entries] == [
        ("created", key["id"]),
        ("revoked", key["id"]),
    ]
    assert entries[0]["index"] == key["audit_index"]


def test_key_can_be_created_while_the_service_writes_its_log(
    cli: Cli, workspace: Workspace
) -> None:
    """The log takes entries of several processes: the key is recorded like any other."""
    with open_audit(workspace) as audit:
        key = create(cli, workspace)
        assert audit.append(AuditEntry.now("policy", "service", {"step": "x"})).index == (
            int(key["audit_index"]) + 1
        )


def test_tampered_log_refuses_new_keys(cli: Cli, workspace: Workspace) -> None:
    """With a log that does not verify no key is made, but a key can still be revoked."""
    key = create(cli, workspace)
    flip(workspace.audit)
    done = cli("keys", "create", "--workspace", workspace.root, *APP)
    assert (done.code, done.out) == (1, "")
    assert len(cli("keys", "list", "--workspace", workspace.root, "--json").json["keys"]) == 1
    done = cli("keys", "revoke", key["id"], "--workspace", workspace.root)
    assert done.code == 1
    assert "is revoked, but" in done.err
    (known,) = cli("keys", "list", "--workspace", workspace.root, "--json").json["keys"]
    assert known["state"] == "revoked"


def test_key_without_entry_opens_nothing(
    cli: Cli, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the entry cannot be written, the key is revoked before anybody saw it."""

    def fail(self: AuditLog, entry: object) -> None:
        raise AuditUnavailable("the disk is full")

    monkeypatch.setattr(AuditLog, "append", fail)
    done = cli("keys", "create", "--workspace", workspace.root, *APP)
    assert (done.code, done.out) == (1, "")
    (known,) = cli("keys", "list", "--workspace", workspace.root, "--json").json["keys"]
    assert known["state"] == "revoked"


def test_revoked_key_opens_nothing(cli: Cli, workspace: Workspace) -> None:
    """After revoking, the store refuses the key; revoking again is fine."""
    key = create(cli, workspace)
    for _ in range(2):
        assert cli("keys", "revoke", key["id"], "--workspace", workspace.root).code == 0
    with closing(open_keys(workspace)) as store, pytest.raises(InvalidKey):
        store.authenticate(key["key"])


def test_unknown_key_id_is_told(cli: Cli, workspace: Workspace) -> None:
    """Revoking what never was ends with 1, also before the first key."""
    for _ in range(2):
        done = cli("keys", "revoke", "0" * 16, "--workspace", workspace.root)
        assert done.code == 1
        assert "there is no key with id '0000000000000000'" in done.err
        create(cli, workspace)


def test_list_shows_state_not_secrets(cli: Cli, workspace: Workspace) -> None:
    """All keys that ever were, in 80 columns; listing before the first key creates nothing."""
    done = cli("keys", "list", "--workspace", workspace.root)
    assert (done.code, done.out) == (0, "No key was created yet.\n")
    assert not store_exists(keys_place(workspace))
    key = create(cli, workspace, "--expires", "never")
    text = cli("keys", "list", "--workspace", workspace.root).out
    assert re.search(rf"{key['id']}\s+-\s+helpdesk\s+app\s+all\s+active\s+never\s+-", text)
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "days"), [("12h", 0.5), ("90d", 90), ("8w", 56), ("2999-01-31", None)]
)
def test_expiry_is_understood(
    cli: Cli, workspace: Workspace, text: str, days: float | None
) -> None:
    """Durations count from now, dates are in UTC."""
    value = create(cli, workspace, "--expires", text)
    expires = datetime.fromisoformat(value["expires"])
    if days is None:
        assert expires == datetime(2999, 1, 31, tzinfo=UTC)
    else:
        left = expires - datetime.now(UTC)
        assert timedelta(days=days, minutes=-5) < left <= timedelta(days=days)


@pytest.mark.parametrize("text", ["soon", "0d", "-3d", "99999999w", "999999w", "2026-13-01", ""])
def test_malformed_expiry_is_a_usage_error(cli: Cli, workspace: Workspace, text: str) -> None:
    """What is neither duration nor date ends with 2 and an example."""
    done = cli("keys", "create", "--workspace", workspace.root, *APP, "--expires", text)
    assert done.code == 2
    assert "90d" in done.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--principal", "helpdesk", "--role", "boss"), "no role 'boss'"),
        (("--principal", "help desk", "--role", "app"), "principal 'help desk'"),
        (("--principal", "a", "--role", "app", "--expires", "2020-01-01"), "not in the future"),
    ],
)
def test_impossible_keys_are_refused(
    cli: Cli, workspace: Workspace, options: tuple[str, ...], word: str
) -> None:
    """Unknown roles, malformed names and past dates end with 1 and no key."""
    done = cli("keys", "create", "--workspace", workspace.root, *options)
    assert (done.code, done.out) == (1, "")
    assert word in done.err


@pytest.mark.parametrize("file", ["keys.db", "keys.db.seal"])
def test_tampered_key_store_is_refused(cli: Cli, workspace: Workspace, file: str) -> None:
    """A changed byte in the store ends every command on keys with 1."""
    key = create(cli, workspace)
    flip(workspace.service / file)
    for arguments in (("list",), ("revoke", key["id"]), ("create", *APP)):
        done = cli("keys", *arguments, "--workspace", workspace.root)
        assert done.code == 1
        assert "keys.db" in done.err


def test_lost_secret_is_told(cli: Cli, workspace: Workspace, tmp_path: Path) -> None:
    """Without its secret no stored key can be checked: refused, and no new secret is drawn."""
    create(cli, workspace)
    (workspace.service / "keys.secret").unlink()
    done = cli("keys", "list", "--workspace", workspace.root)
    assert done.code == 1
    assert "keys.secret is missing" in done.err
    assert not (workspace.service / "keys.secret").exists()


def test_rotation_replaces_a_key_with_an_overlap(cli: Cli, workspace: Workspace) -> None:
    """The new key is shown once, the old one is told its end, and the log has both."""
    old = create(cli, workspace, "--name", "desk", "--operation", "chat", "--from", "10.0.0.0/8")
    assert old["scope"] == {"operations": ["chat"], "releases": None, "networks": ["10.0.0.0/8"]}
    done = cli("keys", "rotate", "desk", "--overlap", "2h", "--workspace", workspace.root, "--json")
    new = done.json
    assert (new["name"], new["scope"]) == ("desk", old["scope"])
    (retired,) = new["retired"]
    assert retired["id"] == old["id"]
    left = datetime.fromisoformat(retired["expires"]) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=55) < left <= timedelta(hours=2)
    assert new["key"] not in cli("keys", "list", "--workspace", workspace.root, "--json").out
    with closing(open_audit(workspace)) as log, read_log(log.place) as reader:
        steps = [
            (stored.entry.data["step"], stored.entry.data["key"])
            for stored in reader.entries()
            if stored.entry.kind == "key"
        ]
    assert steps == [("created", old["id"]), ("created", new["id"]), ("retired", old["id"])]


@pytest.mark.parametrize("overlap", ["soon", "-1h", "5", ""])
def test_malformed_overlap_is_a_usage_error(cli: Cli, workspace: Workspace, overlap: str) -> None:
    """What is no duration ends with 2 and an example."""
    done = cli("keys", "rotate", "desk", "--workspace", workspace.root, f"--overlap={overlap}")
    assert done.code == 2
    assert "24h" in done.err
