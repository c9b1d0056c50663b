"""The node agent: what it checks before spending, and what a crash leaves."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from federation_kit import POLICY as POLICY_TEXT
from federation_kit import (
    FakeTrainer,
    Node,
    OpenGate,
    first_adapter,
    make_policy,
    request_for,
    units,
)

from client.agent import NodeAgent
from client.errors import AgentMisconfigured
from policies.load import parse_policy
from policies.model import Policy
from privacy import crashpoints
from privacy.dp.encode import Unit
from privacy.dp.errors import InvalidPlan
from privacy.errors import BudgetExceeded
from privacy.exchange import Decline, RoundReply
from privacy.ledger.ledger import Ledger

POLICY = make_policy()


def changed_policy(before: str, after: str) -> Policy:
    """The policy with one line replaced."""
    text = POLICY_TEXT.format(target=4.0, more="")
    return parse_policy(text.replace(before, after).encode(), "toml")


class Killed(BaseException):
    """What a test raises at a fault point: nothing in the product catches it."""


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    crashpoints.install(None)


def kill_at(point: str) -> None:
    def handler(reached: str) -> None:
        if reached == point:
            crashpoints.install(None)
            raise Killed(point)

    crashpoints.install(handler)


def test_department_that_the_policy_does_not_name_is_refused(tmp_path: Path) -> None:
    """An agent is only built for a department of its policy; the others are named."""
    with pytest.raises(AgentMisconfigured, match="no department 'law'; the policy names finance"):
        Node(tmp_path, "law", POLICY).open()


def test_more_units_than_delta_allows_are_refused(tmp_path: Path) -> None:
    """delta stays below one over the true number of units, checked where that number is known."""
    policy = make_policy(tail="\n[departments.law]\ndelta = 1e-1\ndeclared_units = 9\n")
    with pytest.raises(AgentMisconfigured, match="below 1/20"):
        Node(tmp_path, "law", policy, count=20).open()


def test_department_without_examples_is_refused(tmp_path: Path) -> None:
    """There is nothing to train on: said before a hub asks."""
    with pytest.raises(AgentMisconfigured, match="no example"):
        Node(tmp_path, "hr", POLICY, count=0).open()


def test_reply_does_not_depend_on_the_number_of_records(tmp_path: Path) -> None:
    """The plan, and everything else that leaves beside the noised tensors, is the same for 20 and 400."""
    seen = []
    for count in (20, 400):
        trainer = FakeTrainer()
        node = Node(tmp_path / str(count), "hr", POLICY, trainer, count)
        agent, ledger = node.open()
        with ledger:
            reply = agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(reply, RoundReply)
        receipt = json.loads(reply.receipt.to_json())["receipt"]
        del receipt["adapter_after"], receipt["key_id"]
        seen.append((trainer.plans, receipt, {n: a.shape for n, a in reply.update.items()}))
    assert seen[0] == seen[1]
    (plan,) = seen[0][0]
    assert plan.expected_batch_size == POLICY.training.sampling_rate * 500


def test_tensor_that_did_not_move_is_no_reply(tmp_path: Path) -> None:
    """An adapter that was silently not trained is declined, never sent."""
    trainer = FakeTrainer()
    trainer.frozen = True
    agent, ledger = Node(tmp_path, "hr", POLICY, trainer).open()
    with ledger:
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
    assert isinstance(answer, Decline)


def test_damaged_stored_reply_is_never_handed_out(tmp_path: Path) -> None:
    """A stored reply with one changed byte counts as none: the round is paid for again."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()
    with ledger:
        agent.handle(request_for(POLICY), first_adapter(POLICY))
        (stored,) = node.replies.glob("*.reply")
        data = bytearray(stored.read_bytes())
        data[-1] ^= 1
        stored.write_bytes(data)
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, RoundReply)
        assert [e.kind for e in ledger.history("hr")] == ["reserve", "commit"] * 2


