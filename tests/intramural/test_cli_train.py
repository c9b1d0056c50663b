"""``intramural train`` at a hub that is not running: plan, sign, look, cancel, resume."""

import json
from pathlib import Path

import pytest
from federation_kit import first_adapter

from intramural.deployment.hub_home import HubHome
from privacy.audit.log import read_log, verify_log
from privacy.joining import now_text
from privacy.manifest import SignedManifest
from privacy.signing import SigningKey
from server.events import NodeDeclined
from server.members import Member
from server.rounds import RunPlan
from server.runs import RunFolder, trusted_keys
from tests.intramural.cli_kit import Cli

POLICY = """version = 1
organisation = "Example Ltd"
[departments.finance]
[departments.hr]
[training]
rounds = 2
local_steps = 2
target_epsilon = 3.0
rank = 2
targets = ["q_proj"]
last_layers = "all"
minimum_nodes = 2
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, tiny_llama_dir: Path) -> HubHome:
    """A hub in ./hub with two enrolled departments and the account "ada"; ./run.toml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "run.toml").write_text('round_deadline = "5m"\n')
    assert cli("hub", "init", "--base-model", tiny_llama_dir).code == 0
    home = HubHome(tmp_path / "hub")
    policy = home.policy()
    assert policy is not None
    now = now_text()
    for place, name in enumerate(policy.departments):
        key = SigningKey.generate().verify_key.public_text()
        home.members.put(
            Member(name, 7 + place, key, f"ecdsa {name}", "c" * 64, policy.digest, now, now)
        )
    assert cli("hub", "account", "add", "ada").code == 0
    return home


def steps(home: HubHome) -> list[str]:
    verified = verify_log(home.audit_db, home.key().verify_key)
    assert verified.ok
    with read_log(home.audit_db) as log:
        return [told.entry.data.get("step", "") for told in log.entries()]


