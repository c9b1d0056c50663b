"""What the node's SuperNode does otherwise than Flower's: no bundle but its own, no answer left behind."""

import contextlib
import inspect
import socket
import threading
import zipfile
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from client.bundle import build_bundle
from client.supernode import guard, wait_for_hub


def test_flower_still_has_what_is_guarded() -> None:
    """The names that the guard replaces exist in the pinned version, and are called by name."""
    internal = import_module("flwr.supernode.start_client_internal")
    names = internal.start_client_internal.__code__.co_names
    assert {"_pull_and_store_message", "_push_messages"} <= set(names)
    assert "_verify_fab" in internal._pull_and_store_message.__code__.co_names
    connection = import_module("flwr.supernode.fleet_http_connection")
    connects = inspect.unwrap(connection.http_request_response).__code__.co_names
    assert "make_simple_http_retry_invoker" in connects


class Pulled:
    """Stands for Flower's pull: it asks for the bundle and verifies it where there are trusted entities."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.refused = 0
        self.module = SimpleNamespace(
            _pull_and_store_message=self.pull,
            _push_messages=None,
            _insert_message=None,
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
    for change in (guard, wait_for_hub):
        with pytest.raises(SystemExit, match=r"install flwr==1\.41\.0"):
            change(SimpleNamespace())


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
        self.errors: list[int | None] = []
        self.parts: list[bytes] = []
        self.flower = SimpleNamespace(
            _verify_fab=internal._verify_fab,
            _pull_and_store_message=lambda *, receive, **_: receive() and 7,
            _push_messages=internal._push_messages,
            _insert_message=internal._insert_message,
        )
        guard(self.flower)

    @property
    def state(self) -> Any:
        """Flower's own."""
        return self._given["state"]

    def client_app(self) -> int:
        """A ClientApp that works on what was pulled; its task."""
        made: int = self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=7, fab_hash="hash")
        assert self.state.claim_task(made)
        assert self.state.activate_task(made)
        return made

    def answer_without_its_parts(self, request: Message) -> None:
        """What a ClientApp does that is killed while it hands its answer over."""
        reply = Message(RecordDict({"told": ConfigRecord({"n": 1})}), reply_to=request)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.state.store_message_and_object_tree(
            reply, get_object_tree(reply), self.state.start_session(7)
        )

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

        def send(message: Message, tree: Any, _: float) -> tuple[set[str], str]:
            pushed.append(message.metadata.reply_to_message_id)
            self.errors.append(message.error.code if message.has_error() else None)
            on_send(pushed[-1])
            return {tree.object_id}, "session"

        def push_object(run_id: int, session: str, name: str, content: bytes) -> None:
            self.parts.append(content)

        self.flower._push_messages(**self._given, send=send, push_object=push_object)
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


@pytest.mark.usefixtures("run_of_flower")
@pytest.mark.parametrize("status", [SubStatus.FAILED, SubStatus.COMPLETED])
def test_a_client_app_that_ends_without_an_answer_is_an_error(status: str) -> None:
    """The hub is told, and the node goes on; Flower would wait for that answer for ever."""
    node, asked = Node(), request("asked")
    node.state.store_message(asked)
    node.pull(asked)
    assert node.state.finish_task(node.client_app(), status, "")
    assert node.push(lambda _: None) == ["asked"]
    assert node.errors == [ErrorCode.CLIENT_APP_CRASHED]
    assert not node.state.get_messages_legacy()


@pytest.mark.usefixtures("run_of_flower")
def test_an_answer_is_waited_for_as_long_as_somebody_works_on_it() -> None:
    """Training may take hours."""
    node, asked = Node(), request("asked")
    node.pull(asked)
    task = node.client_app()
    looks: list[Any] = []
    look = node.state.get_messages_legacy

    def third_time(**given: Any) -> Any:
        looks.append(given)
        if len(looks) == 3:
            node.answer(asked)
            assert node.state.finish_task(task, SubStatus.COMPLETED, "")
        return look(**given)

    node.state.get_messages_legacy = third_time
    assert node.push(lambda _: None) == ["asked"]
    assert (node.errors, len(looks)) == ([None], 3)


@pytest.mark.usefixtures("run_of_flower")
def test_an_answer_whose_parts_will_never_come_is_given_up() -> None:
    """Its ClientApp was killed while it handed it over; Flower would wait for the rest for ever."""
    node, asked = Node(), request("asked")
    node.pull(asked)
    task = node.client_app()
    node.answer_without_its_parts(asked)
    assert node.state.finish_task(task, SubStatus.FAILED, "")
    assert node.push(lambda _: None) == ["asked"]
    assert node.parts == []
    assert not node.state.get_messages_legacy(is_reply=True)


class Door:
    """A port where each connection gets ``answer``, and is closed unless that is None."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def error(self) -> httpx.TransportError:
        """What a caller meets."""
        port = self._listener.getsockname()[1]
        with (
            httpx.Client(timeout=0.5, trust_env=False) as caller,
            pytest.raises(httpx.TransportError) as met,
        ):
            caller.get(f"https://127.0.0.1:{port}/")
        return met.value

    def close(self) -> None:
        """Shut it."""
        for one in (self._listener, *self._held):
            one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                caller.recv(4096)
                if self._answer is None:
                    self._held.append(caller)
                    continue
                caller.sendall(self._answer)
                caller.close()


@pytest.mark.parametrize(
    ("answer", "waits"),
    [(b"", True), (None, True), (b"HTTP/1.1 400 Bad Request\r\n\r\n", False)],
    ids=["closed", "silent", "no TLS"],
)
def test_a_node_waits_for_a_hub_that_is_away(answer: bytes | None, waits: bool) -> None:
    """Also where something in between takes its connections; what answers wrongly it leaves."""
    flower = SimpleNamespace(make_simple_http_retry_invoker=make_simple_http_retry_invoker)
    wait_for_hub(flower)
    door = Door(answer)
    error = door.error()
    door.close()
    assert flower.make_simple_http_retry_invoker().should_giveup(error) is not waits
    assert make_simple_http_retry_invoker().should_giveup(error), "Flower waits by itself"


def test_nothing_pulled_is_nothing_to_answer() -> None:
    """Flower is told so as before."""
    assert Node().pull(None) is None
