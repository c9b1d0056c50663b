"""The tables behind the key store: a chain of events that are never changed, and uses beside it.

Each event's hash covers the row and the hash before it, so a removed or edited event (a revocation,
say) breaks the chain. When a key was last used is told for information and decides nothing, so it
stands outside the chain. SQLAlchemy speaks only here.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, select
from sqlalchemy.dialects.sqlite import insert

from privacy.canonical import canonical_json
from privacy.store.schema import Schema
from privacy.store.seal import Head

_GENESIS = hashlib.sha256(b"intramural/keys").hexdigest()
EMPTY = Head(0, _GENESIS)
_METADATA = MetaData()

_table = Table(
    "key_events",
    _METADATA,
    Column("seq", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key_id", Text, nullable=False, index=True),
    Column("principal", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("expires", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
)
_uses = Table(
    "key_uses",
    _METADATA,
    Column("key_id", Text, primary_key=True),
    Column("at", Text, nullable=False),
)


@dataclass(frozen=True)
class Event:
    """A key was ``created``, ``revoked``, or ``retired`` (it ends at ``expires``, or before).

    Only ``created`` fills all fields, the others ``key_id``, ``at`` and, when retired, ``expires``.
    Times are ``YYYY-MM-DDTHH:MM:SSZ``; ``expires`` is ``""`` where the key does not expire; ``tag``
    is the keyed digest, 64 hexadecimal digits; ``scope`` is canonical JSON, ``""`` where the key
    has the whole of its role.
    """

    kind: str
    key_id: str
    principal: str = ""
    role: str = ""
    at: str = ""
    expires: str = ""
    tag: str = ""
    name: str = ""
    scope: str = ""


def append(connection: Connection, event: Event) -> None:
    """Add an event at the end of the chain, inside the caller's write transaction."""
    head = read_head(connection)
    seq = head.entries + 1
    connection.execute(
        _table.insert().values(seq=seq, hash=_hash(head.digest, seq, event), **asdict(event))
    )


def events(connection: Connection, key_id: str | None = None) -> Iterator[Event]:
    """All events in order, or those of one key."""
    query = select(_table).order_by(_table.c.seq)
    if key_id is not None:
        query = query.where(_table.c.key_id == key_id)
    for row in connection.execute(query).mappings():
        yield Event(**{name: row[name] for name in Event.__dataclass_fields__})


def note_use(connection: Connection, key_id: str, at: str) -> None:
    """Note that a key was used; the latest time stands."""
    noted = insert(_uses).values(key_id=key_id, at=at)
    connection.execute(
        noted.on_conflict_do_update(
            index_elements=["key_id"], set_={"at": func.max(_uses.c.at, noted.excluded.at)}
        )
    )


def uses(connection: Connection) -> dict[str, str]:
    """When each key was last used, by id."""
    return {row.key_id: row.at for row in connection.execute(select(_uses))}


def read_head(connection: Connection) -> Head:
    """The end of the chain."""
    last = connection.execute(
        select(_table.c.seq, _table.c.hash).order_by(_table.c.seq.desc()).limit(1)
    ).first()
    return EMPTY if last is None else Head(last.seq, last.hash)


def schema() -> Schema:
    """What the key store is, for :class:`privacy.store.database.Database`."""
    return Schema(
        kind="keys",
        migrations=Path(__file__).parent / "migrations",
        revision="0002",
        head=read_head,
        faults=_faults,
    )


def _faults(connection: Connection, earlier: Head | None) -> list[str]:
    """What is wrong with the chain, in words."""
    if earlier is not None:
        count = connection.execute(select(func.count()).select_from(_table)).scalar_one()
        if count < earlier.entries:
            return [f"the key store has {count} events, {earlier.entries} were sealed"]
    digest = _GENESIS
    # Not by the columns of today: a store that awaits its migration is checked as it is.
    rows = connection.exec_driver_sql("SELECT * FROM key_events ORDER BY seq").mappings()
    for seq, row in enumerate(rows, start=1):
        event = Event(**{name: row.get(name, "") for name in Event.__dataclass_fields__})
        digest = _hash(digest, seq, event)
        if row["seq"] != seq or row["hash"] != digest:
            return [f"key event {seq} does not continue the chain"]
        if earlier is not None and seq == earlier.entries and digest != earlier.digest:
            return [f"key event {seq} is not the one that was sealed"]
    return []


def _hash(before: str, seq: int, event: Event) -> str:
    # Fields that came later count only where they are filled: earlier rows keep their hashes.
    fields = {
        name: value
        for name, value in asdict(event).items()
        if value or name not in ("name", "scope")
    }
    return hashlib.sha256(canonical_json([before, seq, fields])).hexdigest()
