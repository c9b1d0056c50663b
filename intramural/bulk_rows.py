"""Rows of files of any size, in batches that know how to be written back in the same format.

A batch holds what a worker needs to write its rows anew: raw lines for JSON Lines and CSV, an Arrow
stream for Parquet. Where batches begin and end depends on the file and the selection alone, so that
a run that was stopped finds the same batches again. One batch is in memory at a time.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from client.errors import RecordError, RowFault
from client.formats import Format, format_of, kind_of, parse_json
from client.rows import flat_text

MAX_ROW_BYTES: Final = 16 * 2**20
"""A longer row is faulty; it is skipped without being held in memory."""

BATCH_ROWS: Final = 256
BATCH_BYTES: Final = 256 * 1024
MOST_COLUMNS: Final = 200
"""Of a file with more columns, the names of these are known."""

_SNIFFED_BYTES: Final = 64 * 1024
_DELIMITERS: Final = ",;\t|"
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
TEXT_COLUMNS: Final = ("text", "prompt", "completion")


@dataclass(frozen=True)
class Selection:
    """Which rows and columns of a file are meant.

    ``columns`` maps our names to the file's, ``where`` keeps the rows with these values, ``only``
    names the file's columns that are scrubbed (None: all). With ``drop_undeclared``, rows without a
    department are left out although no filter was spelled out for them.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    department: str | None = None
    only: frozenset[str] | None = None
    drop_undeclared: bool = False

    def column(self, name: str) -> str:
        """The file's name for one of ours."""
        return self.columns.get(name, name)

    def filters(self) -> dict[str, str]:
        """Our name, or the file's column, to the value that a row must have; the department first."""
        found = {} if self.department is None else {"department": self.department}
        return {**found, **{k: v for k, v in self.where.items() if (k, v) != ("split", "all")}}


@dataclass
class Batch:
    """Consecutive rows: those taken as ``rows``, and what became of the others.

    ``rows`` are (line, raw bytes) of JSON Lines and CSV; ``arrow`` is the Arrow stream of Parquet.
    """

    first_line: int = 0
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    arrow: bytes | None = None
    taken: int = 0
    size: int = 0
    faults: list[RowFault] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    undeclared: int = 0
    departments_named: bool = False
    columns: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str
    newline: str
    header: tuple[str, ...]
    quoted: bool
    """Every field of the header is quoted; then every field of a changed row is."""


class Rejected(Exception):
    """A row that cannot be used; the text is the reason and never quotes it."""


class LeftOut(Exception):
    """A row that a filter leaves out; the text is the filter's name."""


