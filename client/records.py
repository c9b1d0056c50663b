"""A department's file as a set of records, with an account of every row that is not in it.

A row is taken, left out by a filter (and counted under that filter), or faulty (and told by file,
line and reason). Nothing else happens to a row. Where more rows are faulty than the tolerance
allows, there is no record set at all.

Nothing here redacts: records are raw until `Record.map_text` has been given a scrubber.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from client.columns import columns_found
from client.errors import DataSourceError, RecordError, RowFault
from client.formats import SUFFIXES, Row, format_of, iter_rows, parquet_columns
from client.rows import NO_COLUMNS, ColumnMap, Kind, Message, Record, flat_text, record_of

__all__ = [
    "DEFAULT_TOLERANCE",
    "DataSource",
    "Message",
    "Record",
    "RecordSet",
    "parse_columns",
    "parse_where",
    "read_records",
    "write_records",
]

DEFAULT_TOLERANCE = 0.01
"""The share of faulty rows, of those not left out, up to which a file is used."""

DEFAULT_SPLIT = "train"
EVERY_SPLIT = "all"


@dataclass(frozen=True)
class DataSource:
    """A file, and which of its rows and columns are meant.

    `department` takes the rows of that department where the file has such a column. `columns` maps
    our names to the file's columns. `where` keeps the rows whose column has that very value. Of a
    file with a column `split`, the rows of split "train" and those without a split are taken;
    `where={"split": "all"}` takes every row, another value the rows of that split.

    Raises DataSourceError where this contradicts itself.
    """

    path: Path
    department: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "where", dict(self.where))
        ColumnMap(self.columns)
        wanted = self.where.get("department", self.department)
        if self.department is not None and wanted != self.department:
            raise DataSourceError(
                f"department {self.department!r} and the filter department={wanted!r} "
                "contradict each other; give one"
            )
        for name, value in self.where.items():
            if not name or not value:
                raise DataSourceError(f"the filter {name!r}={value!r} has an empty side")


@dataclass(frozen=True)
class RecordSet:
    """The records of one file, and what became of its other rows.

    `left_out` counts rows per filter ("department", "split", …); `faults` tells the faulty rows,
    of which there are at most the tolerated share.
    """

    source: DataSource
    records: tuple[Record, ...]
    faults: tuple[RowFault, ...]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @property
    def rows(self) -> int:
        """Every row of the file: taken, faulty and left out."""
        return len(self.records) + len(self.faults) + sum(self.left_out.values())

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """How many records there are of each kind."""
        return Counter(record.kind for record in self.records)


def parse_columns(options: Iterable[str], *, option: str = "--column") -> dict[str, str]:
    """`text=body` options as a mapping from our names to the file's columns.

    Raises DataSourceError for a malformed, repeated, unknown or conflicting mapping.
    """
    columns = _assignments(options, option, "text=body")
    ColumnMap(columns)
    return columns


def parse_where(options: Iterable[str], *, option: str = "--where") -> dict[str, str]:
    """`split=test` options as a mapping from columns to values. Raises DataSourceError."""
    return _assignments(options, option, "split=test")


def _assignments(options: Iterable[str], option: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in options:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise DataSourceError(f"{option} {text!r} must read NAME=VALUE, as in {example}")
        if name in found:
            raise DataSourceError(
                f"{option} gives {name!r} twice ({found[name]!r} and {value!r}); give it once"
            )
        found[name] = value
    return found


# --- reading --------------------------------------------------------------------------------------


def read_records(source: DataSource, *, tolerance: float = DEFAULT_TOLERANCE) -> RecordSet:
    """Read a file (.jsonl, .ndjson, .json-lines, .csv, each also .gz; .parquet) as records.

    `tolerance` is the largest share of faulty rows among those not left out, in [0, 1]. Raises
    RecordError where the file cannot be read, more rows are faulty, or no record remains, and
    DataSourceError where the tolerance is no share.
    """
    if not (math.isfinite(tolerance) and 0 <= tolerance <= 1):
        raise DataSourceError(f"tolerance={tolerance!r} must lie between 0 and 1")
    return _Reading(source).read(tolerance)


class _Reading:
    """One pass over one file."""

    def __init__(self, source: DataSource) -> None:
        self.source = source
        self.file = str(source.path)
        self.columns = ColumnMap(source.columns)
        self.filters = self._filters()
        self.records: list[Record] = []
        self.faults: list[RowFault] = []
        self.left_out: Counter[str] = Counter()
        # Positions in `records` of rows that name no department, kept until it is known
        # whether other rows of the file do.
        self.undeclared: list[int] = []
        self.departments_named = False
        self.columns_seen: dict[str, None] = {}

    def _filters(self) -> dict[str, str]:
        """Our name, or the file's column, to the value that a row must have."""
        filters = dict(self.source.where)
        if self.source.department is not None:
            filters["department"] = self.source.department
        if filters.get("split") == EVERY_SPLIT:
            del filters["split"]
        elif "split" in self.columns.columns:
            filters.setdefault("split", DEFAULT_SPLIT)
        # The department first: what belongs to others is counted as theirs, whatever its split.
        return {n: filters[n] for n in sorted(filters, key=lambda name: name != "department")}

    def read(self, tolerance: float) -> RecordSet:
        wanted = self.columns.wanted() | {self._column(name) for name in self.filters}
        for row in iter_rows(self.source.path, wanted):
            if isinstance(row, Row):
                self._take(row)
            else:
                self.faults.append(RowFault(self.file, row.line, row.reason))
        self._drop_undeclared()
        self._check(tolerance)
        return RecordSet(self.source, tuple(self.records), tuple(self.faults), dict(self.left_out))

    def _column(self, name: str) -> str:
        return self.columns.columns.get(name, name)

    def _take(self, row: Row) -> None:
        undeclared = False
        for name, value in self.filters.items():
            column = self._column(name)
            given = flat_text(row.values.get(column))
            if name == "department":
                self.departments_named |= column in row.values
            if given == value:
                continue
            if given is None and self._may_lack(name):
                undeclared |= name == "department"
                continue
            self.left_out[name] += 1
            return
        record = record_of(row.values, self.columns, row.line)
        if isinstance(record, Record):
            if undeclared:
                self.undeclared.append(len(self.records))
            self.records.append(record)
            return
        self.faults.append(RowFault(self.file, row.line, record))
        if record == NO_COLUMNS and len(self.columns_seen) < 50:
            self.columns_seen.update(dict.fromkeys(row.values))

    def _may_lack(self, name: str) -> bool:
        """May a row without this column be taken? Only under the filters nobody spelled out."""
        return name in ("department", "split") and name not in self.source.where

    def _drop_undeclared(self) -> None:
        if not (self.departments_named and self.undeclared):
            return
        dropped = set(self.undeclared)
        self.records = [r for place, r in enumerate(self.records) if place not in dropped]
        self.left_out["department"] += len(self.undeclared)

    def _check(self, tolerance: float) -> None:
        considered = len(self.records) + len(self.faults)
        strangers = sum(fault.reason == NO_COLUMNS for fault in self.faults)
        if not self.records and strangers and strangers == len(self.faults):
            found = list(self.columns_seen)
            if format_of(self.source.path)[0] == "parquet":
                found = parquet_columns(self.source.path)
            raise RecordError(f"{self.file}: {columns_found(found, self.columns)}")
        if len(self.faults) > tolerance * considered:
            raise RecordError(
                f"{self.file}: {len(self.faults):,} of {considered:,} rows are faulty, more than "
                f"the tolerated share of {tolerance:.3g}:",
                self.faults,
            )
        if not self.records:
            raise RecordError(f"{self.file}: {self._nothing_left()}", self.faults)

    def _nothing_left(self) -> str:
        if not self.left_out:
            return "holds no rows" if not self.faults else "holds no usable row"
        told = []
        for name, count in self.left_out.items():
            hint = ""
            if name == "split" and name not in self.source.where:
                hint = (
                    " (the split 'train' is taken unless another is asked for: --where split=all)"
                )
            told.append(f"{count:,} by {name}={self.filters[name]!r}{hint}")
        return f"no row is left: {', '.join(told)} were left out"


