"""Flower's SuperNode that runs no code but its own: what a node starts instead of the bare command.

A Flower bundle is code that whoever starts a run may choose, and it would run as the node's user.
This node takes only the bundle that it would build of its own installed modules; for any other the
hub gets Flower's error for a bundle that does not verify, and nothing of it is unpacked.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from client.bundle import is_own

_log = logging.getLogger(__name__)
_TRUSTED = {"intramural": "the modules installed here"}


def guard(internal: Any) -> None:
    """Make Flower's module ``start_client_internal`` verify every bundle by :func:`is_own`.

    Raises:
        SystemExit: this version of Flower cannot be guarded.
    """
    # Flower has no setting for an own check; these two names are looked up at the call. The exact
    # version is pinned, and a test fails where either is gone.
    if not hasattr(internal, "_verify_fab") or not hasattr(internal, "_pull_and_store_message"):
        sys.exit("this version of Flower cannot refuse bundles; install flwr==1.41.0")
    internal._pull_and_store_message = partial(_pull, internal._pull_and_store_message)
    internal._verify_fab = _verify


def _pull(original: Callable[..., int | None], **given: Any) -> int | None:
    get_fab = given.pop("get_fab")

    def fetch(digest: str, run_id: int) -> Any:
        # Flower looks at the bundle itself only where its sender claims to have verified it.
        return replace(get_fab(digest, run_id), verifications={"valid_license": "by this node"})

    return original(**{**given, "get_fab": fetch, "trusted_entities": _TRUSTED})


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