def test_plan_tells_the_cost_and_starts_nothing(hub: HubHome, cli: Cli) -> None:
    """Every figure of the run, each department's cost, who may sign; no run is stored."""
    done = cli("train", "plan", "run.toml", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["can_start"]
    assert told["approval"]["accounts"] == ["ada"]
    assert {d["name"]: d["fits"] for d in told["departments"]} == {"finance": True, "hr": True}
    assert all(0 < d["epsilon_run"] <= 3.0 for d in told["departments"])
    assert list(hub.runs.iterdir()) == []
    assert "can" in cli("train", "plan", "run.toml").out


def test_plan_that_could_not_start_says_what_is_missing(hub: HubHome, cli: Cli) -> None:
    """Exit code 1, and for each department what somebody has to do."""
    hub.members.remove("hr")
    done = cli("train", "plan", "run.toml")
    assert done.code == 1
    assert "hr: invite it: intramural hub invite hr" in done.out
    refused = cli("train", "start", "run.toml")
    assert refused.code == 1
    assert "fewer than minimum_nodes=2" in refused.err
    assert list(hub.runs.iterdir()) == []


def test_faults_of_the_file_are_machine_readable(hub: HubHome, cli: Cli) -> None:
    """With --json every fault has its key."""
    Path("run.toml").write_text("[training]\nrounds = 9\n")
    done = cli("train", "plan", "run.toml", "--json")
    assert done.code == 1
    assert [fault["key"] for fault in done.json["error"]["faults"]] == ["training.rounds"]


def test_start_signs_and_stores_a_run_on_record(hub: HubHome, cli: Cli) -> None:
    """The stored manifest verifies by the account's key, its digest is the run's id, in the log."""
    done = cli("train", "start", "run.toml", "--account", "ada", "--json")
    assert done.code == 0, done.err
    run = RunFolder(hub.runs / done.json["run_id"])
    manifest = run.manifest(trusted_keys(hub.accounts))
    assert manifest.account == "ada"
    assert manifest.round_seconds == 300
    assert run.policy().digest == manifest.terms.policy_digest
    assert run.keeping().standing == "waiting"
    assert "run_signed" in steps(hub)
    assert "`intramural hub start`" in done.err
    for path in [run.root, *run.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_public_records_of_the_hub_are_kept_with_the_run(
    hub: HubHome, cli: Cli, tmp_path: Path
) -> None:
    """Those of split "test", as tokens; `train status` tells their figures once there are some."""
    rows = [
        {"text": f"note {i}", "label": "ab"[i % 2], "split": ("test", "train")[i // 4]}
        for i in range(8)
    ]
    data = tmp_path / "hub" / "public.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = hub.config.read_text()
    assert 'evaluation = ""' in text
    hub.config.write_text(text.replace('evaluation = ""', 'evaluation = "public.jsonl"'))
    run = RunFolder(hub.runs / cli("train", "start", "run.toml", "--json").json["run_id"])
    public = run.public()
    assert public is not None
    assert (len(public.prompts), len(public.examples), len(public.candidates)) == (4, 4, 2)
    assert cli("train", "status", run.run_id, "--json").json["metrics"] is None
    run.keep_metrics({"loss": {"items": 4, "before": 5.25, "after": 4.5}})
    assert cli("train", "status", run.run_id, "--json").json["metrics"]["loss"]["after"] == 4.5
    assert "before 5.25, after 4.5" in cli("train", "status", run.run_id).out
    data.unlink()
    refused = cli("train", "start", "run.toml")
    assert (refused.code, "public.jsonl" in refused.err) == (1, True)
    hub.config.write_text(text.replace('evaluation = ""\n', ""))
    assert cli("train", "start", "run.toml", "--json").code == 0


def test_same_file_twice_is_two_runs(hub: HubHome, cli: Cli) -> None:
    """Each start is a run of its own, with its own cost."""
    ids = {cli("train", "start", "run.toml", "--json").json["run_id"] for _ in range(2)}
    assert len(ids) == 2
    assert {told["run_id"] for told in cli("train", "status", "--json").json["runs"]} == ids


def test_nothing_starts_without_an_account(hub: HubHome, cli: Cli, tmp_path: Path) -> None:
    """No account, a removed one, a key with another's token, or none of this hub: all refused."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    SigningKey.load_or_create(other / "account.key")
    token = (hub.accounts_folder / "ada" / "token").read_text()
    (other / "token").write_text(token)
    assert (
        "not those of an active account"
        in cli("train", "start", "run.toml", "--account", other).err
    )
    (other / "token").write_text("guessed")
    assert cli("train", "start", "run.toml", "--account", other).code == 1
    assert "there is no account 'bob'" in cli("train", "start", "run.toml", "--account", "bob").err
    kept = {n: (hub.accounts_folder / "ada" / n).read_bytes() for n in ("account.key", "token")}
    assert cli("hub", "account", "remove", "ada").code == 0
    refused = cli("train", "start", "run.toml")
    assert refused.code == 1
    assert "needs a hub account" in refused.err
    for name, data in kept.items():
        (other / name).write_bytes(data)
        (other / name).chmod(0o600)
    assert cli("train", "start", "run.toml", "--account", other).code == 1
    assert list(hub.runs.iterdir()) == []
    assert "run_signed" not in steps(hub)


def test_account_may_be_kept_elsewhere(hub: HubHome, cli: Cli, tmp_path: Path) -> None:
    """Handed over and deleted at the hub, key and token still sign from their folder."""
    mine = tmp_path / "mine"
    (hub.accounts_folder / "ada").rename(mine)
    assert cli("train", "start", "run.toml", "--account", mine).code == 0


def test_status_names_who_took_part_and_who_did_not(hub: HubHome, cli: Cli) -> None:
    """Rounds, codes and reasons come from the checkpoint, the release and interruptions from the keeper."""
    run_id = cli("train", "start", "run.toml", "--json").json["run_id"]
    run = RunFolder(hub.runs / run_id)
    policy = hub.policy()
    assert policy is not None
    run.store.folder.mkdir()
    state = run.store.begin(RunPlan.of(run.signed().manifest), first_adapter(policy))
    declined = NodeDeclined("hr", 1, "no_reply", "it did not answer before the deadline")
    run.store.save(state.advanced(state.adapter, (), (declined,)))
    with run.keep() as kept:
        kept["interruptions"] = [
            {"at": "2026-01-01T00:00:00+00:00", "round": 1, "reason": "killed"}
        ]
    told = cli("train", "status", run_id, "--json").json
    assert (told["state"], told["rounds_done"], told["rounds"]) == ("waiting", 1, 2)
    assert {"department": "hr", "code": "no_reply", "reason": declined.reason} in told["per_round"][
        0
    ]["declined"]
    assert told["interruptions"][0]["reason"] == "killed"
    shown = cli("train", "status", run_id[:8]).out
    assert "round 1: hr: no_reply: it did not answer" in shown
    assert "killed" in shown


def test_cancelled_run_can_be_resumed(hub: HubHome, cli: Cli) -> None:
    """Cancel and resume change what is wanted, each on record; neither works twice."""
    run_id = cli("train", "start", "run.toml", "--json").json["run_id"]
    assert cli("train", "cancel", run_id, "--json").json["state"] == "cancelled"
    assert "cancelled already" in cli("train", "cancel", run_id).err
    assert cli("train", "watch", run_id).code == 1
    assert cli("train", "resume", run_id, "--json").json["state"] == "waiting"
    assert "goes on with it by itself" in cli("train", "resume", run_id).err
    assert steps(hub)[-3:] == ["run_signed", "run_cancel_asked", "run_resume_asked"]


def test_altered_run_is_not_resumed(hub: HubHome, cli: Cli) -> None:
    """A manifest that was changed in the hub's folder is no run any more."""
    run_id = cli("train", "start", "run.toml", "--json").json["run_id"]
    cli("train", "cancel", run_id)
    path = hub.runs / run_id / "manifest.json"
    value = json.loads(path.read_text())
    value["manifest"]["terms"]["noise_multiplier"] /= 2
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))
    SignedManifest.from_json(path.read_bytes())
    assert "it was changed" in cli("train", "resume", run_id).err
    assert "damaged" in cli("train", "status").out


def test_unknown_run_is_told(hub: HubHome, cli: Cli) -> None:
    """A run that is not there is named, with where to look."""
    assert "there is no run 'run-9'" in cli("train", "status", "run-9").err
    assert "No run yet" in cli("train", "status").out
    assert cli("train", "watch").code == 1
