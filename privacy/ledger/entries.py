"""The ledger's rows: how they are stored, chained, signed and checked.

Each entry's digest is the SHA-256 of its canonical JSON, which holds the digest of the entry before
(zeros for the first); each is signed. So the file alone, with the public key, shows an entry that
was changed, removed from the middle, inserted or moved. A removed end shows in the seal.

A reservation is settled at most once: by a "commit" (its round was released) or by a "void" (it is
certain that nothing was). Until then, and for ever where neither comes, it counts as spent.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Double, LargeBinary, String, Text, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from privacy.canonical import canonical_json, parse_canonical
from privacy.dp.events import MechanismEvent, event_from_json
from privacy.errors import CanonicalError, EventInvalid, SignatureInvalid
from privacy.signing import VerifyKey
from privacy.store.schema import Schema
from privacy.store.seal import Head

_TYPE = "intramural/ledger-entry"
_VERSION = 1
EMPTY = Head(0, "0" * 64)

VoidReason = Literal["refused_before_reading", "failed_before_reading"]
"""Why nothing can have been released: the trainer refused the plan or the adapter, or it failed,
each before it read anything of the department's units."""

VOID_REASONS: tuple[VoidReason, ...] = get_args(VoidReason)
REVISION = "ledger_0001"


class Base(DeclarativeBase):
    """Tables of the ledger's database."""


class Row(Base):
    """One entry; ``digest`` and ``signature`` follow from the other columns."""

    __tablename__ = "entries"

    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[str] = mapped_column(String(32))
    department: Mapped[str] = mapped_column(String(100), index=True)
    block: Mapped[str] = mapped_column(String(40))
    run_id: Mapped[str] = mapped_column(String(100))
    round: Mapped[int]
    event: Mapped[str | None] = mapped_column(Text)
    epsilon: Mapped[float | None] = mapped_column(Double)
    delta: Mapped[str | None] = mapped_column(String(40))
    budget: Mapped[str | None] = mapped_column(String(40))
    policy_digest: Mapped[str | None] = mapped_column(String(64))
    reservation: Mapped[int | None] = mapped_column(unique=True)
    receipt_digest: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(40))
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    signature: Mapped[bytes] = mapped_column(LargeBinary(64))


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One line of the ledger.

    Attributes:
        index: position, from 0.
        kind: "reserve" (budget is spent from here on), "commit" (the round was released) or "void"
            (nothing was released, the budget is free again).
        at: UTC time, RFC 3339.
        department, block, run_id, round: whose, of which records, and for which round.
        event, epsilon, policy_digest: of a reservation: what was to be done, the cost of all that
            was spent on the block with it, the policy in force.
        delta, budget: of a reservation: the limits at that time, in decimal as the policy has them.
        reservation: of a commit or void: the reservation's index.
        receipt_digest: of a commit: the receipt given out.
        reason: of a void: one of :data:`VOID_REASONS`.
        previous: digest of the entry before.
    """

    index: int
    kind: Literal["reserve", "commit", "void"]
    at: str
    department: str
    block: str
    run_id: str
    round: int
    event: MechanismEvent | None = None
    epsilon: float | None = None
    delta: str | None = None
    budget: str | None = None
    policy_digest: str | None = None
    reservation: int | None = None
    receipt_digest: str | None = None
    reason: str | None = None
    previous: str

    def body(self) -> bytes:
        """The canonical bytes that are digested and signed."""
        return canonical_json(
            {
                "type": _TYPE,
                "version": _VERSION,
                "index": self.index,
                "kind": self.kind,
                "at": self.at,
                "department": self.department,
                "block": self.block,
                "run_id": self.run_id,
                "round": self.round,
                "event": None if self.event is None else self.event.to_json(),
                "epsilon": self.epsilon,
                "delta": self.delta,
                "budget": self.budget,
                "policy_digest": self.policy_digest,
                "reservation": self.reservation,
                "receipt_digest": self.receipt_digest,
                "reason": self.reason,
                "previous": self.previous,
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`body`, hexadecimal."""
        return hashlib.sha256(self.body()).hexdigest()

    def columns(self, signature: bytes) -> dict[str, Any]:
        """The values of the row that stores this entry."""
        values: dict[str, Any] = dict(vars(self))
        values["event"] = (
            None if self.event is None else canonical_json(self.event.to_json()).decode()
        )
        return values | {"digest": self.digest, "signature": signature}


