"""The library's front door: redact, restore, explain, sessions, bulk, limits, no surprises."""

import doctest
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.pii import Redactor
from privacy.pii.custom import CustomPattern
from privacy.pii.detector import PiiModels
from privacy.pii.errors import (
    DetectorNotReady,
    InvalidText,
    LimitExceeded,
    RedactionUnavailable,
    RefusedEntity,
)
from privacy.pii.limits import Limits
from privacy.pii.redactor import default_models
from tests.privacy.pii.fakes import FailingDetector
from tests.privacy.pii.models import full_detector, pii_models

TEXT = "Mail ruth@corp.example or call +44 191 496 0063; ruth@corp.example is read daily."
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    """A fast redactor with default options."""
    return Redactor(profile="fast")


def test_the_examples_of_the_documentation_run() -> None:
    """Every example of the module does what it says."""
    from privacy.pii import redactor

    results = doctest.testmod(redactor)
    assert results.attempted >= 5
    assert results.failed == 0


def test_a_text_comes_back(redactor: Redactor) -> None:
    """Values are replaced by typed, numbered placeholders and come back from the result alone."""
    result = redactor.redact(TEXT)
    assert result.text == (
        "Mail <EMAIL_ADDRESS_1> or call <PHONE_NUMBER_1>; <EMAIL_ADDRESS_1> is read daily."
    )
    assert result.restore(result.text) == redactor.restore(result.text, result) == TEXT
    assert [TEXT[f.start : f.end] for f in result.findings] == [
        "ruth@corp.example",
        "+44 191 496 0063",
        "ruth@corp.example",
    ]


def test_results_share_nothing(redactor: Redactor) -> None:
    """One result's placeholders mean nothing to another's: two people never swap."""
    ann, eve = redactor.redact("Mail ann@corp.example"), redactor.redact("Mail eve@corp.example")
    assert ann.text == eve.text
    assert ann.restore(eve.text).endswith("ann@corp.example")
    assert eve.restore(ann.text).endswith("eve@corp.example")


def test_a_session_remembers(redactor: Redactor) -> None:
    """In a session, a value has one placeholder in all messages; a new session knows none of it."""
    session = redactor.session()
    first, second = session.redact("I am ann@corp.example"), session.redact("ANN@corp.example?")
    assert "<EMAIL_ADDRESS_1" in first
    assert "<EMAIL_ADDRESS_1" in second
    assert session.restore(second) == "ANN@corp.example?"
    assert redactor.session().restore(first) == first


def test_bulk_is_the_same_and_lazy(redactor: Redactor) -> None:
    """The iterator gives what single calls give, in order, and reads no more than a batch ahead."""
    read = []

    def texts() -> object:
        for i in range(50):
            read.append(i)
            yield f"mail user{i}@corp.example"

    bulk = redactor.redact_iter(texts(), batch=8)  # type: ignore[arg-type]
    first = next(bulk)
    assert len(read) == 8
    rest = list(bulk)
    assert [first, *rest] == [redactor.redact(f"mail user{i}@corp.example") for i in range(50)]
    with pytest.raises(ValueError, match="batch=0"):
        next(redactor.redact_iter([], batch=0))


def test_every_finding_explains_itself() -> None:
    """Recognizer, rule, score, threshold and action are told; the value appears nowhere."""
    own = CustomPattern("ticket", "ID_NUMBER", r"TK-\d{4}", 0.7)
    explained = Redactor(
        profile="fast",
        deny=["Bluebird"],
        patterns=[own],
        actions={"TERM": "redact"},
        thresholds={"ID_NUMBER": 0.65},
    ).explain("Bluebird: TK-4711, ruth@corp.example")
    assert [(f.entity, f.recognizer, f.action) for f in explained] == [
        ("TERM", "deny", "redact"),
        ("ID_NUMBER", "policy", "replace"),
        ("EMAIL_ADDRESS", "rule", "replace"),
    ]
    assert explained[1].rule == "ticket"
    assert (explained[1].threshold, explained[1].score) == (0.65, 0.7)
    assert "policy ticket with score 0.70, of which 0.65 is needed" in str(explained[1])
    assert all(f.rule for f in explained[1:])


