"""Everything that a department's node raises on purpose.

::

    ClientError
    ├── AgentError                the node agent cannot do its work
    │   ├── AgentMisconfigured    what it was built from does not fit together
    │   ├── AgentUnavailable      nobody answers on its socket, or it stopped in between
    │   └── FrameInvalid          bytes on the socket or in the state folder are no frame of ours
    ├── RecordError               records cannot be read or written; .faults lists the faulty rows
    └── DataSourceError           the request to read them contradicts itself (a usage error)

No message quotes a record: faulty rows are told by file, line and reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_FAULTS = 20


class ClientError(Exception):
    """Root of the tree; its text is written for the department's administrator."""


class AgentError(ClientError):
    """The node agent cannot do its work."""


class AgentMisconfigured(AgentError):
    """What the agent was built from does not fit together; nothing was spent."""


class AgentUnavailable(AgentError):
    """Nobody answers on the agent's socket, or it went away before its answer was complete."""


class FrameInvalid(AgentError):
    """Bytes on the socket or in the state folder are no frame of ours."""


@dataclass(frozen=True, slots=True)
class RowFault:
    """One row that could not be used. `line` counts from 1 (in Parquet files: rows)."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class RecordError(ClientError):
    """Records that cannot be read or written. `faults` holds every faulty row met."""

    def __init__(self, message: str, faults: Iterable[RowFault] = ()) -> None:
        self.message = message
        self.faults: tuple[RowFault, ...] = tuple(faults)
        super().__init__(message, self.faults)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {line}" for line in list_faults(self.faults))])


class DataSourceError(ClientError):
    """A data source that contradicts itself, such as one column mapped twice."""


def list_faults(faults: tuple[RowFault, ...], shown: int = SHOWN_FAULTS) -> list[str]:
    """The first faults, one a line, and how many more there are."""
    lines = [str(fault) for fault in faults[:shown]]
    if len(faults) > shown:
        lines.append(f"… and {len(faults) - shown:,} more")
    return lines
