"""The resolver's rules: nothing spliced, nothing uncovered, one value treated one way."""

import random
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.pii.entities import PERSONAL, Span, rank, resolve
from privacy.pii.finishing import Finisher, normalise, repetitions

KINDS = ("ADDRESS", "CREDIT_CARD", "EMAIL_ADDRESS", "LOCATION", "PERSON", "PHONE_NUMBER")
TEXTS = st.text(alphabet="abAB12 .,'-王小明\n", min_size=1, max_size=60)


@st.composite
def texts_with_findings(draw: st.DrawFn) -> tuple[str, list[Span]]:
    text = draw(TEXTS)
    spans = []
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        score = draw(st.sampled_from((0.3, 0.5, 0.8, 0.95, 1.0)))
        source = draw(st.sampled_from(("rule:a", "spacy", "policy:p")))
        spans.append(Span(start, end, draw(st.sampled_from(KINDS)), score, source))
    return text, spans


@given(texts_with_findings())
def test_every_character_found_is_covered_by_disjoint_spans(case: tuple[str, list[Span]]) -> None:
    """What is found stays covered but for punctuation at its edges; spans are in order, disjoint."""
    text, found = case
    spans = Finisher(0.5, PERSONAL)(text, found)
    assert all(left.end <= right.start for left, right in pairwise(spans))
    covered = {i for span in spans for i in range(span.start, span.end)}
    for span in found:
        left = {i for i in range(span.start, span.end) if text[i].isalnum()} - covered
        rest = "".join(text[i] for i in sorted(left)).casefold()
        genitive = span.entity == "PERSON" and span.of(text).casefold().rstrip(" .,'-\n")
        assert not left or span.score < 0.5 or (genitive and rest == "s")


@given(texts_with_findings(), st.integers(0, 2**32))
def test_the_order_of_the_findings_does_not_matter(case: tuple[str, list[Span]], seed: int) -> None:
    """Any order of the same findings gives the same spans, kinds, scores and sources."""
    text, found = case
    shuffled = random.Random(seed).sample(found, len(found))
    finish = Finisher(0.5, PERSONAL)
    first, second = finish(text, found), finish(text, shuffled)
    assert [(s, s.source) for s in first] == [(s, s.source) for s in second]


@given(texts_with_findings())
@example(("ab-ab", [Span(0, 2, "PERSON", 0.8), Span(0, 5, "EMAIL_ADDRESS", 0.95)]))
def test_all_occurrences_of_a_value_are_of_one_kind(case: tuple[str, list[Span]]) -> None:
    """Spans with the same value, whatever its case and spacing, have the same entity."""
    text, found = case
    kinds: dict[str, set[str]] = {}
    for span in Finisher(0.0, PERSONAL)(text, found):
        kinds.setdefault(normalise(span.of(text), "TERM"), set()).add(span.entity)
    assert all(len(entities) == 1 for entities in kinds.values())


@given(texts_with_findings())
def test_what_names_a_union_is_the_greatest_of_its_findings(
    case: tuple[str, list[Span]],
) -> None:
    """A certain finding outranks a longer guess, a longer guess a shorter one, whoever found them."""
    _, found = case
    for union in resolve(found):
        parts = [span for span in found if union.start <= span.start < union.end]
        best = max(parts, key=rank)
        assert (union.entity, union.score, union.source) == (best.entity, best.score, best.source)
        certain = [span for span in parts if span.score >= 0.95]
        assert best.score >= 0.95 or not certain
        assert all(best.end - best.start >= span.end - span.start for span in (certain or parts))


def test_a_value_found_once_is_found_everywhere() -> None:
    """Names in any case and spacing, numbers in any grouping; longer words are left alone."""
    text = "Ruth Baker, 4111 1111 1111 1111. RUTH\u200b  BAKER; 4111-1111-1111-1111 4111111111111111, Bakers"
    found = [Span(0, 10, "PERSON", 0.8, "spacy"), Span(12, 31, "CREDIT_CARD", 1.0, "rule:card")]
    spans = Finisher(0.5, PERSONAL)(text, found)
    assert [span.of(text) for span in spans] == [
        "Ruth Baker",
        "4111 1111 1111 1111",
        "RUTH\u200b  BAKER",
        "4111-1111-1111-1111",
        "4111111111111111",
    ]
    assert [span.source for span in spans] == [
        "spacy",
        "rule:card",
        "spacy",
        "rule:card",
        "rule:card",
    ]


def test_conflicting_readings_of_a_value_become_one() -> None:
    """A value read as two kinds is of the better founded kind in both places."""
    text = "Jordan flew to Jordan"
    found = [Span(0, 6, "PERSON", 0.9, "classifier"), Span(15, 21, "LOCATION", 0.6, "spacy")]
    spans = Finisher(0.5, PERSONAL)(text, found)
    assert [(s.entity, s.source) for s in spans] == [("PERSON", "classifier")] * 2


def test_each_kind_may_have_a_threshold_of_its_own() -> None:
    """A threshold of one kind replaces the general one for that kind alone."""
    text = "one two"
    found = [Span(0, 3, "PERSON", 0.4), Span(4, 7, "LOCATION", 0.4)]
    finish = Finisher(0.5, PERSONAL, thresholds={"PERSON": 0.3})
    assert [span.entity for span in finish(text, found)] == ["PERSON"]
    assert finish.least() == 0.3
    finish = Finisher(0.3, {"PERSON"}, thresholds={"PERSON": 0.6})
    assert finish(text, found) == ()
    assert finish.least() == 0.6
    with pytest.raises(ValueError, match=r"PERSON=1\.2"):
        Finisher(0.5, PERSONAL, thresholds={"PERSON": 1.2})


def test_an_allowed_value_inside_a_longer_finding_stays_covered() -> None:
    """Allowing a word does not cut it out of what it is part of."""
    text = "Mail help@corp.example, or Corp House, 5 High Street"
    found = [Span(5, 22, "EMAIL_ADDRESS", 0.9), Span(27, 51, "ADDRESS", 0.8)]
    finish = Finisher(0.5, PERSONAL, allow=["HELP@corp.example", "High Street"])
    assert [span.of(text) for span in finish(text, found)] == ["Corp House, 5 High Street"]


def test_denied_terms_never_splice_a_longer_finding() -> None:
    """A denied term inside a finding takes the whole finding with it."""
    text = "bluebird.lee@corp.example knows bluebird"
    spans = Finisher(0.5, PERSONAL, deny=["Bluebird"])(text, [Span(0, 25, "EMAIL_ADDRESS", 0.9)])
    assert [span.of(text) for span in spans] == ["bluebird.lee@corp.example", "bluebird"]


def test_values_of_a_record_repeat_with_their_source() -> None:
    """A repetition says what found the value first."""
    (again,) = repetitions("Ask ann lee.", [("Ann Lee", Span(0, 7, "PERSON", 0.7, "rule:title"))])
    assert (again.start, again.end, again.source) == (4, 11, "rule:title")


@given(texts_with_findings())
@example(
    (
        "Anna, or Leeb; Anna Leeb, Anna\nLeeb",
        [Span(0, 4, "PERSON", 0.8), Span(9, 13, "PERSON", 0.8)],
    )
)
def test_finishing_twice_changes_nothing(case: tuple[str, list[Span]]) -> None:
    """What the resolver gives, given to it again, comes out the same."""
    text, found = case
    finish = Finisher(0.0, PERSONAL)
    once = finish(text, found)
    assert finish(text, once) == once
