"""Bulk scrubbing: any size, any number of workers, any moment of death, the same bytes."""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import intramural.parts
import intramural.scrubbing
from client.errors import RecordError
from intramural.bulk_rows import Selection
from intramural.errors import CommandRefused
from intramural.scrubbing import Job, scrub_file
from policies.load import load_policy
from privacy.pii.errors import LimitExceeded
from privacy.pii.patterns import PatternDetector
from tests.intramural.cli_kit import POLICY, Cli

ROOT = Path(__file__).parents[2]
KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of patterns needs no model; the version is that of ``scrub_process``."""
    monkeypatch.setattr(intramural.scrubbing, "code_digest", lambda: "c" * 64)
    monkeypatch.setattr(intramural.parts, "detector_for", lambda pii: PatternDetector())


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i}",
            "n": i,
            "note": f"Write to user{i}@corp.example or call +44 20 7946 {i % 10000:04d}",
            "subject_id": f"s{i % 5}",
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, values: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def scrub(source: Path, target: Path, **options: Any) -> Any:
    return scrub_file(Job(source, target, **{"key": KEY, "workers": 1, **options}))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def process(moment: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.intramural.scrub_process", moment, "data", "scrub"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


# --- formats --------------------------------------------------------------------------------------


def test_other_fields_stay_byte_for_byte(tmp_path: Path) -> None:
    """Numbers, spacing, escapes and key order of a JSON row stay; only texts with findings change."""
    line = (
        '{"z":1.50, "a": 1e400,"t":"caf\\u00e9 ok", "deep":{"k":["x@corp.example",null,true]},'
        '"args":"{\\"to\\": \\"y@corp.example\\", \\"n\\": 1.0}"}\n'
    )
    source = tmp_path / "in.jsonl"
    source.write_text(line)
    scrub(source, tmp_path / "out.jsonl")
    expected = line.replace("x@corp.example", "<EMAIL_ADDRESS>").replace(
        "y@corp.example", "<EMAIL_ADDRESS>"
    )
    assert (tmp_path / "out.jsonl").read_text() == expected


def test_long_numbers_and_keys_are_looked_at(tmp_path: Path) -> None:
    """A card written as a JSON number, and an address used as a key, do not pass by the detector."""
    source = tmp_path / "in.jsonl"
    source.write_text('{"card": 4111111111111111, "by": {"x@corp.example": 1, "plain_key": 2}}\n')
    scrub(source, tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == [
        {"card": "<CREDIT_CARD>", "by": {"<EMAIL_ADDRESS>": 1, "plain_key": 2}}
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv_keeps_its_dialect(tmp_path: Path, delimiter: str, newline: str, quoting: Any) -> None:
    """Delimiter, line ends, quoting, byte order mark, header and untouched rows stay as they are."""
    table = [
        ["id", "note", "amount"],
        ["1", 'Said "hi";\tx@corp.example, twice|\nbye', "1.50"],
        ["2", "nothing to see", "007"],
    ]
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows(table)
    source = tmp_path / "in.csv"
    source.write_bytes(b"\xef\xbb\xbf" + sink.getvalue().encode())
    scrub(source, tmp_path / "out.csv")
    expected = (
        b"\xef\xbb\xbf" + sink.getvalue().replace("x@corp.example", "<EMAIL_ADDRESS>").encode()
    )
    assert (tmp_path / "out.csv").read_bytes() == expected


def test_parquet_keeps_its_schema(tmp_path: Path) -> None:
    """Types, nulls, metadata and compression of Parquet stay; texts in lists and structs change."""
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "note": pa.array(["x@corp.example", None], pa.large_string()),
            "kind": pa.array(["y@corp.example", "b"]).dictionary_encode(),
            "list": pa.array([["x@corp.example", None], []], pa.list_(pa.string())),
            "struct": [{"a": "x@corp.example", "b": 1}, None],
        }
    ).replace_schema_metadata({"k": "v"})
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source, compression="zstd")
    scrub(source, target)
    made = pq.read_table(target)
    assert made.schema.equals(pq.read_table(source).schema, check_metadata=True)
    assert pq.ParquetFile(target).metadata.row_group(0).column(1).compression == "ZSTD"
    assert made.to_pylist() == [
        {
            "id": 1,
            "note": "<EMAIL_ADDRESS>",
            "kind": "<EMAIL_ADDRESS>",
            "list": ["<EMAIL_ADDRESS>", None],
            "struct": {"a": "<EMAIL_ADDRESS>", "b": 1},
        },
        {"id": 2, "note": None, "kind": "b", "list": [], "struct": None},
    ]


def test_gzip_stays_gzip(tmp_path: Path) -> None:
    """A gzipped file becomes a gzipped file with the same rows in it, of several batches too."""
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz"
    with gzip.open(source, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows(600))
    scrub(source, target)
    made = read_jsonl(target)
    assert [row["n"] for row in made] == list(range(600))
    assert "corp.example" not in json.dumps(made)


def test_columns_that_are_named_are_the_only_ones(cli: Cli, tmp_path: Path) -> None:
    """--column NAME scrubs that column, copies the others and says so; an unknown one is refused."""
    source = tmp_path / "in.csv"
    source.write_text("a,b\nx@corp.example,y@corp.example\n")
    out = tmp_path / "out.csv"
    done = cli("data", "scrub", source, out, "--column", "b")
    assert out.read_text() == "a,b\nx@corp.example,<EMAIL_ADDRESS>\n"
    assert "Only b scrubbed" in done.out
    done = cli("data", "scrub", source, tmp_path / "other.csv", "--column", "c")
    assert done.code == 1
    assert "no column 'c'; found: a, b" in done.err


def test_column_heads_say_what_cells_are(tmp_path: Path) -> None:
    """A lone name under "Full name" is a finding, though no sentence says so; elsewhere it is not."""
    source = tmp_path / "in.csv"
    source.write_text("Full name,Product\nRuth Baker,Ruth Baker\nRuth B,Widget\n")
    scrub(source, tmp_path / "out.csv")
    made = (tmp_path / "out.csv").read_text().splitlines()
    assert made == ["Full name,Product", "<PERSON>,<PERSON>", "<PERSON>,Widget"]


def test_running_numbers_are_no_findings(tmp_path: Path) -> None:
    """Identifiers of rows stay, so that rows can be told apart, unless they are personal as a whole."""
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"id": "doc-SW1A 1AA-7"}, {"id": "x@corp.example"}]
    )
    scrub(source, tmp_path / "out.jsonl")
    assert [r["id"] for r in read_jsonl(tmp_path / "out.jsonl")] == [
        "doc-SW1A 1AA-7",
        "<EMAIL_ADDRESS>",
    ]


@pytest.mark.parametrize("subject", ["ada", 7, 12345678901, "--", '["ada"]'])
def test_every_subject_id_becomes_a_pseudonym(tmp_path: Path, subject: object) -> None:
    """Whatever a subject id looks like, it leaves as a keyed pseudonym."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"n": 1, "subject_id": subject}])
    scrub(source, tmp_path / "out.jsonl")
    (row,) = read_jsonl(tmp_path / "out.jsonl")
    assert row["subject_id"].startswith("s-")
    assert str(subject) not in row["subject_id"]