def test_nothing_printed_or_logged_holds_a_value(
    redactor: Redactor, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a result, nor a finding, nor an error, nor any log line shows what was found."""
    caplog.set_level(logging.DEBUG)
    result = redactor.redact(TEXT)
    told = [repr(result), *map(repr, result.findings), *map(str, result.findings), caplog.text]
    with pytest.raises(RefusedEntity) as refused:
        Redactor(profile="fast", default_action="block").redact(TEXT)
    told.append(str(refused.value))
    assert not any("ruth" in line or "496" in line for line in told)


@pytest.mark.parametrize("action", ["mask", "hash", "pseudonym", "encrypt", "redact", "replace"])
def test_every_action_removes_the_value(action: str) -> None:
    """Whatever replaces a value, the value is gone; what the action allows to restore comes back."""
    made = Redactor(profile="fast", default_action=action, key=KEY)  # type: ignore[arg-type]
    result = made.redact(TEXT)
    assert "ruth@corp.example" not in result.text
    assert "496 0063" not in result.text
    if action not in {"mask", "redact"}:
        assert result.restore(result.text) == TEXT


def test_allowing_a_kind_leaves_it() -> None:
    """A kind whose action is to allow stays, and is still explained."""
    made = Redactor(profile="fast", actions={"EMAIL_ADDRESS": "allow"})
    assert made.redact("Mail ruth@corp.example.").text == "Mail ruth@corp.example."
    assert [f.action for f in made.explain("Mail ruth@corp.example.")] == ["allow"]


def test_bytes_are_text_or_refused(redactor: Redactor) -> None:
    """UTF-8 bytes are read; others are refused with the place, and nothing of them is shown."""
    assert redactor.redact("邮箱 tao@example.org".encode()).text == "邮箱 <EMAIL_ADDRESS_1>"
    with pytest.raises(InvalidText, match="no UTF-8 at byte 18") as caught:
        redactor.redact(b"ruth@corp.example \xff\xfe")
    assert "ruth" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert redactor.redact("\ud800 ann@example.org").text == "\ud800 <EMAIL_ADDRESS_1>"


def test_limits_and_failures_let_nothing_through() -> None:
    """A text beyond a limit, or one that cannot be read, gives an error and no text at all."""
    with pytest.raises(LimitExceeded):
        Redactor(profile="fast", limits=Limits(characters=10)).redact(TEXT)
    with pytest.raises(RedactionUnavailable):
        Redactor(detector=FailingDetector()).redact(TEXT)


def test_faults_of_construction_are_named(tmp_path: Path) -> None:
    """Unknown kinds and profiles, short keys and missing models are refused at once."""
    with pytest.raises(ValueError, match="EMAIL'"):
        Redactor(profile="fast", actions={"EMAIL": "mask"})
    with pytest.raises(ValueError, match="profile='slow'"):
        Redactor(profile="slow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key"):
        Redactor(profile="fast", key=b"short")
    with pytest.raises(DetectorNotReady, match="assets fetch lac-zh"):
        default_models(["zh"], home=tmp_path)
    with pytest.raises(DetectorNotReady):
        Redactor(["en"], models=PiiModels())


def test_importing_loads_nothing() -> None:
    """The package gives its names without loading Presidio, spaCy or a model."""
    program = (
        "import sys, privacy.pii; privacy.pii.Redactor(profile='fast').redact('ann@example.org');"
        "loaded = {'presidio_analyzer', 'spacy', 'onnxruntime', 'torch'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=120) | st.text(alphabet="<>PERSON_1 ann@example.org王0123", max_size=80))
def test_any_text_comes_back(text: str) -> None:
    """Whatever the text, also one full of look-alike placeholders, restoring gives it back."""
    result = Redactor(profile="fast").redact(text)
    assert result.restore(result.text) == text


@pytest.mark.e2e
def test_the_full_profile_finds_names() -> None:
    """With models, names in running text are replaced in both languages, and say who found them."""
    made = Redactor(detector=full_detector())
    text = "Yesterday Ruth Baker met Damian Riley. 王小明昨天见了李建国。"
    result = made.redact(text)
    assert not any(name in result.text for name in ("Baker", "Riley", "小明", "建国"))
    assert result.restore(result.text) == text
    assert {f.recognizer for f in result.findings} <= {"spacy", "classifier", "lac", "rule"}
    assert {"lac"} < {f.recognizer for f in result.findings}


@pytest.mark.e2e
def test_the_models_are_found_where_they_were_fetched() -> None:
    """Without being told, the library uses the folders that the asset store names."""
    assert default_models() == pii_models()
