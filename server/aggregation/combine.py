"""The rule that a plan names."""

from collections.abc import Mapping
from typing import Protocol

from policies.model import Aggregation
from privacy.exchange import Array
from server.aggregation.mean import RunningMean
from server.aggregation.robust import KeptUpdates


class Combination(Protocol):
    """The updates of one round, handed over one by one in any order."""

    def add(self, department: str, update: Mapping[str, Array]) -> None:
        """Take the update of ``department``, once."""
        ...

    def result(self) -> dict[str, Array]:
        """What they amount to: a function of the updates, not of the order in which they came.

        Raises:
            ValueError: too few of them.
        """
        ...


def combination(rule: Aggregation, faulty_nodes: int) -> Combination:
    """An empty one."""
    return RunningMean() if rule == "mean" else KeptUpdates(rule, faulty_nodes)
