"""Scrubs a file of any size: every core, bounded memory, and where it stopped it goes on.

The file is read twice. The first pass looks at every row without scrubbing it: it takes the file's
digest, tells faulty rows, and refuses the job before any work is done. The second pass hands
batches to a pool of processes and writes what comes back in the order of the file.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final

from client.errors import RecordError, RowFault
from client.formats import SUFFIXES, Format, format_of
from intramural.bulk_journal import JobFiles, Journal
from intramural.bulk_parquet import write_parquet
from intramural.bulk_pool import processes, scrubbed
from intramural.bulk_rows import BATCH_ROWS, Selection, Source
from intramural.bulk_survey import Survey, survey, tolerate
from intramural.bulk_tally import Tally
from intramural.bulk_worker import Task
from intramural.errors import CommandRefused
from policies.model import Policy
from privacy.code_digest import code_digest

Advance = Callable[[int, int], None]
"""Called with the rows scrubbed so far, and of how many."""

_COMMIT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Job:
    """One file to be scrubbed. ``key`` None: a key is drawn, used for this job and forgotten."""

    source: Path
    target: Path
    selection: Selection = field(default_factory=Selection)
    policy: Policy | None = None
    key: bytes | None = None
    tolerance: float = 0.01
    workers: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a finished job did. ``resumed`` rows were done by an earlier run."""

    survey: Survey
    tally: Tally
    resumed: int
    workers: int
    seconds: float

    @property
    def written(self) -> int:
        """Rows in the output."""
        return self.tally.written

    @property
    def faults(self) -> tuple[RowFault, ...]:
        """Faulty rows, and those that the detector refused; the first ones of many."""
        file = self.survey.file
        return (*self.survey.faults, *(RowFault(file, *row) for row in self.tally.refused))

    @property
    def faulty(self) -> int:
        """How many there are."""
        return self.survey.faulty + len(self.tally.refused)


def scrub_file(
    job: Job, advance: Advance | None = None, told: Callable[[str], None] | None = None
) -> Outcome:
    """Scrub ``job.source`` into ``job.target``, which appears complete or not at all.

    ``told`` is called with what a person may want to know meanwhile. Stopped in whatever way, a
    repeated call continues after the last committed batch; one that fails before the first batch
    leaves nothing behind.

    Raises:
        RecordError, DataSourceError: the file, or what is asked of it, cannot be used.
        CommandRefused: OUT exists, has another format than IN, or was begun for something else.
        RedactionUnavailable, DetectorNotReady: personal data could not be looked for.
    """
    started = monotonic()
    say = told or (lambda _: None)
    check_names(job)
    source = Source(job.source, job.selection)
    files = JobFiles(job.target)
    seen = survey(source, job.tolerance)
    source.selection = replace(job.selection, drop_undeclared=seen.drop_undeclared)
    journal = _journal(job, files, seen)
    resumed = journal.tally.rows
    if resumed:
        say(f"continuing after {resumed:,} of {seen.taken:,} rows")
    key = job.key if journal.key is None else bytes.fromhex(journal.key)
    if key is None:
        raise RuntimeError("a job has a key of its own or one that was given")
    task = Task(
        source.format,
        format_of(job.target)[1],
        source.dialect,
        source.selection,
        job.policy,
        key,
    )
    workers = 1
    if not journal.complete:
        stream = files.open(journal)
        try:
            workers = _run(job, source, seen, task, files, journal, stream, advance, say)
        except BaseException:
            files.close()
            if not journal.batches:
                files.discard()
            raise
    _finish(source, task, files)
    return Outcome(seen, journal.tally, resumed, workers, monotonic() - started)


def check_names(job: Job) -> None:
    """Refuse an OUT that exists, is IN, cannot be written, or is of another format than IN."""
    source, target = job.source, job.target
    format_, _ = format_of(source)
    wanted: Format | None
    try:
        wanted, _ = format_of(target)
    except RecordError:
        wanted = None
    if wanted != format_:
        endings = ", ".join(suffix for suffix, known in SUFFIXES.items() if known == format_)
        raise CommandRefused(
            f"{target}: the output has the format of the input; name it with {endings}"
            + ("" if format_ == "parquet" else ", each also with .gz")
        )
    if target.is_dir():
        raise CommandRefused(f"{target} is a directory; name a file in it")
    if not target.parent.is_dir():
        raise CommandRefused(f"{target} cannot be written: there is no folder {target.parent}")
    if target.exists():
        if source.exists() and target.samefile(source):
            raise CommandRefused(f"{target} is the file to be scrubbed; choose another name")
        if not job.force and JobFiles(target).known() is None:
            raise CommandRefused(f"{target} exists already; choose another name, or give --force")


def _journal(job: Job, files: JobFiles, seen: Survey) -> Journal:
    """The journal to continue, or a new one."""
    selection = job.selection
    options = {
        "columns": dict(selection.columns),
        "where": dict(selection.where),
        "department": selection.department,
        "only": None if selection.only is None else sorted(selection.only),
        "zipped": format_of(job.target)[1],
    }
    identity: dict[str, Any] = {
        "input": seen.digest,
        "policy": None if job.policy is None else job.policy.digest,
        "options": options,
        "key": None if job.key is None else _fingerprint(job.key),
        "code": code_digest(),
    }
    try:
        known = files.known()
        if known is not None:
            files.check(known, identity)
            if not known.complete or files.partial.exists() or job.target.exists():
                return known
    except CommandRefused:
        if not job.force:
            raise
    own = None if job.key is not None else secrets.token_bytes(32).hex()
    return Journal(identity, own)


def _fingerprint(key: bytes) -> str:
    """Tells one key from another and nothing of either."""
    return hmac.new(key, b"bulk scrubbing", hashlib.sha256).hexdigest()[:32]


def _run(
    job: Job,
    source: Source,
    seen: Survey,
    task: Task,
    files: JobFiles,
    journal: Journal,
    stream: IO[bytes],
    advance: Advance | None,
    say: Callable[[str], None],
) -> int:
    """Scrub what is left, batch after batch; return how many processes did."""
    remaining = islice(source.batches(), journal.batches, None)
    # As many as there is work for: batches may be empty where filters leave rows out.
    full = -(-seen.taken // BATCH_ROWS)
    workers = processes(job.workers, min(full, seen.batches - journal.batches))
    say(
        f"opening the detector in {workers} processes …"
        if workers > 1
        else "opening the detector …"
    )
    if not journal.batches:
        stream.write(_prologue(source, task))
    last = -math.inf
    for data, tally in scrubbed(task, remaining, workers):
        stream.write(len(data).to_bytes(8, "big") + data if task.format == "parquet" else data)
        journal.tally.add(tally)
        journal.batches += 1
        tolerate(seen, journal.tally.refused, job.tolerance)
        if advance is not None:
            advance(journal.tally.rows, seen.taken)
        if monotonic() - last >= _COMMIT_SECONDS:
            files.commit(journal)
            last = monotonic()
    stat = source.path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (seen.size, seen.modified):
        journal.batches = 0
        raise RecordError(f"{source.path}: was changed while it was read; scrub it again")
    journal.complete = True
    files.commit(journal)
    return workers


def _prologue(source: Source, task: Task) -> bytes:
    if not (source.prologue and task.zipped):
        return source.prologue
    return gzip.compress(source.prologue, mtime=0)


def _finish(source: Source, task: Task, files: JobFiles) -> None:
    files.close()
    finished = files.partial
    if task.format == "parquet" and files.partial.exists():
        finished = files.partial.with_suffix(".parquet")
        write_parquet(files.partial, source.path, finished)
    files.publish(finished)
