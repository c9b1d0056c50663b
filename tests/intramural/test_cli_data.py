"""``intramural data``: every row is accounted for, and nothing personal is left in what is written."""

import json
import stat
from pathlib import Path

import pytest

import intramural.parts
from policies.model import PiiPolicy
from privacy.pii.detector import Detector
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.patterns import PatternDetector
from tests.intramural.cli_kit import POLICY, Cli

EMAIL = "ada@example.org"
CARD = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of patterns, which passes the port's contract suite and needs no model."""

    def opened(pii: PiiPolicy) -> Detector:
        return PatternDetector(threshold=pii.threshold, allow=pii.allow, deny=pii.deny)

    monkeypatch.setattr(intramural.parts, "detector_for", opened)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Four rows: two of hr, one of finance, one faulty."""
    path = tmp_path / "records.jsonl"
    rows = [
        {"text": f"Write to {EMAIL}", "label": "mail", "department": "hr", "subject_id": "ada"},
        {"text": f"The card {CARD}", "label": "card", "department": "hr", "subject_id": "ada"},
        {"text": "Nothing here", "label": "none", "department": "finance"},
        {"text": 7, "label": CARD, "department": "hr"},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_check_accounts_for_every_row(cli: Cli, records: Path) -> None:
    """Records, rows left out and faulty rows add up to the rows of the file."""
    done = cli("data", "check", records, "--department", "hr", "--tolerance", 0.5, "--json")
    assert done.code == 0
    value = done.json
    assert (value["rows"], value["records"], value["left_out"]) == (4, 2, {"department": 1})
    assert [fault["line"] for fault in value["faults"]] == [4]
    assert value["kinds"] == {"label": 2}
    assert value["with_subject_id"] == 2


def test_check_tells_faulty_rows_without_their_content(cli: Cli, records: Path) -> None:
    """Faulty rows are told by file, line and reason; never what they hold."""
    done = cli("data", "check", records, "--tolerance", 0.5)
    assert done.code == 0
    assert f"skipped {records}:4: " in done.out
    assert CARD not in done.out + done.err


def test_too_many_faulty_rows_are_refused(cli: Cli, records: Path) -> None:
    """Above the tolerance the file is refused with 1, each row named, also as JSON."""
    done = cli("data", "check", records)
    assert done.code == 1
    assert f"{records}:4: " in done.err
    done = cli("data", "check", records, "--json")
    assert done.code == 1
    (fault,) = done.json["error"]["faults"]
    assert fault["line"] == 4
    assert CARD not in done.out + done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--column", "text"),
        ("--column", "text=a", "--column", "text=b"),
        ("--column", "txet=a"),
        ("--tolerance", "2"),
        ("--department", "hr", "--where", "department=finance"),
    ],
)
def test_contradicting_options_are_usage_errors(
    cli: Cli, records: Path, options: tuple[str, ...]
) -> None:
    """Options that contradict themselves end with 2."""
    done = cli("data", "check", records, *options)
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_columns_and_filters_are_mapped(cli: Cli, tmp_path: Path) -> None:
    """--column names the file's column for ours, --where keeps the rows with a value."""
    path = tmp_path / "tickets.csv"
    path.write_text("body,split\nfirst,train\nsecond,test\n")
    options = ("--column", "text=body", "--where", "split=test", "--json")
    value = cli("data", "check", path, *options).json
    assert (value["records"], value["left_out"]) == (1, {"split": 1})


