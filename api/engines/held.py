"""An answer under way that holds something until it ends, fails or is closed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from api.engines.base import Item
from privacy.closing import Closing


class Held(Iterator[Item], Closing):
    """Passes items on, and lets go exactly once.

    A generator that was never started runs no ``finally`` when it is closed; this does.

    Args:
        items: of the answer.
        let_go: called at the end, whatever it was.
    """

    def __init__(self, items: Iterator[Item], let_go: Callable[[], None]) -> None:
        self._items = items
        self._let_go = let_go
        self._lock = threading.Lock()
        self._open = True

    def __next__(self) -> Item:
        if not self._open:
            raise StopIteration
        try:
            return next(self._items)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the answer and let go. Doing so twice is fine."""
        with self._lock:
            was_open, self._open = self._open, False
        if not was_open:
            return
        try:
            close = getattr(self._items, "close", None)
            if close is not None:
                # A thread that waits for the next item ends once what it waits for is let go.
                with suppress(ValueError):  # generator already executing
                    close()
        finally:
            self._let_go()

    def __del__(self) -> None:
        self.close()
