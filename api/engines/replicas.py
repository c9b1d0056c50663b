"""Which of several equal servers gets the next request. Knows no protocol.

Least load first; a server that failed several times in a row rests, then one request tries it
(circuit breaker: Nygard, Release It!, chapter "Stability Patterns").
"""

import threading
import time
from collections.abc import Callable, Iterable

from api.engines.base import EngineBusy


class Replica:
    """One server. Its fields change under the lock of its :class:`Replicas` only.

    Attributes:
        url: base URL.
        load: requests under way.
        models: names that its last health check told, ``None`` before the first.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.load = 0
        self.models: frozenset[str] | None = None
        self.failures = 0
        self.rests_until = 0.0
        self.trying = False
        self.served = 0


class Replicas:
    """Args:
    urls: of the servers.
    failures: so many in a row take a server out.
    rest: seconds that it rests.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        failures: int,
        rest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.all = tuple(Replica(url) for url in urls)
        self._failures = failures
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()

    def take(self, wanted: str, tried: Iterable[Replica] = ()) -> Replica:
        """The least loaded server that may have the model ``wanted``; give it back in any case.

        Raises:
            EngineBusy: none is left besides those ``tried``; tells when the next rests no more.
        """
        with self._lock:
            now = self._clock()
            able = [
                replica
                for replica in self.all
                if replica not in tried and (replica.models is None or wanted in replica.models)
            ]
            ready = [replica for replica in able if self._ready(replica, now)]
            if not ready:
                rests = [replica.rests_until - now for replica in able if replica.rests_until > now]
                raise EngineBusy(
                    f"none of {len(self.all)} model servers can answer now",
                    retry_after=int(min(rests, default=0.0)) + 1,
                )
            chosen = min(ready, key=lambda replica: (replica.load, replica.served))
            chosen.trying = chosen.failures >= self._failures
            chosen.load += 1
            chosen.served += 1
            return chosen

    def give_back(self, replica: Replica) -> None:
        """A request that :meth:`take` gave a server ended."""
        with self._lock:
            replica.load -= 1
            replica.trying = False

    def failed(self, replica: Replica) -> None:
        """It could not be reached, or broke off."""
        with self._lock:
            replica.failures += 1
            replica.trying = False
            if replica.failures >= self._failures:
                replica.rests_until = self._clock() + self._rest

    def rest(self, replica: Replica, seconds: float) -> None:
        """It asked to be left alone so long; no failure."""
        with self._lock:
            replica.trying = False
            replica.rests_until = max(replica.rests_until, self._clock() + seconds)

    def worked(self, replica: Replica) -> None:
        """It answered: the series of failures is over."""
        with self._lock:
            replica.failures = 0
            replica.trying = False

    def checked(self, replica: Replica, models: frozenset[str] | None) -> None:
        """A health check found these models; ``None``: it failed."""
        if models is None:
            self.failed(replica)
            return
        with self._lock:
            replica.models = models
            replica.failures = 0
            replica.trying = False
            replica.rests_until = 0.0

    def available(self, wanted: str) -> bool:
        """Whether a request for this model would be sent somewhere now."""
        with self._lock:
            now = self._clock()
            return any(
                (replica.models is None or wanted in replica.models)
                and (replica.failures < self._failures or replica.rests_until <= now)
                for replica in self.all
            )

    def _ready(self, replica: Replica, now: float) -> bool:
        if replica.rests_until > now:
            return False
        return replica.failures < self._failures or not replica.trying
