"""Federated runs over real messages, agents and ledgers, with a trainer that needs no model."""

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federation_kit import (
    DEPARTMENTS,
    SECRET,
    FakeTrainer,
    Federation,
    make_policy,
)

from client.app import make_client_app
from privacy import crashpoints
from privacy.dp.accounting import epsilon
from privacy.exchange import Decline, RoundReply, RoundRequest, adapter_digest
from privacy.ledger.ledger import Ledger
from server.enrolment import EnrolledNode, Enrolment
from server.errors import CheckpointUnusable, EnrolmentInvalid, PlanInvalid, RoundFailed
from server.events import Event, NodeDeclined, NodeReplied, RoundFinished, RoundStarted, RunBegan
from server.federation import run_federation
from server.local_grid import LocalGrid
from server.rounds import RunResult

POLICY = make_policy()


def run(federation: Federation, folder: Path, events: list[Event] | None = None) -> RunResult:
    return run_federation(
        federation.grid(),
        federation.plan(),
        federation.policy,
        federation.enrolment,
        federation.adapter(),
        folder / "checkpoint",
        (events if events is not None else []).append,
    )


def test_three_departments_train_one_adapter(tmp_path: Path) -> None:
    """Each round averages every department's update, and each has paid exactly what the plan says."""
    events: list[Event] = []
    with Federation(tmp_path, POLICY) as federation:
        result = run(federation, tmp_path, events)
        spent = {name: ledger.spent(name, 1e-5) for name, ledger in federation.ledgers.items()}
    assert (result.rounds, result.declines) == (3, ())
    assert [(r.receipt.round, r.receipt.department) for r in result.receipts] == [
        (number, name) for number in (1, 2, 3) for name in DEPARTMENTS
    ]
    cost = epsilon([result.receipts[0].receipt.event] * 3, 1e-5)
    assert cost <= 4.0
    assert spent == dict.fromkeys(DEPARTMENTS, cost)
    assert [type(event) for event in events] == [
        RunBegan,
        *[RoundStarted, NodeReplied, NodeReplied, NodeReplied, RoundFinished] * 3,
    ]
    before = federation.adapter()
    for name, tensor in result.adapter.items():
        assert np.array_equal(tensor, before[name]) == ("lora_A" in name)


def test_adapter_is_the_mean_of_what_the_nodes_sent(tmp_path: Path) -> None:
    """The hub's adapter after the last round is the mean of the stored replies to that round."""
    from client.frames import unpack

    with Federation(tmp_path, POLICY) as federation:
        result = run(federation, tmp_path)
    last = {r.receipt.adapter_after for r in result.receipts if r.receipt.round == 3}
    updates = [
        dict(unpack(path.read_bytes()).tensors) for path in tmp_path.glob("*/replies/*.reply")
    ]
    updates = [update for update in updates if adapter_digest(update) in last]
    assert len(updates) == 3
    for name in updates[0]:
        mean = np.mean([u[name].astype(np.float64) for u in updates], axis=0)
        np.testing.assert_allclose(result.adapter[name], mean, rtol=1e-6)


def test_exhausted_department_declines_and_the_round_goes_on(tmp_path: Path) -> None:
    """A department without budget is left out by its own ledger; the others finish the run."""
    policy = make_policy(target=8.0)
    with Federation(tmp_path, policy) as federation:
        run(replaced(federation, ["hr"]), tmp_path / "earlier")
        result = run(federation, tmp_path)
        assert federation.ledgers["hr"].spent("hr", 1e-5) <= 8.0
    assert {d.department for d in result.declines} == {"hr"}
    assert {d.code for d in result.declines} == {"budget_exhausted"}
    assert {r.receipt.department for r in result.receipts} == {"finance", "it_support"}


