"""Flower's SuperNode that runs no code but its own: what a node starts instead of the bare command.

A Flower bundle is code that whoever starts a run may choose, and it would run as the node's user.
This node takes only the bundle that it would build of its own installed modules; for any other the
hub gets Flower's error for a bundle that does not verify, and nothing of it is unpacked.

It also keeps requests and answers in step: Flower pushes an answer after each request that it
pulled, and an answer to a request whose run ended in the meantime would take the place of the next
one's, which then waits at the node until the hub asks for something else.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from client.bundle import is_own

_log = logging.getLogger(__name__)
_TRUSTED = {"intramural": "the modules installed here"}


def guard(internal: Any) -> None:
    """Make Flower's module ``start_client_internal`` verify every bundle by :func:`is_own`.

    It also answers each request that it pulled before it pulls the next.

    Raises:
        SystemExit: this version of Flower cannot be guarded.
    """
    # Flower has no setting for either; these names are looked up at the call. The exact version is
    # pinned, and a test fails where one is gone.
    names = ("_verify_fab", "_pull_and_store_message", "_push_messages")
    if not all(hasattr(internal, name) for name in names):
        sys.exit("this version of Flower cannot refuse bundles; install flwr==1.41.0")
    turn = _Turn(internal._pull_and_store_message, internal._push_messages)
    internal._pull_and_store_message = turn.pull
    internal._push_messages = turn.push
    internal._verify_fab = _verify


class _Turn:
    """One request pulled and its answer pushed.

    Args:
        pull: Flower's function that pulls a request.
        push: Flower's function that waits for an answer, whichever it is, and pushes it.
    """

    def __init__(self, pull: Callable[..., int | None], push: Callable[..., None]) -> None:
        self._pull = pull
        self._push = push
        self._request: str | None = None

    def pull(self, **given: Any) -> int | None:
        receive, get_fab = given.pop("receive"), given.pop("get_fab")

        def received() -> Any:
            pulled = receive()
            if pulled is not None:
                self._request = pulled[0].metadata.message_id
            return pulled

        def fetch(digest: str, run_id: int) -> Any:
            # Flower looks at the bundle itself only where its sender claims to have verified it.
            verified = {"valid_license": "by this node"}
            return replace(get_fab(digest, run_id), verifications=verified)

        guarded = {"receive": received, "get_fab": fetch, "trusted_entities": _TRUSTED}
        return self._pull(**given | guarded)

    def push(self, **given: Any) -> None:
        send = given.pop("send")

        def sent(message: Any, *rest: Any) -> Any:
            if message.metadata.reply_to_message_id == self._request:
                self._request = None
            return send(message, *rest)

        while self._request is not None:
            self._push(**given, send=sent)


def _verify(fab: Any, trusted: object) -> bool:
    own = is_own(fab.content)
    if not own:
        _log.error(
            "a run's bundle is not the one of this node's installed version; it was refused. Hub and "
            "node must have the same version, or somebody altered the bundle"
        )
    return own


def main() -> None:
    """Run ``flower-supernode`` with the arguments of this process."""
    guard(import_module("flwr.supernode.start_client_internal"))
    try:
        import_module("flwr.supernode.cli.flower_supernode").flower_supernode()
    except Exception as error:
        _log.error("the SuperNode failed: %s", type(error).__name__)
    # It never ends by itself but where it gives up, as when a connection breaks within its TLS
    # handshake. Threads of Flower's would then keep a process there that is connected to nobody:
    # whoever supervises it has to see that it ended.
    _log.error("the SuperNode gave up its connection")
    os._exit(1)


if __name__ == "__main__":
    main()