def test_reply_of_another_node_is_never_handed_out(tmp_path: Path) -> None:
    """A stored reply that this node has not signed counts as none."""
    ours, theirs = Node(tmp_path / "a", "hr", POLICY), Node(tmp_path / "b", "hr", POLICY)
    for node in (theirs, ours):
        agent, ledger = node.open()
        with ledger:
            if node is ours:
                (stored,) = theirs.replies.glob("*.reply")
                (ours.replies / stored.name).write_bytes(stored.read_bytes())
            answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
            assert isinstance(answer, RoundReply)
            answer.receipt.verify(node.key.verify_key)


@pytest.mark.parametrize(
    ("point", "kinds"),
    [
        ("ledger.before-reserve", []),
        ("ledger.reserved", ["reserve"]),
        ("agent.after-reserve", ["reserve"]),
        ("agent.after-train", ["reserve"]),
        ("state.before-write", ["reserve"]),
        ("files.before-rename", ["reserve"]),
    ],
)
def test_crash_before_the_reply_is_stored_leaves_the_budget_spent_and_nothing_released(
    tmp_path: Path, point: str, kinds: list[str]
) -> None:
    """What a crash leaves reserved counts as spent, and the round is paid for again."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()
    with ledger:
        kill_at(point)
        with pytest.raises(Killed):
            agent.handle(request_for(POLICY), first_adapter(POLICY))
    agent, ledger = node.open()
    with ledger:
        assert [entry.kind for entry in ledger.history("hr")] == kinds
        assert list(node.replies.glob("*.reply")) == []
        assert isinstance(agent.handle(request_for(POLICY), first_adapter(POLICY)), RoundReply)
        assert [entry.kind for entry in ledger.history("hr")] == [*kinds, "reserve", "commit"]


@pytest.mark.parametrize(
    "point", ["state.after-write", "ledger.before-commit", "ledger.committed", "agent.after-commit"]
)
def test_crash_after_the_reply_is_stored_gives_it_again_at_one_charge(
    tmp_path: Path, point: str
) -> None:
    """A stored reply survives the crash: asked again, the node gives it and the ledger notes it."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()
    with ledger:
        kill_at(point)
        with pytest.raises(Killed):
            agent.handle(request_for(POLICY), first_adapter(POLICY))
    (stored,) = node.replies.glob("*.reply")
    before = stored.read_bytes()
    agent, ledger = node.open()
    with ledger:
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, RoundReply)
        assert stored.read_bytes() == before
        entries = ledger.history("hr")
        assert [entry.kind for entry in entries] == ["reserve", "commit"]
        assert entries[1].receipt_digest == answer.receipt.digest
    assert Ledger.verify(node.ledger_path, node.key.verify_key).ok


