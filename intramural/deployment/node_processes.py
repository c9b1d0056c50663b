"""``node start``: the agent, then Flower's SuperNode and what starts its tasks, in one command."""

import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from client.errors import ClientError
from intramural.deployment.environment import CHATTER, beside, flower_environment
from intramural.deployment.homes import make_folder, only_one, write_status
from intramural.deployment.node_home import READY, NodeHome
from intramural.deployment.supervisor import Child, OnSupervisor, Say, Supervisor
from privacy.errors import PrivacyError
from privacy.joining import JoinRefused, now_text
from privacy.signing import SigningKey

SUPERNODE: Final = "client.supernode"
"""Flower's SuperNode, which takes no bundle but the one of the installed translation modules."""

_REFUSED_PAUSE = 10.0
_SOON, _LATER = 5.0, 60.0


def run_node_processes(home: NodeHome, say: Say, on_supervisor: OnSupervisor) -> None:
    """Run the node until it is told to stop.

    Raises:
        HomeUnusable: the node runs already, or something is missing in its home.
        JoinRefused: it has not joined a hub.
        ChildFailed: the agent cannot work with what it was given.
    """
    bundle = home.hub.read()
    home.policy()
    with ExitStack() as stack:
        stack.enter_context(only_one(home.root, "the node"))
        contact = _Contact(home, say)
        began = now_text()
        states: dict[str, Mapping[str, object]] = {}

        def write() -> None:
            status = {"pid": os.getpid(), "started": began, "hub": contact.told}
            write_status(home.root, {**status, "processes": states})

        def changed(now: Mapping[str, Mapping[str, object]]) -> None:
            before = states.get("supernode", {}).get("state")
            states.update(now)
            state = now["supernode"]["state"]
            if state == "running" != before:
                contact.connected()
                say("node", f"department {bundle.department} is online")
            write()

        supervisor = Supervisor(_children(home, bundle.superlink), str(home.root), say, changed)
        on_supervisor(supervisor)
        with contact.running(write):
            supervisor.run()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens at now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(home: NodeHome, superlink: str) -> list[Child]:
    flwr_home = home.root / "flwr"
    make_folder(flwr_home)
    environment = flower_environment(flwr_home)
    port = str(free_port())
    secret = ["--superexec-auth-secret-file", str(home.superexec_secret)]
    agent = [sys.executable, "-m", "intramural.deployment.agent_process", "--home", str(home.root)]
    supernode = [
        sys.executable, "-m", SUPERNODE,
        "--root-certificates", str(home.hub.ca),
        "--superlink", superlink,
        "--host", "127.0.0.1", "--port", port,
        "--auth-supernode-private-key", str(home.flower_key),
        "--isolation", "process", *secret,
        "--node-config", f'agent-socket="{home.socket}"',
    ]  # fmt: skip
    superexec = [
        beside("flower-superexec"),
        "--insecure", "--runtime-api-address", f"127.0.0.1:{port}", *secret,
        "--parent-pid", str(os.getpid()),
    ]  # fmt: skip
    return [
        Child("agent", agent, ready=re.compile(re.escape(READY)), folder=home.root),
        Child(
            "supernode", supernode, environment,
            ready=re.compile("SuperNode ID"), after=("agent",), folder=home.root,
            explain=_explain, hidden=CHATTER,
        ),
        Child(
            "superexec", superexec, environment,
            after=("supernode",), folder=home.root, hidden=CHATTER,
        ),
    ]  # fmt: skip


def _explain(lines: Sequence[str]) -> tuple[str, float] | None:
    """Flower gives one exit code for a key that is unknown and for one that still counts as used."""
    if any("Exit Code: 305" in line for line in lines):
        told = (
            "the hub does not let this node in yet: for about 60 s after an abrupt end it still "
            "counts the node as connected. Where this goes on, the hub may have removed it"
        )
        return told, _REFUSED_PAUSE
    return None


class _Contact:
    """Reports to the hub and takes its newest list of trusted accounts, in the background."""

    def __init__(self, home: NodeHome, say: Say) -> None:
        self._home = home
        self._say = say
        self._ending = False
        self._wake = threading.Event()
        self._connections = 0
        self.told: dict[str, Any] = {"at": None, "online": None, "error": None}

    def connected(self) -> None:
        """The SuperNode has connected: what the hub said before does not count any more."""
        self._connections += 1
        self.told = {**self.told, "online": None}
        self._wake.set()

    def running(self, write: Callable[[], None]) -> ExitStack:
        """A context in which it reports; ``write`` is called after each report."""
        stack = ExitStack()
        thread = threading.Thread(target=self._run, args=(write,), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._end)
        return stack

    def _end(self) -> None:
        self._ending = True
        self._wake.set()

    def _run(self, write: Callable[[], None]) -> None:
        while not self._ending:
            self._wake.clear()
            before, connections = self.told["error"], self._connections
            try:
                key = SigningKey.load(self._home.signing_key)
                url = self._home.settings().hub
                bundle = self._home.hub.report(url, self._home.report(), key)
                online = bundle.online if connections == self._connections else None
                self.told = {"at": now_text(), "online": online, "error": None}
            except (JoinRefused, ClientError, PrivacyError) as error:
                self.told = {**self.told, "online": None, "error": str(error)}
            if self.told["error"] not in (None, before):
                self._say("hub", str(self.told["error"]))
            write()
            self._wake.wait(_LATER if self.told["online"] else _SOON)