# --- writing --------------------------------------------------------------------------------------


def write_records(path: Path, records: Iterable[Record], *, overwrite: bool = False) -> int:
    """Write records as JSONL (.jsonl, .ndjson, .json-lines, each also .gz); return how many.

    The file appears complete or not at all, readable by its owner only. Raises RecordError where
    the name has another ending, the file exists already and `overwrite` is false, or it cannot be
    written.
    """
    path = Path(path)
    format_, zipped = format_of(path)
    if format_ != "jsonl":
        endings = ", ".join(suffix for suffix, known in SUFFIXES.items() if known == "jsonl")
        raise RecordError(f"{path}: records are written as {endings}, each also with .gz")
    if path.is_dir():
        raise RecordError(f"{path}: is a directory; name a file in it")
    if path.exists() and not overwrite:
        raise RecordError(f"{path}: exists already; choose another name")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            count = _write_rows(stream, records, zipped=zipped)
            stream.flush()
            os.fsync(stream.fileno())
        # A crash before this line leaves a hidden temporary file, one after it the whole file.
        Path(temporary).replace(path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
    return count


def _write_rows(stream: IO[bytes], records: Iterable[Record], *, zipped: bool) -> int:
    if not zipped:
        return _write_lines(stream, records)
    # No name and no time in the header: equal records make equal files.
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed:
        return _write_lines(cast("IO[bytes]", packed), records)


def _write_lines(stream: IO[bytes], records: Iterable[Record]) -> int:
    count = 0
    for record in records:
        stream.write(json.dumps(record.as_row(), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count