def replaced(federation: Federation, departments: list[str]) -> Federation:
    """The same open nodes, with only some of them enrolled."""
    fewer = object.__new__(Federation)
    fewer.__dict__ = dict(federation.__dict__)
    fewer.enrolment = Enrolment(federation.enrolment.by_department[name] for name in departments)
    return fewer


def test_dead_node_is_named_and_the_round_goes_on(tmp_path: Path) -> None:
    """A node that never answers costs the run its contribution, not its round."""
    with Federation(tmp_path, POLICY, dead=["hr"]) as federation:
        result = run(federation, tmp_path)
    assert [(d.department, d.round, d.code) for d in result.declines] == [
        ("hr", number, "node_error") for number in (1, 2, 3)
    ]


def test_node_that_is_not_connected_is_not_asked(tmp_path: Path) -> None:
    """A department whose node is away is recorded as offline and not waited for."""
    with Federation(tmp_path, POLICY) as federation:
        del federation.ids["hr"]
        result = run(federation, tmp_path)
    assert {(d.department, d.code) for d in result.declines} == {("hr", "offline")}


def test_stricter_node_declines(tmp_path: Path) -> None:
    """A department that holds another policy than the hub takes no part; its ledger stays empty."""
    stricter = make_policy(tail="\n[pii]\nthreshold = 0.9\n")
    with Federation(tmp_path, POLICY, own_policies={"hr": stricter}) as federation:
        result = run(federation, tmp_path)
        assert federation.ledgers["hr"].history("hr") == ()
    assert {(d.department, d.code) for d in result.declines} == {("hr", "policy_mismatch")}


def test_failing_node_does_not_leak_into_the_hub(tmp_path: Path) -> None:
    """An error on a node reaches neither the checkpoint nor an event with its text."""
    events: list[Event] = []
    failing = {"hr": FakeTrainer(fail=RuntimeError(SECRET))}
    with Federation(tmp_path, POLICY, trainers=failing) as federation:
        result = run(federation, tmp_path, events)
    assert {(d.department, d.code) for d in result.declines} == {("hr", "unavailable")}
    assert SECRET not in repr(events)
    assert SECRET.encode() not in (tmp_path / "checkpoint/checkpoint.safetensors").read_bytes()


def test_too_few_contributions_fail_the_round_and_name_everybody(tmp_path: Path) -> None:
    """The error says how many were needed and why each missing one is missing; nothing is stored."""
    policy = make_policy(more="minimum_nodes = 3")
    with Federation(tmp_path, policy, dead=["hr"]) as federation:
        with pytest.raises(RoundFailed) as caught:
            run(federation, tmp_path)
        message = str(caught.value)
        assert "round 1 has 2 contributions, training.minimum_nodes asks for 3" in message
        assert "hr: node_error" in message
        federation._dead = ()
        result = run(federation, tmp_path)
        counts = {n: len(ledger.history(n)) for n, ledger in federation.ledgers.items()}
    assert result.rounds == 3
    assert counts == dict.fromkeys(DEPARTMENTS, 6), "the others were not charged twice for round 1"


class Tampering:
    """An agent whose answers are altered on their way."""

    def __init__(self, agent, alter) -> None:
        self.agent, self.alter = agent, alter

    def handle(
        self,
        request: RoundRequest,
        adapter: Mapping[str, np.ndarray],
        manifest: str | None = None,
    ) -> RoundReply | Decline:
        answer = self.agent.handle(request, adapter, manifest)
        return self.alter(answer) if isinstance(answer, RoundReply) else answer


def _lower_epsilon(reply: RoundReply) -> RoundReply:
    receipt = replace(reply.receipt.receipt, epsilon=0.1)
    return RoundReply(reply.update, replace(reply.receipt, receipt=receipt))


def _other_update(reply: RoundReply) -> RoundReply:
    return RoundReply({n: t + 1 for n, t in reply.update.items()}, reply.receipt)


