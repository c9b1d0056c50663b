"""The audit log: what is answered is on the disk, in the tree, and under a signed checkpoint.

One thread writes. It takes whatever waits, adds it in one transaction together with a checkpoint
over the new tree, and only then lets the callers go: many callers share one disk sync.

Other processes and replicas may write the same log. Each transaction holds the store's write lock and
continues from the newest stored checkpoint, whoever made it: the writer reads the entries added since
its own last one, and finds that they lead to that checkpoint's root. So there is one sequence without
a gap or a fork, and a log that was cut or rewritten underneath is continued by nobody.

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

from sqlalchemy import Connection, insert

from privacy.audit.checkpoint import Checkpoint
from privacy.audit.entries import AuditEntry
from privacy.audit.merkle import Frontier, leaf_hash
from privacy.audit.reader import AuditReader, AuditReport, StoredEntry, read_log, verify_log
from privacy.audit.tables import EMPTY, Note, add_leaves, bodies, last_note, schema
from privacy.closing import Closing
from privacy.crashpoints import reached
from privacy.errors import (
    AuditUnavailable,
    PrivacyError,
    StoreBusy,
    StoreUnavailable,
    TamperedStore,
)
from privacy.signing import SigningKey
from privacy.store.database import open_database
from privacy.store.place import Place

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
_PASSING = (StoreBusy, StoreUnavailable)
"""What may end by itself; each transaction begins from what is stored, so nothing was spoiled."""


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
    """An audit log open for writing, by any number of threads, processes and replicas."""

    def __init__(
        self, place: Place, key: SigningKey, origin: str, *, timeout: float = 10.0
    ) -> None:
        """Open, create or recover the log at ``place``.

        Args:
            place: where it is.
            key: signs checkpoints and seal.
            origin: the log's unique name, like ``example.org/audit``; the same at every opening.
            timeout: seconds to wait for another process that opens, closes or looks at its file.

        Raises:
            TamperedStore: the log is not what ``key`` signed.
            StoreBusy: another process kept its file to itself.
            StoreUnavailable: its server cannot be reached.
            AuditError: the origin is malformed or not that of the log.
        """
        Checkpoint(origin, 0, b"")  # refuses a malformed origin before anything is created
        self.place = place
        self.origin = origin
        self._key = key
        self._text_secret = key.derive(f"audit text digest {origin}")
        self._tree = Frontier()
        self._note: str | None = None
        self._database = open_database(
            place, key, schema(origin, key.verify_key), empty=EMPTY, timeout=timeout
        )
        try:
            with self._database.read() as connection:
                self._tree, self._note = self._stored(connection)
        except BaseException:
            self._database.close(seal=False)
            raise
        self._failure: BaseException | None = None
        self._interrupted = False
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
        """Whether the next append may succeed.

        A failed log stays unavailable; one whose database was locked or out of reach is looked at.
        """
        if self._failure is not None or self._closed:
            return False
        if self._interrupted:
            try:
                self.checkpoint()
            except PrivacyError:
                return False
            self._interrupted = False
        return True

    def text_digest(self, text: str) -> str:
        """HMAC-SHA-256 of a text under this log's secret, hexadecimal.

        The same text gives the same digest within this log; without the signing key nobody can
        test guesses against it.
        """
        return hmac.new(self._text_secret, text.encode(), hashlib.sha256).hexdigest()

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint, None for an empty log."""
        with self._database.read() as connection:
            return last_note(connection)

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
                results, self._tree, self._note = self._commit(group)
            except _PASSING as error:
                self._interrupted = True
                for request in group:
                    request.done.set_exception(_interrupted(error))
                continue
            except BaseException as error:  # callers must hear of whatever it was
                self._fail(error, group)
                return
            self._interrupted = False
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

    def _commit(self, group: list[_Request]) -> tuple[list[Appended], Frontier, str]:
        with self._database.write() as connection:
            tree, _ = self._stored(connection)
            placed, rows = [], []
            for request in group:
                hashed = leaf_hash(request.body)
                placed.append((tree.size, hashed))
                rows.append({"index": tree.size, "kind": request.entry.kind, "body": request.body})
                tree.append(hashed)
            note = Checkpoint(self.origin, tree.size, tree.root()).sign(self._key)
            add_leaves(connection, rows)
            connection.execute(insert(Note).values(size=tree.size, note=note))
            reached("audit.before-commit")  # a crash here: neither entries nor checkpoint
        reached("audit.committed")  # a crash here: entries and checkpoint, callers not yet told
        return [Appended(index, hashed, tree.size) for index, hashed in placed], tree, note

    def _stored(self, connection: Connection) -> tuple[Frontier, str | None]:
        """The tree as it is stored now: ours, and what others added since; with its checkpoint.

        Raises:
            TamperedStore: the newest checkpoint does not cover the entries, or not those before.
            AuditError: it is no checkpoint of this log and key.
        """
        tree, note = self._tree.copy(), last_note(connection)
        if note == self._note:
            return tree, note
        for index, body in bodies(connection, tree.size):
            if index != tree.size:
                raise TamperedStore(f"{self.place.name}: entry {tree.size} is missing")
            tree.append(leaf_hash(body))
        head = None if note is None else Checkpoint.open(note, self.origin, self._key.verify_key)
        if head is None or (head.size, head.root) != (tree.size, tree.root()):
            raise TamperedStore(
                f"{self.place.name}: the last checkpoint does not cover its entries, or the "
                f"{self._tree.size} that were there before are others now"
            )
        return tree, note

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


def _unavailable(error: BaseException) -> AuditUnavailable:
    return AuditUnavailable(
        "the audit log could not be written and accepts nothing more "
        f"({type(error).__name__}: {error}); mend the cause and restart the service"
    )


def _interrupted(error: BaseException) -> AuditUnavailable:
    return AuditUnavailable(f"the audit log cannot be written at present: {error}")