def test_delta_that_does_not_fit_the_department_is_refused(
    cli: Cli, tmp_path: Path, records: Path
) -> None:
    """With --policy, what the department's node would refuse later is refused now."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        POLICY.replace("[departments.hr]", "[departments.hr]\ndelta = 0.5\ndeclared_units = 1")
    )
    options = ("--department", "hr", "--tolerance", 0.5, "--policy", policy)
    done = cli("data", "check", records, *options)
    assert done.code == 1
    assert "must be below 1/2" in done.err


def test_missing_file_is_told(cli: Cli, tmp_path: Path) -> None:
    """A file that is not there ends with 1 and its name."""
    done = cli("data", "check", tmp_path / "none.jsonl")
    assert done.code == 1
    assert "none.jsonl" in done.err


def test_scrub_leaves_nothing_personal(cli: Cli, tmp_path: Path, records: Path) -> None:
    """The written records hold types instead of values, and pseudonyms instead of subject ids."""
    out = tmp_path / "out.jsonl"
    done = cli("data", "scrub", records, out, "--department", "hr", "--tolerance", 0.5, "--json")
    assert done.code == 0
    assert done.json["counts"] == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1}
    assert done.json["written"] == 2
    first, second = read(out)
    assert first["text"] == "Write to <EMAIL_ADDRESS>"
    assert second["text"] == "The card <CREDIT_CARD>"
    assert first["subject_id"] == second["subject_id"] != "ada"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    for secret in (EMAIL, CARD):
        assert secret not in out.read_text() + done.out + done.err


def test_scrub_tells_counts_by_type(cli: Cli, tmp_path: Path, records: Path) -> None:
    """A person sees how many findings of which type were replaced."""
    out = tmp_path / "out.jsonl"
    done = cli("data", "scrub", records, out, "--tolerance", 0.5)
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["EMAIL_ADDRESS", "1", "0"] in rows
    assert f"3 records written to {out}" in done.out


def test_policy_decides_what_is_kept(cli: Cli, tmp_path: Path, records: Path) -> None:
    """A type that the policy keeps stays, and is counted as kept."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace('IBAN_CODE = "redact"', 'EMAIL_ADDRESS = "keep"'))
    out = tmp_path / "out.jsonl"
    options = ("--policy", policy, "--tolerance", 0.5, "--json")
    value = cli("data", "scrub", records, out, *options).json
    assert value["kept"] == {"EMAIL_ADDRESS": 1}
    assert read(out)[0]["text"] == f"Write to {EMAIL}"


def test_key_makes_pseudonyms_repeatable(cli: Cli, tmp_path: Path, records: Path) -> None:
    """The same --key gives the same pseudonyms; without one each run gives others."""
    key = tmp_path / "pseudonym.key"
    subjects = []
    for number, options in enumerate([("--key", key), ("--key", key), (), ()]):
        out = tmp_path / f"out-{number}.jsonl"
        assert cli("data", "scrub", records, out, "--tolerance", 0.5, *options).code == 0
        subjects.append(read(out)[0]["subject_id"])
    assert subjects[0] == subjects[1]
    assert len(set(subjects)) == 3
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_key_that_others_can_read_is_refused(cli: Cli, tmp_path: Path, records: Path) -> None:
    """A pseudonym key with open permissions ends with 1 and writes nothing."""
    key = tmp_path / "pseudonym.key"
    key.write_bytes(bytes(32))
    key.chmod(0o644)
    out = tmp_path / "out.jsonl"
    done = cli("data", "scrub", records, out, "--tolerance", 0.5, "--key", key)
    assert done.code == 1
    assert "chmod 600" in done.err
    assert not out.exists()


def test_existing_file_is_kept_unless_forced(cli: Cli, tmp_path: Path, records: Path) -> None:
    """OUT is not replaced without --force, and IN never by itself."""
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    assert cli("data", "scrub", records, out, "--tolerance", 0.5).code == 1
    assert out.read_text() == "precious"
    assert cli("data", "scrub", records, out, "--tolerance", 0.5, "--force").code == 0
    assert out.read_text() != "precious"
    before = records.read_bytes()
    done = cli("data", "scrub", records, records, "--tolerance", 0.5, "--force")
    assert done.code == 1
    assert records.read_bytes() == before


def test_failed_detection_writes_nothing(
    cli: Cli, tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where personal data could not be looked for, no file appears."""

    class Failing(PatternDetector):
        def detect_many(self, texts: object) -> list[tuple[object, ...]]:  # type: ignore[override]
            raise RedactionUnavailable("the detector failed")

    monkeypatch.setattr(intramural.parts, "detector_for", lambda pii: Failing())
    before = sorted(tmp_path.iterdir())
    done = cli("data", "scrub", records, tmp_path / "out.jsonl", "--tolerance", 0.5)
    assert done.code == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "none/out.jsonl"])
def test_impossible_target_is_refused(cli: Cli, tmp_path: Path, records: Path, name: str) -> None:
    """Only JSON Lines are written, and only into a folder that exists."""
    done = cli("data", "scrub", records, tmp_path / name, "--tolerance", 0.5)
    assert done.code == 1
    assert name.rpartition("/")[2] in done.err
