"""The audit log: what is answered is on the disk, in the tree, and under a signed checkpoint.

One thread writes. It takes whatever waits, adds it in one transaction together with a checkpoint
over the new tree, and only then lets the callers go: many callers share one disk sync.

What a crash leaves: either a group of entries with its checkpoint, or neither. Nobody was answered
about a group that is not there.
"""

import hashlib
import hmac
import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select

from privacy.audit.checkpoint import Checkpoint
from privacy.audit.entries import AuditEntry
from privacy.audit.merkle import Frontier, leaf_hash
from privacy.audit.reader import AuditReader, AuditReport, StoredEntry, read_log, verify_log
from privacy.audit.tables import EMPTY, Leaf, Note, frontier, schema
from privacy.closing import Closing
from privacy.crashpoints import reached
from privacy.errors import AuditUnavailable, TamperedStore
from privacy.signing import SigningKey
from privacy.store.database import Database

__all__ = [
    "Appended",
    "AuditLog",
    "AuditReader",
    "AuditReport",
    "StoredEntry",
    "read_log",
    "verify_log",
]

_LARGEST_GROUP = 256


@dataclass(frozen=True)
class Appended:
    """Where an entry is now.

    Attributes:
        index: its position, from 0.
        leaf_hash: its hash in the Merkle tree, 32 bytes.
        checkpoint_size: size of the signed checkpoint that covers it.
    """

    index: int
    leaf_hash: bytes
    checkpoint_size: int


@dataclass
class _Request:
    entry: AuditEntry
    body: bytes
    done: "Future[Appended]"


class AuditLog(Closing):
    """An audit log open for writing: one process, any number of threads."""

    def __init__(self, path: Path, key: SigningKey, origin: str, *, timeout: float = 10.0) -> None:
        """Open, create or recover the log at ``path``.

        Args:
            path: the database file.
            key: signs checkpoints and seal.
            origin: the log's unique name, like ``example.org/audit``; the same at every opening.
            timeout: seconds to wait for another process that writes the log.

        Raises:
            TamperedStore: the log is not what ``key`` signed.
            StoreBusy: another process writes it.
            AuditError: the origin is malformed or not that of the log.
        """
        Checkpoint(origin, 0, b"")  # refuses a malformed origin before anything is created
        self.path = Path(path)
        self.origin = origin
        self._key = key
        self._text_secret = key.derive(f"audit text digest {origin}")
        self._database = Database(
            path,
            key,
            schema(origin, key.verify_key),
            empty=EMPTY,
            exclusive=True,
            timeout=timeout,
        )
        try:
            with self._database.read() as connection:
                self._tree = frontier(connection)
                self._check_last(connection)
        except BaseException:
            self._database.close(seal=False)
            raise
        self._failure: BaseException | None = None
        self._closed = False
        self._gate = threading.Lock()
        self._process = os.getpid()
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="audit-writer", daemon=True)
        self._thread.start()

    def append(self, entry: AuditEntry) -> Appended:
        """Add an entry. Once this returns it is durable and covered by a signed checkpoint.

        Raises:
            AuditUnavailable: that could not be established, now or at an earlier append. The entry
                may or may not be in the log; whoever asked must not be answered.
        """
        return self.submit(entry).result()

    def submit(self, entry: AuditEntry) -> "Future[Appended]":
        """Add an entry without waiting; the future ends as :meth:`append` would.

        Raises:
            AuditUnavailable: the log is closed or has failed.
        """
        request = _Request(entry, entry.to_bytes(), Future())
        with self._gate:
            # Under the gate, so that nothing can be queued behind the writer's last look.
            if self._failure is not None:
                raise _unavailable(self._failure)
            if self._closed:
                raise AuditUnavailable("the audit log is closed")
            if os.getpid() != self._process:
                # The writer thread did not come along; a queued entry would wait for ever.
                raise AuditUnavailable("the audit log was opened by the parent process")
            self._queue.put(request)
        return request.done

    @property
    def available(self) -> bool:
        """Whether the next append may succeed; a failed log stays unavailable."""
        return self._failure is None and not self._closed

    def text_digest(self, text: str) -> str:
        """HMAC-SHA-256 of a text under this log's secret, hexadecimal.

        The same text gives the same digest within this log; without the signing key nobody can
        test guesses against it.
        """
        return hmac.new(self._text_secret, text.encode(), hashlib.sha256).hexdigest()

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint, None for an empty log."""
        with self._database.read() as connection:
            return connection.execute(
                select(Note.note).order_by(Note.size.desc()).limit(1)
            ).scalar()

    def close(self) -> None:
        """Write what waits, end the writer and seal. Doing so twice is fine."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        # After a failure the file's state is not known: the next opening checks all of it.
        self._database.close(seal=self._failure is None)

    def _write(self) -> None:
        ending = False
        while not ending:
            first = self._queue.get()
            group, ending = self._gather(first)
            if not group:
                break
            try:
                results, tree = self._commit(group)
            except BaseException as error:  # callers must hear of whatever it was
                self._fail(error, group)
                return
            self._tree = tree
            for request, result in zip(group, results, strict=True):
                request.done.set_result(result)

    def _gather(self, first: _Request | None) -> tuple[list[_Request], bool]:
        group: list[_Request] = []
        request = first
        while request is not None:
            group.append(request)
            if len(group) == _LARGEST_GROUP:
                return group, False
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Request]) -> tuple[list[Appended], Frontier]:
        tree = self._tree.copy()
        placed, rows = [], []
        for request in group:
            hashed = leaf_hash(request.body)
            placed.append((tree.size, hashed))
            rows.append({"index": tree.size, "kind": request.entry.kind, "body": request.body})
            tree.append(hashed)
        note = Checkpoint(self.origin, tree.size, tree.root()).sign(self._key)
        with self._database.write() as connection:
            connection.execute(insert(Leaf), rows)
            connection.execute(insert(Note).values(size=tree.size, note=note))
            reached("audit.before-commit")  # a crash here: neither entries nor checkpoint
        reached("audit.committed")  # a crash here: entries and checkpoint, callers not yet told
        return [Appended(index, hashed, tree.size) for index, hashed in placed], tree

    def _fail(self, error: BaseException, group: list[_Request]) -> None:
        with self._gate:
            self._failure = error
            while True:
                try:
                    waiting = self._queue.get_nowait()
                except queue.Empty:
                    break
                if waiting is not None:
                    group.append(waiting)
        for request in group:
            request.done.set_exception(_unavailable(error))

    def _check_last(self, connection: Connection) -> None:
        last = connection.execute(select(Note.note).order_by(Note.size.desc()).limit(1)).scalar()
        if last is None:
            return
        checkpoint = Checkpoint.open(last, self.origin, self._key.verify_key)
        if (checkpoint.size, checkpoint.root) != (self._tree.size, self._tree.root()):
            raise TamperedStore(f"{self.path.name}: the last checkpoint does not cover its entries")


def _unavailable(error: BaseException) -> AuditUnavailable:
    return AuditUnavailable(
        "the audit log could not be written and accepts nothing more "
        f"({type(error).__name__}: {error}); mend the cause and restart the service"
    )
