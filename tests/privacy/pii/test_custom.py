"""Patterns of a policy: found like built-in ones, refused or bounded where they could run on."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.pii import custom
from privacy.pii.custom import CustomPattern, find_custom
from privacy.pii.errors import PatternRefused, PiiError, RedactionUnavailable
from privacy.pii.patterns import PatternDetector

CASE = CustomPattern("case-number", "ID_NUMBER", r"\bAK-\d{3,6}\b", 0.4, ("case", "案号"))

BOMBS = (
    r"(a|aa)+$",
    r"(?:a|a)*b$",
    r"(\d|\d\d)+x",
    r"([a-zA-Z]|[a-z])*!!",
    r"(x|xx|xxx)+y",
    r"(?:王|王王)+李",
)
"""Each takes time exponential in the length of a text that nearly matches."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_when_loaded(bomb: str) -> None:
    """An expression that explodes on a short text never comes into use, and the refusal is quick."""
    begun = time.process_time()
    with pytest.raises(PatternRefused, match="'bomb'"):
        CustomPattern("bomb", "ID_NUMBER", bomb)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "expression", ["(((a{100}){100}){100}){100}", "(?:a{1000}){1000}", "(?:[ab]{9,99}c){999}x"]
)
def test_nested_counts_are_refused_before_they_are_compiled(expression: str) -> None:
    """Counts that multiply to a huge machine are refused without building it."""
    with pytest.raises(PatternRefused, match="lower its counts"):
        CustomPattern("large", "ID_NUMBER", expression)


def test_a_bomb_that_passes_the_probes_is_cut_off_and_nothing_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At run time the limit holds: the text is refused, and the error does not quote it."""
    monkeypatch.setattr(custom, "_probes", lambda expression: iter(()))
    monkeypatch.setattr(custom, "SECONDS", 0.05)
    bomb = CustomPattern("bomb", "ID_NUMBER", r"(q|qq)+$")
    with pytest.raises(RedactionUnavailable, match="'bomb'") as caught:
        PatternDetector(patterns=[bomb]).detect("mail ann@example.org " + "q" * 80 + "!")
    assert "qq" not in str(caught.value)
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("name", "Case No", "pattern name"),
        ("entity", "EMPLOYEE", "none of those"),
        ("regex", "(", "no regular expression"),
        ("regex", "", "0 characters"),
        ("regex", "a" * 1001, "1001 characters"),
        ("regex", r"\d*", "empty text"),
        ("score", 0.0, "score=0.0"),
        ("score", 1.5, "score=1.5"),
    ],
)
def test_faults_are_named(field: str, value: object, match: str) -> None:
    """Each fault of a pattern is refused with its name and what is wrong."""
    given = {"name": "case", "entity": "ID_NUMBER", "regex": "x", "score": 0.5, field: value}
    with pytest.raises(PatternRefused, match=match):
        CustomPattern(**given)  # type: ignore[arg-type]


def test_context_raises_the_score() -> None:
    """A pattern below the threshold counts where one of its context words stands before it."""
    detector = PatternDetector(patterns=[CASE], entities={"PERSON"})
    assert detector.detect("the AK-4711 rifle range") == ()
    for text in ("Your Case no. AK-4711.", "案号AK-4711已受理"):
        (found,) = detector.detect(text)
        assert found.of(text) == "AK-4711"
        assert (found.entity, found.source) == ("ID_NUMBER", "policy:case-number")
        assert found.score == pytest.approx(0.75)


def test_a_group_narrows_the_finding() -> None:
    """What the group `value` matches is the finding."""
    pattern = CustomPattern("desk", "ID_NUMBER", r"desk (?P<value>[0-9]{2})", 0.9)
    assert [(s.start, s.end) for s in find_custom([pattern], "at desk 42 today")] == [(8, 10)]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab(|)*+?{2,}[]\\d^$.", max_size=14), st.text(alphabet="ab1 ", max_size=60))
def test_any_expression_is_refused_or_runs_in_bounded_time(expression: str, text: str) -> None:
    """Whatever a policy says as an expression, it is refused by name or it answers or it is cut off."""
    begun = time.process_time()
    message = "'any'"
    try:
        find_custom([CustomPattern("any", "ID_NUMBER", expression)], text)
    except PiiError as error:
        message = str(error)
    assert "'any'" in message
    assert time.process_time() - begun < 10
