"""Three rounds of a deployed federation, and the rows of its fault table that take a minute;
what nobody signed, what is too weak, and what was altered, in which no node takes part.
"""

import pytest
from deployment_kit import LOOPBACK
from fault_kit import DEPARTMENTS, PATIENCE, Federation, until
from oracle_kit import check_run
from refusal_kit import (
    Sign,
    account_key,
    altered_bundle,
    another,
    ask,
    by_a_stranger,
    forged,
    kept_out,
    signed,
    spent,
    unsigned,
)

from client.bundle import BUNDLED, RUN_SETTING
from intramural.deployment.hub_home import HubHome
from server.flower_runs import FlowerRuns
from server.runs import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALL = {"minimum_nodes": 3}
"""A round that needs everybody is asked again as long as somebody is missing."""
DISTURBED = 360.0
"""Seconds that a disturbed run may take: several times what it takes where nothing else runs."""


def test_three_rounds_end_with_a_verified_release(healthy: Federation) -> None:
    """From `train start` to a release that verifies, every round with all three departments."""
    run_id = healthy.start_run(training={"rounds": 3}, **ALL)
    told = healthy.finished(run_id)
    assert [sorted(item["contributed"]) for item in told["per_round"]] == [sorted(DEPARTMENTS)] * 3
    release = check_run(healthy, told)
    assert len(release.receipts) == 9
    assert told["interruptions"] == []
    healthy.run("release", "verify", f"hub/releases/{release.id}", "--key", "hub/audit.pub")


def test_nodes_were_shipped_translation_modules_alone(healthy: Federation) -> None:
    """What Flower unpacked at a node is the allow-list and the bundle's own description."""
    for department in DEPARTMENTS:
        apps = healthy.node_home(department).root / "flwr" / "apps"
        files = [path for path in apps.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert files
        inside = {"/".join(path.relative_to(apps).parts[1:]) for path in files}
        assert inside - {".info/CONTENT"} == {*BUNDLED, "pyproject.toml"}


def test_agents_killed_between_two_writes(healthy: Federation) -> None:
    """Killed before reserving: one charge; after it or after training: one more; else none more.

    Round 1 needs everybody, and loses hr before it reserved, finance after it did, and legal after
    training. Round 2 loses hr when its answer is stored and finance when it is committed: asked
    again, they give the stored bytes.
    """
    faults = [
        healthy.arm_node("hr", "ledger.before-reserve", "kill"),
        healthy.arm_node("finance", "agent.after-reserve", "kill"),
        healthy.arm_node("legal", "agent.after-train", "kill"),
        healthy.arm_node("hr", "state.after-write", "kill", skip=1),
        healthy.arm_node("finance", "agent.after-commit", "kill", skip=1),
    ]
    run_id = healthy.start_run(**ALL)
    told = healthy.finished(run_id, DISTURBED)
    assert all(fault.reached.exists() for fault in faults)
    check_run(healthy, told, {"finance": {1: 2, 2: 1}, "legal": {1: 2, 2: 1}})
    seen = [(item["round"], item["reason"]) for item in told["interruptions"]]
    for number, department in ((1, "hr"), (1, "finance"), (1, "legal"), (2, "hr"), (2, "finance")):
        assert any(n == number and f"{department}: unavailable" in why for n, why in seen), seen


def test_hub_killed_while_a_node_trains(healthy: Federation) -> None:
    """Killed with all its processes and started again, it resumes; the nodes pay once."""
    fault = healthy.arm_node("hr", "agent.after-reserve")
    run_id = healthy.start_run(training={"rounds": 1}, **ALL)
    fault.wait()
    healthy.kill_hub()
    fault.go_on()
    healthy.start_hub()
    told = healthy.finished(run_id, DISTURBED)
    check_run(healthy, told)
    assert told["interruptions"]


def test_two_runs_at_once(healthy: Federation) -> None:
    """Both end with their own release, and each of their rounds is paid once."""
    ids = [healthy.start_run(f"run{number}", **ALL) for number in (1, 2)]
    ended = [healthy.finished(run_id, DISTURBED) for run_id in ids]
    releases = {check_run(healthy, told).id for told in ended}
    assert len(releases) == 2


@pytest.fixture(scope="module")
def finished_run(federation: Federation) -> RunFolder:
    """A run to take terms and adapter from: the first that finished, or a new one."""
    for run_id in federation.started:
        if federation.status(run_id)["state"] == "finished":
            return federation.run_folder(run_id)
    federation.heal()
    run_id = federation.start_run(training={"rounds": 1})
    federation.finished(run_id)
    return federation.run_folder(run_id)


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        (unsigned, "manifest_invalid"),
        (forged, "manifest_invalid"),
        (by_a_stranger, "account_not_trusted"),
    ],
)
def test_what_no_account_signed_is_declined_by_every_node(
    federation: Federation, finished_run: RunFolder, sign: Sign, code: str
) -> None:
    """The agent says why, and its ledger stays as it was."""
    before = spent(federation)
    manifest = sign(another(finished_run.signed().manifest), account_key(federation))
    for department in DEPARTMENTS:
        assert ask(federation, finished_run, department, manifest).code == code
    assert spent(federation) == before


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"noise_multiplier": 0.9}, "noise_too_low"),
        ({"clipping_norm": 0.6}, "clipping_norm_too_high"),
        ({"minimum_nodes": 1}, "cohort_too_small"),
        ({"steps": 2}, "mechanism_not_allowed"),
        ({"sampling_rate": 0.6}, "mechanism_not_allowed"),
        ({"policy_digest": "0" * 64}, "policy_mismatch"),
    ],
)
def test_what_is_weaker_than_the_policy_is_declined_by_every_node(
    federation: Federation, finished_run: RunFolder, terms: dict[str, object], code: str
) -> None:
    """Also where a trusted account signed it."""
    before = spent(federation)
    manifest = another(finished_run.signed().manifest, **terms)
    for department in DEPARTMENTS:
        answer = ask(
            federation, finished_run, department, signed(manifest, account_key(federation))
        )
        assert answer.code == code
    assert spent(federation) == before


