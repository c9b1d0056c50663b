"""From a file's bytes to its rows: JSONL, CSV and Parquet, the first two also gzipped.

Files are streamed: one line, or one batch of a Parquet file, is in memory at a time. A row that
cannot be read is yielded as `Unreadable` and reading goes on; only what makes the rest of a file
unreliable raises. This module knows rows, not what their columns mean.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast

from client.errors import RecordError

Format = Literal["jsonl", "csv", "parquet"]

SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json-lines": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}

SUPPORTED = ".jsonl, .ndjson, .json-lines, .csv (each also with .gz) or .parquet"

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is a faulty row; it is skipped without being held in memory."""

PARQUET_BATCH = 1024

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row by name. A CSV cell that is empty, and a Parquet null, is None."""

    line: int
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that could not be read, and why; the reason never quotes it."""

    line: int
    reason: str


def format_of(path: Path) -> tuple[Format, bool]:
    """The file's format by its name, and whether it is gzipped. Raises RecordError."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    last = suffixes[-2:-1] if zipped else suffixes[-1:]
    found = SUFFIXES.get(last[0]) if last else None
    if found is None or (zipped and found == "parquet"):
        ending = "".join(suffixes[-2:] if zipped else suffixes[-1:])
        told = f"the ending {ending!r} is not supported" if ending else "the file has no ending"
        raise RecordError(f"{path}: {told}; use {SUPPORTED}")
    return found, zipped


def iter_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row | Unreadable]:
    """Every row of the file, in order.

    `wanted` names the columns of interest; a Parquet file's other columns are not read. Raises
    RecordError where the file cannot be opened, is empty, damaged, or not what its name says.
    """
    format_, zipped = format_of(path)
    _check_readable(path)
    if format_ == "parquet":
        yield from _parquet_rows(path, wanted)
        return
    with _opened(path, zipped) as stream:
        lines = _lines(stream, path)
        yield from _jsonl_rows(lines) if format_ == "jsonl" else _csv_rows(lines, path)


def parquet_columns(path: Path) -> list[str]:
    """The column names of a Parquet file. Raises RecordError."""
    with _parquet_file(path) as file:
        return list(file.schema_arrow.names)


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise RecordError(f"{path}: is a directory; name a file in it")
        if not path.exists():
            raise RecordError(f"{path}: no such file")
        if not path.is_file():
            raise RecordError(f"{path}: is not a regular file")
        with path.open("rb") as stream:
            first = stream.read(2)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read: {_why(error)}") from None
    if not first:
        raise RecordError(f"{path}: is empty")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


# --- lines ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its end. `content` is None where the line is too long."""

    number: int
    content: bytes | None