class Source:
    """A file, its format, and the batches in it.

    Raises:
        RecordError: another ending than those supported, or a file that cannot be read.
    """

    def __init__(self, path: Path, selection: Selection) -> None:
        self.path = path
        self.format: Format
        self.format, self.zipped = format_of(path)
        self.selection = selection
        if not path.is_file():
            reason = "is a directory; name a file in it" if path.is_dir() else "no such file"
            raise RecordError(f"{path}: {reason}")
        self.dialect: Dialect | None = None
        self.prologue = b""
        if self.format == "csv":
            self.dialect, self.prologue = self._csv_header()

    def batches(self) -> Iterator[Batch]:
        """Every row of the file, in order. Raises RecordError where the file is damaged."""
        if self.format == "parquet":
            from intramural.bulk_parquet import parquet_batches

            yield from parquet_batches(self.path, self.selection)
            return
        rows = self._jsonl() if self.format == "jsonl" else self._csv()
        batch = Batch()
        for line, raw, values in rows:
            if not batch.first_line:
                batch.first_line = line
            if isinstance(values, str):
                batch.faults.append(RowFault(str(self.path), line, values))
            else:
                self._take(batch, line, raw, values)
            batch.size += len(raw)
            if (
                batch.taken >= BATCH_ROWS
                or batch.size >= BATCH_BYTES
                or len(batch.faults) >= BATCH_ROWS
            ):
                yield batch
                batch = Batch()
        yield batch

    def _take(self, batch: Batch, line: int, raw: bytes, values: Mapping[str, Any]) -> None:
        if len(batch.columns) < MOST_COLUMNS:
            batch.columns.update(dict.fromkeys(values))
        try:
            check_filters(values, self.selection, batch)
            check_texts(values, self.selection)
        except LeftOut as filtered:
            batch.left_out[str(filtered)] += 1
        except Rejected as reason:
            batch.faults.append(RowFault(str(self.path), line, str(reason)))
        else:
            batch.rows.append((line, raw))
            batch.taken += 1

    # --- lines ------------------------------------------------------------------------------------

    def _open(self) -> IO[bytes]:
        return (
            cast("IO[bytes]", gzip.open(self.path, "rb")) if self.zipped else self.path.open("rb")
        )

    def _lines(self) -> Iterator[bytes | None]:
        """Each line with its end; None for one that is too long."""
        try:
            with self._open() as stream:
                first = True
                while chunk := stream.readline(MAX_ROW_BYTES + 1):
                    if first and chunk.startswith(_UTF16):
                        raise RecordError(f"{self.path}: is UTF-16; save it as UTF-8")
                    first = False
                    if len(chunk) <= MAX_ROW_BYTES or chunk.endswith(b"\n"):
                        yield chunk
                        continue
                    while chunk and not chunk.endswith(b"\n"):
                        chunk = stream.readline(MAX_ROW_BYTES + 1)
                    yield None
                if first:
                    raise RecordError(f"{self.path}: is empty")
        except (EOFError, zlib.error, OSError) as error:
            reason = getattr(error, "strerror", None) or "the gzip file is damaged or incomplete"
            raise RecordError(f"{self.path}: {reason}") from None

    def _jsonl(self) -> Iterator[tuple[int, bytes, Mapping[str, Any] | str]]:
        for number, raw in enumerate(self._lines(), 1):
            if raw is None:
                yield number, b"", f"is longer than {MAX_ROW_BYTES:,} bytes"
                continue
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if not line.strip():
                continue
            try:
                values = parse_json(line.decode())
            except UnicodeDecodeError:
                yield number, b"", "is not UTF-8"
            except ValueError as error:
                yield number, b"", str(error)
            else:
                told = f"is {kind_of(values)}, not a JSON object"
                yield number, line, values if isinstance(values, dict) else told

    # --- CSV --------------------------------------------------------------------------------------

    def _csv_header(self) -> tuple[Dialect, bytes]:
        lines = self._lines()
        sample: list[bytes] = []
        for line in lines:
            sample.append(line or b"\n")
            if sum(map(len, sample)) > _SNIFFED_BYTES or len(sample) >= 50:
                break
        lines.close()  # type: ignore[attr-defined]
        delimiter = _delimiter(sample)
        source = _Recorder(iter(sample))
        reader = csv.reader(source, delimiter=delimiter, strict=True)
        try:
            cells = next(cells for cells in reader if cells)
        except (StopIteration, csv.Error):
            raise RecordError(f"{self.path}: holds no header line that can be read") from None
        prologue = b"".join(source.taken)
        text = prologue.removeprefix(_BOM).strip(b"\r\n")
        newline = "\r\n" if prologue.endswith(b"\r\n") else "\n"
        quoted = len(cells) > 1 and text.count(b'"') >= 2 * len(cells)
        names = [name.strip().removeprefix("\ufeff").strip('"') for name in cells]
        if any("\udc80" <= c <= "\udcff" for name in names for c in name):
            raise RecordError(f"{self.path}: the header is not UTF-8; save the file as UTF-8")
        header = tuple(name or f"column {place}" for place, name in enumerate(names, 1))
        if not prologue.endswith(b"\n"):
            prologue += newline.encode()
        return Dialect(delimiter, newline, header, quoted), prologue

    def _csv(self) -> Iterator[tuple[int, bytes, Mapping[str, Any] | str]]:
        dialect = self.dialect
        if dialect is None:
            raise RuntimeError("only CSV files have a dialect")
        csv.field_size_limit(MAX_ROW_BYTES)
        source = _Recorder(self._lines())
        reader = csv.reader(source, delimiter=dialect.delimiter, strict=True)
        header_read = False
        while True:
            source.start()
            fault = ""
            cells: list[str] = []
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = _csv_reason(str(error))
            if not header_read:
                header_read = bool(cells)
                continue
            if source.too_long:
                fault = f"is longer than {MAX_ROW_BYTES:,} bytes"
            elif not fault and not cells:
                continue
            elif not fault and len(cells) != len(dialect.header):
                fault = f"has {len(cells)} fields, but the header has {len(dialect.header)}"
            elif any(
                "\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell
            ):
                fault = "is not UTF-8"
            if fault:
                yield source.first, b"", fault
                # An open quotation mark can swallow many good rows: each of them is told.
                for line in range(source.first + 1, source.last + 1):
                    yield line, b"", f"belongs to the faulty row that begins on line {source.first}"
                continue
            values = {n: c or None for n, c in zip(dialect.header, cells, strict=True)}
            yield source.first, b"".join(source.taken), values


