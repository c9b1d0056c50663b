"""What was used, by key and principal, summed from the audit log.

The log has one entry for each answered call and two for a stream, the second with what it used, also
where it was aborted. So sums over the log are exact, hold for all replicas that share it, and need
no table of their own. What was read once is kept as sums; each look reads only what is new.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date

from privacy.audit.reader import AuditReader

Read = Callable[[], AbstractContextManager[AuditReader]]
"""Opens a look at the audit log."""


@dataclass(frozen=True)
class Line:
    """Whose calls a sum is of; ``day`` is in UTC."""

    day: date
    principal: str
    key: str
    release: str
    operation: str


@dataclass
class Sum:
    """Calls, those of them that were not answered as asked, and tokens."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class UsageTable:
    """Sums of one audit log. Several threads may use it."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._next = 0
        self._sums: dict[Line, Sum] = {}

    def lines(self, since: date, principal: str | None = None) -> Iterator[tuple[Line, Sum]]:
        """Sums by day from ``since`` on, of one principal or of all.

        Raises:
            PrivacyError: the log cannot be read.
        """
        with self._lock:
            self._advance()
            found = [
                (line, Sum(**vars(made)))
                for line, made in self._sums.items()
                if line.day >= since and principal in (None, line.principal)
            ]
        yield from sorted(found, key=lambda one: tuple(vars(one[0]).values()))

    def _advance(self) -> None:
        with self._read() as reader:
            for stored in reader.entries(kinds=("call",), start=self._next):
                entry = stored.entry
                self._next = stored.index + 1
                if not entry.data["principal"]:
                    continue  # nobody was let in
                line = Line(
                    date.fromisoformat(entry.at[:10]),
                    entry.data["principal"],
                    entry.actor,
                    entry.data["release"],
                    entry.data["operation"],
                )
                made = self._sums.setdefault(line, Sum())
                made.requests += entry.data["phase"] != "ended"
                made.errors += entry.data["outcome"] != "ok"
                made.prompt_tokens += entry.data["prompt_tokens"]
                made.completion_tokens += entry.data["completion_tokens"]
