"""The hub's audit log for its other processes: one process owns it, the others hand entries over.

One connection carries one entry and one answer, each a line of JSON. The socket has mode 0600.
"""

import json
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Protocol, Self

from privacy.audit.entries import AuditEntry
from privacy.closing import Closing
from privacy.errors import AuditUnavailable, PrivacyError

_log = logging.getLogger(__name__)
_PATIENCE = 15.0
_LONGEST = 1 << 20


class Sink(Protocol):
    """What takes entries; durable once ``append`` returns."""

    def append(self, entry: AuditEntry) -> object:
        """Raises :class:`~privacy.errors.AuditUnavailable` where that cannot be promised."""
        ...


class AuditServer(Closing):
    """Takes entries at ``path`` for ``log`` from background threads; a context manager."""

    def __init__(self, log: Sink, path: Path) -> None:
        self._audit = log
        self.path = Path(path)
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The folder's mode keeps others out between bind and chmod.
        self._listener.bind(str(self.path))
        self.path.chmod(0o600)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="audit-socket", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no entry any more, and remove the socket file."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            _log.debug("the audit socket was closed already")
        self._thread.join()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_PATIENCE)
                answer = self._take(connection)
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            _log.warning("an audit entry's sender went away: %s", type(error).__name__)

    def _take(self, connection: socket.socket) -> dict[str, object]:
        try:
            entry = AuditEntry.from_bytes(_line(connection))
            self._audit.append(entry)
        except PrivacyError as error:
            return {"error": str(error)}
        return {"done": True}


class RemoteAudit:
    """Appends to the log behind ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def from_environment(cls) -> Self:
        """The log that the hub's processes are told of.

        Raises:
            AuditUnavailable: the variable is not set.
        """
        path = os.environ.get("INTRAMURAL_AUDIT_SOCKET")
        if not path:
            raise AuditUnavailable("INTRAMURAL_AUDIT_SOCKET is not set; start with `hub start`")
        return cls(Path(path))

    def append(self, entry: AuditEntry) -> None:
        """Durable once this returns.

        Raises:
            AuditUnavailable: nobody took the entry.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_PATIENCE)
                connection.connect(str(self.path))
                connection.sendall(entry.to_bytes() + b"\n")
                answer = json.loads(_line(connection))
        except (OSError, ValueError) as error:
            raise AuditUnavailable(
                f"the hub's audit log does not answer at {self.path} ({type(error).__name__}); "
                "is `intramural hub start` running?"
            ) from None
        if answer != {"done": True}:
            raise AuditUnavailable(f"the hub's audit log refused: {answer.get('error')}")


def _line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connection.recv(65536)
        if not part or len(data) + len(part) > _LONGEST:
            raise OSError("the line ended early or is too long")
        data += part
    return bytes(data[:-1])
