"""Flower's SuperNode that runs no code but its own: what a node starts instead of the bare command.

A Flower bundle is code that whoever starts a run may choose, and it would run as the node's user.
This node takes only the bundle that it would build of its own installed modules; for any other the
hub gets Flower's error for a bundle that does not verify, and nothing of it is unpacked.

It also keeps requests and answers in step: Flower pushes an answer after each request that it
pulled, and an answer to a request whose run ended in the meantime would take the place of the next
one's, which then waits at the node until the hub asks for something else. Where the process that
was to answer has ended without, which Flower would wait for for ever, the hub gets an error.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode, Status

from client.bundle import is_own

_log = logging.getLogger(__name__)
_TRUSTED = {"intramural": "the modules installed here"}
_CRASHED = Error(ErrorCode.CLIENT_APP_CRASHED, "the ClientApp ended without an answer")


def guard(internal: Any) -> None:
    """Make Flower's module ``start_client_internal`` verify every bundle by :func:`is_own`.

    It also answers each request that it pulled, with an error if need be, before it pulls the next.

    Raises:
        SystemExit: this version of Flower cannot be guarded.
    """
    # Flower has no setting for either; these names are looked up at the call. The exact version is
    # pinned, and a test fails where one is gone.
    names = ("_verify_fab", "_pull_and_store_message", "_push_messages", "_insert_message")
    if not all(hasattr(internal, name) for name in names):
        sys.exit("this version of Flower cannot refuse bundles; install flwr==1.41.0")
    turn = _Turn(
        internal._pull_and_store_message, internal._push_messages, internal._insert_message
    )
    internal._pull_and_store_message = turn.pull
    internal._push_messages = turn.push
    internal._verify_fab = _verify


class _Turn:
    """One request pulled and its answer pushed.

    Args:
        pull: Flower's function that pulls a request.
        push: Flower's function that waits for an answer, whichever it is, and pushes it.
        insert: Flower's function that stores an answer of the SuperNode's own.
    """

    def __init__(
        self,
        pull: Callable[..., int | None],
        push: Callable[..., None],
        insert: Callable[..., None],
    ) -> None:
        self._pull = pull
        self._push = push
        self._insert = insert
        self._request: Message | None = None

    def pull(self, **given: Any) -> int | None:
        receive, get_fab = given.pop("receive"), given.pop("get_fab")

        def received() -> Any:
            pulled = receive()
            if pulled is not None:
                self._request = pulled[0]
            return pulled

        def fetch(digest: str, run_id: int) -> Any:
            # Flower looks at the bundle itself only where its sender claims to have verified it.
            verified = {"valid_license": "by this node"}
            return replace(get_fab(digest, run_id), verifications=verified)

        guarded = {"receive": received, "get_fab": fetch, "trusted_entities": _TRUSTED}
        return self._pull(**given | guarded)

    def push(self, **given: Any) -> None:
        state, store, send = (given.pop(name) for name in ("state", "object_store", "send"))

        def sent(message: Any, *rest: Any) -> Any:
            request = self._request
            if request and message.metadata.reply_to_message_id == request.metadata.message_id:
                self._request = None
            return send(message, *rest)

        while (request := self._request) is not None:
            self._push(
                **given,
                send=sent,
                state=_Answers(state, request, lambda m: self._insert(m, state, store)),
                object_store=_Parts(store, state, request),
            )


class _Answers:
    """A node's state in Flower, in which an answer that will never come is an error at once."""

    def __init__(self, state: Any, request: Message, insert: Callable[[Message], None]) -> None:
        self._state = state
        self._request = request
        self._insert = insert

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **given: Any) -> Any:
        # In this order: a ClientApp ends after it has handed over its answer.
        ended = _ended(self._state, self._request)
        found = self._state.get_messages_legacy(**given)
        if found or not ended:
            return found
        _log.error("the ClientApp ended without an answer; the hub is told")
        self._insert(Message(_CRASHED, reply_to=self._request))
        return self._state.get_messages_legacy(**given)


class _Parts:
    """A node's objects in Flower, of which a part that will never come is an error."""

    def __init__(self, store: Any, state: Any, request: Message) -> None:
        self._store = store
        self._state = state
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, name: str) -> Any:
        ended = _ended(self._state, self._request)
        content = self._store.get(name)
        if content == b"" and ended:
            raise EOFError("the ClientApp ended within its answer")
        return content


def _ended(state: Any, request: Message) -> bool:
    """Whether no process works on the request any more, nor will."""
    tasks = state.get_tasks(run_ids=[request.metadata.run_id])
    return all(task.status.status == Status.FINISHED for task in tasks)


def wait_for_hub(connection: Any) -> None:
    """Make Flower's module ``fleet_http_connection`` try again where a TLS handshake breaks or hangs.

    Raises:
        SystemExit: this version of Flower cannot be made to.
    """
    name = "make_simple_http_retry_invoker"
    if not hasattr(connection, name):
        sys.exit("this version of Flower cannot wait for its hub; install flwr==1.41.0")
    make = getattr(connection, name)

    def patient() -> Any:
        invoker = make()
        gives_up = invoker.should_giveup
        invoker.should_giveup = lambda error: not _is_away(error) and gives_up(error)
        return invoker

    setattr(connection, name, patient)


def _is_away(error: Exception) -> bool:
    """Whether nobody speaks at the other end; whoever does, and is not trusted, stays refused."""
    ended = isinstance(error, httpx.TransportError) and "UNEXPECTED_EOF" in str(error)
    return ended or isinstance(error, httpx.TimeoutException)


def _verify(fab: Any, trusted: object) -> bool:
    own = is_own(fab.content)
    if not own:
        _log.error(
            "a run's bundle is not the one of this node's installed version; it was refused. Hub and "
            "node must have the same version, or somebody altered the bundle"
        )
    return own


def _say_goodbye(failed: threading.ExceptHookArgs) -> None:
    """End the SuperNode when one of its threads fails: without its heartbeat it is not connected."""
    _log.error("the SuperNode failed: %s in a thread", failed.exc_type.__name__)
    # Flower ends by a signal once, and then gives it back to the system: it may be ending already.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run ``flower-supernode`` with the arguments of this process."""
    threading.excepthook = _say_goodbye
    guard(import_module("flwr.supernode.start_client_internal"))
    wait_for_hub(import_module("flwr.supernode.fleet_http_connection"))
    try:
        import_module("flwr.supernode.cli.flower_supernode").flower_supernode()
    except Exception as error:
        _log.error("the SuperNode failed: %s", type(error).__name__)
    # It never ends by itself but where it gives up, as when the hub's certificate is not the one that
    # it trusts. Threads of Flower's would then keep a process there that is connected to nobody:
    # whoever supervises it has to see that it ended.
    _log.error("the SuperNode gave up its connection")
    os._exit(1)


if __name__ == "__main__":
    main()
