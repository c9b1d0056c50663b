"""Scrubs one batch of rows: what every process of a pool does, and the only process of a small job.

A worker is opened once in its process, with its detector. It knows neither files nor journals:
bytes go in, bytes of the same format and a tally come out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from client.formats import Format, parse_json
from intramural.bulk_parquet import from_ipc, holds_text, to_ipc
from intramural.bulk_rows import Batch, Dialect, Selection
from intramural.bulk_tally import Tally
from intramural.bulk_texts import map_json, map_object, map_text, shown_name
from intramural.column_kinds import HintedDetector
from policies.model import Action, Policy
from privacy.pii.detector import Detector
from privacy.pii.entities import Span
from privacy.pii.errors import LimitExceeded
from privacy.pii.scrub import Scrubber, always_redact


@dataclass(frozen=True)
class Task:
    """What all workers of a job agree on. ``policy`` None: every finding becomes its bare type."""

    format: Format
    zipped: bool
    dialect: Dialect | None
    selection: Selection
    policy: Policy | None
    key: bytes

    def action(self) -> Callable[[str], Action]:
        """What happens to a finding of a kind."""
        from policies.decisions import action_for

        policy = self.policy
        if policy is None:
            return always_redact
        return lambda entity: action_for(policy, entity, "training")


@dataclass(frozen=True)
class Finding:
    """For the preview: one finding, and the text that it is in by its place among the row's texts."""

    place: int
    span: Span
    action: Action


@dataclass
class _Row:
    """The texts of one row with their columns, in order."""

    line: int
    columns: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def _next(texts: Iterator[str], _: str, __: str) -> str:
    return next(texts)


