"""Who uses a store file, a folder or a run now: ``flock``, released by the system at any death."""

import fcntl
import os
import time
from pathlib import Path

from privacy.closing import Closing
from privacy.errors import StoreBusy

_POLL_SECONDS = 0.01


class FileLock(Closing):
    """One holder's lock. Never held: nothing. Shared: with others. Exclusive: alone."""

    def __init__(self, path: Path, *, create: bool = True, mode: int = 0o644) -> None:
        """Open the lock file; with ``create`` off a missing one means that nobody writes here.

        Raises:
            OSError: it cannot be opened.
        """
        self._path = path
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            self._descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
        except FileNotFoundError:
            if create:
                raise
            self._descriptor = -1

    def try_exclusive(self) -> bool:
        """Become the only holder, or return False at once.

        When it fails, a shared lock held before is gone too (Linux converts in two steps); of
        several holders who try at once, the last one therefore succeeds.
        """
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Hold together with others, or return False at once while somebody is exclusive."""
        return self._try(fcntl.LOCK_SH)

    def shared(self, timeout: float) -> None:
        """Hold together with others; coming from exclusive it never waits.

        Raises:
            StoreBusy: somebody stayed exclusive for ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.try_shared():
            if time.monotonic() > deadline:
                raise StoreBusy(f"{self._path.name}: another process holds the store exclusively")
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let go; the lock object can be used again."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go for good. Doing so twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self, operation: int) -> bool:
        if self._descriptor < 0:
            return True
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
