"""Ends a service without breaking what it is answering: first nothing new begins, then it stops."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import shutting_down

_OPEN = ("/healthz", "/readyz", "/metrics")
"""Whoever watches the service end may go on watching."""


class Drain:
    """Counts what is under way. Threads may share it."""

    def __init__(self) -> None:
        self._under_way = 0
        self._ended = threading.Condition()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether nothing new may begin."""
        return self._begun

    @property
    def under_way(self) -> int:
        """Requests that are being answered."""
        return self._under_way

    @contextmanager
    def request(self, path: str) -> Iterator[None]:
        """Stands around the answer to one request.

        Raises:
            HttpError: 503 with ``Retry-After``: the service is ending.
        """
        if path in _OPEN:
            yield
            return
        with self._ended:
            if self._begun:
                raise shutting_down()
            self._under_way += 1
        try:
            yield
        finally:
            with self._ended:
                self._under_way -= 1
                self._ended.notify_all()

    def begin(self) -> None:
        """Let nothing new begin. Doing so twice is fine."""
        with self._ended:
            self._begun = True

    def reopen(self) -> None:
        """Let requests begin again: the application is served anew."""
        with self._ended:
            self._begun = False

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is under way, for at most so long; whether that came to be."""
        until = time.monotonic() + seconds
        with self._ended:
            while self._under_way:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._ended.wait(left)
        return True
