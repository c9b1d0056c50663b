"""The agent's process: one agent for each run, and nothing of the records kept after a run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federation_kit import FakeTrainer, OpenGate, first_adapter, make_policy, request_for, units

from intramural.deployment import agent_process
from intramural.deployment.agent_process import RunAgents
from intramural.deployment.node_home import NodeHome, NodeSettings
from policies.model import Policy
from privacy.dp.encode import Example
from privacy.errors import KeyUnusable
from privacy.exchange import Decline, RoundReply
from privacy.ledger.ledger import Ledger
from privacy.signing import SigningKey


class Trainer(FakeTrainer):
    """Counts how often it was told to forget."""

    forgot = 0

    def forget(self) -> None:
        self.forgot += 1


class Department:
    """A node's home with an open ledger, and its agents."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.home = NodeHome(folder / "node")
        self.home.create(NodeSettings("hr", "none", {}, {}, 0.0, "policy.toml", ""))
        self.policy = policy
        self.trainer: Any = Trainer()
        key = SigningKey.load(self.home.signing_key)
        self.ledger = Ledger(self.home.ledger, key)
        self.agents = RunAgents(
            self.home, policy, units(), self.trainer, self.ledger, key, OpenGate()
        )

    def ask(self, number: int, run_id: str = "run-1") -> RoundReply | Decline:
        request = request_for(self.policy, "hr", number, run_id=run_id)
        return self.agents.handle(request, first_adapter(self.policy))

    def last(self) -> Any:
        return json.loads(self.home.last_round.read_text())


@pytest.fixture
def department(tmp_path: Path) -> Iterator[Department]:
    """The department hr under a policy of three rounds."""
    made = Department(tmp_path, make_policy())
    yield made
    made.ledger.close()


def test_the_model_forgets_at_the_end_of_a_run_and_not_before(department: Department) -> None:
    """States of records are kept from round to round, and dropped after the last."""
    department.ask(1)
    begun = department.trainer.forgot
    department.ask(2)
    assert department.trainer.forgot == begun
    department.ask(3)
    assert department.trainer.forgot == begun + 1
    department.agents.close()
    assert department.trainer.forgot == begun + 2


def test_two_runs_at_once_share_one_ledger(department: Department) -> None:
    """Rounds take turns; each is charged once, and asked again gives the same bytes."""
    first, other = department.ask(1), department.ask(1, "run-2")
    assert isinstance(first, RoundReply)
    assert isinstance(other, RoundReply)
    again = department.ask(1)
    assert isinstance(again, RoundReply)
    assert again.receipt.to_json() == first.receipt.to_json()
    assert len(department.ledger.read().events("hr", department.policy.budget_of("hr").block)) == 2


def test_what_was_answered_last_is_noted_for_the_department(department: Department) -> None:
    """Run, round and outcome, which `node status` shows."""
    department.ask(1)
    noted = department.last()
    assert (noted["run_id"], noted["round"], noted["answer"]) == ("run-1", 1, "contributed")


def test_an_answer_is_given_also_where_it_cannot_be_noted(department: Department) -> None:
    """A note is for the eye; what was paid for must not be lost with it."""
    department.home.last_round.mkdir()
    assert isinstance(department.ask(1), RoundReply)


def test_canaries_of_the_run_are_trained_on_with_the_records(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a simulation: those of this very run, drawn once, beside the department's units."""
    asked, seen = [], []
    extra = (Example((9, 9, 9), 1),)

    def included(home: NodeHome, run_id: str, *_: object) -> list[Any]:
        asked.append((home.root, run_id))
        return [extra]

    original = department.trainer.train

    def train(adapter: Any, given: Any, *rest: Any) -> Any:
        seen.append(list(given))
        return original(adapter, given, *rest)

    monkeypatch.setattr(agent_process, "included_units", included)
    monkeypatch.setattr(department.trainer, "train", train)
    for number in (1, 2):
        assert isinstance(department.ask(number), RoundReply)
    assert asked == [(department.home.root, "run-1")]
    assert all(given == [*units(), extra] for given in seen)


def test_a_run_that_cannot_be_prepared_is_declined(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub learns that the node is away, and not which file of it is damaged."""

    def damaged(*_: object) -> list[Any]:
        raise KeyUnusable("canaries in a secret place are damaged")

    monkeypatch.setattr(agent_process, "included_units", damaged)
    answer = department.ask(1)
    assert isinstance(answer, Decline)
    assert answer.code == "unavailable"
    assert "secret" not in answer.reason
    assert department.ledger.read().entries == ()


def test_a_node_made_again_after_a_lost_folder_has_other_keys(department: Department) -> None:
    """Nobody can pose as a department by making its node anew."""
    before = department.home.ssh_public_key()
    department.ledger.close()
    shutil.rmtree(department.home.root)
    department.home.create(NodeSettings("hr", "none", {}, {}, 0.0, "policy.toml", ""))
    assert department.home.ssh_public_key() != before
