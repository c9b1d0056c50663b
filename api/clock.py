"""The time of day by which keys, tokens and sealed maps expire.

It follows the wall clock, but never falls behind what has passed since the process began: a clock
that is set back, by mistake or on purpose, opens nothing that has expired. One that was ahead for
a while costs no more than that while, unless the process began in it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SteadyClock:
    """Seconds since 1970: the later of the wall clock, and its start with what has passed since.

    Args:
        wall: seconds since 1970, may be set.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._start = wall() - monotonic()

    def __call__(self) -> float:
        return max(self._wall(), self._start + self._monotonic())


_steady = SteadyClock()


def seconds_now() -> float:
    """Seconds since 1970, by the steady clock of this process."""
    return _steady()


def utc_now() -> datetime:
    """The same as a time in UTC."""
    return datetime.fromtimestamp(seconds_now(), UTC)
