"""What a ledger's entries add up to: the cost of a data block, and of a department's whole life.

The module knows entries and budgets; it opens no file and writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from policies.model import Budget, rounded_down
from privacy.dp.events import MechanismEvent
from privacy.errors import LedgerError
from privacy.ledger.entries import LedgerEntry


@dataclass(frozen=True)
class LedgerHistory:
    """The entries of a ledger at one moment, oldest first."""

    entries: tuple[LedgerEntry, ...]

    @cached_property
    def departments(self) -> tuple[str, ...]:
        """Names of all departments with an entry, sorted."""
        return tuple(sorted({entry.department for entry in self.entries}))

    @cached_property
    def settled(self) -> Mapping[int, LedgerEntry]:
        """The commit or void of each reservation that has one, by the reservation's index."""
        return {entry.reservation: entry for entry in self.entries if entry.reservation is not None}

    def history(self, department: str) -> tuple[LedgerEntry, ...]:
        """A department's entries; none for an unknown one."""
        return tuple(entry for entry in self.entries if entry.department == department)

    def reservation(self, index: int) -> LedgerEntry | None:
        """The reservation at a position; None where there is none."""
        found = self.entries[index] if 0 <= index < len(self.entries) else None
        return found if found is not None and found.kind == "reserve" else None

    def charged(self, department: str, block: str | None = None) -> tuple[LedgerEntry, ...]:
        """The reservations that count as spent: all that were not voided.

        Args:
            department: whose.
            block: on which records; None for every block.
        """
        return tuple(
            entry
            for entry in self.entries
            if entry.kind == "reserve"
            and entry.department == department
            and block in (None, entry.block)
            and not (entry.index in self.settled and self.settled[entry.index].kind == "void")
        )

    def blocks(self, department: str) -> tuple[str, ...]:
        """The data blocks that a department has an entry for, in the order of their first one."""
        return tuple(dict.fromkeys(entry.block for entry in self.history(department)))

    def events(self, department: str, block: str | None = None) -> tuple[MechanismEvent, ...]:
        """What a department was charged for; arguments as for :meth:`charged`."""
        return tuple(e.event for e in self.charged(department, block) if e.event is not None)

    def spent(self, department: str, delta: Decimal | float, block: str | None = None) -> float:
        """Epsilon of everything that was charged, at ``delta``, composed."""
        return composed(self.events(department, block), delta)


@dataclass(frozen=True)
class BlockSpend:
    """What was spent on one data block.

    Attributes:
        block: its name.
        epsilon: cost of everything charged on it.
        reservations, committed, voided: rounds that count as spent, of these released, and rounds
            whose charge was taken back because nothing was released.
    """

    block: str
    epsilon: float
    reservations: int
    committed: int
    voided: int


@dataclass(frozen=True)
class Spend:
    """One department's account.

    Attributes:
        department: whose.
        epsilon: cost of everything charged on the current ``block``, at ``delta``: what the budget
            bounds.
        delta: as the budget says, else as last reserved.
        budget: the most that epsilon may become; None when the policy no longer names the department.
        reservations: how many rounds count as spent, over all blocks.
        committed: how many of them were released.
        block: the data block that the policy names, else the one last reserved on.
        lifetime_epsilon: cost of everything ever charged, whatever the block. It also covers whoever
            has records in several blocks, or a record that was edited and so became another one.
        blocks: the account of each block, the current one included.
    """

    department: str
    epsilon: float
    delta: float
    budget: Decimal | None
    reservations: int
    committed: int
    block: str
    lifetime_epsilon: float
    blocks: tuple[BlockSpend, ...]

    @property
    def remaining(self) -> float | None:
        """Budget less epsilon, at least 0. Costs do not add up, so this is no promise."""
        if self.budget is None:
            return None
        return rounded_down(max(self.budget - Decimal(self.epsilon), Decimal(0)))


def spent_report(history: LedgerHistory, departments: Mapping[str, Budget]) -> tuple[Spend, ...]:
    """What each department has spent of its budget, by name.

    Args:
        history: the ledger's entries.
        departments: budgets by department. Departments that only the ledger knows are reported
            too, without a budget.

    Raises:
        LedgerError: no delta is known for a department.
    """
    return tuple(
        _spend(history, name, departments.get(name))
        for name in sorted({*departments, *history.departments})
    )


def composed(events: Sequence[MechanismEvent], delta: Decimal | float) -> float:
    """Epsilon of ``events`` at the largest binary number that is not above ``delta``."""
    # Imported at the first use: reading and verifying a ledger must not need the accountant.
    from privacy.dp.accounting import epsilon

    return epsilon(events, rounded_down(Decimal(delta)))


def _spend(history: LedgerHistory, name: str, budget: Budget | None) -> Spend:
    last = [entry for entry in history.history(name) if entry.kind == "reserve"][-1:]
    if budget is not None:
        delta, block = budget.delta, budget.block
    elif last and last[0].delta is not None:
        delta, block = Decimal(last[0].delta), last[0].block
    else:
        raise LedgerError(f"the last reservation of {name!r} names no delta")
    names = dict.fromkeys((*history.blocks(name), block))
    blocks = tuple(_block(history, name, one, delta) for one in names)
    return Spend(
        department=name,
        epsilon=next(one.epsilon for one in blocks if one.block == block),
        delta=float(delta),
        budget=None if budget is None else budget.epsilon,
        reservations=sum(one.reservations for one in blocks),
        committed=sum(one.committed for one in blocks),
        block=block,
        # Never below that of a part: two discretised bounds might cross.
        lifetime_epsilon=max(history.spent(name, delta), *(one.epsilon for one in blocks)),
        blocks=blocks,
    )


def _block(history: LedgerHistory, name: str, block: str, delta: Decimal) -> BlockSpend:
    entries = [entry for entry in history.history(name) if entry.block == block]
    return BlockSpend(
        block=block,
        epsilon=history.spent(name, delta, block),
        reservations=len(history.charged(name, block)),
        committed=sum(entry.kind == "commit" for entry in entries),
        voided=sum(entry.kind == "void" for entry in entries),
    )