def stored(connection: Connection, start: int = 0) -> Iterator[tuple[LedgerEntry, str, bytes]]:
    """Entries from position ``start`` on, each with its stored digest and signature.

    Raises:
        ValueError: a row that is no entry; its position is named.
    """
    rows = select(Row.__table__).where(Row.index >= start).order_by(Row.index)
    for position, row in enumerate(connection.execute(rows), start):
        values: dict[str, Any] = dict(row._mapping)
        digest, signature = values.pop("digest"), values.pop("signature")
        try:
            if values["event"] is not None:
                values["event"] = event_from_json(parse_canonical(values["event"].encode()))
            entry = LedgerEntry(**values)
            entry.body()
        except (EventInvalid, CanonicalError, AttributeError, TypeError) as error:
            raise ValueError(f"entry {position} is malformed: {error}") from None
        yield entry, digest, signature


def chained(connection: Connection, known: Sequence[LedgerEntry] = ()) -> tuple[LedgerEntry, ...]:
    """All entries, after checking positions and the chain (not the signatures).

    Of ``known``, entries that this function gave out before, only the last one is read again: it
    must stand where it stood.

    Raises:
        ValueError: names the first entry that does not fit.
    """
    entries = list(known[:-1])
    previous = known[-1].previous if known else EMPTY.digest
    entries += (entry for entry, _ in _linked(connection, len(entries), previous))
    if known and entries[len(known) - 1 :][:1] != [known[-1]]:
        raise ValueError(f"entry {len(known) - 1} is not the one that was read before")
    return tuple(entries)


def _linked(
    connection: Connection, start: int = 0, previous: str = EMPTY.digest
) -> Iterator[tuple[LedgerEntry, bytes]]:
    """Entries from ``start`` on, which continue ``previous``, each with its signature."""
    for position, (entry, digest, signature) in enumerate(stored(connection, start), start):
        if entry.index != position:
            raise ValueError(f"entry {position} is missing; entry {entry.index} follows")
        if entry.previous != previous:
            raise ValueError(f"entry {position} does not continue entry {position - 1}")
        if entry.digest != digest:
            raise ValueError(f"entry {position} was changed: its digest does not match")
        previous = digest
        yield entry, signature


def schema(key: VerifyKey) -> Schema:
    """How a ledger signed by ``key`` is made and checked."""
    return Schema(
        kind="ledger",
        migrations=Path(__file__).parent / "migrations",
        revision=REVISION,
        head=_head,
        faults=lambda connection, since: _faults(connection, since, key),
    )


def _head(connection: Connection) -> Head:
    last = connection.execute(
        select(Row.index, Row.digest).order_by(Row.index.desc()).limit(1)
    ).first()
    count = connection.execute(select(func.count()).select_from(Row)).scalar_one()
    return EMPTY if last is None else Head(count, last.digest)


def _faults(connection: Connection, since: Head | None, key: VerifyKey) -> list[str]:
    try:
        signed = list(_linked(connection))
        for entry, signature in signed:
            key.verify(signature, entry.body())
    except ValueError as error:
        return [str(error)]
    except SignatureInvalid as error:
        return [f"entry {entry.index}: {error}"]
    entries = [entry for entry, _ in signed]
    faults = list(_meaning_faults(entries))
    if since is not None and since.entries:
        if len(entries) < since.entries:
            faults.append(f"entries {len(entries)} to {since.entries - 1} were removed")
        elif entries[since.entries - 1].digest != since.digest:
            faults.append(f"entry {since.entries - 1} is not the one that was sealed")
    return faults


def _meaning_faults(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    """Signed, yet impossible: what only a faulty writer could have produced."""
    opened: dict[int, LedgerEntry] = {}
    for entry in entries:
        if entry.kind == "reserve":
            opened[entry.index] = entry
            if None in (entry.event, entry.epsilon, entry.delta, entry.budget):
                yield f"entry {entry.index} reserves without event, cost or limits"
            continue
        of = opened.pop(-1 if entry.reservation is None else entry.reservation, None)
        if of is None:
            yield f"entry {entry.index} settles no open reservation"
        elif _whose(of) != _whose(entry):
            yield f"entry {entry.index} settles the reservation of another round"
        if entry.kind == "commit":
            complete = entry.receipt_digest is not None and entry.reason is None
        else:
            complete = entry.receipt_digest is None and entry.reason in VOID_REASONS
        if entry.kind not in ("commit", "void") or not complete:
            yield f"entry {entry.index} is neither a commit with a receipt nor a void with a reason"


def _whose(entry: LedgerEntry) -> tuple[str, str, str, int]:
    return entry.department, entry.block, entry.run_id, entry.round
