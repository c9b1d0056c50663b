"""What happens during a run, for displays and for the operator. Public facts only."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class NodeDeclined:
    """A department is not part of a round: as an event, and as it is recorded.

    ``code`` is one of the node's own (:data:`privacy.exchange.DeclineCode`) or the hub's:
    ``offline`` (not asked), ``no_reply`` (asked, silent to the deadline), ``late`` (silent when the
    round had enough), ``node_error`` (Flower reported an error), ``rejected`` (its answer was not
    what it was asked for).
    """

    department: str
    round: int
    code: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class RunBegan:
    """The first event: the run's id, and how many of its rounds were completed earlier."""

    run_id: str
    round: int
    rounds: int


@dataclass(frozen=True)
class RoundStarted:
    """The round was sent to ``departments``."""

    round: int
    rounds: int
    departments: tuple[str, ...]


@dataclass(frozen=True)
class NodeReplied:
    """A department's contribution was verified; its receipt states (epsilon, delta) so far."""

    round: int
    department: str
    epsilon: float
    delta: float
    receipt_digest: str


@dataclass(frozen=True)
class RoundFinished:
    """The round is aggregated and its checkpoint is durable."""

    round: int
    rounds: int
    contributed: tuple[str, ...]
    adapter_digest: str


Event = RunBegan | RoundStarted | NodeReplied | NodeDeclined | RoundFinished
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An ``OnEvent`` for callers that watch nothing."""