def test_a_subject_id_that_is_named_becomes_its_pseudonym_too(tmp_path: Path) -> None:
    """``--column subject_id`` gives the same pseudonyms in every format, and scrubs nothing else."""
    values = [{"note": "x@corp.example", "subject_id": s} for s in ("ada", "y@corp.example", "")]
    sources = [write_jsonl(tmp_path / "in.jsonl", values)]
    sources += [tmp_path / "in.csv", tmp_path / "in.parquet"]
    with sources[1].open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["note", "subject_id"])
        writer.writeheader()
        writer.writerows(values)
    pq.write_table(pa.Table.from_pylist(values), sources[2])
    made = []
    for source in sources:
        target = tmp_path / f"out{source.suffix}"
        done = scrub(source, target, selection=Selection(only=frozenset({"subject_id"})))
        assert done.tally.subjects == 2
    made.append(read_jsonl(tmp_path / "out.jsonl"))
    with (tmp_path / "out.csv").open(newline="") as stream:
        made.append(list(csv.DictReader(stream)))
    made.append(pq.read_table(tmp_path / "out.parquet").to_pylist())
    assert made[0] == made[1] == made[2]
    assert [row["note"] for row in made[0]] == ["x@corp.example"] * 3
    first, second, empty = (row["subject_id"] for row in made[0])
    assert (first[:2], second[:2], empty) == ("s-", "s-", "")
    assert first != second


def test_a_column_without_a_name_is_scrubbed_too(tmp_path: Path) -> None:
    """Parquet knows such columns; JSON in them is read and written in the same way."""
    values = ['{"z@corp.example and more": "x@corp.example"}', '{"a key!": 1}']
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"": values, "note": ["y@corp.example", "nothing"]}), source)
    scrub(source, target)
    assert pq.read_table(target).to_pylist() == [
        {"": '{"<EMAIL_ADDRESS> and more": "<EMAIL_ADDRESS>"}', "note": "<EMAIL_ADDRESS>"},
        {"": '{"a key!": 1}', "note": "nothing"},
    ]


