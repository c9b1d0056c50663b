"""The journal of a bulk job: how far it came, and for what it may be continued.

Beside OUT lie two hidden files: the partial output and the journal. After each batch the partial
output is flushed to the disk first and the journal replaced afterwards, so:

* a crash in between leaves more bytes than the journal knows; they are cut off, the batch is done
  again, and gives the same bytes;
* a crash while the journal is replaced leaves the old one or the new one, never a part of either;
* OUT appears by a rename after the journal says ``complete``; a crash before the rename repeats
  it, a crash after it leaves a journal whose partial output is gone, and only cleaning up remains.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from intramural.bulk_tally import Tally
from intramural.errors import CommandRefused
from privacy.files import sync_directory, write_atomic

WORDS: Final[Mapping[str, str]] = {
    "input": "another input",
    "key": "another key",
    "policy": "another policy",
    "options": "other options",
    "code": "another version of intramural",
}


@dataclass
class Journal:
    """What is done. ``identity`` must be the same for a job to be continued."""

    identity: dict[str, Any]
    key: str | None = None
    """The key in hexadecimal where the job drew its own; it goes with the journal."""

    batches: int = 0
    length: int = 0
    complete: bool = False
    tally: Tally = field(default_factory=Tally)

    def as_bytes(self) -> bytes:
        """The file's content."""
        value = {
            "identity": self.identity,
            "key": self.key,
            "batches": self.batches,
            "bytes": self.length,
            "complete": self.complete,
            "tally": self.tally.as_json(),
        }
        return json.dumps(value, ensure_ascii=False).encode()


class JobFiles:
    """The two hidden files of one OUT; one process at a time writes them."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.parent / f".{target.name}.scrub.partial"
        self.journal = target.parent / f".{target.name}.scrub.journal"
        self._stream: IO[bytes] | None = None

    def known(self) -> Journal | None:
        """The journal of an unfinished job; None where there is none.

        Raises:
            CommandRefused: there is one that cannot be read.
        """
        try:
            value = json.loads(self.journal.read_bytes())
            return Journal(
                value["identity"],
                value["key"],
                value["batches"],
                value["bytes"],
                value["complete"],
                Tally.from_json(value["tally"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CommandRefused(
                f"{self.journal} cannot be read, so the work begun on {self.target} cannot be "
                "continued; give --force to start anew"
            ) from None

    def check(self, known: Journal, identity: Mapping[str, Any]) -> None:
        """Refuse to continue what was begun for something else. Raises CommandRefused."""
        differing = [
            WORDS.get(name, name)
            for name, value in identity.items()
            if known.identity.get(name) != value
        ]
        if differing:
            raise CommandRefused(
                f"work on {self.target} was begun with {' and '.join(differing)}, and is half done "
                f"({known.tally.rows:,} rows); repeat that command to finish it, or give --force to "
                "start anew"
            )

    def open(self, journal: Journal) -> IO[bytes]:
        """The partial output, cut to what the journal knows, ready for more.

        Raises:
            CommandRefused: another process is at work on it, or it is shorter than the journal says.
        """
        descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stream = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise CommandRefused(
                f"another process is writing {self.target}; wait for it, or choose another name"
            ) from None
        size = stream.seek(0, os.SEEK_END)
        if size < journal.length:
            stream.close()
            raise CommandRefused(
                f"{self.partial} has {size:,} bytes, its journal tells of {journal.length:,}; give "
                "--force to start anew"
            )
        stream.truncate(journal.length)
        stream.seek(journal.length)
        self._stream = stream
        return stream

    def commit(self, journal: Journal) -> None:
        """Make what was written durable, then say so."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            journal.length = self._stream.tell()
        write_atomic(self.journal, journal.as_bytes(), mode=0o600)

    def publish(self, finished: Path) -> None:
        """Let the finished file appear as OUT, and clean up."""
        if finished.exists():
            finished.chmod(0o600)
            finished.replace(self.target)
            sync_directory(self.target.parent)
        self.discard()

    def close(self) -> None:
        """Let go of the partial output."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def discard(self) -> None:
        """Remove both files."""
        self.close()
        self.partial.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)
