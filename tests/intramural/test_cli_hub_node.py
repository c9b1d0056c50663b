"""The commands of hub and node that need no running process, and both ends of joining in one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from join_kit import Registry

from intramural.deployment.certificates import make_ca, make_server
from intramural.deployment.hub_home import HubHome, HubSettings
from intramural.deployment.hub_processes import facts_of
from intramural.deployment.node_home import NodeHome
from privacy.audit.log import read_log, verify_log
from privacy.files import sha256_file
from privacy.signing import SigningKey, VerifyKey
from server.join_service import JoinService
from server.joining import JoinDesk
from tests.intramural.cli_kit import Cli

POLICY = """version = 1
organisation = "Example Ltd"
[privacy]
epsilon = 8.0
[departments.hr]
[departments.finance]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a policy and a file of records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "hr.jsonl").write_text('{"text": "a note"}\n')
    return tmp_path


@pytest.fixture
def hub(place: Path, cli: Cli) -> HubHome:
    """A hub made by the command, in ./hub."""
    assert cli("hub", "init").code == 0
    return HubHome(place / "hub")


@contextmanager
def joinable(hub: HubHome) -> Iterator[str]:
    """The hub's join service with Flower's registry in memory; its address."""
    registry = Registry()
    with (
        hub.audit() as audit,
        JoinService(
            JoinDesk(hub.members, hub.key(), lambda: facts_of(hub), lambda: registry, audit),
            "127.0.0.1",
            0,
            ca=hub.ca,
            certificate=hub.certificate,
            key=hub.certificate_key,
        ) as service,
    ):
        yield f"https://127.0.0.1:{service.port}"


