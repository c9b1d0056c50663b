"""Named points between two durable writes, where a test may end the process.

In production every point is a call that does nothing: no setting, file or variable can arm one,
only code in the same process that calls :func:`install`.
"""

from collections.abc import Callable

_handler: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Tell an installed handler that ``point`` was reached; otherwise do nothing."""
    if _handler is not None:
        _handler(point)


def install(handler: Callable[[str], None] | None) -> None:
    """Let ``handler`` see every point from now on (None: nobody)."""
    global _handler
    _handler = handler
