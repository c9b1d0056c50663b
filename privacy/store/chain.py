"""Events that are never changed, each chained to the one before by its hash.

Each event's hash covers the row and the hash before it, so a removed or edited event breaks the
chain; the end of the chain is what a store's seal signs.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, func, select

from privacy.canonical import canonical_json
from privacy.store.seal import Head

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Event = TypeVar("Event", bound=DataclassInstance)
else:
    Event = TypeVar("Event")


class EventChain(Generic[Event]):
    """A table of events: a column for each field of ``event``, besides ``seq`` and ``hash``.

    ``origin`` begins the chain. ``store``, ``entries`` and ``entry`` name the store, its events and
    one of them in what :meth:`faults` says. ``later``: fields that came after the first events were
    written; they count only where they are filled, so that earlier rows keep their hashes.
    """

    def __init__(
        self,
        table: Table,
        event: type[Event],
        *,
        origin: str,
        store: str,
        entries: str,
        entry: str,
        later: Collection[str] = (),
    ) -> None:
        self.empty = Head(0, hashlib.sha256(origin.encode()).hexdigest())
        self._table = table
        self._event = event
        self._names = [field.name for field in fields(event)]
        self._store, self._entries, self._entry = store, entries, entry
        self._later = frozenset(later)

    def append(self, connection: Connection, event: Event) -> None:
        """Add an event at the end, inside the caller's write transaction."""
        head = self.head(connection)
        seq = head.entries + 1
        connection.execute(
            self._table.insert().values(
                seq=seq, hash=self._hash(head.digest, seq, event), **asdict(event)
            )
        )

    def events(
        self, connection: Connection, where: ColumnElement[bool] | None = None
    ) -> Iterator[Event]:
        """The events in order, or those of them that ``where`` takes."""
        query = select(self._table).order_by(self._table.c.seq)
        if where is not None:
            query = query.where(where)
        for row in connection.execute(query).mappings():
            yield self._event(**{name: row[name] for name in self._names})

    def head(self, connection: Connection) -> Head:
        """The end of the chain."""
        columns = self._table.c
        last = connection.execute(
            select(columns.seq, columns.hash).order_by(columns.seq.desc()).limit(1)
        ).first()
        return self.empty if last is None else Head(last.seq, last.hash)

    def faults(self, connection: Connection, earlier: Head | None) -> list[str]:
        """What is wrong with the chain, in words; ``earlier`` is the head that was sealed."""
        if earlier is not None:
            count = connection.execute(select(func.count()).select_from(self._table)).scalar_one()
            if count < earlier.entries:
                return [
                    f"the {self._store} has {count} {self._entries}, {earlier.entries} were sealed"
                ]
        digest = self.empty.digest
        # Not by the columns of today: a store that awaits its migration is checked as it is.
        rows = connection.exec_driver_sql(f"SELECT * FROM {self._table.name} ORDER BY seq")  # noqa: S608
        for seq, row in enumerate(rows.mappings(), start=1):
            event = self._event(**{name: row.get(name, "") for name in self._names})
            digest = self._hash(digest, seq, event)
            if row["seq"] != seq or row["hash"] != digest:
                return [f"{self._entry} {seq} does not continue the chain"]
            if earlier is not None and seq == earlier.entries and digest != earlier.digest:
                return [f"{self._entry} {seq} is not the one that was sealed"]
        return []

    def _hash(self, before: str, seq: int, event: Event) -> str:
        counted: dict[str, Any] = {
            name: value for name, value in asdict(event).items() if value or name not in self._later
        }
        return hashlib.sha256(canonical_json([before, seq, counted])).hexdigest()
