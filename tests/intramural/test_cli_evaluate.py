"""``intramural data evaluate-pii``: figures on a department's own labels, and predictions to score."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import intramural.parts
from policies.model import PiiPolicy
from privacy.pii.entities import PERSONAL
from privacy.pii.patterns import PatternDetector
from tests.intramural.cli_kit import POLICY, Cli

TEXT = "Ruth wrote 王磊 to ada@example.org."
MAIL = [17, 32]


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[PiiPolicy]:
    """The detector of patterns, and what was asked of it."""
    asked: list[PiiPolicy] = []

    def detector_for(pii: PiiPolicy) -> PatternDetector:
        asked.append(pii)
        return PatternDetector(entities=PERSONAL | pii.entities.keys(), allow=pii.allow)

    monkeypatch.setattr(intramural.parts, "detector_for", detector_for)
    return asked


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows), encoding="utf-8"
    )
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two texts: one with two labels, of which patterns find one, and one without any."""
    rows = [
        {"id": "a", "lang": "en", "text": TEXT, "spans": [[0, 4, "PERSON"], [*MAIL, "EMAIL"]]},
        {"id": 2, "text": "Nothing here", "spans": []},
    ]
    return write(tmp_path / "labelled.jsonl", rows)


def test_figures_are_printed_and_given_as_json(cli: Cli, labelled: Path) -> None:
    """Precision, recall, F1 and F2 with intervals, over all and by label."""
    value = cli("data", "evaluate-pii", labelled, "--json").json
    assert (value["records"], value["labelled_characters"], value["found_characters"]) == (
        2,
        19,
        15,
    )
    assert value["precision"]["value"] == 1
    assert value["recall"]["value"] == pytest.approx(15 / 19)
    assert value["f2"]["value"] == pytest.approx(5 * 15 / (4 * 19 + 15))
    assert value["types"]["EMAIL"]["recall"]["value"] == 1
    assert value["types"]["PERSON"]["recall"]["value"] == 0
    least, greatest = value["recall"]["interval"]
    assert least <= 15 / 19 <= greatest
    told = cli("data", "evaluate-pii", labelled).out
    assert "recall     0.7895  (95 %:" in told
    assert ["EMAIL", "1", "1.000", "1.000"] in [line.split()[:4] for line in told.splitlines()]


def test_predictions_have_every_text_in_order(cli: Cli, tmp_path: Path, labelled: Path) -> None:
    """The predictions have a line for every text, with its id, offsets in characters, and no text."""
    out = tmp_path / "found.jsonl"
    assert cli("data", "evaluate-pii", labelled, "--predictions", out).code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "a", "spans": [[*MAIL, "EMAIL_ADDRESS"]]},
        {"id": 2, "spans": []},
    ]


def test_spans_may_be_objects_and_the_file_gzipped(cli: Cli, tmp_path: Path) -> None:
    """Spans as objects under any of the usual names, and a gzipped file, mean the same."""
    spans = [
        {"start": 0, "end": 4, "entity_type": "PERSON"},
        {"start": MAIL[0], "end": MAIL[1], "label": "EMAIL", "score": 1},
    ]
    path = tmp_path / "labelled.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"text": TEXT, "spans": spans}).encode()))
    value = cli("data", "evaluate-pii", path, "--json").json
    assert value["recall"]["value"] == pytest.approx(15 / 19)


def test_kinds_are_those_of_the_labels(
    cli: Cli, tmp_path: Path, labelled: Path, opened: list[PiiPolicy]
) -> None:
    """Only labelled kinds are looked for; all of them where a label is unknown or when asked to."""
    value = cli("data", "evaluate-pii", labelled, "--json").json
    assert value["entities"] == ["EMAIL_ADDRESS", "PERSON"]
    text = {"id": 1, "text": TEXT, "spans": [[0, 4, "SHOE_SIZE"]]}
    unknown = write(tmp_path / "unknown.jsonl", [text])
    value = cli("data", "evaluate-pii", unknown, "--json").json
    assert {"EMAIL_ADDRESS", "ORGANIZATION"} <= set(value["entities"])
    assert "ORGANIZATION" in opened[-1].entities
    value = cli("data", "evaluate-pii", labelled, "--entities", "policy", "--json").json
    assert set(value["entities"]) == PERSONAL


def test_language_and_policy_reach_the_detector(
    cli: Cli, tmp_path: Path, labelled: Path, opened: list[PiiPolicy]
) -> None:
    """--language and --policy decide what the detector is opened with."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f'{POLICY}\n[pii]\nallow = ["ada@example.org"]\n'.replace(
            '[pii.entities]\nIBAN_CODE = "redact"\n', ""
        )
    )
    value = cli(
        "data", "evaluate-pii", labelled, "--language", "zh", "--policy", policy, "--json"
    ).json
    assert opened[-1].languages == ("zh",)
    assert (value["languages"], value["found_characters"]) == (["zh"], 0)
    assert len(value["policy"]) == 64


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"text": "secret', "is not valid JSON"),
        ('["secret"]', "is a list, not an object"),
        ({"spans": []}, 'has no "text"'),
        ({"text": "secret"}, 'has no "spans"'),
        ({"text": "secret", "spans": {}}, '"spans" is an object'),
        ({"text": "secret", "spans": [[0, 9, "PERSON"]]}, "must lie within the 6 characters"),
        ({"text": "secret", "spans": [[3, 3, "PERSON"]]}, "must lie within the 6 characters"),
        ({"text": "secret", "spans": [[0, 3]]}, "has 2 parts"),
        ({"text": "secret", "spans": [[0, 3.0, "PERSON"]]}, "no whole number as its end"),
        ({"text": "secret", "spans": [[0, 3, ""]]}, "has no type"),
        ({"text": "secret", "spans": [[0, 3, "A"]], "id": None}, '"id" is null'),
    ],
)
def test_bad_lines_are_told_without_their_text(
    cli: Cli, tmp_path: Path, row: Any, reason: str
) -> None:
    """A file with a line that is no labelled text is refused by line and reason, never by content."""
    path = write(tmp_path / "bad.jsonl", [{"text": "fine", "spans": []}, row])
    out = tmp_path / "found.jsonl"
    done = cli("data", "evaluate-pii", path, "--predictions", out, "--json")
    assert done.code == 1
    (fault,) = done.json["error"]["faults"]
    assert fault["line"] == 2
    assert reason in fault["reason"]
    assert "secret" not in done.out + done.err
    assert not out.exists()


def test_missing_and_empty_files_are_refused(cli: Cli, tmp_path: Path) -> None:
    """A file that is absent, empty, damaged or of another format is refused by its name."""
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "a.csv").touch()
    whole = gzip.compress(json.dumps({"text": TEXT, "spans": []}).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-9])
    (tmp_path / "damaged.jsonl.gz").write_bytes(whole[:10] + b"\xff" * (len(whole) - 10))
    for name in ("none.jsonl", "empty.jsonl", "a.csv", "cut.jsonl.gz", "damaged.jsonl.gz"):
        done = cli("data", "evaluate-pii", tmp_path / name)
        assert done.code == 1
        assert name in done.err
