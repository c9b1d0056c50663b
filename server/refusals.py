"""How many refusals of joining are told one by one: the rest is told in sum.

A stranger can be refused for ever, at the price of a connection each time. Without a bound that
would fill the audit log. What is bounded are refusals alone: a node with a good token gets in whatever
others try, also where all of them come through one proxy. Knows no HTTP.
"""

import ipaddress
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from privacy.audit.entries import AuditEntry
from privacy.closing import Closing
from privacy.errors import AuditError
from server.audit_socket import Sink

_log = logging.getLogger(__name__)
PER_ADDRESS = 30
"""Refusals of one address within a window that are told one by one; a /64 of IPv6 is one address."""
IN_TOTAL = 120
WINDOW = 60.0
"""Seconds."""

Later = Callable[[Callable[[], None]], Callable[[], None]]
"""Calls something after a window, in the background; gives what takes that back."""


class Refusals(Closing):
    """Counts refusals and notes in ``audit`` those that nobody was told of one by one.

    Its memory does not grow with the addresses: only what was told is remembered, at most
    ``in_total`` a window.
    """

    def __init__(
        self,
        audit: Sink,
        *,
        per_address: int = PER_ADDRESS,
        in_total: int = IN_TOTAL,
        clock: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self._audit = audit
        self._per_address, self._in_total = per_address, in_total
        self._clock = clock
        self._later = later or _after_a_window
        self._told: deque[tuple[float, str]] = deque()
        self._untold: Counter[str] = Counter()
        self._take_back: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def wait(self, address: str, code: str) -> float:
        """Count a refusal.

        Returns:
            0.0: tell it, and note it. Else the seconds after which the next one will be told; this
            one is noted in sum, with its ``code``.
        """
        place = _place(address)
        with self._lock:
            now = self._clock()
            while self._told and now - self._told[0][0] >= WINDOW:
                self._told.popleft()
            own = [at for at, whose in self._told if whose == place]
            if len(own) >= self._per_address:
                oldest = own[0]
            elif len(self._told) >= self._in_total:
                oldest = self._told[0][0]
            else:
                self._told.append((now, place))
                return 0.0
            self._untold[code] += 1
            if self._take_back is None:
                self._take_back = self._later(self.note)
            return max(oldest + WINDOW - now, 1e-3)

    def note(self) -> None:
        """Append one entry about all that were not told since the last one, if there are any."""
        with self._lock:
            counts, self._untold, self._take_back = self._untold, Counter(), None
        if not counts:
            return
        facts: dict[str, object] = {
            "step": "refused_in_sum",
            "attempts": counts.total(),
            "codes": dict(sorted(counts.items())),
        }
        try:
            self._audit.append(AuditEntry.now("key", "unknown", facts))
        except AuditError as error:
            _log.error("%d refusals are not on record yet: %s", counts.total(), error)
            with self._lock:
                self._untold += counts
                self._take_back = self._take_back or self._later(self.note)

    def close(self) -> None:
        """Note what is left now."""
        with self._lock:
            take_back, self._take_back = self._take_back, None
        if take_back is not None:
            take_back()
        self.note()


def _place(address: str) -> str:
    """Who holds one address of IPv6 holds a whole /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))


def _after_a_window(call: Callable[[], None]) -> Callable[[], None]:
    timer = threading.Timer(WINDOW, call)
    timer.daemon = True
    timer.start()
    return timer.cancel
