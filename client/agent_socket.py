"""A node agent behind a Unix socket that only the node's user can open.

One connection carries one question and one answer, each a frame (:mod:`client.frames`). The folder
of the socket has mode 0700 and the socket 0600; on Linux the caller's user is checked as well.
Neither side accepts code: the header is JSON, the body safetensors.
"""

import contextlib
import logging
import os
import socket
import stat
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

from client.errors import AgentError, AgentMisconfigured, AgentUnavailable, FrameInvalid
from client.frames import Frame, pack, read
from client.port import Agent
from privacy.closing import Closing
from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, Decline, RoundReply, RoundRequest
from privacy.receipts import SignedReceipt

_log = logging.getLogger(__name__)
_MAX_PATH = 107
_CONNECTIONS = 8
_PATIENCE = 30.0
"""Seconds that a peer may stay silent in the middle of a frame."""


class AgentServer(Closing):
    """Serves ``agent`` at ``path`` from a background thread; a context manager.

    Raises :class:`~client.errors.AgentMisconfigured` where the path is too long, its folder can be
    entered by others, or another agent already answers there. A socket file that a crash left
    behind is replaced.
    """

    def __init__(self, agent: Agent, path: Path) -> None:
        self._agent = agent
        self.path = Path(path)
        self._listener = _listen(self.path)
        self._closing = threading.Event()
        self._slots = threading.Semaphore(_CONNECTIONS)
        self._thread = threading.Thread(target=self._accept, name="agent-socket", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Block until :meth:`close` is called, from a signal handler or another thread."""
        self._thread.join()

    def close(self) -> None:
        """Accept nothing more and remove the socket file; a round under way is not interrupted."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._slots.release()  # the accepting thread may be waiting for a free slot
        # Closing alone does not wake a thread that waits in accept; shutting down does.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._slots.acquire()
            if self._closing.is_set():
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:
                self._slots.release()
                if not self._closing.is_set():
                    _log.exception("the agent's socket %s failed", self.path)
                return
            threading.Thread(
                target=self._serve, args=(connection,), name="agent-round", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if not _same_user(connection):
                    _log.warning("a connection of another user to %s was refused", self.path)
                    return
                connection.settimeout(_PATIENCE)
                connection.sendall(pack(self._reply(connection)))
        except (OSError, AgentError) as error:
            # The reply is stored before it is sent, so a caller that went away can ask again.
            _log.warning("a connection to the agent ended early: %s", type(error).__name__)
        finally:
            self._slots.release()

    def _reply(self, connection: socket.socket) -> Frame:
        try:
            frame = read(lambda count: _take(connection, count))
            request = RoundRequest.from_json(_field(frame, "request", "manifest"))
            manifest = _manifest(frame)
        except (FrameInvalid, ExchangeInvalid) as error:
            decline = Decline(code="invalid_request", reason=str(error)[:500])
            return Frame({"decline": decline.to_json()})
        answer = self._agent.handle(request, frame.tensors, manifest)
        if isinstance(answer, Decline):
            return Frame({"decline": answer.to_json()})
        return Frame({"receipt": answer.receipt.to_json()}, answer.update)


class SocketAgent:
    """The agent at the other end of ``path``; an :class:`client.port.Agent`.

    ``timeout``: seconds to wait for a round's answer; None waits as long as training takes.
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        self.path = Path(path)
        self._timeout = timeout

    def handle(
        self, request: RoundRequest, adapter: Mapping[str, Array], manifest: str | None = None
    ) -> RoundReply | Decline:
        """See :meth:`client.port.Agent.handle`."""
        header = {"request": request.to_json()}
        if manifest is not None:
            header["manifest"] = manifest
        question = pack(Frame(header, adapter))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_PATIENCE)
                connection.connect(str(self.path))
                connection.sendall(question)
                connection.settimeout(self._timeout)
                frame = read(lambda count: _take(connection, count))
        except TimeoutError:
            raise AgentUnavailable(
                f"the agent at {self.path} did not answer within {self._timeout or _PATIENCE:g} s"
            ) from None
        except OSError as error:
            raise AgentUnavailable(
                f"no agent answers at {self.path}: {error.strerror or error}"
            ) from None
        return _parse_answer(frame)


def _parse_answer(frame: Frame) -> RoundReply | Decline:
    try:
        if "decline" in frame.header:
            return Decline.from_json(_field(frame, "decline"))
        receipt = SignedReceipt.from_json(_field(frame, "receipt"))
        return RoundReply(dict(frame.tensors), receipt)
    except (ExchangeInvalid, ReceiptInvalid) as error:
        raise FrameInvalid(f"the agent's answer: {error}") from None


def _field(frame: Frame, name: str, optional: str = "") -> str:
    value = frame.header.get(name)
    if set(frame.header) - {optional} != {name} or not isinstance(value, str):
        raise FrameInvalid(f"the frame's header must have the one field {name!r}, a text")
    return value


def _manifest(frame: Frame) -> str | None:
    value = frame.header.get("manifest")
    if value is not None and not isinstance(value, str):
        raise FrameInvalid("the header's field 'manifest' must be a text")
    return value


def _take(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise AgentUnavailable(
                f"the connection ended after {len(data)} of {count} bytes; ask again"
            )
        data += part
    return bytes(data)


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_PATH:
        raise AgentMisconfigured(
            f"the socket path {path} has more than {_MAX_PATH} bytes; choose a shorter one"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    if mode & 0o077:
        raise AgentMisconfigured(
            f"the folder {path.parent} of the agent's socket has mode {mode:04o}; "
            f"run `chmod 700 {path.parent}` or choose a folder of your own"
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Between bind and chmod the folder's mode already keeps everybody else out.
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise AgentMisconfigured(f"cannot listen at {path}: {error.strerror}") from None
    return listener


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise AgentMisconfigured(f"{path} exists and is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
        else:
            raise AgentMisconfigured(f"another agent already answers at {path}; stop it first")


def _same_user(connection: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.getuid())
