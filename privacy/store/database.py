"""What every store is opened as, whichever database keeps it."""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection

from privacy.signing import SigningKey
from privacy.store.file import FileDatabase
from privacy.store.place import Place, Postgres
from privacy.store.schema import Schema
from privacy.store.seal import Head


class Database(Protocol):
    """A store opened for writing. Threads may share it, and other processes have it open too."""

    def write(self) -> AbstractContextManager[Connection]:
        """One write transaction, alone among all writers of the store; durable once the block ends.

        Raises:
            StoreBusy: others kept the store locked for 30 seconds; nothing was written.
            StoreUnavailable: the server was lost; whether it was written is not known.
            TamperedStore: the database is damaged, or is not what was signed.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """One read transaction: a consistent snapshot that waits for nobody.

        Raises:
            StoreUnavailable, TamperedStore: see :meth:`write`.
        """
        ...

    def close(self, *, seal: bool = True) -> None:
        """Let go. Doing so twice is fine.

        Args:
            seal: off when the content's state is not known (a failed write): the next opening then
                checks everything, as after a crash.
        """
        ...


def open_database(
    place: Place, key: SigningKey, schema: Schema, *, empty: Head, timeout: float = 10.0
) -> Database:
    """Open, create or recover a store, after its content was verified.

    Args:
        place: where it is.
        key: signs its heads, and must have signed those that are there.
        schema: what the store is.
        empty: logical head of a store without entries.
        timeout: seconds to wait for a process that keeps a file to itself.

    Raises:
        TamperedStore: bytes, chain or signatures are wrong. Nothing was changed.
        StoreBusy: another process kept it to itself.
        StoreUnavailable: its server cannot be reached.
    """
    if isinstance(place, Postgres):
        from privacy.store.server import ServerDatabase

        return ServerDatabase(place, key, schema)
    return FileDatabase(place, key, schema, empty=empty, timeout=timeout)
