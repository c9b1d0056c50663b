"""Distributions that are kept between questions."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.dp.bounds import Part
from privacy.dp.composition import Distributions

KINDS = [(0.01, 6.0), (0.02, 9.0), (0.05, 20.0), (1.0, 90.0), (0.01, 8.0), (0.03, 9.5)]
Question = tuple[tuple[Part, ...], float]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """A history of some of the kinds, and a delta."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, unique=True))
    parts = sorted((rate, noise, draw(st.integers(1, 40))) for rate, noise in kinds)
    return tuple(parts), draw(st.sampled_from([1e-3, 1e-6, 1e-9]))


def cold(asked: Sequence[Question]) -> list[float]:
    return [Distributions(2**27).epsilon(*question) for question in asked]


@settings(max_examples=12, deadline=None)
@given(st.lists(questions(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_was_kept_never_changes_an_answer(
    asked: list[Question],
    random: st.randoms,  # type: ignore[valid-type]
) -> None:
    """To the last bit: cold, warm, asked in any order, repeated, and while others are dropped."""
    answers = dict(zip(asked, cold(asked), strict=True))
    shuffled = [*asked, *asked[:2]]
    random.shuffle(shuffled)
    for limit in (2**27, 2**16, 0):
        kept = Distributions(limit)
        assert {question: kept.epsilon(*question) for question in shuffled} == answers
        assert kept.nbytes <= limit


def test_one_more_round_composes_along_one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 64 kinds of rounds, one more composes about log2(64) distributions, not 64."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    compositions = 0
    compose = pld.PrivacyLossDistribution.compose

    def counted(*arguments: object) -> object:
        nonlocal compositions
        compositions += 1
        return compose(*arguments)

    monkeypatch.setattr(pld.PrivacyLossDistribution, "compose", counted)
    history = [(0.01, 3.0 + number / 64, 5) for number in range(64)]
    kept = Distributions(2**27)
    kept.epsilon(history, 1e-5)
    assert compositions == 63
    compositions = 0
    history[17] = (*history[17][:2], 6)
    kept.epsilon(history, 1e-5)
    assert 1 <= compositions <= 16
