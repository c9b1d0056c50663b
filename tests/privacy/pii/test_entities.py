"""Overlapping findings become disjoint ones without uncovering a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.pii.entities import ENTITIES, Span, resolve

SPANS = st.lists(
    st.builds(
        lambda start, length, entity, score: Span(start, start + length, entity, score),
        st.integers(0, 60),
        st.integers(1, 25),
        st.sampled_from(sorted(ENTITIES)),
        st.floats(0.01, 1),
    ),
    max_size=12,
)


@given(SPANS)
def test_resolution_covers_exactly_what_was_found(spans: list[Span]) -> None:
    """After resolution the same characters are covered, by disjoint spans in order."""
    resolved = resolve(spans)
    covered = {i for span in spans for i in range(span.start, span.end)}
    assert sum(span.end - span.start for span in resolved) == len(covered)
    assert {i for span in resolved for i in range(span.start, span.end)} == covered
    assert list(resolved) == sorted(resolved)
    assert resolve(resolved) == resolved


@given(SPANS, st.randoms())
def test_resolution_does_not_depend_on_order(spans: list[Span], random: object) -> None:
    """The answer is the same for every order of the findings."""
    shuffled = list(spans)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert resolve(shuffled) == resolve(spans)


def test_a_checksum_outranks_a_longer_guess() -> None:
    """A certain finding names the union; otherwise the longest does."""
    card, guess = Span(5, 24, "CREDIT_CARD", 1.0), Span(0, 30, "PHONE_NUMBER", 0.9)
    assert resolve([card, guess]) == (Span(0, 30, "CREDIT_CARD", 1.0),)
    name, mail = Span(0, 4, "PERSON", 0.9), Span(0, 20, "EMAIL_ADDRESS", 0.7)
    assert resolve([name, mail]) == (Span(0, 20, "EMAIL_ADDRESS", 0.7),)


@pytest.mark.parametrize(
    ("start", "end", "entity"), [(3, 3, "PERSON"), (-1, 2, "PERSON"), (0, 1, "NAME")]
)
def test_impossible_spans_are_refused(start: int, end: int, entity: str) -> None:
    """A span is never empty, never negative and of a known entity."""
    with pytest.raises(ValueError):
        Span(start, end, entity, 0.5)
