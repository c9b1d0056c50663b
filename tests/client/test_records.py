"""A department's file as a record set: taken, left out and counted, or faulty and told."""

import csv
import gzip
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.errors import ClientError, DataSourceError, RecordError, RowFault
from client.records import (
    DataSource,
    Record,
    RecordSet,
    parse_columns,
    parse_where,
    read_records,
    write_records,
)

ROOT = Path(__file__).parents[2]
PUBLIC_DATA = next((d for d in (ROOT / "shared", ROOT.parent / "shared") if d.is_dir()), ROOT)
CLINC150 = PUBLIC_DATA / "data" / "clinc150.jsonl.gz"
SECRET = "SECRET-7731"


def jsonl(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


def texts(records: RecordSet) -> list[str]:
    return [record.completion for record in records]


def test_every_format_gives_the_same_records(tmp_path: Path) -> None:
    """The same rows are the same records, in whatever format they lie."""
    rows = [{"text": f"question {n}", "label": "ab"[n % 2], "subject_id": str(n)} for n in range(9)]
    jsonl(tmp_path / "a.jsonl", list(rows))
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["label", "text", "subject_id"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [
        [record.as_row() for record in read_records(DataSource(tmp_path / name))]
        for name in ("a.jsonl", "a.ndjson.gz", "a.csv", "a.parquet")
    ]
    assert found == [rows] * 4


def test_departments(tmp_path: Path) -> None:
    """Of a file with departments only the named one's rows are taken; the rest is counted."""
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {"text": "a", "department": "hr"},
            {"text": "b", "department": "finance"},
            {"text": "c"},
            {"text": "d", "department": " hr "},
            {"text": "e", "department": None},
            {"text": "f", "department": ["hr"]},
        ],
    )
    found = read_records(DataSource(path, department="hr"))
    assert texts(found) == ["a", "d"]
    assert found.left_out == {"department": 4}
    assert found.rows == 6
    assert texts(read_records(DataSource(path))) == ["a", "b", "c", "d", "e", "f"]


def test_a_file_without_departments_is_the_departments_own(tmp_path: Path) -> None:
    """Where no row names a department, all rows are taken."""
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    found = read_records(DataSource(path, department="hr"))
    assert texts(found) == ["a", "b"]
    assert found.left_out == {}


def test_rows_of_other_departments_are_not_judged(tmp_path: Path) -> None:
    """A faulty row of another department is that department's matter."""
    path = jsonl(
        tmp_path / "a.jsonl",
        [{"text": "", "department": "finance"}, {"text": "a", "department": "hr"}],
    )
    assert len(read_records(DataSource(path, department="hr"), tolerance=0)) == 1


def test_splits(tmp_path: Path) -> None:
    """Training rows and rows without a split are taken unless a split is asked for by name."""
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {"text": "a", "split": "train"},
            {"text": "b", "split": "test"},
            {"text": "c"},
            {"text": "d", "split": "all"},
        ],
    )
    default = read_records(DataSource(path))
    assert (texts(default), default.left_out) == (["a", "c"], {"split": 2})
    test = read_records(DataSource(path, where={"split": "test"}))
    assert (texts(test), test.left_out) == (["b"], {"split": 3})
    every = read_records(DataSource(path, where={"split": "all"}))
    assert (texts(every), every.left_out) == (["a", "b", "c", "d"], {})


def test_where(tmp_path: Path) -> None:
    """Any column can choose rows, by its own name or by ours; what is left out is counted."""
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {"body": "a", "lang": "en", "level": 1},
            {"body": "b", "lang": "zh", "level": 1},
            {"body": "c", "lang": "en", "level": 2},
            {"body": "d", "level": 1},
        ],
    )
    found = read_records(
        DataSource(path, columns={"text": "body"}, where={"lang": "en", "level": "1"})
    )
    assert (texts(found), found.left_out) == (["a"], {"lang": 2, "level": 1})
    assert texts(read_records(DataSource(path, columns={"text": "body"}, where={"text": "b"}))) == [
        "b"
    ]


def test_filters_work_on_parquet(tmp_path: Path) -> None:
    """Columns that only filter are read from Parquet files too."""
    rows = [{"text": "a", "lang": "en"}, {"text": "b", "lang": "zh"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert texts(read_records(DataSource(tmp_path / "a.parquet", where={"lang": "zh"}))) == ["b"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"where": {"split": "dev"}}, "no row is left: 2 by split='dev' were left out"),
        ({"where": {"lang": "en"}}, "no row is left: 2 by lang='en' were left out"),
        ({"department": "hr"}, "no row is left: 2 by department='hr' were left out"),
        ({}, "2 by split='train' (the split 'train' is taken unless another is asked for"),
    ],
)
def test_nothing_left(tmp_path: Path, source: dict[str, Any], words: str) -> None:
    """No record at all is an error that says which filter took them."""
    row = {"text": SECRET, "split": "test", "department": "it"}
    path = jsonl(tmp_path / "a.jsonl", [row, row])
    with pytest.raises(RecordError) as caught:
        read_records(DataSource(path, **source))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_rows(tmp_path: Path) -> None:
    """A header alone, or blank lines alone, are no records."""
    (tmp_path / "a.csv").write_text("text\n")
    (tmp_path / "a.jsonl").write_text("\n\n")
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(RecordError, match="holds no rows"):
            read_records(DataSource(tmp_path / name))