class _Recorder:
    """Feeds text lines to the csv reader and keeps the bytes that went into the current row."""

    def __init__(self, lines: Iterator[bytes | None]) -> None:
        self._lines = lines
        self.taken: list[bytes] = []
        self.first = 1
        self.last = 0
        self.too_long = False

    def start(self) -> None:
        self.first = self.last + 1
        self.taken = []
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.last += 1
        if line is None:
            self.too_long = True
            return "\n"
        self.taken.append(line)
        # Bytes that are not UTF-8 become lone surrogates, so that the fault stays in its row.
        text = line.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if self.last == 1 else text


def _delimiter(sample: Sequence[bytes]) -> str:
    """The delimiter under which most sample rows have as many fields as the first, and most fields."""
    text = b"".join(sample).decode("utf-8", "replace").removeprefix("\ufeff")
    best, chosen = (0, 0), ","
    for delimiter in _DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            widths = [len(cells) for cells in reader if cells]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            alike = sum(width == widths[0] for width in widths)
            best, chosen = max((best, chosen), ((alike, widths[0]), delimiter), key=lambda p: p[0])
    return chosen


def _csv_reason(text: str) -> str:
    if "end of data" in text:
        return "opens a quotation mark that is never closed"
    if "field limit" in text:
        return f"has a field of more than {MAX_ROW_BYTES:,} characters (an open quotation mark?)"
    if "expected after" in text:
        return "has text after a closing quotation mark"
    return "is not valid CSV"


# --- rows -----------------------------------------------------------------------------------------


def check_filters(values: Mapping[str, Any], selection: Selection, batch: Batch) -> None:
    for name, wanted in selection.filters().items():
        column = selection.column(name)
        spelled_out = name in selection.where
        if name == "department":
            batch.departments_named |= column in values
        given = flat_text(values.get(column))
        if given == wanted:
            continue
        if given is None and name == "department" and not spelled_out:
            batch.undeclared += 1
            if not selection.drop_undeclared:
                continue
        raise LeftOut(name)


def check_texts(values: Mapping[str, Any], selection: Selection) -> None:
    """What is declared to be text must be text: anything else would pass by the detector."""
    for name in TEXT_COLUMNS:
        value = values.get(selection.column(name))
        if value is not None and not isinstance(value, str):
            raise Rejected(f"{_told(selection, name)} is {kind_of(value)}, not a text")
    messages = values.get(selection.column("messages"))
    if messages is not None and not isinstance(messages, str | list):
        told = _told(selection, "messages")
        raise Rejected(f"{told} is {kind_of(messages)}, not a list of messages")
    subject = values.get(selection.column("subject_id"))
    if subject is not None and (isinstance(subject, bool) or not isinstance(subject, str | int)):
        raise Rejected(f"{_told(selection, 'subject_id')} is {kind_of(subject)}, not a text")
    for column in selection.only or ():
        value = values.get(column)
        if isinstance(value, bool | int | float):
            raise Rejected(f"column {column!r} is {kind_of(value)}, not a text")


def _told(selection: Selection, name: str) -> str:
    column = selection.column(name)
    return name if column == name else f"{name} (column {column!r})"
