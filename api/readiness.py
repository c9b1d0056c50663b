"""Whether an answer could be given now, part by part. Looked at by everybody, so looked up rarely."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping

from privacy.pii.detector import Detector
from privacy.store.place import Place, Postgres

Check = Callable[[], bool]
_PROBE = "Write to nobody@example.org."


class Readiness:
    """Args:
    checks: by the name that ``/readyz`` shows; one that raises has failed.
    keep: seconds that a finding stands, so that asking often costs nothing.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        keep: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = dict(checks)
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, bool] = {}
        self._until = float("-inf")

    def __call__(self) -> dict[str, bool]:
        """What each check found."""
        with self._lock:
            if self._clock() >= self._until:
                self._found = {name: _holds(check) for name, check in self._checks.items()}
                self._until = self._clock() + self._keep
            return dict(self._found)


def detector_works(detector: Detector) -> bool:
    """Whether the detector finds what it must find."""
    return any(span.entity == "EMAIL_ADDRESS" for span in detector.detect(_PROBE))


def disk_has(log: Place, mebibytes: int) -> bool:
    """Whether so much is free where the audit log is written; a server's disk cannot be seen."""
    folder = log.remembered.parent if isinstance(log, Postgres) else log.parent
    return shutil.disk_usage(folder).free >= mebibytes * 2**20


def _holds(check: Check) -> bool:
    try:
        return check()
    except Exception:
        return False