@pytest.mark.parametrize("alter", [_lower_epsilon, _other_update])
def test_tampered_answer_is_rejected_with_the_department_named(tmp_path: Path, alter) -> None:
    """An altered receipt or update never reaches the average; the round goes on."""
    with Federation(tmp_path, POLICY) as federation:
        hr = federation.ids["hr"]
        federation.agents[hr] = Tampering(federation.agents[hr], alter)  # type: ignore[assignment]
        result = run(federation, tmp_path)
    assert {(d.department, d.code) for d in result.declines} == {("hr", "rejected")}
    assert {r.receipt.department for r in result.receipts} == {"finance", "it_support"}


def test_department_that_understates_its_cost_is_rejected(tmp_path: Path) -> None:
    """A validly signed receipt that claims less than its own rounds cost does not count."""
    with Federation(tmp_path, POLICY) as federation:
        hr, key = federation.ids["hr"], federation.nodes["hr"].key

        def understate(reply: RoundReply) -> RoundReply:
            receipt = replace(reply.receipt.receipt, epsilon=0.1)
            return RoundReply(reply.update, receipt.sign(key))

        federation.agents[hr] = Tampering(federation.agents[hr], understate)  # type: ignore[assignment]
        result = run(federation, tmp_path)
    assert all("below the" in d.reason for d in result.declines if d.department == "hr")
    assert len(result.declines) == 3


def test_answer_with_another_departments_key_is_rejected(tmp_path: Path) -> None:
    """Answering for somebody else needs their key, wherever the answer comes from."""
    with Federation(tmp_path, POLICY) as federation:
        hr, finance = federation.ids["hr"], federation.ids["finance"]
        federation.agents[hr] = federation.agents[finance]
        result = run(federation, tmp_path)
    assert {(d.department, d.code) for d in result.declines} == {("hr", "rejected")}


def test_finished_run_is_returned_without_asking_anybody(tmp_path: Path) -> None:
    """Calling again costs nothing and gives the same adapter."""
    with Federation(tmp_path, POLICY) as federation:
        first = run(federation, tmp_path)
        events: list[Event] = []
        again = run(federation, tmp_path, events)
    assert adapter_digest(again.adapter) == adapter_digest(first.adapter)
    assert (again.receipts, again.finished_at) == (first.receipts, first.finished_at)
    assert [type(event) for event in events] == [RunBegan]


def test_changed_policy_refuses_to_resume(tmp_path: Path) -> None:
    """A run that began under one policy does not go on under another."""
    with Federation(tmp_path, POLICY) as federation:
        run(federation, tmp_path)
    with (
        Federation(tmp_path, make_policy(target=2.0)) as federation,
        pytest.raises(CheckpointUnusable, match=r"target_epsilon was 4\.0 and is 2\.0"),
    ):
        run(federation, tmp_path)


def test_plan_of_another_policy_is_refused(tmp_path: Path) -> None:
    """Plan and policy belong together before anybody is asked."""
    with Federation(tmp_path, POLICY) as federation:
        plan = federation.plan()
        federation.policy = make_policy(target=2.0)
        with pytest.raises(PlanInvalid, match="plan the run again"):
            run_federation(
                federation.grid(),
                plan,
                federation.policy,
                federation.enrolment,
                federation.adapter(),
                tmp_path / "checkpoint",
            )


def test_enrolled_department_outside_the_policy_is_refused(tmp_path: Path) -> None:
    """The policy names who may take part."""
    with Federation(tmp_path, POLICY) as federation:
        key = federation.nodes["hr"].key.verify_key
        federation.enrolment = Enrolment([EnrolledNode("law", 7, key)])
        with pytest.raises(EnrolmentInvalid, match="law"):
            run(federation, tmp_path)


def _run_until(point: str, occurrence: int, folder: Path) -> None:
    """In a child: end the process, as kill -9 would, when a fault point is reached again."""
    seen = 0

    def handler(reached: str) -> None:
        nonlocal seen
        seen += reached == point
        if seen == occurrence:
            os._exit(9)

    crashpoints.install(handler)
    with Federation(folder, POLICY) as federation:
        run(federation, folder)