def content(folder: Path) -> dict[str, str]:
    """Digest of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def open_to_others(folder: Path) -> list[str]:
    """Files and folders that somebody else may enter, besides what the folder keeps from them."""
    return [str(p) for p in (folder, *folder.rglob("*")) if p.stat().st_mode & 0o022]


def test_a_second_init_changes_nothing_and_says_the_same(hub: HubHome, cli: Cli) -> None:
    """Keys, certificate and database stay, byte by byte; the hand-out is the same."""
    before = content(hub.root)
    first, second = cli("hub", "init", "--json"), cli("hub", "init", "--json")
    assert first.json == second.json
    assert content(hub.root) == before
    assert first.json["ca_sha256"] == hub.fingerprint().hex()
    assert VerifyKey.parse(first.json["signing_key"]) == hub.key().verify_key


def test_a_hub_with_other_settings_is_left_alone(hub: HubHome, cli: Cli) -> None:
    """What was asked for and is not so is named, with the file to change."""
    done = cli("hub", "init", "--port", "1234", "--name", "other")
    assert done.code == 1
    assert "port is 9092, not 1234" in done.err
    assert "name is 'hub', not 'other'" in done.err
    assert "hub.toml" in done.err


def test_secrets_are_the_operators_alone(hub: HubHome) -> None:
    """The folder is closed to everybody else, and every secret file besides."""
    assert hub.root.stat().st_mode & 0o777 == 0o700
    for path in (hub.ca_key, hub.certificate_key, hub.signing_key, hub.superexec_secret,
                 hub.internal_token, hub.accounts_file, hub.config, hub.audit_db):  # fmt: skip
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert open_to_others(hub.root) == []


def test_an_open_folder_is_refused(place: Path, cli: Cli) -> None:
    """Keys are not written where others look."""
    (place / "hub").mkdir(mode=0o755)
    done = cli("hub", "init")
    assert done.code == 1
    assert "chmod 700" in done.err


def test_given_certificates_are_used(place: Path, cli: Cli) -> None:
    """The hub then has no CA key, and tokens carry the given CA."""
    ca = make_ca("company", [])
    server = make_server(ca, [])
    for name, data in (("c", server.certificate), ("k", server.key), ("a", ca.certificate)):
        (place / name).write_bytes(data)
    assert cli("hub", "init", "--certificate", "c").code == 2
    done = cli("hub", "init", "--certificate", "c", "--key", "k", "--ca", "a", "--json")
    hub = HubHome(place / "hub")
    assert hub.certificate.read_bytes() == server.certificate
    assert not hub.ca_key.exists()
    assert done.json["ca_sha256"] == hub.fingerprint().hex()
    refused = cli("hub", "init", "--renew")
    assert refused.code == 1
    assert "was given" in refused.err


def test_renewing_keeps_ca_and_names(hub: HubHome, cli: Cli) -> None:
    """Nodes go on trusting the hub: only the server certificate and its key are other ones."""
    before = content(hub.root)
    assert cli("hub", "init", "--renew").code == 0
    after = content(hub.root)
    assert {name for name in before if before[name] != after[name]} == {"server.crt", "server.key"}


@pytest.mark.parametrize(
    ("address", "superlink", "join"),
    [
        (None, "127.0.0.1:9092", "https://127.0.0.1:9093"),
        ("hub.example.org", "hub.example.org:9092", "https://hub.example.org:9093"),
        ("hub.example.org:443", "hub.example.org:443", "https://hub.example.org:443"),
        ("fd00::1", "[fd00::1]:9092", "https://[fd00::1]:9093"),
    ],
)
def test_departments_are_told_where_to_go(address: str | None, superlink: str, join: str) -> None:
    """Two ports of the hub, or the one of a proxy."""
    made = HubSettings.made("hub", "127.0.0.1", (9092, 9093), address, "", "")
    assert (made.superlink_address, made.join_address) == (superlink, join)


def test_a_token_is_shown_once_and_stored_as_a_digest(hub: HubHome, cli: Cli) -> None:
    """On standard output alone, with the audit entry before it."""
    done = cli("hub", "invite", "hr", "--valid", "30m")
    token = done.out.strip()
    assert token.startswith("imj_")
    assert token not in done.err
    assert token not in (hub.root / "invites.json").read_text()
    with read_log(hub.audit_db) as log:
        assert [e.entry.data["step"] for e in log.entries()] == ["invited"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("invite", "sales"), 1, "sales"),
        (("invite", "hr", "--valid", "soon"), 2, "24h"),
        (("invite", "hr", "--valid", "999999w"), 2, "24h"),
        (("invite", "hr", "--dir", "nowhere"), 1, "hub init"),
        (("remove", "hr"), 1, "hub nodes"),
        (("account", "remove", "ada"), 1, "account list"),
        (("account", "add", "a/b"), 1, "letters"),
        (("account", "add", "hub"), 1, "not 'hub'"),
    ],
)
def test_what_cannot_be_done_is_said(
    hub: HubHome, cli: Cli, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """One line with the way out, and the exit code of its kind."""
    done = cli("hub", *arguments)
    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_an_account_has_a_key_and_a_token_of_its_own(hub: HubHome, cli: Cli) -> None:
    """Both lie in a closed folder; the hub keeps neither, and a removed account has none."""
    folder = Path(cli("hub", "account", "add", "ada", "--valid", "90d", "--json").json["folder"])
    key, token = folder / "account.key", folder / "token"
    assert {path.stat().st_mode & 0o777 for path in (key, token)} == {0o600}
    account = hub.accounts.by_token(token.read_text().strip())
    assert account is not None
    assert account.key == SigningKey.load(key).verify_key
    assert cli("hub", "account", "add", "ada").code == 1
    listed = cli("hub", "account", "list", "--json").json["accounts"]
    assert [(row["account"], row["active"]) for row in listed] == [("ada", True), ("hub", True)]
    assert cli("hub", "account", "remove", "ada").code == 0
    assert not token.exists()
    assert hub.accounts.trusted() == ()


def test_a_node_makes_its_own_keys_and_ledger(place: Path, cli: Cli) -> None:
    """P-384 in OpenSSH's form for Flower, Ed25519 for receipts; doing so twice changes nothing."""
    done = cli("node", "init", "--department", "hr", "--data", "hr.jsonl", "--json")
    home = NodeHome(place / "node-hr")
    assert VerifyKey.parse(done.json["receipt_key"]) == SigningKey.load(home.signing_key).verify_key
    private = load_ssh_private_key(home.flower_key.read_bytes(), None)
    public = load_ssh_public_key(home.ssh_public_key().encode())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert private.public_key() == public
    assert home.ledger.exists()
    assert home.root.stat().st_mode & 0o777 == 0o700
    before = content(home.root)
    assert cli("node", "init", "--department", "hr", "--data", "hr.jsonl").code == 0
    after = content(home.root)
    assert {n for n in before if before[n] != after[n]} <= {"ledger.db.seal", "ledger.db"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("init", "--department", "sales", "--data", "hr.jsonl"), 1, "sales"),
        (("init", "--department", "hr", "--data", "none.jsonl"), 1, "--data"),
        (("status",), 2, "--dir"),
        (("start", "--dir", "nowhere"), 1, "node init"),
    ],
)
def test_a_node_that_cannot_be_made_says_why(
    place: Path, cli: Cli, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """One line with the way out."""
    done = cli("node", *arguments)
    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_a_home_belongs_to_one_department(place: Path, cli: Cli) -> None:
    """No ledger of one department is charged for another."""
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl")
    done = cli("node", "init", "-d", "finance", "--data", "hr.jsonl", "--dir", "node-hr")
    assert done.code == 1
    assert "'hr'" in done.err


def test_join_status_and_leave(hub: HubHome, place: Path, cli: Cli) -> None:
    """A node joins with its token, knows its hub, and leaves; the hub lists it and then does not."""
    token = cli("hub", "invite", "hr").out.strip()
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl")
    assert cli("node", "start").code == 1
    with joinable(hub) as address:
        joined = cli("node", "join", address, "--token", token, "--json").json
        assert joined["hub_key"] == hub.key().verify_key.public_text()
        again = cli("node", "join", address, "--token", token)
        assert again.code == 1
        assert "already" in again.err
        status = cli("node", "status", "--json").json
        assert (status["hub"], status["online"], status["agent"]) == ("hub", False, False)
        assert status["budget"]["left"] == 8.0
        listed = cli("hub", "nodes", "--json").json["nodes"]
        assert [(n["department"], n["same_policy"]) for n in listed] == [("hr", True)]
        assert listed[0]["online"] is None
        assert cli("node", "leave").code == 0
        assert cli("hub", "nodes", "--json").json == {"nodes": []}
    assert not (place / "node-hr" / "hub.json").exists()
    assert verify_log(hub.audit_db, hub.key().verify_key).ok
    with read_log(hub.audit_db) as log:
        steps = [(e.entry.actor, e.entry.data["step"]) for e in log.entries()]
    assert steps == [("operator", "invited"), ("hr", "join"), ("hr", "leave")]


def test_leaving_without_a_hub_needs_a_word(hub: HubHome, place: Path, cli: Cli) -> None:
    """A hub that does not answer is told; --force forgets it all the same."""
    token = cli("hub", "invite", "hr").out.strip()
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl")
    with joinable(hub) as address:
        cli("node", "join", address, "--token", token)
    done = cli("node", "leave")
    assert done.code == 1
    assert "does not answer" in done.err
    assert cli("node", "leave", "--force").code == 0


def test_a_node_without_a_policy_gets_the_hubs(hub: HubHome, place: Path, cli: Cli) -> None:
    """To read and to change: from then on it is the department's own."""
    token = cli("hub", "invite", "hr").out.strip()
    (place / "policy.toml").rename(place / "hub-policy.toml")
    hub.config.write_text(hub.config.read_text().replace("/policy.toml", "/hub-policy.toml"))
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl")
    with joinable(hub) as address:
        done = cli("node", "join", address, "--token", token)
    assert "read it" in done.err
    home = NodeHome(place / "node-hr")
    assert home.policy_path() == place / "node-hr" / "policy.toml"
    assert home.policy_path().read_text() == POLICY


def test_a_node_with_another_policy_is_warned(hub: HubHome, place: Path, cli: Cli) -> None:
    """Before the first run declines."""
    token = cli("hub", "invite", "hr").out.strip()
    (place / "own.toml").write_text(POLICY.replace("8.0", "4.0"))
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl", "--policy", "own.toml")
    with joinable(hub) as address:
        done = cli("node", "join", address, "--token", token)
    assert done.code == 0
    assert "will decline" in done.err


def test_faults_in_the_settings_are_told_all_at_once(hub: HubHome, place: Path, cli: Cli) -> None:
    """By their keys, for hub and node."""
    hub.config.write_text('name = "hub"\nport = "x"\nodd = 1\n')
    done = cli("hub", "nodes")
    assert done.code == 1
    for fault in ("port must be a int", "odd is unknown", "host must be a str"):
        assert fault in done.err
    cli("node", "init", "-d", "hr", "--data", "hr.jsonl")
    config = place / "node-hr" / "node.toml"
    config.write_text(config.read_text().replace("tolerance = 0.01", 'tolerance = "x"\nodd = 1'))
    done = cli("node", "status")
    assert done.code == 1
    for fault in ("tolerance must be a float", "odd is unknown"):
        assert fault in done.err


def test_json_errors_are_one_value(hub: HubHome, cli: Cli) -> None:
    """A script reads the refusal where it would have read the answer."""
    done = cli("hub", "invite", "sales", "--json")
    assert "sales" in json.loads(done.out)["error"]["message"]
