"""A department's privacy budget: asked before it is spent, and never undercounted.

A reservation is durable before the first gradient is computed. From then on it counts as spent,
whether its round is committed, fails, or dies with the process. Asking for the same round again is
another reservation: what a second attempt would release has to be paid for too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert

from policies.model import Budget
from privacy.crashpoints import reached
from privacy.dp.events import MechanismEvent
from privacy.errors import BudgetExceeded, LedgerError, TamperedStore
from privacy.ledger.entries import EMPTY, LedgerEntry, Row, chained, schema
from privacy.signing import SigningKey, VerifyKey
from privacy.store.database import Database
from privacy.store.reading import State, examine, look

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reservation:
    """Budget that is spent, for one round.

    Attributes:
        index: its entry in the ledger.
        department, run_id, round, event: what it pays for.
        epsilon: cost of the department's whole history including this event, at ``delta``.
        delta, budget: the limits that it was checked against.
    """

    index: int
    department: str
    run_id: str
    round: int
    event: MechanismEvent
    epsilon: float
    delta: float
    budget: float


@dataclass(frozen=True)
class LedgerReport:
    """What verifying a ledger found.

    Attributes:
        entries: how many entries it holds.
        head: digest of the last one, hexadecimal.
        state: "closed" (every byte as sealed), "crashed", "in_use" or "unsealed".
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


@dataclass(frozen=True)
class Spend:
    """One department's account.

    Attributes:
        department: whose.
        epsilon: cost of everything reserved or committed, at ``delta``.
        delta: as the budget says, else as last reserved.
        budget: the most that epsilon may become; None when the policy no longer names the department.
        reservations: how many rounds were charged.
        committed: how many of them were released.
    """

    department: str
    epsilon: float
    delta: float
    budget: float | None
    reservations: int
    committed: int

    @property
    def remaining(self) -> float | None:
        """Budget less epsilon, at least 0. Costs do not add up, so this is no promise."""
        return None if self.budget is None else max(self.budget - self.epsilon, 0.0)


@dataclass(frozen=True)
class LedgerHistory:
    """The entries of a ledger at one moment, oldest first."""

    entries: tuple[LedgerEntry, ...]

    @cached_property
    def departments(self) -> tuple[str, ...]:
        """Names of all departments with an entry, sorted."""
        return tuple(sorted({entry.department for entry in self.entries}))

    def history(self, department: str) -> tuple[LedgerEntry, ...]:
        """A department's entries; none for an unknown one."""
        return tuple(entry for entry in self.entries if entry.department == department)

    def events(self, department: str) -> tuple[MechanismEvent, ...]:
        """What a department was ever charged for."""
        return tuple(e.event for e in self.history(department) if e.event is not None)

    def spent(self, department: str, delta: float) -> float:
        """Epsilon of everything that the department reserved or committed."""
        return _epsilon(self.events(department), delta)


