"""The tables behind the key store: a chain of events that are never changed, and uses beside it.

A removed or edited event (a revocation, say) breaks the chain. When a key was last used is told for
information and decides nothing, so it stands outside the chain. SQLAlchemy speaks only here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, case, select
from sqlalchemy.dialects import postgresql, sqlite

from privacy.store.chain import EventChain
from privacy.store.schema import Schema

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


CHAIN = EventChain(
    _table,
    Event,
    origin="intramural/keys",
    store="key store",
    entries="events",
    entry="key event",
    later=("name", "scope"),
)
SCHEMA = Schema(
    kind="keys",
    migrations=Path(__file__).parent / "migrations",
    revision="0003",
    head=CHAIN.head,
    faults=CHAIN.faults,
)
"""What the key store is, for :func:`privacy.store.database.open_database`."""


def events_of(connection: Connection, key_id: str) -> Iterator[Event]:
    """The events of one key, in order."""
    return CHAIN.events(connection, _table.c.key_id == key_id)


def note_use(connection: Connection, key_id: str, at: str) -> None:
    """Note that a key was used; the latest time stands."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    noted = insert(_uses).values(key_id=key_id, at=at)
    latest = case((noted.excluded.at > _uses.c.at, noted.excluded.at), else_=_uses.c.at)
    connection.execute(noted.on_conflict_do_update(index_elements=["key_id"], set_={"at": latest}))


def uses(connection: Connection) -> dict[str, str]:
    """When each key was last used, by id."""
    return {row.key_id: row.at for row in connection.execute(select(_uses))}
