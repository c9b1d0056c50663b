"""The agent port: one suite for the agent in this process and for the agent behind its socket."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from federation_kit import (
    CODE_DIGEST,
    SECRET,
    FakeTrainer,
    Node,
    first_adapter,
    make_policy,
    request_for,
)

from client.agent_socket import AgentServer, SocketAgent
from client.port import Agent
from privacy.exchange import Decline, RoundReply, adapter_digest
from privacy.ledger.ledger import Ledger

Open = Callable[[Node], tuple[Agent, Ledger]]
POLICY = make_policy()


@pytest.fixture(params=["in process", "behind its socket"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_node(node: Node) -> tuple[Agent, Ledger]:
            agent, ledger = node.open()
            stack.callback(ledger.close)
            if request.param == "in process":
                return agent, ledger
            server = stack.enter_context(AgentServer(agent, node.folder / "run" / "agent.sock"))
            return SocketAgent(server.path, timeout=60), ledger

        yield open_node


def test_reply_carries_the_trained_tensors_and_a_receipt_for_them(
    opened: Open, tmp_path: Path
) -> None:
    """A reply holds exactly the trained tensors and a receipt that states what was done."""
    node = Node(tmp_path / "hr", "hr", POLICY)
    agent, ledger = opened(node)
    request = request_for(POLICY)
    adapter = first_adapter(POLICY)
    reply = agent.handle(request, adapter)
    assert isinstance(reply, RoundReply)
    assert set(reply.update) == {name for name in adapter if "lora_B" in name}
    receipt = reply.receipt.verify(node.key.verify_key)
    assert (receipt.run_id, receipt.round, receipt.department) == ("run-1", 1, "hr")
    assert receipt.event == request.event()
    assert receipt.epsilon == ledger.spent("hr", POLICY.budget_of("hr").delta)
    assert receipt.policy_digest == POLICY.digest
    assert receipt.code_digest == CODE_DIGEST
    assert receipt.adapter_before == adapter_digest(adapter)
    assert receipt.adapter_after == adapter_digest(reply.update)


def test_same_question_gets_the_same_bytes_and_one_charge(opened: Open, tmp_path: Path) -> None:
    """A round that is asked for again is never free and new: the bytes are those of the first time."""
    agent, ledger = opened(Node(tmp_path / "hr", "hr", POLICY))
    request = request_for(POLICY)
    first = agent.handle(request, first_adapter(POLICY))
    again = agent.handle(request, first_adapter(POLICY))
    assert isinstance(first, RoundReply)
    assert isinstance(again, RoundReply)
    assert again.receipt.to_json() == first.receipt.to_json()
    assert {n: a.tobytes() for n, a in again.update.items()} == {
        n: a.tobytes() for n, a in first.update.items()
    }
    assert [entry.kind for entry in ledger.history("hr")] == ["reserve", "commit"]


def test_other_adapter_in_the_same_round_is_another_charge(opened: Open, tmp_path: Path) -> None:
    """Only the very same question is answered from memory; any other one spends again."""
    agent, ledger = opened(Node(tmp_path / "hr", "hr", POLICY))
    request = request_for(POLICY)
    adapter = first_adapter(POLICY)
    agent.handle(request, adapter)
    agent.handle(request, {name: tensor + 1 for name, tensor in adapter.items()})
    assert [entry.kind for entry in ledger.history("hr")] == ["reserve", "commit"] * 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"policy_digest": "0" * 64}, "policy_mismatch"),
        ({"unit": "subject"}, "unit_not_allowed"),
        ({"sampling_rate": 0.9}, "mechanism_not_allowed"),
        ({"clipping_norm": 3.0}, "mechanism_not_allowed"),
        ({"noise_multiplier": 0.2}, "budget_exhausted"),
        ({"base_model_digest": "0" * 64}, "invalid_request"),
        ({"expected_delta": 1e-6}, "invalid_request"),
        ({"max_tokens": 9}, "invalid_request"),
        ({"alpha": 1.5}, "invalid_request"),
        ({"rank": 3}, "invalid_request"),
    ],
)
def test_request_beyond_the_policy_is_declined_before_anything_is_spent(
    opened: Open, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    """What the department's own policy does not allow is declined with its code, at no cost."""
    node = Node(tmp_path / "hr", "hr", POLICY)
    agent, ledger = opened(node)
    answer = agent.handle(request_for(POLICY, **changes), first_adapter(POLICY))
    assert isinstance(answer, Decline)
    assert answer.code == code
    assert ledger.history("hr") == ()
    assert node.trainer.plans == []  # type: ignore[attr-defined]


def test_exhausted_department_declines(opened: Open, tmp_path: Path) -> None:
    """A round that would pass the budget is declined, naming the cost and the bound."""
    policy = make_policy(target=8.0)
    agent, ledger = opened(Node(tmp_path / "hr", "hr", policy))
    adapter = first_adapter(policy)
    for number in (1, 2, 3):
        assert isinstance(agent.handle(request_for(policy, number=number), adapter), RoundReply)
    answer = agent.handle(request_for(policy, number=1, run_id="run-2"), adapter)
    assert isinstance(answer, Decline)
    assert answer.code == "budget_exhausted"
    assert "exceed the budget of 8.0 for department 'hr'" in answer.reason
    assert len(ledger.history("hr")) == 6
    given = agent.handle(request_for(policy, number=3), adapter)
    assert isinstance(given, RoundReply), "what was paid for stays available"


def test_failed_training_declines_without_telling_why_and_stays_spent(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error inside training leaves neither the node nor its log with any of its text."""
    node = Node(tmp_path / "hr", "hr", POLICY, FakeTrainer(fail=ValueError(SECRET)))
    agent, ledger = opened(node)
    request = request_for(POLICY)
    answer = agent.handle(request, first_adapter(POLICY))
    assert isinstance(answer, Decline)
    assert answer.code == "unavailable"
    assert SECRET not in answer.to_json() + caplog.text
    assert "ValueError at federation_kit.py" in caplog.text
    assert [entry.kind for entry in ledger.history("hr")] == ["reserve"]
