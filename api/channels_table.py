"""The store of promotions: a sealed chain of events that several processes read and write.

Durable and atomic: an event is there as a whole once :meth:`ChannelStore.promote` returns, and a
crash before leaves the state before. SQLAlchemy speaks only here.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, select

from api.channels import Channel, ChannelEvent, applied, replayed
from privacy.canonical import canonical_json
from privacy.signing import SigningKey
from privacy.store.database import Database
from privacy.store.schema import Schema
from privacy.store.seal import Head

_GENESIS = hashlib.sha256(b"intramural/channels").hexdigest()
_EMPTY = Head(0, _GENESIS)
_table = Table(
    "channel_events",
    MetaData(),
    Column("seq", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("at", Text, nullable=False),
    Column("hash", Text, nullable=False),
)


class ChannelStore:
    """Args:
    path: the database file; created where it is missing.
    signing_key: signs the database's seal.
    clock: the current time, in UTC.

    Raises:
        TamperedStore, StoreBusy: see :class:`privacy.store.database.Database`.
    """

    def __init__(
        self,
        path: Path,
        signing_key: SigningKey,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._database = Database(path, signing_key, _schema(), empty=_EMPTY, exclusive=False)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def version(self) -> int:
        """Grows with every change; cheap."""
        with self._database.read() as connection:
            return _head(connection).entries

    def channels(self) -> dict[str, Channel]:
        """What every name stands for now."""
        with self._database.read() as connection:
            return replayed(_events(connection))

    def promote(
        self,
        name: str,
        release: str,
        channel: Literal["stable", "canary"] = "stable",
        percent: int = 0,
    ) -> Channel:
        """Let a release answer under a name; durable once this returns.

        Raises:
            PromotionRefused: see :func:`api.channels.applied`.
        """
        return self._append(ChannelEvent(channel, name, release, percent, self._now()))

    def rollback(self, name: str) -> Channel:
        """End the canary of a name, or where there is none go back to the stable release before.

        Raises:
            PromotionRefused: there is nothing to go back to.
        """
        return self._append(ChannelEvent("rollback", name, at=self._now()))

    def _append(self, event: ChannelEvent) -> Channel:
        with self._database.write() as connection:
            after = applied(replayed(_events(connection)), event)[event.name]
            head = _head(connection)
            seq = head.entries + 1
            connection.execute(
                _table.insert().values(
                    seq=seq, hash=_hash(head.digest, seq, event), **asdict(event)
                )
            )
        return after

    def _now(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _events(connection: Connection) -> Iterator[ChannelEvent]:
    for row in connection.execute(select(_table).order_by(_table.c.seq)).mappings():
        yield ChannelEvent(**{name: row[name] for name in ChannelEvent.__dataclass_fields__})


def _head(connection: Connection) -> Head:
    last = connection.execute(
        select(_table.c.seq, _table.c.hash).order_by(_table.c.seq.desc()).limit(1)
    ).first()
    return _EMPTY if last is None else Head(last.seq, last.hash)


def _schema() -> Schema:
    return Schema(
        kind="channels",
        migrations=Path(__file__).parent / "channel_migrations",
        revision="0001",
        head=_head,
        faults=_faults,
    )


def _faults(connection: Connection, earlier: Head | None) -> list[str]:
    if earlier is not None:
        count = connection.execute(select(func.count()).select_from(_table)).scalar_one()
        if count < earlier.entries:
            return [f"the store has {count} promotions, {earlier.entries} were sealed"]
    digest = _GENESIS
    rows = connection.execute(select(_table).order_by(_table.c.seq)).mappings()
    for seq, row in enumerate(rows, start=1):
        event = ChannelEvent(**{name: row[name] for name in ChannelEvent.__dataclass_fields__})
        digest = _hash(digest, seq, event)
        if row["seq"] != seq or row["hash"] != digest:
            return [f"promotion {seq} does not continue the chain"]
        if earlier is not None and seq == earlier.entries and digest != earlier.digest:
            return [f"promotion {seq} is not the one that was sealed"]
    return []


def _hash(before: str, seq: int, event: ChannelEvent) -> str:
    return hashlib.sha256(canonical_json([before, seq, asdict(event)])).hexdigest()
