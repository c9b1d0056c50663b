"""What the node's SuperNode does otherwise than Flower's: no bundle but its own, no answer left behind."""

import zipfile
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from client.bundle import build_bundle
from client.supernode import guard


def test_flower_still_has_what_is_guarded() -> None:
    """The names that the guard replaces exist in the pinned version, and are called by name."""
    internal = import_module("flwr.supernode.start_client_internal")
    names = internal.start_client_internal.__code__.co_names
    assert {"_pull_and_store_message", "_push_messages"} <= set(names)
    assert "_verify_fab" in internal._pull_and_store_message.__code__.co_names


class Pulled:
    """Stands for Flower's pull: it asks for the bundle and verifies it where there are trusted entities."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.refused = 0
        self.module = SimpleNamespace(
            _pull_and_store_message=self.pull,
            _push_messages=None,
            _verify_fab=lambda fab, trusted: True,
        )

    def pull(self, *, receive: Any, get_fab: Any, trusted_entities: Any, run_id: int) -> int:
        fab = get_fab("hash", run_id)
        verified = not trusted_entities or (
            fab.verifications.get("valid_license", "")
            and self.module._verify_fab(fab, trusted_entities)
        )
        if verified:
            self.stored.append(fab.content)
        else:
            self.refused += 1
        return run_id


@pytest.mark.parametrize("verifications", [{}, {"valid_license": "yes"}])
def test_guarded_node_stores_its_own_bundle_alone(verifications: dict[str, str]) -> None:
    """Whatever the SuperLink claims to have verified, an altered bundle is not stored."""
    own = build_bundle()
    grown = BytesIO(own)
    with zipfile.ZipFile(grown, "a") as archive:
        archive.writestr("client/more.py", b"import os")
    altered = grown.getvalue()
    flower = Pulled()
    guard(flower.module)
    for content in (own, altered):
        result = flower.module._pull_and_store_message(
            receive=None,
            get_fab=lambda digest, run_id, c=content: Fab(digest, c, dict(verifications)),
            trusted_entities=None,
            run_id=7,
        )
        assert result == 7
    assert flower.stored == [own]
    assert flower.refused == 1


def test_other_version_of_flower_does_not_start() -> None:
    """A Flower whose check cannot be replaced runs nothing."""
    with pytest.raises(SystemExit, match=r"install flwr==1\.41\.0"):
        guard(SimpleNamespace())


@pytest.fixture
def run_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are made within a run."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


class Node:
    """A guarded SuperNode of Flower's own state and pushing, and the SuperLink's side of it."""

    def __init__(self) -> None:
        internal = import_module("flwr.supernode.start_client_internal")
        store = ObjectStoreFactory()
        self._given = {"state": NodeStateFactory(store).state(), "object_store": store.store()}
        self._insert = internal._insert_message
        self.flower = SimpleNamespace(
            _verify_fab=internal._verify_fab,
            _pull_and_store_message=lambda *, receive, **_: receive() and 7,
            _push_messages=internal._push_messages,
        )
        guard(self.flower)

    def answer(self, request: Message) -> None:
        """What the ClientApp does at its end."""
        self._insert(Message(RecordDict(), reply_to=request), *self._given.values())

    def pull(self, request: Message | None) -> int | None:
        pulled = None if request is None else (request, None)
        result: int | None = self.flower._pull_and_store_message(
            receive=lambda: pulled, get_fab=None
        )
        return result

    def push(self, on_send: Callable[[str], None]) -> list[str]:
        """The requests that were answered, in order."""
        pushed: list[str] = []

        def send(message: Message, *_: object) -> tuple[set[str], str]:
            pushed.append(message.metadata.reply_to_message_id)
            on_send(pushed[-1])
            return set(), "session"

        self.flower._push_messages(**self._given, send=send, push_object=None)
        return pushed


def request(name: str) -> Message:
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = name
    return message


@pytest.mark.usefixtures("run_of_flower")
def test_an_answer_to_a_run_that_ended_does_not_delay_the_next_runs() -> None:
    """It is pushed, and so is the answer to what was pulled, before anything else is pulled."""
    node = Node()
    ended, current = request("ended"), request("current")
    node.answer(ended)
    assert node.pull(current) == 7
    pushed = node.push(lambda sent: node.answer(current) if sent == "ended" else None)
    assert pushed == ["ended", "current"]


@pytest.mark.usefixtures("run_of_flower")
def test_an_answer_that_the_superlink_refuses_is_given_up() -> None:
    """Flower drops it, and the node goes on with the next request."""
    node = Node()
    for name in ("first", "second"):
        node.pull(request(name))
        node.answer(request(name))
        refused = ConnectionError("Run is finished.")

        def refuse(_: str, error: Exception = refused) -> None:
            raise error

        assert node.push(refuse) == [name]


def test_nothing_pulled_is_nothing_to_answer() -> None:
    """Flower is told so as before."""
    assert Node().pull(None) is None
