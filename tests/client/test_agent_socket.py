"""The agent's socket: who may open it, and what happens to bytes that are not ours."""

import os
import socket
import stat
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from federation_kit import first_adapter, make_policy, request_for, run_in_thread

from client.agent_socket import AgentServer, SocketAgent
from client.errors import AgentMisconfigured, AgentUnavailable
from client.frames import Frame, pack, read
from privacy.exchange import Decline, RoundReply, RoundRequest

POLICY = make_policy()


class Declining:
    """An agent that declines everything, once it is let go."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.entered = threading.Semaphore(0)

    def handle(
        self,
        request: RoundRequest,
        adapter: Mapping[str, np.ndarray],
        manifest: str | None = None,
    ) -> RoundReply | Decline:
        self.entered.release()
        if self.gate is not None:
            self.gate.wait(30)
        return Decline(code="unavailable", reason="a test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


def test_only_the_owner_can_open_the_socket(path: Path) -> None:
    """The socket has mode 0600 in a folder of mode 0700, and is gone after closing."""
    with AgentServer(Declining(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_folder_that_others_can_enter_is_refused(path: Path) -> None:
    """A shared folder is named with its mode and the way out."""
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    with pytest.raises(AgentMisconfigured, match=r"mode 0755; run `chmod 700"):
        AgentServer(Declining(), path)


def test_socket_left_by_a_crash_is_replaced(path: Path) -> None:
    """A socket file that nobody answers at does not stop the next start."""
    path.parent.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with AgentServer(Declining(), path):
        assert isinstance(
            SocketAgent(path).handle(request_for(POLICY), first_adapter(POLICY)), Decline
        )


def test_second_agent_at_the_same_path_is_refused(path: Path) -> None:
    """Two agents never share a ledger by accident."""
    with AgentServer(Declining(), path), pytest.raises(AgentMisconfigured, match="another agent"):
        AgentServer(Declining(), path)


def test_file_in_the_way_is_kept(path: Path) -> None:
    """Something that is no socket is never removed."""
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    with pytest.raises(AgentMisconfigured, match="no socket"):
        AgentServer(Declining(), path)
    assert path.read_text() == "mine"


def test_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    """The system's bound on socket paths is told before it strikes."""
    with pytest.raises(AgentMisconfigured, match="more than 107 bytes"):
        AgentServer(Declining(), tmp_path / ("x" * 110))


def test_absent_agent_is_unavailable(path: Path) -> None:
    """Nobody at the socket is an error of its own, with the path."""
    with pytest.raises(AgentUnavailable, match="no agent answers at"):
        SocketAgent(path).handle(request_for(POLICY), first_adapter(POLICY))


def test_agent_that_takes_too_long_is_unavailable(path: Path) -> None:
    """A caller with a timeout is let go; the agent finishes its round all the same."""
    gate = threading.Event()
    with AgentServer(Declining(gate), path):
        with pytest.raises(AgentUnavailable, match=r"within 0.05 s"):
            SocketAgent(path, timeout=0.05).handle(request_for(POLICY), first_adapter(POLICY))
        gate.set()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">4sIQ", b"IMA1", 1 << 30, 0),
        pack(Frame({"request": "{}"})),
        pack(Frame({"request": 7})),
        pack(Frame({"other": "x"})),
    ],
)
def test_bytes_that_are_no_request_are_declined(path: Path, sent: bytes) -> None:
    """Garbage gets a decline, and the next caller is served."""
    with AgentServer(Declining(), path):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(sent)
            data = raw.makefile("rb")
            frame = read(data.read)
        assert Decline.from_json(frame.header["decline"]).code == "invalid_request"
        answer = SocketAgent(path).handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, Decline)
        assert answer.reason == "a test"


def test_caller_that_goes_away_does_not_stop_the_agent(path: Path) -> None:
    """A connection cut in the middle of a frame is forgotten."""
    with AgentServer(Declining(), path):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(pack(Frame({"request": "{}"}))[:9])
        answer = SocketAgent(path).handle(request_for(POLICY), first_adapter(POLICY))
        assert isinstance(answer, Decline)


def test_closing_does_not_wait_for_free_connections(path: Path) -> None:
    """Closing ends at once, also while every connection is busy."""
    gate = threading.Event()
    agent = Declining(gate)
    server = AgentServer(agent, path)
    request, adapter = request_for(POLICY), first_adapter(POLICY)
    callers = [
        run_in_thread(lambda: SocketAgent(path, timeout=30).handle(request, adapter))
        for _ in range(8)
    ]
    for _ in callers:
        assert agent.entered.acquire(timeout=30)
    closing = run_in_thread(server.close)
    closing.join(10)
    assert not closing.is_alive()
    gate.set()
    for caller in callers:
        caller.join(30)


def test_other_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with another user id gets no answer."""
    with AgentServer(Declining(), path):
        monkeypatch.setattr(os, "getuid", lambda: 4242)
        with pytest.raises(AgentUnavailable):
            SocketAgent(path).handle(request_for(POLICY), first_adapter(POLICY))