class Ledger:
    """An append-only account of mechanism events, open for writing.

    Threads and processes may reserve at once: check and charge are one transaction.
    """

    def __init__(self, path: Path, key: SigningKey) -> None:
        """Open, create or recover the ledger at ``path``.

        Raises:
            TamperedStore: it is not what ``key`` chained, signed and sealed.
            StoreBusy: another process is opening or closing it.
        """
        self._key = key
        self._database = Database(path, key, schema(key.verify_key), empty=EMPTY, exclusive=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
            BudgetExceeded: the whole history with ``event`` would cost more; nothing is charged.
            LedgerError: a malformed name, round or digest.
            TamperedStore: the chain is broken.
            StoreBusy: another process kept the ledger locked.
        """
        _check(department, run_id, round, policy_digest)
        # Pricing takes a while; done here, it is remembered when the write lock is held below.
        _epsilon((*self.read().events(department), event), budget.delta)
        with self._database.write() as connection:
            history = self._history(connection)
            cost = _epsilon((*history.events(department), event), budget.delta)
            if not cost <= budget.epsilon:
                raise BudgetExceeded(department, cost, budget.epsilon)
            index = self._append(
                connection,
                history,
                kind="reserve",
                department=department,
                run_id=run_id,
                round=round,
                event=event,
                epsilon=cost,
                delta=float(budget.delta),
                budget=float(budget.epsilon),
                policy_digest=policy_digest,
            )
            reached("ledger.before-reserve")  # a crash here: nothing charged, nothing computed
        reached("ledger.reserved")  # a crash here: charged, nothing computed
        return Reservation(
            index, department, run_id, round, event, cost, budget.delta, budget.epsilon
        )

    def commit(self, reservation: Reservation, receipt_digest: str) -> None:
        """Note that the round was released with this receipt. It costs nothing more.

        Raises:
            LedgerError: the reservation is unknown or committed already, or no digest was given.
        """
        if not _DIGEST.fullmatch(receipt_digest):
            raise LedgerError("receipt_digest must be 64 hexadecimal digits")
        with self._database.write() as connection:
            history = self._history(connection)
            known = dict(enumerate(history.entries)).get(reservation.index)
            if known is None or (known.kind, known.department, known.run_id, known.round) != (
                "reserve",
                reservation.department,
                reservation.run_id,
                reservation.round,
            ):
                raise LedgerError(f"there is no reservation {reservation.index} of this round")
            if any(entry.reservation == reservation.index for entry in history.entries):
                raise LedgerError(f"reservation {reservation.index} is committed already")
            self._append(
                connection,
                history,
                kind="commit",
                department=reservation.department,
                run_id=reservation.run_id,
                round=reservation.round,
                reservation=reservation.index,
                receipt_digest=receipt_digest,
            )
            reached("ledger.before-commit")  # a crash here: charged, not noted as released
        reached("ledger.committed")

    def read(self) -> LedgerHistory:
        """All entries as of now.

        Raises:
            TamperedStore: the chain is broken.
        """
        with self._database.read() as connection:
            return self._history(connection)

    def spent(self, department: str, delta: float) -> float:
        """Epsilon of everything that the department reserved or committed."""
        return self.read().spent(department, delta)

    def history(self, department: str) -> tuple[LedgerEntry, ...]:
        """A department's entries, oldest first."""
        return self.read().history(department)

    @staticmethod
    def verify(path: Path, key: VerifyKey, *, require_seal: bool = True) -> LedgerReport:
        """See :func:`verify_ledger`."""
        return verify_ledger(path, key, require_seal=require_seal)

    def _history(self, connection: Connection) -> LedgerHistory:
        try:
            return LedgerHistory(tuple(chained(connection)))
        except ValueError as error:
            raise TamperedStore(f"{self._database.path.name}: {error}") from None

    def _append(self, connection: Connection, history: LedgerHistory, **fields: Any) -> int:
        previous = history.entries[-1].digest if history.entries else EMPTY.digest
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        entry = LedgerEntry(index=len(history.entries), at=now, previous=previous, **fields)
        connection.execute(insert(Row).values(**entry.columns(self._key.sign(entry.body()))))
        return entry.index


def verify_ledger(path: Path, key: VerifyKey, *, require_seal: bool = True) -> LedgerReport:
    """Check a ledger with nothing but its files and the public key; changes nothing.

    Args:
        path: the ledger's database file.
        key: the department's public key.
        require_seal: off for a database file that was copied without its ``.seal``; then a removed
            end or a changed unused byte cannot be seen.

    Raises:
        StoreError: there is no ledger at ``path``.
        StoreBusy: it was being opened or closed all the time.
    """
    found = examine(path, schema(key), key, require_seal=require_seal)
    head = found.head or EMPTY
    return LedgerReport(head.entries, head.digest, found.state, found.faults)


def read_ledger(path: Path, key: VerifyKey) -> LedgerHistory:
    """The entries of a ledger that verifies, without opening it for writing.

    Raises:
        TamperedStore: it does not verify.
        StoreError: there is none.
    """
    report = verify_ledger(path, key)
    if not report.ok:
        raise TamperedStore("; ".join(report.faults))
    with look(path, "ledger", key) as reading:
        try:
            return LedgerHistory(tuple(chained(reading.connection)))
        except ValueError as error:
            raise TamperedStore(f"{Path(path).name}: {error}") from None


def spent_report(
    ledger: Ledger | LedgerHistory, departments: Mapping[str, Budget]
) -> tuple[Spend, ...]:
    """What each department has spent of its budget, by name.

    Args:
        ledger: an open ledger or entries that were read.
        departments: budgets by department. Departments that only the ledger knows are reported
            too, without a budget.
    """
    history = ledger.read() if isinstance(ledger, Ledger) else ledger
    report = []
    for name in sorted({*departments, *history.departments}):
        budget = departments.get(name)
        entries = history.history(name)
        charged = [entry for entry in entries if entry.kind == "reserve"]
        delta = budget.delta if budget is not None else charged[-1].delta
        if delta is None:
            raise LedgerError(f"the last reservation of {name!r} names no delta")
        report.append(
            Spend(
                department=name,
                epsilon=history.spent(name, delta),
                delta=delta,
                budget=None if budget is None else budget.epsilon,
                reservations=len(charged),
                committed=len(entries) - len(charged),
            )
        )
    return tuple(report)


def _epsilon(events: Sequence[MechanismEvent], delta: float) -> float:
    # Imported at the first use: reading and verifying a ledger must not need the accountant.
    from privacy.dp.accounting import epsilon

    return epsilon(events, delta)


def _check(department: str, run_id: str, number: int, policy_digest: str) -> None:
    for name, value in (("department", department), ("run_id", run_id)):
        if not _NAME.fullmatch(value):
            raise LedgerError(f"{name}={value!r} is no name (letters, digits, '.', '_', '-')")
    if isinstance(number, bool) or number < 1:
        raise LedgerError(f"round={number!r} must be at least 1")
    if not _DIGEST.fullmatch(policy_digest):
        raise LedgerError("policy_digest must be 64 hexadecimal digits")
