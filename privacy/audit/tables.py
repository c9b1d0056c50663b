"""The audit log's tables, and how to check that they hold one unbroken Merkle log."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, LargeBinary, String, Text, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from privacy.audit.checkpoint import Checkpoint
from privacy.audit.entries import AuditEntry
from privacy.audit.merkle import Frontier, leaf_hash
from privacy.errors import AuditEntryInvalid, AuditError
from privacy.signing import VerifyKey
from privacy.store.schema import Schema
from privacy.store.seal import Head

KIND = "audit log"
REVISION = "audit_0001"
EMPTY = Head(0, Frontier().root().hex())
_MOST_FAULTS = 20
_NEWEST = "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1"
_POSITION = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Tables of the audit log's database."""


class Leaf(Base):
    """One entry; ``kind`` repeats what the body says, to filter by it."""

    __tablename__ = "leaves"

    index: Mapped[int] = mapped_column(_POSITION, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16), index=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Note(Base):
    """A signed checkpoint; one per group of appended entries."""

    __tablename__ = "checkpoints"

    size: Mapped[int] = mapped_column(_POSITION, primary_key=True, autoincrement=False)
    note: Mapped[str] = mapped_column(Text)


def schema(origin: str | None, key: VerifyKey) -> Schema:
    """How the log ``origin`` (None: the one that its first checkpoint names) is made and checked."""
    return Schema(
        kind=KIND,
        migrations=Path(__file__).parent / "migrations",
        revision=REVISION,
        head=_head,
        faults=lambda connection, since: list(_faults(connection, since, origin, key)),
        attested=True,
    )


def bodies(connection: Connection, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Index and body of the leaves from ``start`` on, in order."""
    query = select(Leaf.index, Leaf.body).where(Leaf.index >= start).order_by(Leaf.index)
    yield from connection.execute(query.execution_options(yield_per=1000))


def add_leaves(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add leaves, each with ``index``, ``kind`` and ``body``."""
    statement = insert(Leaf)
    if connection.dialect.name == "postgresql":
        # With RETURNING, SQLAlchemy sends many rows in one statement; the driver would send each.
        connection.execute(statement.returning(Leaf.index), rows).all()
    else:
        connection.execute(statement, rows)


def last_note(connection: Connection) -> str | None:
    """The newest checkpoint as it is stored, unverified."""
    # Asked in every write transaction, so without the cost of building a statement.
    return connection.exec_driver_sql(_NEWEST).scalar()


def _head(connection: Connection) -> Head:
    """What the last checkpoint says; that it is true is for the check to find."""
    last = last_note(connection)
    if last is None:
        return EMPTY
    _, size, root, *_ = last.split("\n")
    return Head(int(size), base64.b64decode(root, validate=True).hex())


def _faults(
    connection: Connection, since: Head | None, origin: str | None, key: VerifyKey
) -> Iterator[str]:
    notes = connection.execute(select(Note.size, Note.note).order_by(Note.size)).all()
    if origin is None and notes:
        origin = str(notes[0].note).split("\n", 1)[0]
    if since is not None and since == EMPTY:
        since = None
    tree, found, before = Frontier(), 0, 0
    leaves = _leaves(connection)
    for size, note in chain(notes, [(None, None)]):
        # The leaves up to this checkpoint, then the checkpoint's claim about them.
        while size is None or tree.size < size:
            following = next(leaves, None)
            if following is None:
                break
            hashed, fault = following
            if fault is not None:
                found += 1
                yield fault
            tree.append(hashed)
            if since is not None and tree.size == since.entries:
                if tree.root().hex() != since.digest:
                    found += 1
                    yield f"the first {since.entries} entries are not the ones that were sealed"
                since = None
            if found >= _MOST_FAULTS:
                yield "… and possibly more"
                return
        if size is None:
            break
        fault = _checkpoint_fault(tree, size, str(note), str(origin), key, before)
        if fault is not None:
            yield fault
            return  # every later checkpoint would fail for the same leaf
        before = size
    if since is not None:
        yield f"the log has {tree.size} entries, it was sealed with {since.entries}"
    if tree.size != before:
        yield f"entries {before} to {tree.size - 1} are covered by no checkpoint"


def _leaves(connection: Connection) -> Iterator[tuple[bytes, str | None]]:
    query = select(Leaf.index, Leaf.kind, Leaf.body).order_by(Leaf.index)
    rows = connection.execute(query.execution_options(yield_per=1000))
    for position, (index, kind, stored) in enumerate(rows):
        # SQLite lets any type into any column; hash something, to go on and find more.
        body = stored if type(stored) is bytes else repr(stored).encode()
        fault = None
        if index != position:
            fault = f"entry {position} is missing; entry {index} follows"
        else:
            try:
                if AuditEntry.from_bytes(body).kind != kind:
                    fault = f"entry {position} is filed under another kind than its own"
            except AuditEntryInvalid as error:
                fault = f"entry {position} is malformed: {error}"
        yield leaf_hash(body), fault


def _checkpoint_fault(
    tree: Frontier, size: int, note: str, origin: str, key: VerifyKey, before: int
) -> str | None:
    try:
        checkpoint = Checkpoint.open(note, origin, key)
    except AuditError as error:
        return f"checkpoint of size {size}: {error}"
    if checkpoint.size != size:
        return f"checkpoint of size {size} says {checkpoint.size}"
    if tree.size < size:
        return f"entries {tree.size} to {size - 1} are missing; a checkpoint covers them"
    if checkpoint.root != tree.root():
        return f"one of the entries {before} to {size - 1} was changed: their checkpoint's root differs"
    return None
