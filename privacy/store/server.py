"""A store in PostgreSQL that can prove what was written to it.

No file holds all of its bytes, so there is no seal over bytes. What stands in for it:

- every write transaction that moves the head ends by signing the new one, in the same commit;
- a transaction first finds that the head is the one that was signed: what somebody else appended
  is never continued, and so never signed;
- opening verifies every row by chain or tree and the newest signed head;
- each machine remembers the last head that it saw (when it opened, closed, and each minute that it
  writes), and opening finds that the history goes on from there: so also a database that was put
  back, emptied or replaced is found. What is remembered is never replaced by an earlier head.

What a crash leaves: a transaction as a whole, or nothing of it. The remembered head may be older
than the store; never newer.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection

from privacy.crashpoints import reached
from privacy.errors import StoreBusy, StoreError, StoreUnavailable, TamperedStore
from privacy.signing import SigningKey
from privacy.store.place import Postgres
from privacy.store.postgres import (
    add_seal,
    exists,
    faults_of,
    last_seal,
    prepare,
    refuse_unsafe,
    remembered,
    server_engine,
    told,
)
from privacy.store.schema import Schema
from privacy.store.seal import Head, Seal

_REMEMBER_SECONDS = 60.0


class ServerDatabase:
    """The port :class:`privacy.store.database.Database` over a schema of a PostgreSQL database."""

    def __init__(self, place: Postgres, key: SigningKey, schema: Schema) -> None:
        """Open or create; see :func:`privacy.store.database.open_database`."""
        self.place = place
        self._key = key
        self._schema = schema
        self._closed = False
        place.remembered.parent.mkdir(parents=True, exist_ok=True)
        self._engine = server_engine(place)
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """See the port."""
        with told(self.place), self._engine.begin() as connection:
            before = None if self._schema.attested else self._sealed(connection)
            yield connection
            if before is not None and (head := self._schema.head(connection)) != before:
                add_seal(connection, self._schema, head, self._key)
        if time.monotonic() > self._due:
            # The write is durable whether or not its head can be asked for now; later will do.
            with suppress(StoreBusy, StoreUnavailable):
                self._remember()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See the port."""
        with told(self.place), self._engine.execution_options(begin="READ").begin() as connection:
            yield connection

    def close(self, *, seal: bool = True) -> None:
        """See the port: remember the head, and let go."""
        if self._closed:
            return
        self._closed = True
        try:
            if seal:
                # The server is gone, or went back: what was remembered before stays.
                with suppress(StoreError):
                    self._remember()
        finally:
            self._engine.dispose()

    def _prepare(self) -> None:
        with self.read() as connection:
            refuse_unsafe(connection, self.place)
            there = exists(connection)
            if there:
                self._verify(connection)
        if not there and remembered(self.place, self._schema, self._key.verify_key) is not None:
            raise TamperedStore(
                f"{self.place.name} is missing, but {self.place.remembered.name} remembers it. "
                "Restore the database; where it was given up on purpose, move that file away"
            )
        with told(self.place), self._engine.begin() as connection:
            prepare(connection, self.place, self._schema, self._key)
        reached("store.migrated")
        self._remember()

    def _verify(self, connection: Connection) -> None:
        _, faults = faults_of(connection, self.place, self._schema, self._key.verify_key)
        if faults:
            raise TamperedStore(
                f"{self.place.name} will not be opened for writing: {'; '.join(faults[:5])}. "
                "Keep a dump as evidence and restore a backup that verifies"
            )

    def _sealed(self, connection: Connection) -> Head:
        """The head, which must be the one that was signed last."""
        sealed = last_seal(connection, self._schema, self._key.verify_key).head
        if (now := self._schema.head(connection)) != sealed:
            raise TamperedStore(
                f"{self.place.name} ends at entry {now.entries}, its newest signed head says "
                f"{sealed.entries}: somebody else wrote to it, and nothing is written any more"
            )
        return sealed

    def _remember(self) -> None:
        self._due = time.monotonic() + _REMEMBER_SECONDS
        # Read before the store is: what others remember meanwhile is no earlier head.
        before = remembered(self.place, self._schema, self._key.verify_key)
        with self.read() as connection:
            head = self._schema.head(connection)
        if before is not None and head != before and head.entries <= before.entries:
            raise TamperedStore(
                f"{self.place.name} ends at entry {head.entries}, {self.place.remembered.name} "
                f"remembers {before.entries}: it was put back or replaced. Restore the database"
            )
        seal = Seal.opened(self._schema.kind, head, self._key, created=True)
        seal.write(self.place.remembered, self._key)
