"""``python -m tests.intramural.scrub_process DIE_AT data scrub …``: the command line with the detector of
patterns, which needs no model, killed by the operating system at a chosen moment.

Worker processes import this module too, and so get the same detector.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import intramural.parts
import intramural.scrubbing
from intramural.bulk_journal import JobFiles, Journal
from intramural.cli import main
from privacy.pii.patterns import PatternDetector

intramural.parts.detector_for = lambda pii, **_: PatternDetector(entities=pii_entities(pii))
intramural.scrubbing._COMMIT_SECONDS = 0.0
# Work is continued by the version that began it: here, whatever is edited meanwhile.
intramural.scrubbing.code_digest = lambda: "c" * 64


def pii_entities(pii: Any) -> frozenset[str]:
    from privacy.pii.entities import PERSONAL

    return PERSONAL | pii.entities.keys()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Die before or after the n-th commit, or before or after OUT appears: ``commit-after-2``."""
    what, _, rest = moment.partition("-")
    if what == "never":
        return
    when, _, number = rest.partition("-")
    left = [int(number or 1)]
    name = {"commit": "commit", "publish": "publish", "discard": "discard"}[what]
    real = getattr(JobFiles, name)

    def dying(self: JobFiles, argument: Journal | Path | None = None) -> None:
        left[0] -= 1
        if not left[0] and when == "before":
            if self._stream is not None:
                self._stream.flush()
            _die()
        real(self, *(() if argument is None else (argument,)))
        if not left[0]:
            _die()

    setattr(JobFiles, name, dying)


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