def test_other_format_is_refused(cli: Cli, tmp_path: Path) -> None:
    """The output has the format of the input, or there is none."""
    source = write_jsonl(tmp_path / "in.jsonl", rows(1))
    done = cli("data", "scrub", source, tmp_path / "out.csv")
    assert done.code == 1
    assert ".jsonl" in done.err


# --- faults ---------------------------------------------------------------------------------------


def test_faulty_rows_never_reach_the_output(tmp_path: Path) -> None:
    """Rows that cannot be read are left out and told by line; above the tolerance nothing is done."""
    good = [json.dumps(row) for row in rows(4)]
    lines = [*good[:2], '{"note": "z@corp.example"', '["z@corp.example"]', *good[2:]]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines) + "\n")
    done = scrub(source, tmp_path / "out.jsonl", tolerance=0.5)
    assert [fault.line for fault in done.faults] == [3, 4]
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 4
    with pytest.raises(RecordError, match="2 of 6 rows are faulty") as refused:
        scrub(source, tmp_path / "none.jsonl", tolerance=0.1)
    assert "corp.example" not in str(refused.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_rows_beyond_the_limits_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the detector refuses is left out, told and counted as faulty; its neighbours stay."""

    class Limited(PatternDetector):
        def detect_many(self, texts: Any) -> Any:
            if any("huge" in text for text in texts):
                raise LimitExceeded("the text is too long")
            return super().detect_many(texts)

    monkeypatch.setattr(intramural.parts, "detector_for", lambda pii: Limited())
    values = [*rows(3), {"note": "huge z@corp.example"}, *rows(2)]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    done = scrub(source, tmp_path / "out.jsonl", tolerance=0.5)
    assert [(fault.line, fault.reason) for fault in done.faults] == [(4, "the text is too long")]
    assert (done.written, len(read_jsonl(tmp_path / "out.jsonl"))) == (5, 5)
    with pytest.raises(RecordError, match="faulty"):
        scrub(source, tmp_path / "none.jsonl", tolerance=0.0)


def test_blocked_rows_are_left_out(tmp_path: Path) -> None:
    """A row with a kind that the policy blocks for training is in no output, and is counted."""
    (tmp_path / "policy.toml").write_text(
        POLICY.replace('IBAN_CODE = "redact"', 'EMAIL_ADDRESS = "block"')
    )
    source = write_jsonl(tmp_path / "in.jsonl", [{"note": "x@corp.example"}, {"note": "nothing"}])
    done = scrub(source, tmp_path / "out.jsonl", policy=load_policy(tmp_path / "policy.toml"))
    assert read_jsonl(tmp_path / "out.jsonl") == [{"note": "nothing"}]
    assert (done.written, done.tally.blocked) == (1, 1)


def test_rows_without_a_department_are_others(tmp_path: Path) -> None:
    """Where a file names departments, rows that name none are left out of a department's file."""
    values = [{"t": "a", "department": "hr"}, {"t": "b", "department": "it"}, {"t": "c"}]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    done = scrub(source, tmp_path / "out.jsonl", selection=Selection(department="hr"))
    assert [row["t"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["a"]
    assert done.survey.left_out == {"department": 2}


# --- size, processes, death -----------------------------------------------------------------------


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Five times the rows take less than one and a half times the memory."""
    peaks = []
    for count in (1_000, 5_000):
        values = [{"n": i, "note": "nothing at all " * 10} for i in range(count)]
        source = write_jsonl(tmp_path / f"{count}.jsonl", values)
        del values
        tracemalloc.start()
        scrub(source, tmp_path / f"{count}.out.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, bytes]:
    """A file of several batches, a key, and what scrubbing makes of it in one go."""
    folder = tmp_path_factory.mktemp("work")
    source = write_jsonl(folder / "in.jsonl", rows(900))
    key = folder / "key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    assert (
        process("never", source, folder / "ref.jsonl", "--key", key, "--workers", 1).returncode == 0
    )
    return source, key, (folder / "ref.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("moment", "workers"),
    [
        ("commit-before-1", 1),
        ("commit-before-3", 1),
        ("commit-after-3", 2),
        ("publish-before", 1),
        ("discard-before", 1),
    ],
)
def test_a_killed_run_continues(
    work: tuple[Path, Path, bytes], tmp_path: Path, moment: str, workers: int
) -> None:
    """Killed at any moment, a repeated run gives the bytes of one that was never killed."""
    source, key, expected = work
    out = tmp_path / "out.jsonl"
    options = (source, out, "--key", key, "--workers", workers)
    assert process(moment, *options).returncode == -9
    if moment != "discard-before":
        assert not out.exists()
    again = process("never", *options, "--json")
    assert again.returncode == 0, again.stderr
    assert out.read_bytes() == expected
    value = json.loads(again.stdout)
    assert value["written"] == 900
    assert value["counts"]["EMAIL_ADDRESS"] == 900
    if moment.startswith("commit-after"):
        assert value["resumed_rows"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.report.json"]


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run with a policy and a key was killed after its second commit."""
    folder = tmp_path_factory.mktemp("half")
    source = write_jsonl(folder / "in.jsonl", rows(900))
    (folder / "policy.toml").write_text(POLICY)
    (folder / "key").write_bytes(KEY)
    (folder / "key").chmod(0o600)
    options = ("--policy", folder / "policy.toml", "--key", folder / "key", "--workers", 1)
    assert process("commit-after-2", source, folder / "out.jsonl", *options).returncode == -9
    return folder


def test_a_killed_run_keeps_the_key_it_drew(tmp_path: Path) -> None:
    """Without --key, one person keeps one pseudonym across a kill, and the key goes at the end."""
    source, out = write_jsonl(tmp_path / "in.jsonl", rows(900)), tmp_path / "out.jsonl"
    assert process("commit-after-2", source, out, "--workers", 1).returncode == -9
    assert process("never", source, out, "--workers", 1).returncode == 0
    names = {row["subject_id"] for row in read_jsonl(out)}
    assert len(names) == 5
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("changed", ["input", "policy", "key", "options"])
def test_other_work_is_not_continued(half_done: Path, tmp_path: Path, changed: str) -> None:
    """Half-done work is continued for the same input, policy, key and options only, or with --force."""
    folder = tmp_path / "work"
    shutil.copytree(half_done, folder)
    out = folder / "out.jsonl"
    options: dict[str, Any] = {"policy": load_policy(folder / "policy.toml")}
    if changed == "input":
        write_jsonl(folder / "in.jsonl", rows(899))
    elif changed == "policy":
        (folder / "policy.toml").write_text(POLICY + "\n")
        options["policy"] = load_policy(folder / "policy.toml")
    elif changed == "key":
        options["key"] = KEY[::-1]
    else:
        options["selection"] = Selection(only=frozenset({"note"}))
    with pytest.raises(CommandRefused, match="half done"):
        scrub(folder / "in.jsonl", out, **options)
    assert not out.exists()
    done = scrub(folder / "in.jsonl", out, force=True, **options)
    assert (done.resumed, out.exists()) == (0, True)


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """Where another process is at work on OUT, the second one is refused."""
    import fcntl

    source = write_jsonl(tmp_path / "in.jsonl", rows(3))
    with (tmp_path / ".out.jsonl.scrub.partial").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CommandRefused, match="another process"):
            scrub(source, tmp_path / "out.jsonl")


# --- report and preview ---------------------------------------------------------------------------


def test_report_tells_shapes_and_rates_only(cli: Cli, tmp_path: Path) -> None:
    """The report has types, rates, columns and shapes; no value, and only its owner reads it."""
    source = write_jsonl(tmp_path / "in.jsonl", rows(10))
    with source.open("a") as stream:
        stream.write("no JSON\n")
    assert cli("data", "scrub", source, tmp_path / "out.jsonl", "--tolerance", 0.1).code == 0
    report = tmp_path / "out.jsonl.report.json"
    value = json.loads(report.read_text())
    assert (value["rows"], value["records"], value["faulty"]) == (11, 10, 1)
    mail = value["types"]["EMAIL_ADDRESS"]
    assert (mail["replaced"], mail["rows"], mail["share_of_rows"]) == (10, 10, 1.0)
    assert mail["samples"] == ["xxxx9@xxxx.xxxxxxx"]
    assert value["columns"]["note"]["types"]["EMAIL_ADDRESS"] == 10
    assert "corp.example" not in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


def test_preview_shows_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    """--preview, with or without a number, shows rows before and after, and leaves no file."""
    source = write_jsonl(tmp_path / "in.jsonl", rows(9))
    for options, shown in ((("--preview",), 5), (("--preview", 2), 2)):
        done = cli("data", "scrub", source, *options)
        assert done.code == 0
        assert done.out.count("before: 'Write to") == shown
        assert "after:  'Write to <EMAIL_ADDRESS> or call <PHONE_NUMBER>'" in done.out
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_output_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    """Without OUT and without --preview the command is used wrongly."""
    assert cli("data", "scrub", write_jsonl(tmp_path / "in.jsonl", rows(1))).code == 2