def test_faults_below_the_tolerance_are_listed(tmp_path: Path) -> None:
    """Up to the tolerated share, the file is used and every skipped row is told."""
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}] * 98 + [{"text": SECRET, "label": ""}, "{"])
    found = read_records(DataSource(path), tolerance=0.02)
    assert len(found) == 98
    assert found.faults == (
        RowFault(str(path), 99, "label is empty"),
        RowFault(str(path), 100, "is not valid JSON (column 2)"),
    )
    assert str(found.faults[0]) == f"{path}:99: label is empty"
    assert found.rows == 100
    with pytest.raises(RecordError, match=r"2 of 100 rows are faulty, more than .* 0.01"):
        read_records(DataSource(path))


def test_faults_above_the_tolerance_refuse_the_file(tmp_path: Path) -> None:
    """Above it nothing is used; twenty faults are shown, the rest counted, all attached."""
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}] + [{"text": [SECRET]}] * 25)
    with pytest.raises(RecordError) as caught:
        read_records(DataSource(path))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 25 of 26 rows are faulty, more than the tolerated share of 0.01:"
    assert lines[1] == f"  {path}:2: text is a list, not a text"
    assert lines[-1] == "  … and 5 more"
    assert len(lines) == 22
    assert len(caught.value.faults) == 25
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, ClientError)


def test_full_tolerance_still_needs_a_record(tmp_path: Path) -> None:
    """Even with every fault tolerated, no record is an error, with the faults attached."""
    path = jsonl(tmp_path / "a.jsonl", ["{", {"text": ""}])
    with pytest.raises(RecordError, match="holds no usable row") as caught:
        read_records(DataSource(path), tolerance=1.0)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("tolerance", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_tolerance_is_a_share(tmp_path: Path, tolerance: float) -> None:
    """A tolerance outside [0, 1] is a usage error."""
    with pytest.raises(DataSourceError, match="must lie between 0 and 1"):
        read_records(DataSource(tmp_path / "a.jsonl"), tolerance=tolerance)


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        (["id", "body"], "found: id, body; map what you mean, as in --column text=body"),
        (["Input", "Output"], "--column prompt=Input --column completion=Output"),
        (["id", "Customer Message"], "--column text=id"),
        (["Customer Message"], '--column "text=Customer Message"'),
        (["文本", "编号"], "found: 文本, 编号; map what you mean, as in --column text=文本"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_unknown_columns(tmp_path: Path, columns: list[str], advice: str, ending: str) -> None:
    """Where no column is known, those found are named, with the option that would help."""
    path = tmp_path / f"a.{ending}"
    row = dict.fromkeys(columns, SECRET)
    if ending == "jsonl":
        jsonl(path, [row, row])
    elif ending == "csv":
        path.write_text(f"{','.join(columns)}\n{','.join(row.values())}\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    with pytest.raises(RecordError) as caught:
        read_records(DataSource(path))
    assert advice in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_misspelt_mapping(tmp_path: Path) -> None:
    """A mapping to a column that is not there says so."""
    path = jsonl(tmp_path / "a.jsonl", [{"body": "a", "text": "b"}])
    with pytest.raises(
        RecordError, match=r"the mapped column is not there \(text=bdoy\); found: bo"
    ):
        read_records(DataSource(path, columns={"text": "bdoy"}))


def test_a_missing_header_does_not_show_the_first_record(tmp_path: Path) -> None:
    """The first line of a CSV without a header is a record, so it is not quoted as columns."""
    path = tmp_path / "a.csv"
    path.write_text("Please call Ada Example on 0555 123,billing\nsecond,billing\n")
    with pytest.raises(RecordError, match="is a header line missing") as caught:
        read_records(DataSource(path))
    assert "Ada" not in str(caught.value)


def test_contradictory_sources(tmp_path: Path) -> None:
    """A source that cannot be meant is a usage error at once."""
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataSourceError, match="contradict each other"):
        DataSource(path, department="hr", where={"department": "it"})
    with pytest.raises(DataSourceError, match="has an empty side"):
        DataSource(path, where={"lang": ""})
    with pytest.raises(DataSourceError, match="mapped to the same column"):
        DataSource(path, columns={"text": "a", "label": "a"})
    DataSource(path, department="hr", where={"department": "hr"})


def test_column_options() -> None:
    """Options map our names to the file's columns, and say how they are written."""
    assert parse_columns(["text=body", " label = topic = x "]) == {
        "text": "body",
        "label": "topic = x",
    }
    assert parse_where(["split=test"]) == {"split": "test"}
    with pytest.raises(
        DataSourceError, match=r"--column 'body' must read NAME=VALUE, as in text=b"
    ):
        parse_columns(["body"])
    with pytest.raises(DataSourceError, match=r"gives 'text' twice \('a' and 'b'\)"):
        parse_columns(["text=a", "text=b"])
    with pytest.raises(DataSourceError, match="did you mean 'label'"):
        parse_columns(["lable=a"])
    with pytest.raises(DataSourceError, match="--where '=x'"):
        parse_where(["=x"])


def test_kinds_are_counted(tmp_path: Path) -> None:
    """A file may mix shapes; the set counts them."""
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {"text": "a"},
            {"text": "a", "label": 1},
            {"prompt": "a", "completion": "b"},
            {"text": "c"},
        ],
    )
    assert read_records(DataSource(path)).kinds == {"text": 2, "label": 1, "completion": 1}


