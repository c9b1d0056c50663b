"""Limits of one process: requests per minute for each key, and generations at once."""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from api.errors import too_many_requests, unavailable

_MINUTE = 60.0


class RateLimiter:
    """Requests per minute for each key, by the generic cell rate algorithm (GCRA, ITU-T I.371).

    A key may spend its whole minute at once and then gets a request back every
    ``60 / per_minute`` seconds. State is one float per key, forgotten once it has no effect.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self._swept = clock()

    def wait(self, key: str, per_minute: int) -> float:
        """Take a request: 0.0 when it is within the limit, else the seconds until one would be."""
        now = self._clock()
        self._sweep(now)
        interval = _MINUTE / per_minute
        arrival = max(self._arrivals.get(key, now), now)
        early = arrival - now - (_MINUTE - interval)
        # Sums of intervals are inexact: a request that is early by rounding is on time.
        if early > 1e-9 * _MINUTE:
            return early
        self._arrivals[key] = arrival + interval
        return 0.0

    def require(self, key: str, per_minute: int) -> None:
        """Take a request.

        Raises:
            HttpError: 429 with ``Retry-After``.
        """
        seconds = self.wait(key, per_minute)
        if seconds:
            raise too_many_requests(
                f"this key may make {per_minute} requests per minute",
                retry_after=math.ceil(seconds),
            )

    def _sweep(self, now: float) -> None:
        if now - self._swept > _MINUTE:
            self._arrivals = {key: at for key, at in self._arrivals.items() if at > now}
            self._swept = now


class Slots:
    """Room for generations: some run, some wait, the rest are told to come back."""

    def __init__(self, running: int, waiting: int, patience: float) -> None:
        self._free = anyio.Semaphore(running)
        self._waiting = 0
        self._most_waiting = waiting
        self._patience = patience

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one slot inside the block.

        Raises:
            HttpError: 503 with ``Retry-After`` when too many wait already, or the wait was too long.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _acquire(self) -> None:
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            pass
        else:
            return
        if self._waiting >= self._most_waiting:
            raise self._overloaded(f"{self._most_waiting} requests are waiting already")
        self._waiting += 1
        try:
            with anyio.fail_after(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise self._overloaded(f"no generation ended within {self._patience:g} s") from None
        finally:
            self._waiting -= 1

    def _overloaded(self, why: str) -> Exception:
        seconds = max(1, math.ceil(self._patience / 4))
        return unavailable(f"the service is busy: {why}", code="overloaded", retry_after=seconds)
