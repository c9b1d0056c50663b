"""Reading and verifying an audit log without opening it for writing."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, select

from privacy.audit.entries import AuditEntry
from privacy.audit.merkle import consistency_proof, inclusion_proof, leaf_hash
from privacy.audit.tables import EMPTY, KIND, Leaf, Note, bodies, last_note, schema
from privacy.signing import VerifyKey
from privacy.store.place import Place
from privacy.store.reading import State, examine, look


@dataclass(frozen=True)
class StoredEntry:
    """An entry with its position and leaf hash (32 bytes)."""

    index: int
    leaf_hash: bytes
    entry: AuditEntry


@dataclass(frozen=True)
class AuditReport:
    """What verifying a log found.

    Attributes:
        entries: how many entries it holds.
        root: root hash over them, hexadecimal.
        state: "closed" (every byte as sealed), "crashed", "in_use", "unsealed" or "served".
        faults: what is wrong, in words; empty when the log verifies.
    """

    entries: int
    root: str
    state: State
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify_log(
    place: Place, key: VerifyKey, *, origin: str | None = None, require_seal: bool = True
) -> AuditReport:
    """Check a log with nothing but its database and the public key; changes nothing.

    Args:
        place: where the log is.
        key: the log's public key.
        origin: the log that it must be; None accepts the name in its first checkpoint.
        require_seal: off for a database file that was copied without its ``.seal``; then a removed
            end or a changed unused byte cannot be seen.

    Raises:
        StoreError: there is no log at ``place``.
        StoreBusy: it was being opened or closed all the time.
        StoreUnavailable: its server cannot be reached.
    """
    found = examine(place, schema(origin, key), key, require_seal=require_seal)
    head = found.head or EMPTY
    return AuditReport(head.entries, head.digest, found.state, found.faults)


class AuditReader:
    """A consistent look at a log, while or after somebody writes it. Verifies nothing by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __len__(self) -> int:
        newest = select(Leaf.index).order_by(Leaf.index.desc()).limit(1)
        last = self._connection.execute(newest).scalar()
        return 0 if last is None else last + 1

    def entries(
        self, *, kinds: Collection[str] = (), start: int = 0, stop: int | None = None
    ) -> Iterator[StoredEntry]:
        """Entries in order.

        Args:
            kinds: only these kinds; empty means all.
            start, stop: positions from ``start`` up to but without ``stop``.

        Raises:
            AuditEntryInvalid: an entry that nobody of ours wrote.
        """
        query = select(Leaf.index, Leaf.body).where(Leaf.index >= start).order_by(Leaf.index)
        if stop is not None:
            query = query.where(Leaf.index < stop)
        if kinds:
            query = query.where(Leaf.kind.in_(sorted(kinds)))
        for index, body in self._connection.execute(query.execution_options(yield_per=500)):
            yield StoredEntry(index, leaf_hash(body), AuditEntry.from_bytes(body))

    def checkpoint(self, size: int | None = None) -> str | None:
        """The newest signed checkpoint, or the smallest that covers ``size`` entries."""
        if size is None:
            return last_note(self._connection)
        query = select(Note.note).where(Note.size >= size).order_by(Note.size)
        return self._connection.execute(query.limit(1)).scalar()

    def prove_inclusion(self, index: int, size: int) -> list[bytes]:
        """That entry ``index`` is in the tree of the first ``size`` entries (RFC 9162, 2.1.3).

        Raises:
            ValueError: there is no such entry or size.
        """
        return inclusion_proof(self._leaves(size), index)

    def prove_consistency(self, old_size: int, size: int) -> list[bytes]:
        """That the first ``old_size`` entries are unchanged at ``size`` (RFC 9162, 2.1.4).

        Raises:
            ValueError: there are no such sizes.
        """
        return consistency_proof(self._leaves(size), old_size)

    def _leaves(self, size: int) -> list[bytes]:
        if not 0 < size <= len(self):
            raise ValueError(f"size={size} must be from 1 to {len(self)}")
        return [leaf_hash(body) for _, body in islice(bodies(self._connection), size)]


@contextmanager
def read_log(place: Place) -> Iterator[AuditReader]:
    """Look into a log without opening it for writing; use :func:`verify_log` to trust it.

    Raises:
        StoreError: there is no log at ``place``.
        StoreBusy: it was being opened or closed all the time.
        StoreUnavailable: its server cannot be reached.
        TamperedStore: its database is gone.
    """
    with look(place, KIND, None) as reading:
        yield AuditReader(reading.connection)
