"""The rest of the fault table, run on demand: lost nodes, a lost hub, networks cut, full disks."""

import os
import shutil
import signal
import threading

import pytest
from fault_kit import PATIENCE, Federation, process_of, until
from oracle_kit import check_run
from outage_kit import full_disk

from intramural.deployment.homes import read_status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ALL = {"minimum_nodes": 3}
LONG = 180.0
"""Seconds of an outage that Flower's own run does not survive."""
ENOUGH = 900.0


def test_superlink_killed_while_a_node_trains(healthy: Federation) -> None:
    """The hub starts it again, and the round is answered or asked again; the nodes pay once."""
    fault = healthy.arm_node("finance", "agent.after-reserve")
    run_id = healthy.start_run(**ALL)
    fault.wait()
    before = read_status(healthy.hub_home)["processes"]["superlink"]
    os.kill(before["pid"], signal.SIGKILL)
    fault.go_on()
    told = healthy.finished(run_id, 600)
    check_run(healthy, told)
    after = read_status(healthy.hub_home)["processes"]["superlink"]
    assert after["restarts"] == before["restarts"] + 1


def test_network_cut_while_an_answer_is_on_its_way(healthy: Federation) -> None:
    """The answer that could not be delivered is the one that counts, and is paid once."""
    link = healthy.link
    assert link is not None
    fault = healthy.arm_node("legal", "agent.after-train")
    run_id = healthy.start_run(**ALL)
    fault.wait()
    link.cut()
    refused = link.refused
    fault.go_on()
    until(lambda: healthy.replies("legal", run_id), "legal has stored its answer")
    until(lambda: link.refused > refused + 2, "legal has tried to deliver it")
    link.heal()
    check_run(healthy, healthy.finished(run_id, 600))


def test_a_request_that_is_lost_on_its_way(healthy: Federation) -> None:
    """The SuperLink hangs until the node asks anew: it gives the request again, without a stop."""
    assert healthy.hub is not None
    fault = healthy.arm("hub", "superlink.after-claim")
    run_id = healthy.start_run(**ALL)
    fault.wait()
    for node in healthy.nodes.values():
        node.forget()
    for node in healthy.nodes.values():
        node.wait_for("Connection attempt failed", PATIENCE)
    fault.go_on()
    healthy.hub.wait_for("1 are given again", PATIENCE)
    check_run(healthy, healthy.finished(run_id, 600))


def test_a_client_app_that_is_ended_before_its_answer(healthy: Federation) -> None:
    """The hub learns of it, and asks for the answer that the agent has meanwhile."""
    fault = healthy.arm_node("hr", "agent.after-reserve")
    run_id = healthy.start_run(**ALL)
    fault.wait()
    healthy.end_client_app("hr")
    fault.go_on()
    told = healthy.finished(run_id)
    check_run(healthy, told)
    assert [item["reason"] for item in told["interruptions"] if "hr: node_error" in item["reason"]]


def test_disk_full_before_the_budget_is_reserved(healthy: Federation) -> None:
    """A node that cannot write declines and pays nothing; with space again it takes part."""
    with full_disk(process_of(healthy.node_home("hr").root, "agent")):
        run_id = healthy.start_run(**ALL)
        until(lambda: healthy.status(run_id)["interruptions"], "the run is interrupted")
        assert not healthy.charged("hr", run_id)
    told = healthy.finished(run_id, 600)
    check_run(healthy, told)
    assert all("hr: unavailable" in item["reason"] for item in told["interruptions"])


def test_disk_full_when_the_answer_is_stored(healthy: Federation) -> None:
    """What could not be stored is not given out; the round is paid for a second time."""
    fault = healthy.arm_node("hr", "agent.after-train")
    run_id = healthy.start_run(**ALL)
    with full_disk(fault.wait()):
        fault.go_on()
        until(lambda: healthy.status(run_id)["interruptions"], "the run is interrupted")
        assert not healthy.replies("hr", run_id)
    told = healthy.finished(run_id, 600)
    check_run(healthy, told, {"hr": {1: 2, 2: 1}})
    assert all("hr: unavailable" in item["reason"] for item in told["interruptions"])


