"""The store of promotions: a sealed chain of events that several processes read and write.

Durable and atomic: an event is there as a whole once :meth:`ChannelStore.promote` returns, and a
crash before leaves the state before. SQLAlchemy speaks only here.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Column, Integer, MetaData, Table, Text

from api.channels import Channel, ChannelEvent, applied, replayed
from privacy.signing import SigningKey
from privacy.store.chain import EventChain
from privacy.store.database import open_database
from privacy.store.place import Place
from privacy.store.schema import Schema

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
_chain = EventChain(
    _table,
    ChannelEvent,
    origin="intramural/channels",
    store="store",
    entries="promotions",
    entry="promotion",
)
_SCHEMA = Schema(
    kind="channels",
    migrations=Path(__file__).parent / "channel_migrations",
    revision="0002",
    head=_chain.head,
    faults=_chain.faults,
)


class ChannelStore:
    """Args:
    place: where it is; made where it is missing.
    signing_key: signs the store's heads.
    clock: the current time, in UTC.

    Raises:
        TamperedStore, StoreBusy, StoreUnavailable: see :func:`privacy.store.database.open_database`.
    """

    def __init__(
        self,
        place: Place,
        signing_key: SigningKey,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._database = open_database(place, signing_key, _SCHEMA, empty=_chain.empty)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def version(self) -> int:
        """Grows with every change; cheap."""
        with self._database.read() as connection:
            return _chain.head(connection).entries

    def channels(self) -> dict[str, Channel]:
        """What every name stands for now."""
        with self._database.read() as connection:
            return replayed(_chain.events(connection))

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
            after = applied(replayed(_chain.events(connection)), event)[event.name]
            _chain.append(connection, event)
        return after

    def _now(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
