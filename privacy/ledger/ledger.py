"""A department's privacy budget: asked before it is spent, and never undercounted.

A reservation is durable before the first gradient is computed. From then on it counts as spent,
whether its round is committed, fails, or dies with the process. It is given back (voided) only by
whoever knows that nothing of the records was even read. Asking for the same round again is another
reservation: what a second attempt would release has to be paid for too.

A budget is for one data block, the records that the policy names by it. What was ever charged, over
all blocks, is the lifetime cost.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, insert

from policies.model import Budget
from privacy.closing import Closing
from privacy.crashpoints import reached
from privacy.dp.events import MechanismEvent
from privacy.errors import BudgetExceeded, LedgerError, TamperedStore
from privacy.ledger.entries import (
    EMPTY,
    VOID_REASONS,
    LedgerEntry,
    Row,
    VoidReason,
    chained,
    schema,
)
from privacy.ledger.history import LedgerHistory, composed
from privacy.signing import SigningKey, VerifyKey
from privacy.store.database import open_database
from privacy.store.place import Place
from privacy.store.reading import State, examine, look

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reservation:
    """Budget that is spent, for one round.

    Attributes:
        index: its entry in the ledger.
        department, block, run_id, round, event: what it pays for.
        epsilon: cost of all that was spent on the block including this event, at ``delta``.
        lifetime_epsilon: the same over every block of the department, never below ``epsilon``.
        delta, budget: the limits that it was checked against.
    """

    index: int
    department: str
    block: str
    run_id: str
    round: int
    event: MechanismEvent
    epsilon: float
    lifetime_epsilon: float
    delta: Decimal
    budget: Decimal


@dataclass(frozen=True)
class LedgerReport:
    """What verifying a ledger found.

    Attributes:
        entries: how many entries it holds.
        head: digest of the last one, hexadecimal.
        state: "closed" (every byte as sealed), "crashed", "in_use", "unsealed" or "served".
        faults: what is wrong, in words; empty when the ledger verifies.
    """

    entries: int
    head: str
    state: State
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Ledger(Closing):
    """An append-only account of mechanism events, open for writing.

    Threads and processes may reserve at once: check and charge are one transaction.
    """

    def __init__(self, place: Place, key: SigningKey) -> None:
        """Open, create or recover the ledger at ``place``.

        Raises:
            TamperedStore: it is not what ``key`` chained, signed and sealed.
            StoreBusy: another process is opening or closing it.
        """
        self._key = key
        # What this handle has read and found chained. A row that is changed underneath later cannot
        # lower a cost here, and is found by the next opening or verification.
        self._known: tuple[LedgerEntry, ...] = ()
        self._place = place
        self._database = open_database(place, key, schema(key.verify_key), empty=EMPTY)

    def close(self) -> None:
        """Let go, and seal when no other process writes. Doing so twice is fine."""
        self._database.close()

    def reserve(
        self,
        department: str,
        run_id: str,
        round: int,  # noqa: A002 - the field's own term
        event: MechanismEvent,
        policy_digest: str,
        budget: Budget,
    ) -> Reservation:
        """Charge a round, durably, before any of it is computed.

        Raises:
            BudgetExceeded: what was spent on ``budget.block`` would cost more with ``event``;
                nothing is charged.
            LedgerError: a malformed name, round or digest.
            TamperedStore: the chain is broken.
            StoreBusy: another process kept the ledger locked.
        """
        _check(department, budget.block, run_id, round, policy_digest)
        # Pricing takes a while; done here, it is remembered when the write lock is held below.
        _price(self.read(), department, event, budget)
        with self._database.write() as connection:
            history = self._history(connection)
            cost, lifetime = _price(history, department, event, budget)
            if not budget.allows(cost):
                raise BudgetExceeded(department, cost, budget.epsilon)
            index = self._append(
                connection,
                history,
                kind="reserve",
                department=department,
                block=budget.block,
                run_id=run_id,
                round=round,
                event=event,
                epsilon=cost,
                delta=str(budget.delta),
                budget=str(budget.epsilon),
                policy_digest=policy_digest,
            )
            reached("ledger.before-reserve")  # a crash here: nothing charged, nothing computed
        reached("ledger.reserved")  # a crash here: charged, nothing computed
        return Reservation(
            index=index,
            department=department,
            block=budget.block,
            run_id=run_id,
            round=round,
            event=event,
            epsilon=cost,
            lifetime_epsilon=lifetime,
            delta=budget.delta,
            budget=budget.epsilon,
        )

    def commit(self, reservation: Reservation, receipt_digest: str) -> None:
        """Note that the round was released with this receipt. It costs nothing more.

        Raises:
            LedgerError: the reservation is unknown or settled already, or no digest was given.
        """
        if not _DIGEST.fullmatch(receipt_digest):
            raise LedgerError("receipt_digest must be 64 hexadecimal digits")
        with self._database.write() as connection:
            self._settle(connection, reservation, kind="commit", receipt_digest=receipt_digest)
            reached("ledger.before-commit")  # a crash here: charged, not noted as released
        reached("ledger.committed")

    def void(self, reservation: Reservation, reason: VoidReason) -> None:
        """Give a reservation back. Only for a round of which certainly nothing was released.

        Raises:
            LedgerError: the reservation is unknown or settled already, or the reason is.
        """
        if reason not in VOID_REASONS:
            raise LedgerError(f"reason={reason!r} is unknown; known: {', '.join(VOID_REASONS)}")
        with self._database.write() as connection:
            self._settle(connection, reservation, kind="void", reason=reason)
            reached("ledger.before-void")  # a crash here: still charged, although nothing was read
        reached("ledger.voided")

    def read(self) -> LedgerHistory:
        """All entries as of now.

        Raises:
            TamperedStore: the chain is broken.
        """
        with self._database.read() as connection:
            return self._history(connection)

    def spent(self, department: str, delta: Decimal | float, block: str | None = None) -> float:
        """See :meth:`privacy.ledger.history.LedgerHistory.spent`."""
        return self.read().spent(department, delta, block)

    def history(self, department: str) -> tuple[LedgerEntry, ...]:
        """A department's entries, oldest first."""
        return self.read().history(department)

    @staticmethod
    def verify(place: Place, key: VerifyKey, *, require_seal: bool = True) -> LedgerReport:
        """See :func:`verify_ledger`."""
        return verify_ledger(place, key, require_seal=require_seal)

    def _history(self, connection: Connection) -> LedgerHistory:
        try:
            entries = chained(connection, self._known)
        except ValueError as error:
            raise TamperedStore(f"{self._place.name}: {error}") from None
        self._known = entries
        return LedgerHistory(entries)

    def _settle(self, connection: Connection, reservation: Reservation, **fields: Any) -> None:
        history = self._history(connection)
        whose = {
            "department": reservation.department,
            "block": reservation.block,
            "run_id": reservation.run_id,
            "round": reservation.round,
        }
        known = history.reservation(reservation.index)
        if known is None or any(getattr(known, name) != value for name, value in whose.items()):
            raise LedgerError(f"there is no reservation {reservation.index} of this round")
        if settled := history.settled.get(reservation.index):
            state = "voided" if settled.kind == "void" else "committed"
            raise LedgerError(f"reservation {reservation.index} is {state} already")
        self._append(connection, history, reservation=reservation.index, **whose, **fields)

    def _append(self, connection: Connection, history: LedgerHistory, **fields: Any) -> int:
        previous = history.entries[-1].digest if history.entries else EMPTY.digest
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        entry = LedgerEntry(index=len(history.entries), at=now, previous=previous, **fields)
        connection.execute(insert(Row).values(**entry.columns(self._key.sign(entry.body()))))
        return entry.index