@pytest.mark.parametrize(
    ("point", "charges"),
    [
        ("ledger.before-reserve", {1: 1, 2: 1}),
        ("agent.after-reserve", {1: 2, 2: 1}),
        ("agent.after-train", {1: 2, 2: 1}),
        ("agent.after-commit", {1: 1, 2: 1}),
    ],
)
def test_a_node_that_lost_power_comes_back(
    healthy: Federation, point: str, charges: dict[int, int]
) -> None:
    """All its processes are killed; started again, it is asked again, and pays only for new noise."""
    fault = healthy.arm_node("hr", point)
    run_id = healthy.start_run(**ALL)
    fault.wait()
    healthy.kill_node("hr")
    healthy.start_node("hr")
    told = healthy.finished(run_id, ENOUGH)
    check_run(healthy, told, {"hr": charges})
    assert any("hr: " in item["reason"] for item in told["interruptions"])


@pytest.mark.parametrize("outage", [0.0, LONG], ids=["at once", "3 minutes"])
@pytest.mark.parametrize(
    ("home", "point", "skip"),
    [
        ("hub", "checkpoint.before-write", 0),
        ("node-hr", "agent.after-reserve", 0),
        ("hub", "checkpoint.before-write", 1),
        ("hub", "checkpoint.after-write", 1),
        ("hub", "release.before-rename", 0),
    ],
    ids=["before round 1", "training", "before checkpoint 1", "after checkpoint 1", "publishing"],
)
def test_a_hub_that_lost_power_resumes(
    healthy: Federation, home: str, point: str, skip: int, outage: float
) -> None:
    """Killed in each phase and started again, it ends with the right release; nobody pays twice."""
    fault = healthy.arm(home, point, skip=skip)
    run_id = healthy.start_run(**ALL)
    fault.wait()
    healthy.kill_hub()
    fault.go_on()
    threading.Event().wait(outage)
    healthy.start_hub()
    told = healthy.finished(run_id, ENOUGH)
    check_run(healthy, told)
    assert told["interruptions"]
    assert len(list((healthy.hub_home / "releases").glob(f"{told['release']}*"))) == 1


def test_a_network_that_stays_cut_for_a_round(healthy: Federation) -> None:
    """Two of three go on without the third, which is named; its lost round stays charged, once."""
    link = healthy.link
    assert link is not None
    fault = healthy.arm_node("legal", "agent.after-train")
    run_id = healthy.start_run(minimum_nodes=2, round_deadline="90s", training={"rounds": 3})
    fault.wait()
    link.cut()
    fault.go_on()
    until(lambda: healthy.status(run_id)["rounds_done"] >= 1, "round 1 is complete", ENOUGH)
    link.heal()
    told = healthy.finished(run_id, ENOUGH)
    later = {item["round"]: 1 for item in told["per_round"] if "legal" in item["contributed"]}
    check_run(healthy, told, {"legal": {1: 1, **later}})
    first = told["per_round"][0]
    assert sorted(first["contributed"]) == ["finance", "hr"]
    assert [item["department"] for item in first["declined"]] == ["legal"]
    assert first["declined"][0]["code"] in ("no_reply", "node_error")


def test_an_impostor_with_a_departments_flower_key_contributes_nothing(healthy: Federation) -> None:
    """A node that is not hr's, connected by a copy of hr's key, is recognised by its receipts."""
    theirs = healthy.node_home("hr").root
    healthy.nodes["hr"].end()
    healthy.run(
        "node", "init", "-d", "hr", "--data", healthy.root / "hr.jsonl",
        "--base-model", healthy.model, "--dir", "node-impostor",
    )  # fmt: skip
    ours = healthy.root / "node-impostor"
    for path in theirs.iterdir():
        pinned = path.is_file() and path.name.startswith(
            ("hub", "policy", "flower.key", "node.toml")
        )
        if pinned:
            shutil.copy2(path, ours / path.name)
    process = healthy.start("node", "start", "--dir", "node-impostor")
    try:
        process.wait_for("department hr is online", ENOUGH)
        run_id = healthy.start_run(minimum_nodes=2, training={"rounds": 1})
        told = healthy.finished(run_id, ENOUGH)
    finally:
        process.end()
    check_run(healthy, told)
    (item,) = told["per_round"]
    assert sorted(item["contributed"]) == ["finance", "legal"]
    assert [(d["department"], d["code"]) for d in item["declined"]] == [("hr", "rejected")]
