"""Looking at a store without changing it, whoever else uses it, and saying what is wrong with it."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from privacy.errors import StoreBusy, StoreError, TamperedStore
from privacy.signing import VerifyKey
from privacy.store.lock import FileLock
from privacy.store.place import Place, Postgres
from privacy.store.schema import Access, Schema, reading_engine
from privacy.store.seal import Head, Seal

State = Literal["closed", "crashed", "in_use", "unsealed", "served"]
_POLL_SECONDS = 0.01
_WAIT_SECONDS = 10.0


@dataclass
class Reading:
    """One consistent look at a store.

    Attributes:
        connection: in a read transaction.
        state: "closed" (sealed bytes), "crashed" (its writer was killed), "in_use" (somebody
            writes now), "unsealed" (no readable seal) or "served" (by a database server).
        seal: None when "unsealed" or "served".
        faults: what seal and files say is wrong.
    """

    connection: Connection
    state: State
    seal: Seal | None
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Examination:
    """What a store's verification found.

    Attributes:
        state: see :class:`Reading`; only "closed" rests on every byte of the file, the others on
            chains and signatures, and those of files on SQLite's integrity check.
        head: the logical end that was read, None when nothing could be read.
        faults: everything that is wrong, in words; empty when all is well.
    """

    state: State
    head: Head | None
    faults: tuple[str, ...]


def seal_path(path: Path) -> Path:
    """The seal file of a database file."""
    return path.with_name(path.name + ".seal")


def store_exists(place: Place) -> bool:
    """Whether there is a store, or was: a seal alone tells of one that was lost.

    Raises:
        StoreUnavailable: its server cannot be reached.
    """
    if isinstance(place, Postgres):
        from privacy.store.postgres import exists

        if place.remembered.exists():
            return True
        with _served(place) as connection:
            return exists(connection)
    return place.exists() or seal_path(place).exists()


def lock_path(path: Path) -> Path:
    """The lock file of a database file; empty, and no part of the evidence."""
    return path.with_name(path.name + ".lock")


@contextmanager
def look(
    place: Place, kind: str, key: VerifyKey | None, *, locked: bool = False
) -> Iterator[Reading]:
    """A consistent, read-only view; leaves no file behind beside the store.

    Args:
        place: where the store is.
        kind: what the store must be.
        key: whose seal a file must carry; None looks without trust.
        locked: the caller holds the file's lock alone.

    Raises:
        TamperedStore: the database is missing, its seal or what is remembered of it is not.
        StoreError: there is no such store.
        StoreBusy: the store changed hands during ten seconds.
        StoreUnavailable: its server cannot be reached.
    """
    if isinstance(place, Postgres):
        with _there(place, kind) as connection:
            yield Reading(connection, "served", None)
        return
    path = Path(place)
    if not path.is_file():
        if seal_path(path).exists():
            raise TamperedStore(f"{path.name} is missing, but its seal is there")
        raise StoreError(f"there is no {kind} at {path}")
    deadline = time.monotonic() + _WAIT_SECONDS
    with ExitStack() as stack:
        lock = None if locked else stack.enter_context(FileLock(lock_path(path), create=False))
        while (reading := _try_to_look(stack, lock, path, kind, key)) is None:
            if time.monotonic() > deadline:
                raise StoreBusy(f"{path.name} is being opened or closed by others; try again")
            time.sleep(_POLL_SECONDS)
        yield reading


def examine(
    place: Place,
    schema: Schema,
    key: VerifyKey,
    *,
    require_seal: bool = True,
    locked: bool = False,
) -> Examination:
    """Check a store's seal, bytes, structure, chain and signatures.

    Args:
        place: where the store is.
        schema: how to check its content.
        key: who must have signed it.
        require_seal: off for a database file that was copied away from its seal.
        locked: the caller holds the store's lock alone.

    Raises:
        StoreError: there is neither database nor seal.
        StoreBusy, StoreUnavailable: see :func:`look`.
    """
    try:
        if isinstance(place, Postgres):
            from privacy.store.postgres import faults_of

            with _there(place, schema.kind) as connection:
                head, found = faults_of(connection, place, schema, key)
            return Examination("served", head, tuple(found))
        with look(place, schema.kind, key, locked=locked) as reading:
            faults = list(reading.faults)
            if reading.state == "unsealed" and not require_seal:
                faults.clear()
            head, found = _content_faults(reading, place, schema)
            return Examination(reading.state, head, tuple(faults + found))
    except TamperedStore as error:
        return Examination("unsealed", None, (str(error),))


@contextmanager
def _served(place: Postgres) -> Iterator[Connection]:
    from privacy.store.postgres import server_engine, told

    engine = server_engine(place, keep=False)
    with told(place), engine.execution_options(begin="READ").begin() as connection:
        yield connection


@contextmanager
def _there(place: Postgres, kind: str) -> Iterator[Connection]:
    """Raises:
    TamperedStore: the tables are gone, but this machine remembers them.
    StoreError: there is no such store.
    """
    from privacy.store.postgres import exists

    with _served(place) as connection:
        if not exists(connection):
            if place.remembered.exists():
                raise TamperedStore(
                    f"{place.name} is missing, but {place.remembered.name} remembers it"
                )
            raise StoreError(f"there is no {kind} at {place}")
        yield connection


def _content_faults(reading: Reading, path: Path, schema: Schema) -> tuple[Head | None, list[str]]:
    connection, seal = reading.connection, reading.seal
    try:
        rows = connection.exec_driver_sql("PRAGMA integrity_check(5)").scalars().all()
        faults = [f"{path.name}: {row}" for row in rows if row != "ok"]
        faults += schema.faults(connection, seal.head if seal else None)
        head = schema.head(connection)
    except (DatabaseError, ValueError, TypeError, OverflowError) as error:
        # A damaged file may fail anywhere below us, also with values of unexpected types.
        reason = error.orig if isinstance(error, DatabaseError) else type(error).__name__
        return None, [f"{path.name} cannot be read as a {schema.kind}: {reason}"]
    if seal is not None and seal.state == "closed" and head != seal.head:
        faults.append(
            f"{path.name} ends at entry {head.entries} ({head.digest[:16]}…), "
            f"its seal says {seal.head.entries} ({seal.head.digest[:16]}…)"
        )
    return head, faults


def _try_to_look(
    stack: ExitStack, lock: FileLock | None, path: Path, kind: str, key: VerifyKey | None
) -> Reading | None:
    """One attempt; None when the store is between two states and the caller should try again."""
    alone = lock is None or lock.try_exclusive()
    seal, faults = _read_seal(path, kind, key)
    closed = seal is not None and seal.state == "closed"
    if not alone and not closed:
        connection = _connect(stack, path, "ro")
        try:
            connection.exec_driver_sql("PRAGMA schema_version")
        except OperationalError:
            connection.close()
            return None
        except DatabaseError:
            pass  # damaged: for the caller to find and name
        return Reading(connection, "in_use", seal, faults)
    if closed and lock is not None:
        # Share, so that other readers get in and no writer does; then what the seal says holds.
        if not lock.try_shared():
            return None
        seal, faults = _read_seal(path, kind, key)
        if seal is None or seal.state != "closed":
            lock.release()
            return None
    if seal is not None and seal.state == "closed":
        faults += seal.faults(path)
        return Reading(_connect(stack, path, "immutable"), "closed", seal, faults)
    # Opening it in place would replay its log, and so change evidence: look at a copy.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="intramural-")))
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    if lock is not None:
        lock.release()
    connection = _connect(stack, folder / path.name, "rw")
    return Reading(connection, "unsealed" if seal is None else "crashed", seal, faults)


def _read_seal(path: Path, kind: str, key: VerifyKey | None) -> tuple[Seal | None, list[str]]:
    try:
        return Seal.read(seal_path(path), kind, key), []
    except TamperedStore as error:
        return None, [str(error)]


def _connect(stack: ExitStack, path: Path, access: Access) -> Connection:
    engine = reading_engine(path, access)
    stack.callback(engine.dispose)
    return stack.enter_context(engine.connect())
