"""The first pass over a file: every row is looked at, none is scrubbed, and the work is sized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from client.errors import DataSourceError, RecordError, RowFault
from intramural.bulk_rows import MOST_COLUMNS, Source
from privacy.files import sha256_file

_SHOWN_FAULTS: Final = 1000


@dataclass(frozen=True)
class Survey:
    """What the first pass found."""

    file: str
    rows: int
    batches: int
    taken: int
    digest: str
    size: int
    modified: int
    faulty: int
    faults: tuple[RowFault, ...]
    left_out: Counter[str]
    columns: tuple[str, ...]
    drop_undeclared: bool


def survey(source: Source, tolerance: float) -> Survey:
    """Look at every row. At most ``tolerance`` of the rows not left out may be faulty.

    Raises:
        RecordError: the file cannot be read, too many rows are faulty, or none is left.
        DataSourceError: the tolerance is no share, or a named column does not exist.
    """
    if not (math.isfinite(tolerance) and 0 <= tolerance <= 1):
        raise DataSourceError(f"tolerance={tolerance!r} must lie between 0 and 1")
    stat = source.path.stat()
    taken = batches = faulty = undeclared = 0
    named = False
    faults: list[RowFault] = []
    left_out: Counter[str] = Counter()
    columns: dict[str, None] = dict.fromkeys(source.dialect.header if source.dialect else ())
    for batch in source.batches():
        batches += 1
        taken += batch.taken
        faulty += len(batch.faults)
        faults += batch.faults[: _SHOWN_FAULTS - len(faults)]
        left_out.update(batch.left_out)
        undeclared += batch.undeclared
        named |= batch.departments_named
        if len(columns) < MOST_COLUMNS:
            columns.update(batch.columns)
    rows = taken + faulty + left_out.total()
    drop = named and undeclared > 0
    if drop:
        taken -= undeclared
        left_out["department"] += undeclared
    seen = Survey(
        str(source.path),
        rows,
        batches,
        taken,
        sha256_file(source.path),
        stat.st_size,
        stat.st_mtime_ns,
        faulty,
        tuple(faults),
        left_out,
        tuple(columns),
        drop,
    )
    _check(seen, source, tolerance)
    return seen


def _check(seen: Survey, source: Source, tolerance: float) -> None:
    file, selection = source.path, source.selection
    wanted = {*(selection.only or ()), *selection.columns.values()}
    told_all = 0 < len(seen.columns) < MOST_COLUMNS
    if told_all and (missing := sorted(wanted - set(seen.columns))):
        shown = ", ".join(seen.columns[:20]) + (", …" if len(seen.columns) > 20 else "")
        raise RecordError(
            f"{file}: no column {' and no column '.join(map(repr, missing))}; found: {shown}"
        )
    tolerate(seen, (), tolerance)
    if not seen.taken:
        told = ", ".join(
            f"{count:,} by {name}={selection.filters().get(name)!r}"
            for name, count in seen.left_out.items()
        )
        why = f"no row is left: {told} were left out" if told else "holds no usable row"
        raise RecordError(f"{file}: {why}", seen.faults)


def tolerate(seen: Survey, refused: Sequence[tuple[int, str]], tolerance: float) -> None:
    """Raises RecordError where more rows are unusable than the tolerated share."""
    considered, unusable = seen.taken + seen.faulty, seen.faulty + len(refused)
    if unusable > tolerance * considered:
        raise RecordError(
            f"{seen.file}: {unusable:,} of {considered:,} rows are faulty, more than the tolerated "
            f"share of {tolerance:.3g}:",
            (*seen.faults, *(RowFault(seen.file, *row) for row in refused)),
        )
