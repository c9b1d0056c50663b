"""What every detector promises, checked on the patterns alone and on the full one with its models."""

import pickle
import threading
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.pii.custom import CustomPattern
from privacy.pii.detector import Detector
from privacy.pii.entities import ENTITIES, PERSONAL
from privacy.pii.errors import LimitExceeded
from privacy.pii.limits import Limits
from privacy.pii.patterns import PatternDetector
from tests.privacy.pii.models import full_detector

Make = Callable[..., Detector]

TEXTS = (
    "",
    " ",
    "Mail ruth.baker@corp.example or call +44 191 496 0063 before 5 pm.",
    "卡号4111 1111 1111 1111，电话13800138000，邮箱tao12@example.org。",
    "Ship to 41925 Jones Estate Suite 824\nShawnmouth, NM 62599",
    "the quarterly report is due in may",
    "\ud800 lone surrogate next to bob@example.org \udfff",
    "\x00\x07\u202e" * 3,
)


@pytest.fixture(scope="module", params=["patterns", pytest.param("full", marks=pytest.mark.e2e)])
def make(request: pytest.FixtureRequest) -> Make:
    """A way to build the detector with options of its own."""
    return PatternDetector if request.param == "patterns" else full_detector


@pytest.fixture(scope="module")
def detector(make: Make) -> Detector:
    """One detector with default options."""
    return make()


def check_spans(detector: Detector, text: str) -> None:
    spans = detector.detect(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(left.end <= right.start for left, right in pairwise(spans))
    assert all(0 < span.score <= 1 and span.entity in detector.entities for span in spans)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_are_disjoint_ordered_and_inside(detector: Detector, text: str) -> None:
    """Spans lie inside the text, in order, and never overlap."""
    check_spans(detector, text)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=200) | st.text(alphabet="0123456789+-() .@:/abAB中王", max_size=120))
def test_any_string_is_taken(detector: Detector, text: str) -> None:
    """No string makes a detector fail or answer with impossible spans."""
    check_spans(detector, text)


def test_many_equals_one_by_one(detector: Detector) -> None:
    """A batch finds in each text what a single call finds in it, in the order given."""
    texts = [*TEXTS, *reversed(TEXTS)]
    assert detector.detect_many(texts) == [detector.detect(text) for text in texts]
    assert detector.detect_many([]) == []


def test_certain_formats_are_found_in_both_scripts(detector: Detector) -> None:
    """Numbers with an unmistakable form are found beside letters of any script."""
    english, chinese = detector.detect_many([TEXTS[2], TEXTS[3]])
    assert [span.entity for span in english] == ["EMAIL_ADDRESS", "PHONE_NUMBER"]
    assert [(span.of(TEXTS[3]), span.entity) for span in chinese] == [
        ("4111 1111 1111 1111", "CREDIT_CARD"),
        ("13800138000", "PHONE_NUMBER"),
        ("tao12@example.org", "EMAIL_ADDRESS"),
    ]


def test_every_spelling_of_a_found_value_is_found(detector: Detector) -> None:
    """A value found once is found again in another case and spacing."""
    text = "Reach Dr Damian Riley. DAMIAN  RILEY is away; ask damian riley's assistant."
    found = "".join(span.of(text).casefold() for span in detector.detect(text))
    assert found.count("riley") == 3


def test_allowed_values_are_not_personal(make: Make) -> None:
    """What the allow list names is not reported, in whatever case; its neighbours are."""
    text = "Write to Helpdesk@Corp.Example or to ann@corp.example."
    spans = make(allow=["helpdesk@corp.example"]).detect(text)
    assert [span.of(text) for span in spans] == ["ann@corp.example"]


def test_denied_terms_are_always_found(make: Make) -> None:
    """What the deny list names is found as a whole word in any case, and only so."""
    text = "Project bluebird slips; BLUEBIRD needs money. Bluebirds sing. 蓝鸟计划延期"
    spans = make(deny=["Bluebird", "蓝鸟"]).detect(text)
    terms = [span.of(text) for span in spans if span.entity == "TERM"]
    assert terms == ["bluebird", "BLUEBIRD", "蓝鸟"]


def test_only_wanted_entities_are_reported(make: Make) -> None:
    """A detector asked for one kind reports no other; it names what it can find."""
    detector = make(entities={"EMAIL_ADDRESS"})
    assert detector.entities == {"EMAIL_ADDRESS"}
    assert {span.entity for span in detector.detect(TEXTS[2])} == {"EMAIL_ADDRESS"}
    assert make().entities == PERSONAL <= ENTITIES


def test_the_threshold_bounds_every_score(make: Make) -> None:
    """No finding scores below the threshold; raising it never adds findings."""
    text = "Try 4302142716 or +44 191 496 0063, order 123456789012345."
    low, high = make(threshold=0.3).detect(text), make(threshold=0.89).detect(text)
    assert all(span.score >= 0.89 for span in high)
    assert len(high) < len(low)
    with pytest.raises(ValueError, match="threshold"):
        make(threshold=1.5)


def test_it_may_be_used_from_several_threads(detector: Detector) -> None:
    """Threads that share a detector get the answers that they would get alone."""
    expected = detector.detect_many(TEXTS)
    answers: list[list[object]] = []

    def work() -> None:
        answers.extend(list(detector.detect_many(TEXTS)) for _ in range(4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 16


def test_every_finding_names_its_source(detector: Detector) -> None:
    """Each finding says what found it, and which rule of it, without quoting the text."""
    for text, spans in zip(TEXTS, detector.detect_many(TEXTS), strict=True):
        for span in spans:
            recognizer, _, rule = span.source.partition(":")
            assert recognizer in {"rule", "spacy", "classifier", "lac"}
            assert bool(rule) == (recognizer == "rule")
            assert span.of(text) not in span.source


def test_patterns_of_the_policy_are_looked_for(make: Make) -> None:
    """A policy's own pattern is found, as its kind, also where that kind was not asked for."""
    own = CustomPattern("ticket", "ID_NUMBER", r"\bTK-[a-z]{4}\b", 0.9)
    text = "工单TK-abcd转给ann@corp.example"
    spans = make(patterns=[own], entities={"EMAIL_ADDRESS"}).detect(text)
    assert [(span.of(text), span.entity) for span in spans] == [
        ("TK-abcd", "ID_NUMBER"),
        ("ann@corp.example", "EMAIL_ADDRESS"),
    ]
    assert spans[0].source == "policy:ticket"


def test_a_text_beyond_a_limit_is_refused(make: Make) -> None:
    """A text that is too long gives an error that says so, whatever else is in the batch."""
    detector = make(limits=Limits(characters=50))
    assert detector.detect("ann@corp.example")
    with pytest.raises(LimitExceeded, match="51 characters"):
        detector.detect_many(["ann@corp.example", "a" * 51])


def test_findings_are_plain_values(detector: Detector) -> None:
    """Spans hold offsets and names only, never a piece of the text."""
    spans: Iterable[object] = detector.detect(TEXTS[2])
    assert b"ruth" not in pickle.dumps(tuple(spans))
