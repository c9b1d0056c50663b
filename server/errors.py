"""Everything that the hub raises on purpose.

::

    HubError
    ├── PlanInvalid            a run that the policy does not allow or that cannot be calibrated
    ├── EnrolmentInvalid       the list of enrolled departments contradicts itself or the policy
    ├── CheckpointUnusable     a checkpoint is damaged, in use, or belongs to another plan
    ├── UpdateRejected         one department's contribution is not what it was asked for
    ├── RoundFailed            too few departments contributed
    └── EvaluationInvalid      the public evaluation set cannot be used
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.events import NodeDeclined


class HubError(Exception):
    """Root of the tree; its text is written for the hub's operator."""


class PlanInvalid(HubError):
    """A run that the policy does not allow or that cannot be calibrated."""


class EnrolmentInvalid(HubError):
    """The list of enrolled departments contradicts itself or the policy."""


class CheckpointUnusable(HubError):
    """A checkpoint is damaged, in use by another process, or belongs to another plan."""


class UpdateRejected(HubError):
    """One department's contribution is not what it was asked for; the round goes on without it.

    Attributes:
        department: whose.
        fault: what is wrong, without the department's name.
    """

    def __init__(self, department: str, fault: str) -> None:
        super().__init__(f"the update of department {department!r} is rejected: {fault}")
        self.department = department
        self.fault = fault


class RoundFailed(HubError):
    """Too few departments contributed; the last checkpoint stands and the run can be resumed.

    Attributes:
        round: which.
        contributed: names of those who did.
        declines: who did not, each with a code and a reason.
    """

    def __init__(
        self,
        round_number: int,
        minimum: int,
        contributed: Sequence[str],
        declines: "Sequence[NodeDeclined]",
    ) -> None:
        listed = "".join(f"\n  {d.department}: {d.code}: {d.reason}" for d in declines)
        super().__init__(
            f"round {round_number} has {len(contributed)} contributions, "
            f"training.minimum_nodes asks for {minimum}{listed}"
        )
        self.round = round_number
        self.contributed = tuple(contributed)
        self.declines = tuple(declines)


class EvaluationInvalid(HubError):
    """The public evaluation set cannot be used."""
