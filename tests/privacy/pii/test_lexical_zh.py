"""The Chinese analyser's marginals are the CRF's, and its sentences are read whole."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.pii.errors import DetectorNotReady
from privacy.pii.lexical_zh import LexicalAnalyser, marginals
from privacy.pii.scripts import han_sentences, has_han, latin_segments, plain, windows


@pytest.mark.parametrize("seed", range(5))
def test_marginals_equal_a_sum_over_all_sequences(seed: int) -> None:
    """Forward-backward gives what summing over every tag sequence gives."""
    dice = np.random.default_rng(seed)
    batch, length, tags = 2, 5, 3
    scores = dice.normal(0, 2, (batch, length, tags)).astype(np.float32)
    transitions = dice.normal(0, 1, (tags, tags)).astype(np.float32)
    expected = np.zeros((batch, length, tags))
    for b in range(batch):
        for path in itertools.product(range(tags), repeat=length):
            total = sum(scores[b, t, tag] for t, tag in enumerate(path))
            total += sum(transitions[x, y] for x, y in itertools.pairwise(path))
            for t, tag in enumerate(path):
                expected[b, t, tag] += np.exp(total)
    expected /= expected.sum(-1, keepdims=True)
    found = marginals(scores, np.exp(transitions))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_marginals_stay_finite_on_long_and_extreme_input() -> None:
    """A thousand characters with scores of any size neither overflow nor vanish."""
    dice = np.random.default_rng(0)
    scores = dice.normal(0, 80, (1, 1000, 7)).astype(np.float32)
    found = marginals(scores, np.exp(dice.normal(0, 3, (7, 7))).astype(np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-4)


TEXTS = st.text(alphabet="ab 1，。\n中文名字！；é", max_size=80)


@given(TEXTS, st.integers(2, 30), st.integers(0, 1))
def test_windows_lose_nothing(text: str, longest: int, overlap: int) -> None:
    """Every Chinese character lies in a window, at the offset that the window states."""
    seen = set()
    for offset, window in han_sentences(text, longest, overlap):
        assert text[offset : offset + len(window)] == window
        assert 0 < len(window) <= longest
        seen.update(range(offset, offset + len(window)))
    assert all(i in seen for i, character in enumerate(text) if has_han(character))


@given(TEXTS)
def test_latin_segments_lose_no_letter(text: str) -> None:
    """Every Latin letter lies in a segment; no segment of a mixed text holds Chinese."""
    seen = set()
    for offset, segment in latin_segments(text):
        assert text[offset : offset + len(segment)] == segment
        assert not has_han(segment)
        seen.update(range(offset, offset + len(segment)))
    assert all(i in seen for i, character in enumerate(text) if character in "abé")


@given(st.text(max_size=60))
def test_the_plain_view_keeps_offsets(text: str) -> None:
    """The view has one character for each of the text, and can be encoded."""
    assert len(plain(text)) == len(text)
    plain(text).encode("utf-8")


def test_windows_refuse_an_overlap_that_never_ends() -> None:
    """An overlap as long as a window is refused."""
    with pytest.raises(ValueError, match="overlap"):
        list(windows("text", 4, 4))


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    """A folder without the analyser's files is refused at construction."""
    with pytest.raises(DetectorNotReady, match=r"word\.dic"):
        LexicalAnalyser(tmp_path)