# Three nodes answer in turn, so the fifth time is the second node (hr) in round 2.
NODE_POINTS = {
    "ledger.before-reserve": 0,
    "ledger.reserved": 1,
    "agent.after-reserve": 1,
    "agent.after-train": 1,
    "state.before-write": 1,
    "state.after-write": 0,
    "ledger.before-commit": 0,
    "agent.after-commit": 0,
}


@pytest.mark.parametrize(("point", "lost"), NODE_POINTS.items())
def test_node_killed_in_a_round_is_resumed_with_an_exact_ledger(
    tmp_path: Path, point: str, lost: int
) -> None:
    """Killed anywhere, the run resumes at its open round; only what was reserved unused is lost."""
    _kill(point, 5, tmp_path)
    kept = _replies(tmp_path)
    events: list[Event] = []
    with Federation(tmp_path, POLICY) as federation:
        result = run(federation, tmp_path, events)
        reserved = {
            name: sum(entry.kind == "reserve" for entry in ledger.history(name))
            for name, ledger in federation.ledgers.items()
        }
    assert isinstance(events[0], RunBegan)
    assert events[0].round == 1
    assert (result.rounds, result.declines, len(result.receipts)) == (3, (), 9)
    assert reserved == {"finance": 3, "hr": 3 + lost, "it_support": 3}
    assert _replies(tmp_path).items() >= kept.items(), "what was answered before is never replaced"
    for node in federation.nodes.values():
        assert Ledger.verify(node.ledger_path, node.key.verify_key).ok


@pytest.mark.parametrize(
    ("point", "completed"), [("checkpoint.before-write", 1), ("checkpoint.after-write", 2)]
)
def test_hub_killed_at_its_checkpoint_is_resumed_at_no_cost(
    tmp_path: Path, point: str, completed: int
) -> None:
    """A hub killed around the write of round 2 goes on with round 2 or 3; nobody pays twice."""
    _kill(point, 3, tmp_path)  # the first write is the run's beginning
    events: list[Event] = []
    with Federation(tmp_path, POLICY) as federation:
        result = run(federation, tmp_path, events)
        counts = {n: len(ledger.history(n)) for n, ledger in federation.ledgers.items()}
    assert isinstance(events[0], RunBegan)
    assert events[0].round == completed
    assert result.rounds == 3
    assert counts == dict.fromkeys(DEPARTMENTS, 6)


def _kill(point: str, occurrence: int, folder: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_run_until, args=(point, occurrence, folder)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 9


def _replies(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.glob("*/replies/*.reply")}


def test_reply_from_the_wrong_node_is_rejected(tmp_path: Path) -> None:
    """An answer counts only from the node that was asked."""

    class Misrouted(LocalGrid):
        def pull_messages(self, message_ids):
            replies = super().pull_messages(message_ids)
            for reply in replies:
                if reply.metadata.src_node_id == 101:
                    reply.metadata.__dict__["_src_node_id"] = 102
            return replies

    with Federation(tmp_path, POLICY) as federation:
        app = make_client_app(lambda context: federation.agents[context.node_id])
        federation.grid = lambda: Misrouted(  # type: ignore[method-assign]
            app, {node_id: {} for node_id in federation.ids.values()}
        )
        result = run(federation, tmp_path)
    assert {(d.department, d.code) for d in result.declines} == {("hr", "rejected")}


def test_declines_are_events_with_reason(tmp_path: Path) -> None:
    """Whoever watches sees who declined and why, as it is recorded."""
    events: list[Event] = []
    with Federation(tmp_path, POLICY, dead=["hr"]) as federation:
        result = run(federation, tmp_path, events)
    assert tuple(e for e in events if isinstance(e, NodeDeclined)) == result.declines
