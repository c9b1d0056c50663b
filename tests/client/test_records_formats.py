"""Files as they come: whatever is broken is told by file, line and reason, never by content."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.errors import RecordError
from client.formats import MAX_LINE_BYTES, Row, Unreadable, format_of, iter_rows

SECRET = "SECRET-7731"


def rows(path: Path, content: bytes | str) -> list[Row | Unreadable]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = list(iter_rows(path))
    assert not any(SECRET in row.reason for row in found if isinstance(row, Unreadable))
    return found


def refused(path: Path, content: bytes | str | None = None) -> str:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RecordError) as caught:
        list(iter_rows(path))
    assert SECRET not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("jsonl", False)),
        ("a.ndjson", ("jsonl", False)),
        ("a.json-lines.gz", ("jsonl", True)),
        ("a.b.CSV", ("csv", False)),
        ("a.csv.GZ", ("csv", True)),
        ("a.parquet", ("parquet", False)),
    ],
)
def test_formats_by_name(name: str, expected: tuple[str, bool]) -> None:
    """A file's format follows from its ending, in capitals or not."""
    assert format_of(Path(name)) == expected


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a", "a.gz", "a.parquet.gz", "a.tar.gz"])
def test_unsupported_endings(name: str) -> None:
    """Another ending is refused with the supported ones named."""
    with pytest.raises(RecordError) as caught:
        format_of(Path(name))
    assert ".jsonl, .ndjson, .json-lines, .csv" in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_no_file(tmp_path: Path, name: str) -> None:
    """A missing file, a directory, an empty file and a strange name are told for what they are."""
    assert "no such file" in refused(tmp_path / name)
    assert "is empty" in refused(tmp_path / name, b"")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert "is a directory" in refused(tmp_path / name)
    assert "no such file" in refused(tmp_path / f"nul\0{name}")


def test_fifos(tmp_path: Path) -> None:
    """A named pipe would block for ever: it is refused."""
    os.mkfifo(tmp_path / "a.jsonl")
    assert "is not a regular file" in refused(tmp_path / "a.jsonl")


def test_jsonl(tmp_path: Path) -> None:
    """Lines are rows; a byte order mark, CRLF, blank lines and a missing last newline do no harm."""
    found = rows(
        tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text":"a\\u00e9"}\r\n\n  \n{"text":"\xe4\xb8\xad"}'
    )
    assert found == [Row(1, {"text": "aé"}), Row(4, {"text": "中"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f'{{"text": "{SECRET}"', "is not valid JSON (column 23)"),
        (f"{SECRET}", "is not valid JSON (column 1)"),
        (f'["{SECRET}"]', "is a list, not a JSON object"),
        (f'"{SECRET}"', "is a text, not a JSON object"),
        ("3", "is a number, not a JSON object"),
        ("null", "is null, not a JSON object"),
        ("true", "is true or false, not a JSON object"),
        ('{"text": NaN}', "holds NaN, which is not JSON"),
        ('{"text": -Infinity}', "holds -Infinity, which is not JSON"),
        (f'{{"text": "a", "text": "{SECRET}"}}', "names a key twice"),
        (f'{{"text": "{SECRET}\n', "is not valid JSON (column 10)"),
        ('{"text": ' + "9" * 5000 + "}", "holds a number that is too long"),
        ('{"text": ' + "[" * 100_000, "is nested too deeply"),
        (b'{"text": "\xff' + SECRET.encode() + b'"}', "is not UTF-8"),
        ("\0" + SECRET, "is not valid JSON (column 1)"),
        (f'{{"text": "{SECRET * 200_000}"}}', f"is longer than {MAX_LINE_BYTES:,} bytes"),
    ],
)
def test_faulty_lines(tmp_path: Path, line: bytes | str, reason: str) -> None:
    """A faulty line is told by its number and reason; its neighbours are read."""
    line = line.encode() if isinstance(line, str) else line
    content = b'{"text": "a"}\n' + line.rstrip(b"\n") + b'\n{"text": "b"}\n'
    found = rows(tmp_path / "a.jsonl", content)
    assert found == [Row(1, {"text": "a"}), Unreadable(2, reason), Row(3, {"text": "b"})]