def test_stored_reply_is_withheld_once_the_policy_changed(tmp_path: Path) -> None:
    """A node that adopted another policy declines rounds of the old one, answered before or not."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()
    with ledger:
        assert isinstance(agent.handle(request_for(POLICY), first_adapter(POLICY)), RoundReply)
    node.policy = make_policy(target=2.0)
    agent, ledger = node.open()
    with ledger:
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
    assert isinstance(answer, Decline)
    assert answer.code == "policy_mismatch"


def test_progress_is_told_locally(tmp_path: Path) -> None:
    """Each step of training is shown on the node; the reply knows nothing of it."""
    node = Node(tmp_path, "hr", POLICY)
    steps: list[tuple[int, int]] = []
    with Ledger(node.ledger_path, node.key) as ledger:
        agent = NodeAgent(
            department="hr",
            policy=POLICY,
            gate=OpenGate(),
            units=units(),
            trainer=FakeTrainer(),
            ledger=ledger,
            key=node.key,
            state_dir=node.replies,
            code_digest="c" * 64,
            progress=lambda step, of: steps.append((step, of)),
        )
        agent.handle(request_for(POLICY), first_adapter(POLICY))
    assert steps == [(1, 2), (2, 2)]


class Failing(FakeTrainer):
    """Fails, or dies, before or after it looked at the units in one of the ways there are."""

    def __init__(self, error: BaseException, look: Callable[[Sequence[Unit]], object]) -> None:
        super().__init__()
        self.error, self.look = error, look

    def train(self, adapter, units, plan, learning_rate, config, progress=None):
        self.look(units)
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidPlan("no"), "refused_before_reading"),
        (MemoryError(), "failed_before_reading"),
        (RuntimeError("Ada"), "failed_before_reading"),
    ],
)
def test_a_round_that_never_looked_at_the_units_is_given_back(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    """Nothing of the records was read, so nothing can have been released: the charge is voided."""
    agent, ledger = Node(tmp_path, "hr", POLICY, Failing(error, lambda _: None)).open()
    with ledger:
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, Decline)
        entries = ledger.history("hr")
        assert [(e.kind, e.reason) for e in entries] == [("reserve", None), ("void", reason)]
        assert ledger.spent("hr", 1e-5) == 0.0
    assert Ledger.verify(tmp_path / "ledger.db", agent._key.verify_key).ok


LOOKS: dict[str, Callable[[Sequence[Unit]], object]] = {
    "number": len,
    "truth": bool,
    "item": lambda units: units[0],
    "last": lambda units: units[-1],
    "slice": lambda units: units[2:2],
    "iteration": lambda units: next(iter(units)),
    "iterator": iter,
    "reversed": lambda units: next(reversed(units)),
    "membership": lambda units: () in units,
    "copy": list,
    "count": lambda units: units.count(()),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looked_at_the_units_in_any_way_has_spent(tmp_path: Path, look: str) -> None:
    """One item, or only how many there are: the charge stays, whatever went wrong afterwards."""
    agent, ledger = Node(tmp_path, "hr", POLICY, Failing(RuntimeError(), LOOKS[look])).open()
    with ledger:
        assert isinstance(agent.handle(request_for(POLICY), first_adapter(POLICY)), Decline)
        assert [entry.kind for entry in ledger.history("hr")] == ["reserve"]
        assert ledger.spent("hr", 1e-5) > 0


def test_a_process_that_dies_before_it_looks_has_spent(tmp_path: Path) -> None:
    """Only a trainer that raised is known not to go on: what ends the process leaves the charge."""
    node = Node(tmp_path, "hr", POLICY, Failing(Killed(), lambda _: None))
    agent, ledger = node.open()
    with ledger:
        with pytest.raises(Killed):
            agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert [entry.kind for entry in ledger.history("hr")] == ["reserve"]


@pytest.mark.parametrize("point", ["ledger.before-void", "ledger.voided"])
def test_a_crash_while_voiding_leaves_the_charge_or_nothing(tmp_path: Path, point: str) -> None:
    """Before the void is durable the round counts as spent, after it as given back."""
    node = Node(tmp_path, "hr", POLICY, Failing(RuntimeError(), lambda _: None))
    agent, ledger = node.open()
    with ledger:
        kill_at(point)
        with pytest.raises(Killed):
            agent.handle(request_for(POLICY), first_adapter(POLICY))
    with Ledger(node.ledger_path, node.key) as ledger:
        charged = len(ledger.read().events("hr"))
    assert charged == (1 if point == "ledger.before-void" else 0)


def test_a_decline_does_not_tell_how_far_training_came(tmp_path: Path) -> None:
    """The hub hears the same words whether the units were read or not."""
    told = set()
    for name in ("number", "nothing"):
        look = LOOKS.get(name, lambda _: None)
        agent, ledger = Node(tmp_path / name, "hr", POLICY, Failing(RuntimeError(), look)).open()
        with ledger:
            answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, Decline)
        told.add((answer.code, answer.reason))
    assert len(told) == 1


SUBJECTS = changed_policy("[privacy]", '[privacy]\nunit = "subject"')


def test_unit_subject_is_answered_and_named_in_the_receipt(tmp_path: Path) -> None:
    """Units are grouped already; the receipt names the unit that the policy protects."""
    trainer = FakeTrainer()
    agent, ledger = Node(tmp_path, "hr", SUBJECTS, trainer).open()
    request = request_for(SUBJECTS)
    assert request.examples_per_unit == 4
    with ledger:
        reply = agent.handle(request, first_adapter(SUBJECTS))
    assert isinstance(reply, RoundReply)
    assert reply.receipt.receipt.unit == "subject"
    assert [plan.examples_per_unit for plan in trainer.plans] == [4]


def test_a_new_block_is_charged_to_its_own_budget(tmp_path: Path) -> None:
    """After the policy named a new block, rounds are priced on it; the lifetime goes on counting."""
    node = Node(tmp_path, "hr", POLICY)
    receipts = []
    for policy in (POLICY, changed_policy("[departments.hr]", '[departments.hr]\nblock = "2"')):
        node.policy = policy
        agent, ledger = node.open()
        with ledger:
            reply = agent.handle(request_for(policy), first_adapter(policy))
        assert isinstance(reply, RoundReply)
        receipts.append(reply.receipt.receipt)
    first, second = receipts
    assert (first.block, second.block) == ("1", "2")
    assert first.epsilon == second.epsilon == first.lifetime_epsilon < second.lifetime_epsilon


class BrokenLedger:
    """A ledger that fails as a disk would."""

    def __init__(self, error: Exception, at: str) -> None:
        self.error, self.at = error, at

    def read(self):
        if self.at == "read":
            raise self.error
        return self

    def events(self, department: str, block: str) -> tuple[()]:
        return ()

    def reserve(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("at", "error", "code"),
    [
        ("read", OSError("/home/hr/ledger.db is gone"), "unavailable"),
        ("reserve", OSError("/home/hr/ledger.db is gone"), "unavailable"),
        ("reserve", BudgetExceeded("hr", 9.2, Decimal(8)), "budget_exhausted"),
    ],
)
def test_without_a_reservation_nothing_is_trained(
    tmp_path: Path, at: str, error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the ledger cannot take the charge, or another process was first, no gradient is computed."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()
    ledger.close()
    agent._ledger = BrokenLedger(error, at)  # type: ignore[assignment]
    answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
    assert isinstance(answer, Decline)
    assert answer.code == code
    assert "/home" not in answer.reason + caplog.text
    assert node.trainer.plans == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_model.model.layers.0.self_attn.q_proj.lora_B.weight", None),
        ("base_model.model.layers.0.self_attn.q_proj.lora_B.weight", (9, 2)),
        ("another", (1,)),
    ],
)
def test_adapter_that_cannot_fit_is_declined_before_anything_is_spent(
    tmp_path: Path, name: str, value: tuple[int, ...] | None
) -> None:
    """A missing, misshapen or unknown tensor is named; the budget is untouched."""
    agent, ledger = Node(tmp_path, "hr", POLICY).open()
    adapter = first_adapter(POLICY)
    if value is None:
        del adapter[name]
    else:
        adapter[name] = np.zeros(value, np.float32)
    with ledger:
        answer = agent.handle(request_for(POLICY), adapter)
        assert ledger.history("hr") == ()
    assert isinstance(answer, Decline)
    assert answer.code == "invalid_request"
    assert name in answer.reason


@pytest.mark.parametrize("spoil", ["extra", "nan", "shape"])
def test_training_that_returns_something_else_is_no_reply(tmp_path: Path, spoil: str) -> None:
    """Tensors that are unexpected, not finite or of another shape never leave."""

    class Odd(FakeTrainer):
        def train(self, adapter, units, plan, learning_rate, config, progress=None):
            update = super().train(adapter, units, plan, learning_rate, config, progress)
            first = next(iter(update))
            if spoil == "extra":
                update["extra"] = np.ones(1, np.float32)
            elif spoil == "nan":
                update[first] = np.full_like(update[first], np.nan)
            else:
                update[first] = np.ones((1, 1), np.float32)
            return update

    node = Node(tmp_path, "hr", POLICY, Odd())
    agent, ledger = node.open()
    with ledger:
        answer = agent.handle(request_for(POLICY), first_adapter(POLICY))
    assert isinstance(answer, Decline)
    assert list(node.replies.glob("*")) == []