@pytest.mark.skipif(not CLINC150.exists(), reason="the public CLINC150 file is not here")
def test_clinc150_as_it_is() -> None:
    """The public file works as it is: one department's training rows, the rest accounted for."""
    found = read_records(DataSource(CLINC150, department="hr"), tolerance=0)
    assert len(found) == 1500
    assert found.left_out == {"department": 21_450, "split": 750}
    assert found.kinds == {"label": 1500}


# --- writing --------------------------------------------------------------------------------------

RECORDS = [Record("text", "", "中文\u2028", subject_id="s1"), Record("label", "a", "b")]


@pytest.mark.parametrize("name", ["out.jsonl", "out.ndjson", "out.jsonl.gz"])
def test_written_records_read_back(tmp_path: Path, name: str) -> None:
    """What is written reads back, is the owner's alone, and leaves nothing else behind."""
    path = tmp_path / name
    assert write_records(path, iter(RECORDS)) == 2
    again = read_records(DataSource(path), tolerance=0)
    assert [r.as_row() for r in again] == [r.as_row() for r in RECORDS]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208
    before = path.read_bytes()
    write_records(path, RECORDS, overwrite=True)
    assert path.read_bytes() == before


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    """Nothing is overwritten unasked."""
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(RecordError, match="exists already"):
        write_records(path, RECORDS)
    assert path.read_text() == "mine"


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    """Where a record fails, neither a half file nor a temporary one remains, and the old one does."""

    def failing() -> Any:
        yield RECORDS[0]
        raise RuntimeError("half way")

    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(RuntimeError, match="half way"):
        write_records(path, failing(), overwrite=True)
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    """Another format, a missing folder and a directory are refused with the reason."""
    with pytest.raises(RecordError, match=r"written as \.jsonl, \.ndjson, \.json-lines"):
        write_records(tmp_path / "out.csv", RECORDS)
    with pytest.raises(RecordError, match="cannot be written: No such file"):
        write_records(tmp_path / "no" / "out.jsonl", RECORDS)
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(RecordError, match="is a directory"):
        write_records(tmp_path / "out.jsonl", RECORDS, overwrite=True)


good = st.text(
    st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=12
).filter(str.strip)
lines = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"text": good},
            optional={
                "label": good,
                "department": st.sampled_from(["hr", "it", None]),
                "split": st.sampled_from(["train", "test"]),
                "subject_id": good,
            },
        ),
        st.fixed_dictionaries({"text": st.sampled_from([None, "", 3])}),
        st.sampled_from(["{", "[]", "nonsense"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines, st.sampled_from([None, "hr"]), st.sampled_from([{}, {"split": "all"}]))
def test_every_row_is_accounted_for(
    tmp_path: Path, rows: list[Any], department: str | None, where: dict[str, str]
) -> None:
    """Taken, left out and faulty rows add up to the rows of the file, each counted once."""
    path = jsonl(tmp_path / "a.jsonl", rows)
    try:
        found = read_records(DataSource(path, department=department, where=where), tolerance=1.0)
    except RecordError:
        return
    assert found.rows == len(rows)
    taken = [record.line for record in found]
    assert taken == sorted(set(taken))
    assert not set(taken) & {fault.line for fault in found.faults}
    for line in taken:
        row = rows[line - 1]
        if department is not None:
            named = any(isinstance(r, dict) and "department" in r for r in rows)
            assert row.get("department") == department or not named
        if not where:
            assert row.get("split", "train") == "train"


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(Record, st.just("label"), good, good, subject_id=st.none() | good.map(str.strip))
        | st.builds(Record, st.just("completion"), good, good)
        | st.builds(Record, st.just("text"), st.just(""), good),
        min_size=1,
        max_size=8,
    )
)
def test_any_records_survive_a_file(tmp_path: Path, records: list[Record]) -> None:
    """Writing and reading again keeps every record, in order."""
    path = tmp_path / "out.jsonl.gz"
    write_records(path, records, overwrite=True)
    again = read_records(DataSource(path), tolerance=0)
    assert [record.as_row() for record in again] == [record.as_row() for record in records]
    assert Counter(record.kind for record in records) == again.kinds
