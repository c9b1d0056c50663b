"""Limits: requests and tokens per minute, requests at once, generations at once.

Rates follow the generic cell rate algorithm (GCRA, ITU-T I.371) in its virtual scheduling form: one
number for each bucket, the theoretical arrival time. A minute's worth may be spent at once and then
comes back evenly, so ``Retry-After`` is exact. The same algorithm runs in the process or, where
replicas share their limits, in Redis.
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio

from api.errors import HttpError, too_many_requests, unavailable

MINUTE = 60.0
# Sums of intervals are inexact: what is early by rounding is on time.
TOLERANCE = 1e-9 * MINUTE


@dataclass(frozen=True)
class Charge:
    """What to take from one bucket: ``cost`` of at most ``per_minute``.

    A cost of 0 asks whether anything is left. With ``owed`` the cost is taken in any case and may
    lie far above what is left: what was used is known only afterwards.
    """

    bucket: str
    per_minute: int
    cost: int = 1
    owed: bool = False


@dataclass(frozen=True)
class Standing:
    """How a bucket stands: seconds to ``wait`` for what was asked (0.0: it was taken), what is
    ``left`` now, and seconds until it is ``full`` again.
    """

    wait: float
    left: int
    full: float


class Rates(Protocol):
    """Where buckets are kept."""

    async def take(self, charges: Sequence[Charge]) -> list[Standing]:
        """Take all of the charges, or none where one has to wait.

        Raises:
            HttpError: 503, the buckets cannot be reached; nobody can say that a limit holds.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def scheduled(charge: Charge, arrival: float, now: float) -> tuple[float, float]:
    """One step of GCRA: seconds to wait, and the new theoretical arrival time.

    All times in seconds. At least one unit must be left, also where the cost is 0.
    """
    interval = MINUTE / charge.per_minute
    arrival = max(arrival, now)
    if charge.owed:
        return 0.0, arrival + charge.cost * interval
    early = arrival - now - (MINUTE - max(1, charge.cost) * interval)
    if early > TOLERANCE:
        return early, arrival
    return 0.0, arrival + charge.cost * interval


def standing(charge: Charge, wait: float, arrival: float, now: float) -> Standing:
    """What the caller is told about a bucket whose next arrival is ``arrival``."""
    debt = max(0.0, arrival - now)
    left = math.floor((MINUTE - debt) * charge.per_minute / MINUTE + 1e-6)
    return Standing(wait, max(0, left), debt)


class LocalRates:
    """Buckets in this process. A bucket is forgotten once it is full again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self._swept = clock()

    async def take(self, charges: Sequence[Charge]) -> list[Standing]:
        """See the port. Never fails."""
        return self.take_now(charges)

    def take_now(self, charges: Sequence[Charge]) -> list[Standing]:
        """The same without waiting for anybody."""
        now = self._clock()
        self._sweep(now)
        steps = [scheduled(each, self._arrivals.get(each.bucket, now), now) for each in charges]
        if not any(wait for wait, _ in steps):
            for charge, (_, arrival) in zip(charges, steps, strict=True):
                if charge.cost:
                    self._arrivals[charge.bucket] = arrival
        return [
            standing(each, wait, self._arrivals.get(each.bucket, now), now)
            for each, (wait, _) in zip(charges, steps, strict=True)
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def _sweep(self, now: float) -> None:
        if now - self._swept > MINUTE:
            self._arrivals = {key: at for key, at in self._arrivals.items() if at > now}
            self._swept = now


class Together:
    """How many requests of each bucket are under way in this process."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    @contextmanager
    def one(self, limits: Sequence[tuple[str, int]]) -> Iterator[None]:
        """Hold a place in each bucket inside the block.

        Raises:
            HttpError: 429 with ``Retry-After``.
        """
        for bucket, most in limits:
            if self._running[bucket] >= most:
                raise too_many_requests(
                    f"{most} requests of this {bucket.partition(':')[0]} are under way, and no "
                    "more may be at once; wait for one to end",
                    retry_after=1,
                    code="concurrency_limit_exceeded",
                )
        for bucket, _ in limits:
            self._running[bucket] += 1
        try:
            yield
        finally:
            for bucket, _ in limits:
                self._running[bucket] -= 1
                if not self._running[bucket]:
                    del self._running[bucket]


class Slots:
    """Room for generations: some run, some wait, the rest are told to come back."""

    def __init__(self, running: int, waiting: int, patience: float) -> None:
        self._free = anyio.Semaphore(running)
        self._places = running
        self._waiting = 0
        self._most_waiting = waiting
        self._patience = patience

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._waiting

    @property
    def taken(self) -> int:
        """Slots that are held."""
        return self._places - self._free.value

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

    def _overloaded(self, why: str) -> HttpError:
        seconds = max(1, math.ceil(self._patience / 4))
        return unavailable(f"the service is busy: {why}", code="overloaded", retry_after=seconds)
