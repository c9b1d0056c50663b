"""Requests that were lost on their way to a node, with Flower's own state and handlers."""

import os
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory, SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.servicer.fleet import fleet_handlers

from server.redelivery import redelivering


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Flower's state in a file."""
    database = str(tmp_path_factory.mktemp("superlink") / "state.db")
    store = ObjectStoreFactory(database)
    return LinkStateFactory(database, NoOpFederationManager(), store).state()


class SuperLink:
    """Flower's state, a run, a node that is online, and what both ask of it."""

    def __init__(self, state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = state
        self.node = state.create_node(NOOP_FLWR_AID, "hub", os.urandom(8), 30.0)
        assert state.activate_node(self.node, 30.0)
        self.run = state.create_run(
            "hub/app", "1", "hash", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID,
            TaskType.SERVER_APP,
        )  # fmt: skip
        self.task = state.get_run_info(run_ids=[self.run])[0].primary_task_id
        assert state.claim_task(self.task)
        assert state.activate_task(self.task)
        for name, value in (("task", self.task), ("run", self.run), ("node", SUPERLINK_NODE_ID)):
            monkeypatch.setattr(TaskIdentity, f"_{name}_id", value)
        self._identity = monkeypatch
        self._given: dict[str, Message] = {}

    def ask(self) -> str:
        """The hub's request to the node; its id."""
        message = Message(RecordDict(), self.node, "train")
        self._store(message)
        return message.metadata.message_id

    def _store(self, message: Message) -> None:
        message.metadata.__dict__["_message_id"] = message.object_id
        session = self.state.start_session(self.run)
        stored, _ = self.state.store_message_and_object_tree(
            message, get_object_tree(message), session
        )
        assert stored
        for name, item in get_all_nested_objects(message).items():
            self.state.store_object(self.run, session, name, item.deflate())

    def pull(self) -> str | None:
        """The request that a node is given that asks for one."""
        question = PullMessagesRequest(node=Node(node_id=self.node))
        answer = fleet_handlers.pull_messages(question, self.state, self.state.object_store)
        for proto in answer.messages_list:
            message = message_from_proto(proto)
            self._given[message.metadata.message_id] = message
            return message.metadata.message_id
        return None

    def confirm(self, request: str) -> None:
        """The node has the whole request."""
        fleet_handlers.confirm_message_received(
            ConfirmMessageReceivedRequest(
                node=Node(node_id=self.node), run_id=self.run, message_object_id=request
            ),
            self.state,
            self.state.object_store,
        )

    def answer(self, request: str) -> None:
        """The node's reply."""
        self._identity.setattr(TaskIdentity, "_node_id", self.node)
        reply = Message(RecordDict(), reply_to=self._given[request])
        self._identity.setattr(TaskIdentity, "_node_id", SUPERLINK_NODE_ID)
        self._store(reply)

    def told(self, *requests: str) -> dict[str, int]:
        """What the run is told of its requests: 0 for an answer, otherwise Flower's error code."""
        found = self.state.get_message_res(set(requests), self.run)
        return {
            message.metadata.reply_to_message_id: message.error.code if message.has_error() else 0
            for message in found
        }


@pytest.fixture
def flower(state: Any, monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    """The SuperLink as Flower ships it."""
    return SuperLink(state, monkeypatch)


@pytest.fixture
def superlink(flower: SuperLink, monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    """The hub's."""
    monkeypatch.setattr(SqlLinkState, "get_message_ins", redelivering(SqlLinkState.get_message_ins))
    return flower


def test_flower_gives_a_request_once_whether_it_arrives_or_not(flower: SuperLink) -> None:
    """Where this fails, Flower does it itself, and the module is not needed any more."""
    request = flower.ask()
    assert flower.pull() == request
    assert flower.pull() is None
    assert not flower.told(request)


def test_a_request_that_never_came_is_given_again(superlink: SuperLink) -> None:
    """The node that asks once more gets it, and its answer counts."""
    request = superlink.ask()
    assert superlink.pull() == request
    assert superlink.pull() == request
    superlink.confirm(request)
    superlink.answer(request)
    assert superlink.pull() is None
    assert superlink.told(request) == {request: 0}


def test_a_request_that_is_lost_twice_is_given_up(superlink: SuperLink) -> None:
    """The run learns of it at once, and the request is in nobody's way."""
    request = superlink.ask()
    assert [superlink.pull() for _ in range(2)] == [request, request]
    other = superlink.ask()
    assert superlink.pull() == other
    assert superlink.told(request, other) == {request: ErrorCode.MESSAGE_UNAVAILABLE}


def test_a_request_whose_answer_was_lost_is_given_up(superlink: SuperLink) -> None:
    """The node had it whole, so that nothing is left to be given; the run learns of it at once."""
    request = superlink.ask()
    assert superlink.pull() == request
    superlink.confirm(request)
    assert superlink.pull() is None
    assert superlink.told(request) == {request: ErrorCode.MESSAGE_UNAVAILABLE}


def test_what_ended_is_not_given_again(superlink: SuperLink) -> None:
    """A request of a run that failed would only hold up those of the next."""
    superlink.ask()
    assert superlink.pull()
    assert superlink.state.finish_task(superlink.task, SubStatus.FAILED, "")
    assert superlink.pull() is None


def test_a_request_that_was_answered_is_not_given_again(superlink: SuperLink) -> None:
    """Whether the run has taken the answer or not."""
    first = superlink.ask()
    assert superlink.pull() == first
    superlink.answer(first)
    second = superlink.ask()
    assert superlink.pull() == second
    assert superlink.told(first) == {first: 0}