class Worker:
    """``scrub(batch)`` for one job."""

    def __init__(self, task: Task, detector: Detector) -> None:
        from intramural.parts import subject_pseudonym

        self._task = task
        self._pseudonym = subject_pseudonym(task.key)
        self._subject_column = task.selection.column("subject_id")
        self._detector = HintedDetector(
            detector, () if task.policy is None else task.policy.pii.allow
        )
        self._tally = Tally()
        self._columns: list[str] = []
        self._row_of: list[int] = []
        self._met: set[tuple[int, str]] = set()
        self._findings: list[tuple[int, Span, Action]] = []
        self._scrubber = Scrubber(self._detector, task.action(), key=task.key, seen=self._seen)

    def scrub(self, batch: Batch) -> tuple[bytes, Tally]:
        """The batch's rows, scrubbed, as bytes of the output, and what was found in them."""
        task = self._task
        if task.format == "parquet":
            return self._parquet(batch)
        rows = [self._read(line, raw) for line, raw in batch.rows]
        changed, blocked = self._scrub(rows)
        out = [
            self._write(raw, row.texts, texts)
            for (_, raw), row, texts, out_of_use in zip(
                batch.rows, rows, changed, blocked, strict=True
            )
            if not out_of_use
        ]
        data = b"".join(out)
        # No time in the header: equal rows make equal bytes.
        return (gzip.compress(data, mtime=0) if task.zipped and data else data), self._tally

    def preview(self, batch: Batch) -> list[tuple[_Row, list[str], list[Finding]]]:
        """Each row's texts with their columns, the texts in their place, and the findings."""
        rows = (
            self._parquet_rows(from_ipc(batch.arrow or b""), batch.first_line)[0]
            if self._task.format == "parquet"
            else [self._read(line, raw) for line, raw in batch.rows]
        )
        changed, _ = self._scrub(rows)
        first = 0
        shown = []
        for row, texts in zip(rows, changed, strict=True):
            last = first + len(row.texts)
            shown.append(
                (
                    row,
                    texts,
                    [Finding(i - first, s, a) for i, s, a in self._findings if first <= i < last],
                )
            )
            first = last
        return shown

    def _seen(self, index: int, text: str, span: Span, action: Action) -> None:
        tally, column = self._tally, self._tally.column(self._columns[index])
        column.types[span.entity] += 1
        tally.sample(span.entity, span.of(text))
        self._met.add((self._row_of[index], span.entity))
        self._findings.append((index, span, action))

    def _scrub(self, rows: Sequence[_Row]) -> tuple[list[list[str]], list[bool]]:
        """The texts of each row, scrubbed, and whether the row must be left out.

        It must where the policy blocks it, or where it is beyond the detector's limits.
        """
        try:
            return self._scrub_at_once(rows)
        except LimitExceeded:
            pass
        changed, left_out, tally, findings, texts = [], [], Tally(), [], 0
        for row in rows:
            try:
                (made,), (out_of_use,) = self._scrub_at_once([row])
            except LimitExceeded as error:
                made, out_of_use = row.texts, True
                self._tally = Tally(rows=1, refused=[(row.line, str(error))])
                self._findings = []
            tally.add(self._tally)
            findings += [(texts + index, span, action) for index, span, action in self._findings]
            texts += len(row.texts)
            changed.append(made)
            left_out.append(out_of_use)
        self._tally, self._findings = tally, findings
        return changed, left_out

    def _scrub_at_once(self, rows: Sequence[_Row]) -> tuple[list[list[str]], list[bool]]:
        tally = self._tally = Tally(rows=len(rows))
        self._columns = [column for row in rows for column in row.columns]
        self._row_of = [place for place, row in enumerate(rows) for _ in row.texts]
        self._met, self._findings = set(), []
        for row in rows:
            for column, text in zip(row.columns, row.texts, strict=True):
                part = tally.column(column)
                part.texts += 1
                part.characters += len(text)
                tally.characters += len(text)
        self._detector.columns = self._columns
        changed, report = self._scrubber.scrub_items(
            [row.texts for row in rows], lambda texts, change: [change(text) for text in texts]
        )
        tally.texts = report.texts
        tally.counts.update(report.counts)
        tally.kept.update(report.kept)
        for _, entity in self._met:
            tally.rows_with[entity] += 1
        for index in {index for index, _, _ in self._findings}:
            tally.column(self._columns[index]).with_findings += 1
        blocked = set(report.blocked)
        tally.blocked = len(blocked)
        return changed, [place in blocked for place in range(len(rows))]

    # --- JSON Lines and CSV -----------------------------------------------------------------------

    def _read(self, line: int, raw: bytes) -> _Row:
        row = _Row(line)

        def note(path: str, text: str) -> str:
            row.columns.append(path)
            row.texts.append(text)
            return text

        self._map(raw, note, subjects=False)
        return row

    def _write(self, raw: bytes, before: Sequence[str], after: Sequence[str]) -> bytes:
        remaining = iter(zip(before, after, strict=True))

        def put(_: str, text: str) -> str:
            was, now = next(remaining)
            if was != text:
                raise RuntimeError("a row's texts came in another order than they were read")
            return now

        return self._map(raw, put, subjects=True)

    def _map(self, raw: bytes, change: Callable[[str, str], str], *, subjects: bool) -> bytes:
        if self._task.format == "csv":
            return self._map_csv(raw, change, subjects=subjects)
        subject = self._subject_column

        def inner(path: str, value: str) -> str:
            return value if path == subject else change(path, value)

        made = map_json(raw.decode(), inner, only=self._task.selection.only)
        if subjects and json.dumps(subject, ensure_ascii=False) in made:
            made = self._with_subject(made, subject)
        end = "" if made.endswith("\n") else "\n"
        return (made + end).encode()

    def _subject(self, given: str) -> str:
        """The pseudonym of a subject id, counted."""
        self._tally.subjects += 1
        return self._pseudonym(given.strip())

    def _with_subject(self, line: str, subject: str) -> str:
        values = parse_json(line)
        given = values.get(subject)
        if isinstance(given, bool) or not isinstance(given, str | int) or not str(given).strip():
            return line
        name = self._subject(str(given))
        if isinstance(given, str):
            made = map_json(line, lambda _, __: name, only=frozenset({subject}))
            if parse_json(made)[subject] == name:
                return made
        # A number, or a text that is none to a scrubber, such as "--": the row is written anew.
        return json.dumps({**values, subject: name}, ensure_ascii=line.isascii())

    def _map_csv(self, raw: bytes, change: Callable[[str, str], str], *, subjects: bool) -> bytes:
        dialect = self._task.dialect
        if dialect is None:
            raise RuntimeError("a CSV row needs its dialect")
        only = self._task.selection.only
        reader = csv.reader(
            io.StringIO(raw.decode(), newline=""), delimiter=dialect.delimiter, strict=True
        )
        cells = next(reader)
        made = []
        for name, cell in zip(dialect.header, cells, strict=True):
            if name == self._subject_column:
                made.append(self._subject(cell) if subjects and cell.strip() else cell)
            elif only is not None and name not in only:
                made.append(cell)
            else:
                made.append(map_text(cell, change, shown_name(name)))
        if made == cells:
            return raw if raw.endswith(b"\n") else raw + dialect.newline.encode()
        sink = io.StringIO(newline="")
        csv.writer(
            sink,
            delimiter=dialect.delimiter,
            quoting=csv.QUOTE_ALL if dialect.quoted else csv.QUOTE_MINIMAL,
            lineterminator=dialect.newline,
        ).writerow(made)
        return sink.getvalue().encode()

    # --- Parquet ----------------------------------------------------------------------------------

    def _parquet_rows(self, arrow: Any, first_line: int) -> tuple[list[_Row], dict[str, list[Any]]]:
        values = {name: arrow.column(name).to_pylist() for name in self._parquet_columns(arrow)}
        rows = []
        for place in range(arrow.num_rows):
            row = _Row(first_line + place)

            def note(path: str, text: str, row: _Row = row) -> str:
                row.columns.append(path)
                row.texts.append(text)
                return text

            for name, column in values.items():
                map_object(column[place], note, shown_name(name))
            rows.append(row)
        return rows, values

    def _parquet(self, batch: Batch) -> tuple[bytes, Tally]:
        import pyarrow as pa

        arrow = from_ipc(batch.arrow or b"")
        rows, values = self._parquet_rows(arrow, batch.first_line)
        changed, blocked = self._scrub(rows)
        remaining = [iter(texts) for texts in changed]
        for name, column in values.items():
            for place, value in enumerate(column):
                texts = remaining[place]
                column[place] = map_object(value, partial(_next, texts), shown_name(name))
            where = arrow.schema.get_field_index(name)
            made = pa.array(column, arrow.schema.field(where).type)
            arrow = arrow.set_column(where, arrow.schema.field(where), made)
        arrow = self._parquet_subjects(arrow)
        if any(blocked):
            arrow = arrow.filter(pa.array([not b for b in blocked]))
        return to_ipc(arrow), self._tally

    def _parquet_columns(self, arrow: Any) -> list[str]:
        """The columns in whose type a text occurs; the subject ids' are not among them."""
        only = self._task.selection.only
        return [
            item.name
            for item in arrow.schema
            if holds_text(item.type)
            and item.name != self._subject_column
            and (only is None or item.name in only)
        ]

    def _parquet_subjects(self, arrow: Any) -> Any:
        import pyarrow as pa

        where = arrow.schema.get_field_index(self._subject_column)
        if where < 0 or not holds_text(arrow.schema.field(where).type):
            return arrow
        names = [
            self._subject(value) if isinstance(value, str) and value.strip() else value
            for value in arrow.column(where).to_pylist()
        ]
        made = pa.array(names, arrow.schema.field(where).type)
        return arrow.set_column(where, arrow.schema.field(where), made)