def test_a_request_that_the_manifest_does_not_make_is_declined_by_every_node(
    federation: Federation, finished_run: RunFolder
) -> None:
    """Half the noise under a manifest of twice as much; and a round without any manifest."""
    before = spent(federation)
    manifest = another(finished_run.signed().manifest)
    terms = manifest.terms.model_copy(
        update={"noise_multiplier": manifest.terms.noise_multiplier / 2}
    )
    proper = signed(manifest, account_key(federation))
    for department in DEPARTMENTS:
        answer = ask(federation, finished_run, department, proper, terms)
        assert answer.code == "manifest_mismatch"
        answer = ask(federation, finished_run, department, proper, attach=False)
        assert answer.code == "manifest_missing"
    assert spent(federation) == before


def test_a_run_that_is_too_weak_is_declined_by_every_node_and_the_operator_sees_it(
    healthy: Federation, finished_run: RunFolder
) -> None:
    """Past the hub's own check, by somebody who has an account and writes into the hub's folder."""
    before = spent(healthy)
    weak = another(finished_run.signed().manifest, noise_multiplier=0.9)
    run = kept_out(healthy, finished_run, signed(weak, account_key(healthy)))
    healthy.run("train", "resume", run.run_id)
    seen = until(lambda: healthy.status(run.run_id)["interruptions"], "the run is interrupted")
    healthy.run("train", "cancel", run.run_id)
    for department in DEPARTMENTS:
        assert f"{department}: noise_too_low" in seen[0]["reason"]
    assert spent(healthy) == before


def test_the_hub_starts_nothing_weaker_than_the_policy(healthy: Federation) -> None:
    """`train start` names what is weaker."""
    file = healthy.root / "weak.toml"
    file.write_text("[training]\nclipping_norm = 0.6\nrounds = 4\n")
    done = healthy.run("train", "start", file, "--account", "ada", check=False)
    assert done.returncode != 0
    assert "training.clipping_norm" in done.stderr
    assert "training.rounds" in done.stderr


def test_an_altered_bundle_runs_on_no_node(healthy: Federation, finished_run: RunFolder) -> None:
    """Everybody refuses it, none of its code runs, and the hub learns of each."""
    before = spent(healthy)
    marker = healthy.root / "altered-code-ran"
    manifest = another(finished_run.signed().manifest)
    run = kept_out(healthy, finished_run, signed(manifest, account_key(healthy)))
    home = HubHome(healthy.hub_home)
    token = (home.accounts_folder / "ada" / "token").read_text().strip()
    with FlowerRuns(home.local_address(), home.ca.read_bytes(), token) as flower:
        flower.start(altered_bundle(marker), {RUN_SETTING: run.run_id})
    reason = until(
        lambda: run.keeping().reason not in ("", None) and run.keeping().reason, "it ends"
    )
    for department in DEPARTMENTS:
        assert f"{department}: node_error: its node refused the bundle" in reason
    assert not marker.exists()
    assert spent(healthy) == before


def test_a_copied_flower_key_does_not_let_another_department_in(healthy: Federation) -> None:
    """Finance with hr's key is turned away while hr is online, and is on record."""
    impostor = healthy.root / "impostor.key"
    impostor.write_bytes(healthy.node_home("hr").flower_key.read_bytes())
    impostor.chmod(0o600)
    process = healthy.start_supernode(impostor)
    process.wait_for("Exit Code: 305", PATIENCE)
    latest = [(entry.get("step"), entry.get("path")) for entry in healthy.audit()[-5:]]
    assert ("refused", "/v1/fleet/activate-node") in latest


def test_no_process_went_beyond_this_machine(healthy: Federation) -> None:
    """Through all runs and faults: no socket beyond loopback, no name looked up but localhost."""
    used = {line.split()[-1] for line in healthy.sockets()}
    assert used
    assert used <= LOOPBACK


def test_every_start_is_on_record(healthy: Federation) -> None:
    """The audit log names the account that signed each run, and each attempt at it."""
    entries = healthy.audit()
    signed = {e["run_id"] for e in entries if e.get("step") == "run_signed" and e["actor"] == "ada"}
    submitted = {e["run_id"] for e in entries if e.get("step") == "run_submitted"}
    assert healthy.started
    assert set(healthy.started) <= signed
    assert set(healthy.started) <= submitted