def test_the_longest_line(tmp_path: Path) -> None:
    """A line of exactly the bound is read, with a byte order mark or a last newline or without."""
    text = '{"text": "' + "a" * (MAX_LINE_BYTES - 12) + '"}'
    assert len(text) == MAX_LINE_BYTES
    for content in (text, text + "\n"):
        assert isinstance(rows(tmp_path / "a.jsonl", content)[0], Row)
    assert isinstance(rows(tmp_path / "a.jsonl", " " + text)[0], Unreadable)


def test_utf16(tmp_path: Path) -> None:
    """A file saved as UTF-16 is told as a whole, not line by line."""
    content = f'{{"text": "{SECRET}"}}\n'.encode("utf-16")
    assert "is UTF-16; save it as UTF-8" in refused(tmp_path / "a.jsonl", content)
    assert "is UTF-16" in refused(tmp_path / "a.csv", content)


def test_gzip(tmp_path: Path) -> None:
    """Gzipped lines are read; truncated, damaged and misnamed files are told as such."""
    lines = "".join(f'{{"text": "{SECRET} {n}"}}\n' for n in range(5000))
    packed = gzip.compress(lines.encode())
    path = tmp_path / "a.jsonl.gz"
    assert len(rows(path, packed)) == 5000
    assert "ends too early" in refused(path, packed[:-9])
    assert "ends too early" in refused(path, packed[: len(packed) // 2])
    assert "is not a gzip file" in refused(path, lines)
    assert "damaged" in refused(path, packed[:200] + b"\0" * 50 + packed[250:])
    assert "damaged" in refused(path, packed[:-5] + b"\1" + packed[-4:])
    assert "is empty" in refused(path, gzip.compress(b""))


def test_csv(tmp_path: Path) -> None:
    """Quotes, line breaks in fields, blank lines and an empty cell mean what they mean in CSV."""
    found = rows(
        tmp_path / "a.csv",
        '\ufeff text ,label\r\n"a, ""b""\nc",x\r\n\r\nd,\r\n',
    )
    assert found == [
        Row(2, {"text": 'a, "b"\nc', "label": "x"}),
        Row(5, {"text": "d", "label": None}),
    ]


def test_csv_gzipped(tmp_path: Path) -> None:
    """A gzipped CSV is read like a plain one."""
    assert rows(tmp_path / "a.csv.gz", gzip.compress(b"text\na\n")) == [Row(2, {"text": "a"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{SECRET},b,c", "has 3 fields, but the header has 2"),
        (SECRET, "has 1 fields, but the header has 2"),
        (f'"{SECRET}"x,b', "has text after a closing quotation mark"),
        (SECRET.encode() + b"\xff,b", "is not UTF-8"),
        (f"{SECRET * 20_000},b", "has a field of more than 131,072 characters"),
        (f"{SECRET * 200_000},b", f"is longer than {MAX_LINE_BYTES:,} bytes"),
    ],
)
def test_faulty_csv_rows(tmp_path: Path, line: bytes | str, reason: str) -> None:
    """A faulty row is told by its line and reason; its neighbours are read."""
    line = line.encode() if isinstance(line, str) else line
    found = rows(tmp_path / "a.csv", b"text,label\na,b\n" + line + b"\nc,d\n")
    assert [row.line for row in found] == [2, 3, 4]
    assert isinstance(found[1], Unreadable)
    assert found[1].reason.startswith(reason)
    assert isinstance(found[2], Row)


def test_an_open_quotation_mark_costs_every_line_it_swallows(tmp_path: Path) -> None:
    """Rows that vanish into an unclosed field are told one by one, never as a single fault."""
    good = "".join(f"{SECRET},{n}\n" for n in range(50))
    found = rows(tmp_path / "a.csv", f'text,label\na,b\n"oops,c\n{good}')
    assert found[0] == Row(2, {"text": "a", "label": "b"})
    assert found[1] == Unreadable(3, "opens a quotation mark that is never closed")
    assert [row.line for row in found] == list(range(2, 54))
    assert all(isinstance(row, Unreadable) for row in found[1:])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n\n", "holds no header line"),
        ("text,text\na,b\n", "columns 1 and 2 have the same name"),
        (b"te\xffxt\na\n", "the header (line 1) is not UTF-8"),
        ('"text\na\n', "the header (line 1) opens a quotation mark that is never closed"),
        (b"x" * (MAX_LINE_BYTES + 5), "the header (line 1) is longer than"),
    ],
)
def test_faulty_headers(tmp_path: Path, content: bytes | str, words: str) -> None:
    """A header that cannot be used makes the whole file unusable, and says why."""
    assert words in refused(tmp_path / "a.csv", content)


def parquet(path: Path, table: dict[str, Any]) -> Path:
    pq.write_table(pa.table(table), path, row_group_size=700)
    return path


def test_parquet(tmp_path: Path) -> None:
    """Rows come in order, counted from 1 across batches; only the wanted columns are read."""
    path = parquet(tmp_path / "a.parquet", {"text": [str(n) for n in range(3000)], "x": [1] * 3000})
    found = list(iter_rows(path, {"text", "label"}))
    assert found[0] == Row(1, {"text": "0"})
    assert found[-1] == Row(3000, {"text": "2999"})
    assert len(found) == 3000
    assert next(iter(iter_rows(path))) == Row(1, {"text": "0", "x": 1})
    assert list(iter_rows(path, {"label"}))[-1] == Row(3000, {})


def test_parquet_chats(tmp_path: Path) -> None:
    """Nested lists of messages come as lists of objects."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = parquet(tmp_path / "a.parquet", {"messages": [messages, None]})
    assert list(iter_rows(path)) == [
        Row(1, {"messages": messages}),
        Row(2, {"messages": None}),
    ]


def test_broken_parquet(tmp_path: Path) -> None:
    """A file that is no Parquet file, or a damaged one, is told as such without its content."""
    path = tmp_path / "a.parquet"
    assert "is not a Parquet file, or is damaged" in refused(path, f'{{"text": "{SECRET}"}}\n' * 9)
    parquet(path, {"text": [SECRET] * 10})
    whole = path.read_bytes()
    assert "damaged" in refused(path, whole[:-20])
    assert "damaged" in refused(path, whole[: len(whole) // 2])
    parquet(path, {"text": pa.array([], pa.string())})
    assert "holds no rows" in refused(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
quiet = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quiet
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5))
def test_every_object_survives_jsonl(tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    """Whatever JSON can say in a line is read as it was written."""
    content = "".join(json.dumps(value) + "\n" for value in objects)
    assert rows(tmp_path / "a.jsonl", content) == [
        Row(line, value) for line, value in enumerate(objects, 1)
    ]


@quiet
@given(st.binary(min_size=1), st.sampled_from(["a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet"]))
def test_any_bytes_are_rows_or_a_record_error(tmp_path: Path, content: bytes, name: str) -> None:
    """No file, however broken, raises anything but a RecordError."""
    path = tmp_path / name
    path.write_bytes(content)
    try:
        found = list(iter_rows(path))
    except RecordError:
        return
    assert all(isinstance(row, Row | Unreadable) for row in found)


@quiet
@given(st.text(alphabet='ab,"\n\r\0é', max_size=80))
def test_every_csv_line_is_accounted_for(tmp_path: Path, text: str) -> None:
    """Below the header, each line that is not blank belongs to a row that is read or told."""
    path = tmp_path / "a.csv"
    path.write_text("p,q\n" + text, encoding="utf-8", newline="")
    lines = path.read_bytes().split(b"\n")
    told = {row.line for row in iter_rows(path)}
    first = next((n for n, line in enumerate(lines[1:], 2) if line.strip(b"\r")), None)
    assert (first is None) == (not told)
    if first is not None:
        assert min(told) == first
