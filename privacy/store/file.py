"""A SQLite file that can prove what was written to it.

Order of durable writes, and what a crash leaves at each step:

1. seal says ``open, created: false``. Crash: no database yet, or an unfinished one; opening goes on.
2. tables are created in one transaction, then seal says ``open, created: true``.
3. transactions. Crash: all of them or, of the last one, nothing; opening checks the whole chain.
4. database closed, log folded in, then seal says ``closed`` with the file's SHA-256. Crash before:
   as in 3; after: cleanly closed.

Opening replaces ``closed`` by ``open`` only after every byte of the file was found as sealed.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from privacy.crashpoints import reached
from privacy.errors import StoreBusy, StoreError, TamperedStore
from privacy.signing import SigningKey
from privacy.store.lock import FileLock
from privacy.store.reading import examine, lock_path, seal_path
from privacy.store.schema import BUSY_SECONDS, Schema, migrate, writing_engine
from privacy.store.seal import Head, Seal

_POLL_SECONDS = 0.01


class FileDatabase:
    """The port :class:`privacy.store.database.Database` over a file, shared with other processes."""

    def __init__(
        self,
        path: Path,
        key: SigningKey,
        schema: Schema,
        *,
        empty: Head,
        timeout: float = 10.0,
    ) -> None:
        """Open, create or recover a store.

        Args:
            path: the database file; its folder is created.
            key: signs the seal, and must have signed the one that is there.
            schema: what the store is.
            empty: logical head of a store without entries.
            timeout: seconds to wait for a process that opens, closes or looks at it.

        Raises:
            TamperedStore: seal, bytes, chain or signatures are wrong. Nothing was changed.
            StoreBusy: another process kept it to itself.
        """
        self.path = Path(path)
        self._key = key
        self._schema = schema
        self._empty = empty
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(lock_path(self.path))
        try:
            if self._alone(timeout):
                self._engine = self._prepare()
                self._lock.shared(timeout)
            else:
                self._engine = writing_engine(self.path)
        except BaseException:
            self._lock.close()
            raise
        self._closed = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction, begun with SQLite's write lock; durable once the block ends.

        Raises:
            StoreBusy: another process kept the lock for 30 seconds.
            TamperedStore: SQLite finds the file damaged.
        """
        with _translated(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read transaction: a consistent snapshot that waits for nobody."""
        with _translated(self.path):
            engine = self._engine.execution_options(begin="DEFERRED")
            with engine.begin() as connection:
                yield connection

    def close(self, *, seal: bool = True) -> None:
        """Let go; the last writer seals. Doing so twice is fine.

        Args:
            seal: off when the content's state is not known (a failed write): the next opening then
                checks everything, as after a crash.
        """
        if self._closed:
            return
        self._closed = True
        self._engine.dispose()
        try:
            # While another process writes, sealing is its duty: the seal stays "open".
            if seal and self._lock.try_exclusive():
                self._seal()
        finally:
            self._lock.close()

    def _alone(self, timeout: float) -> bool:
        """Take the lock. True: nobody else uses the store; False: others already write it."""
        deadline = time.monotonic() + timeout
        while not self._lock.try_exclusive():
            if self._lock.try_shared():
                if self._open_by_others():
                    return False
                self._lock.release()
            if time.monotonic() > deadline:
                raise StoreBusy(
                    f"{self.path.name} is in use by another process, which opens, closes or reads "
                    f"it, and did not end within {timeout:g} seconds; try again"
                )
            time.sleep(_POLL_SECONDS)
        return True

    def _open_by_others(self) -> bool:
        try:
            seal = Seal.read(seal_path(self.path), self._schema.kind, self._key.verify_key)
        except TamperedStore:
            return False
        return seal.state == "open" and seal.created

    def _prepare(self) -> Engine:
        kind, seal_file = self._schema.kind, seal_path(self.path)
        new = not self.path.exists()
        head = self._empty
        if not new or seal_file.exists():
            seal = Seal.read(seal_file, kind, self._key.verify_key)
            head = seal.head
            if new and seal.created:
                raise TamperedStore(f"{self.path.name} is missing, but its seal is there")
            if seal.state == "closed":
                _refuse(self.path, seal.faults(self.path))
            elif seal.created:
                found = examine(self.path, self._schema, self._key.verify_key, locked=True)
                _refuse(self.path, found.faults)
            new = not seal.created
        Seal.opened(kind, head, self._key, created=not new).write(seal_file, self._key)
        reached("store.opened")
        engine = writing_engine(self.path)
        try:
            with _translated(self.path):
                migrate(engine, self._schema)
                with engine.connect() as connection:
                    now = self._schema.head(connection)
            reached("store.migrated")
            if new and now != self._empty:
                _refuse(self.path, ["it has entries, but its seal says that it was just created"])
            if new:
                Seal.opened(kind, head, self._key, created=True).write(seal_file, self._key)
                reached("store.created")
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _seal(self) -> None:
        engine = writing_engine(self.path)
        try:
            with engine.connect() as connection:
                head = self._schema.head(connection)
            driver = engine.raw_connection()  # a checkpoint cannot run inside a transaction
            driver.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            driver.close()
        finally:
            engine.dispose()
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size:
            return  # a reader holds on to it: stay "open", the next opening checks everything
        reached("store.before-seal")
        closed = Seal.closed(self._schema.kind, head, self._key, self.path)
        closed.write(seal_path(self.path), self._key)
        reached("store.sealed")


def _refuse(path: Path, faults: Iterable[str]) -> None:
    found = list(faults)
    if found:
        raise TamperedStore(
            f"{path.name} will not be opened for writing: " + "; ".join(found[:5]) + ". "
            "Keep the file as evidence and restore a copy that verifies"
        )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The database library's errors in our words."""
    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig):
            raise StoreBusy(
                f"{path.name} stayed locked for {BUSY_SECONDS:.0f} seconds; try again"
            ) from None
        raise StoreError(f"{path.name}: {error.orig}") from None
    except IntegrityError as error:
        raise StoreError(f"{path.name} refuses the row: {error.orig}") from None
    except DatabaseError as error:
        raise TamperedStore(f"{path.name} is damaged: {error.orig}") from None
