"""A network that can be cut, and a disk that is full, without any privilege."""

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator


class Link:
    """A TCP proxy on loopback that can be cut: nothing passes, and nobody gets through, until healed."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.refused = 0
        self._cut = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection and let no new one through."""
        self._cut.set()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let connections through again."""
        self._cut.clear()

    def close(self) -> None:
        """Cut for good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = None
            if not self._cut.is_set():
                with contextlib.suppress(OSError):
                    far = socket.create_connection(("127.0.0.1", self._target))
            if far is None:
                self.refused += 1
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            if self._cut.is_set():
                self.cut()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Every write of the process to a file fails, as on a full disk; sockets and pipes go on."""
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