def _opened(path: Path, zipped: bool) -> IO[bytes]:
    try:
        if zipped:
            return cast("IO[bytes]", gzip.GzipFile(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {_why(error)}") from None


def _lines(stream: IO[bytes], path: Path) -> Iterator[_Line]:
    number = 0
    while chunk := _readline(stream, path, number):
        number += 1
        too_long = len(chunk) > MAX_LINE_BYTES and not chunk.endswith(b"\n")
        if number == 1:
            if chunk.startswith(_UTF16_BOMS):
                raise RecordError(f"{path}: is UTF-16; save it as UTF-8")
            chunk = chunk.removeprefix(_UTF8_BOM)
        if too_long:
            while (rest := _readline(stream, path, number)) and not rest.endswith(b"\n"):
                pass
            yield _Line(number, None)
        else:
            yield _Line(number, chunk.removesuffix(b"\n").removesuffix(b"\r"))
    if number == 0:
        raise RecordError(f"{path}: is empty")


def _readline(stream: IO[bytes], path: Path, number: int) -> bytes:
    try:
        return stream.readline(MAX_LINE_BYTES + 1)
    except EOFError:
        reason = "the gzip file ends too early (an incomplete copy?)"
    except gzip.BadGzipFile:
        reason = "is not a gzip file, or is damaged"
    except zlib.error:
        reason = "the gzip file is damaged"
    except OSError as error:
        reason = f"cannot be read: {_why(error)}"
    raise RecordError(f"{path}: {reason} (after line {number})")


def _too_long() -> str:
    return f"is longer than {MAX_LINE_BYTES:,} bytes"


# --- JSONL ------------------------------------------------------------------------------------


class _Refused(ValueError):
    """JSON that parses, but that we do not take; the message is the reason."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _Refused("names a key twice")
    return table


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"holds {name}, which is not JSON")


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: no NaN, no infinity, no key twice.

    Raises ValueError whose text is a reason that does not quote the input.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _Refused:
        raise
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON (column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("holds a number that is too long") from None


_JSON_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "a text"),
    (list, "a list"),
    (dict, "an object"),
    (bytes, "bytes"),
    (type(None), "null"),
)


def kind_of(value: object) -> str:
    """What a value is, for a reason: "a number", "a list"."""
    return next(
        (name for type_, name in _JSON_KINDS if isinstance(value, type_)), "of another kind"
    )


def _jsonl_rows(lines: Iterator[_Line]) -> Iterator[Row | Unreadable]:
    for line in lines:
        if line.content is None:
            yield Unreadable(line.number, _too_long())
            continue
        if not line.content.strip():
            continue
        try:
            # Decoded here: json.loads would take bytes of UTF-16 or UTF-32 for what they are.
            values = parse_json(line.content.decode("utf-8"))
        except UnicodeDecodeError:
            yield Unreadable(line.number, "is not UTF-8")
        except ValueError as error:
            yield Unreadable(line.number, str(error))
        else:
            if isinstance(values, dict):
                yield Row(line.number, values)
            else:
                yield Unreadable(line.number, f"is {kind_of(values)}, not a JSON object")


# --- CSV --------------------------------------------------------------------------------------


class _CsvSource:
    """Feeds text lines to the csv reader and remembers which lines went into the current row."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self.first = 1
        self.last = 0
        self.too_long = False

    def start_row(self) -> None:
        self.first = self.last + 1
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.last = line.number
        if line.content is None:
            self.too_long = True
            return "\n"
        # Bytes that are not UTF-8 become lone surrogates, so that the fault stays in its row.
        return line.content.decode("utf-8", "surrogateescape") + "\n"


def _csv_rows(lines: Iterator[_Line], path: Path) -> Iterator[Row | Unreadable]:
    source = _CsvSource(lines)
    reader = csv.reader(source, strict=True)
    header = _csv_header(source, reader, path)
    while True:
        source.start_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield from _spanned(source, _csv_reason(error))
            continue
        if source.too_long:
            yield from _spanned(source, _too_long())
        elif not cells:
            continue
        elif len(cells) != len(header):
            reason = f"has {len(cells)} fields, but the header has {len(header)}"
            yield from _spanned(source, reason)
        elif any(_not_utf8(cell) for cell in cells):
            yield Unreadable(source.first, "is not UTF-8")
        else:
            yield Row(
                source.first,
                {name: cell or None for name, cell in zip(header, cells, strict=True)},
            )


def _csv_header(source: _CsvSource, reader: Iterator[list[str]], path: Path) -> list[str]:
    cells: list[str] = []
    try:
        while not cells and not source.too_long:
            source.start_row()
            cells = next(reader)
    except StopIteration:
        raise RecordError(f"{path}: holds no header line") from None
    except csv.Error as error:
        raise RecordError(
            f"{path}: the header (line {source.first}) {_csv_reason(error)}"
        ) from None
    if source.too_long:
        raise RecordError(f"{path}: the header (line {source.first}) {_too_long()}")
    header = [cell.strip() for cell in cells]
    if any(_not_utf8(name) for name in header):
        raise RecordError(f"{path}: the header (line {source.first}) is not UTF-8")
    for index, name in enumerate(header):
        if name and name in header[:index]:
            raise RecordError(
                f"{path}: columns {header.index(name) + 1} and {index + 1} have the same name"
            )
    return header


def _csv_reason(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text:
        return "opens a quotation mark that is never closed"
    if "field limit" in text:
        return f"has a field of more than {csv.field_size_limit():,} characters (an open quotation mark?)"
    if "expected after" in text:
        return "has text after a closing quotation mark"
    return "is not valid CSV"


def _spanned(source: _CsvSource, reason: str) -> Iterator[Unreadable]:
    """One fault for each line of the row: an open quotation mark can swallow many good rows."""
    yield Unreadable(source.first, reason)
    for line in range(source.first + 1, source.last + 1):
        yield Unreadable(line, f"belongs to the faulty row that begins on line {source.first}")


def _not_utf8(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text)


# --- Parquet ----------------------------------------------------------------------------------


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise RecordError(
            f"{path}: reading Parquet needs pyarrow; install intramural[node]"
        ) from None
    return _guarded(path, lambda: ParquetFile(path))


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow's own messages can quote values: only the kind of error is passed on.
        raise RecordError(
            f"{path}: is not a Parquet file, or is damaged ({type(error).__name__})"
        ) from None


def _parquet_rows(path: Path, wanted: Collection[str] | None) -> Iterator[Row]:
    with _parquet_file(path) as file:
        names = list(file.schema_arrow.names)
        if len(set(names)) != len(names):
            raise RecordError(f"{path}: two columns have the same name")
        chosen = names if wanted is None else [name for name in names if name in wanted]
        batches = _guarded(path, lambda: file.iter_batches(PARQUET_BATCH, columns=chosen))
        line = 0
        while (batch := _guarded(path, lambda: next(batches, None))) is not None:
            for values in _guarded(path, batch.to_pylist):
                line += 1
                yield Row(line, values)
        if line == 0:
            raise RecordError(f"{path}: holds no rows")
