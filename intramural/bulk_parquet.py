"""Parquet in batches, and back.

A row group cannot be added to a finished Parquet file, so a job collects complete Arrow streams, each
after its length in 8 bytes, and becomes Parquet at its end, one row group in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from client.errors import RecordError, RowFault
from intramural.bulk_rows import (
    BATCH_ROWS,
    TEXT_COLUMNS,
    Batch,
    LeftOut,
    Rejected,
    Selection,
    check_filters,
    check_texts,
)
from privacy.files import sync_file

_GROUP_ROWS: Final = 65_536
_GROUP_BYTES: Final = 64 * 2**20


def parquet_file(path: Path) -> Any:
    """The open file. Raises RecordError where it is none; pyarrow's own words may quote values."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise RecordError(f"{path}: Parquet needs pyarrow; install intramural[node]") from None
    try:
        return ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = type(error).__name__
        raise RecordError(f"{path}: is not a Parquet file, or is damaged ({kind})") from None


def to_ipc(batch: Any) -> bytes:
    """A record batch as a complete Arrow stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_ipc(data: bytes) -> Any:
    """The record batch of :func:`to_ipc`."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


def parquet_batches(path: Path, selection: Selection) -> Iterator[Batch]:
    """Every row of the file, in order. Raises RecordError."""
    import pyarrow as pa

    with parquet_file(path) as file:
        names = list(file.schema_arrow.names)
        if len(set(names)) != len(names):
            raise RecordError(f"{path}: two columns have the same name")
        checked = {selection.column(n) for n in (*selection.filters(), *TEXT_COLUMNS, "messages")}
        checked |= {selection.column("subject_id"), *(selection.only or ())}
        line = 1
        try:
            for arrow in file.iter_batches(BATCH_ROWS):
                looked_at = arrow.select([name for name in names if name in checked])
                yield _parquet_batch(path, selection, arrow, looked_at.to_pylist(), line)
                line += arrow.num_rows
        except (pa.ArrowException, OSError) as error:
            raise RecordError(f"{path}: is damaged ({type(error).__name__})") from None


def _parquet_batch(
    path: Path, selection: Selection, arrow: Any, rows: list[dict[str, Any]], line: int
) -> Batch:
    import pyarrow as pa

    batch = Batch(first_line=line, columns=dict.fromkeys(arrow.schema.names), size=arrow.nbytes)
    keep = []
    for place, values in enumerate(rows or [{}] * arrow.num_rows):
        try:
            check_filters(values, selection, batch)
            check_texts(values, selection)
        except LeftOut as filtered:
            batch.left_out[str(filtered)] += 1
        except Rejected as reason:
            batch.faults.append(RowFault(str(path), line + place, str(reason)))
        else:
            keep.append(place)
    batch.taken = len(keep)
    if len(keep) < arrow.num_rows:
        arrow = arrow.take(pa.array(keep, pa.int64()))
    batch.arrow = to_ipc(arrow)
    return batch


def holds_text(kind: Any) -> bool:
    """Whether a text can stand somewhere in an Arrow value of this type."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def write_parquet(streams: Path, like: Path, target: Path) -> None:
    """Turn collected streams into a Parquet file with the schema and compression of ``like``."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    with parquet_file(like) as file:
        schema, metadata = file.schema_arrow, file.metadata
        codecs = {}
        rows = _GROUP_ROWS
        if metadata.num_row_groups:
            group = metadata.row_group(0)
            columns = [group.column(i) for i in range(group.num_columns)]
            codecs = {c.path_in_schema: _codec(c.compression) for c in columns}
            rows = min(_GROUP_ROWS, max(1, group.num_rows))
    with (
        streams.open("rb") as source,
        ParquetWriter(target, schema, compression=codecs or "snappy") as writer,
    ):
        waiting: list[Any] = []
        held = size = 0
        for batch in _collected(source):
            waiting.append(batch)
            held += batch.num_rows
            size += batch.nbytes
            if held >= rows or size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=rows)
                waiting, held, size = [], 0, 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=rows)
    sync_file(target)


def _codec(name: str) -> str:
    return "none" if name == "UNCOMPRESSED" else name.lower()


def _collected(source: IO[bytes]) -> Iterator[Any]:
    while length := source.read(8):
        yield from_ipc(source.read(int.from_bytes(length, "big")))