def verify_ledger(place: Place, key: VerifyKey, *, require_seal: bool = True) -> LedgerReport:
    """Check a ledger with nothing but its database and the public key; changes nothing.

    Args:
        place: where the ledger is.
        key: the department's public key.
        require_seal: off for a database file that was copied without its ``.seal``; then a removed
            end or a changed unused byte cannot be seen.

    Raises:
        StoreError: there is no ledger at ``place``.
        StoreBusy: it was being opened or closed all the time.
        StoreUnavailable: its server cannot be reached.
    """
    found = examine(place, schema(key), key, require_seal=require_seal)
    head = found.head or EMPTY
    return LedgerReport(head.entries, head.digest, found.state, found.faults)


def read_ledger(place: Place, key: VerifyKey) -> LedgerHistory:
    """The entries of a ledger that verifies, without opening it for writing.

    Raises:
        TamperedStore: it does not verify.
        StoreError: there is none.
    """
    report = verify_ledger(place, key)
    if not report.ok:
        raise TamperedStore("; ".join(report.faults))
    with look(place, "ledger", key) as reading:
        try:
            return LedgerHistory(chained(reading.connection))
        except ValueError as error:
            raise TamperedStore(f"{place.name}: {error}") from None


def _price(
    history: LedgerHistory, department: str, event: MechanismEvent, budget: Budget
) -> tuple[float, float]:
    """Epsilon with ``event``: of the budget's block, and of the department's whole life."""
    block = composed((*history.events(department, budget.block), event), budget.delta)
    whole = composed((*history.events(department), event), budget.delta)
    return block, max(block, whole)  # two discretised bounds might cross


def _check(department: str, block: str, run_id: str, number: int, policy_digest: str) -> None:
    for name, value in (("department", department), ("block", block), ("run_id", run_id)):
        if not _NAME.fullmatch(value):
            raise LedgerError(f"{name}={value!r} is no name (letters, digits, '.', '_', '-')")
    if isinstance(number, bool) or number < 1:
        raise LedgerError(f"round={number!r} must be at least 1")
    if not _DIGEST.fullmatch(policy_digest):
        raise LedgerError("policy_digest must be 64 hexadecimal digits")
