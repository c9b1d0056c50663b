"""The scan of an answer that leaves piece by piece, and stop strings that arrive in pieces."""

import re
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from api.answer import AnswerGuard, Found
from api.engines.stop import StopFilter

_NEW = re.compile(r"\b(?:\d{4} \d{4} \d{4}|[a-z]{3,8}@[a-z]{3,8}\.org|Bob [A-Z][a-z]+)\b")


def scan(text: str) -> Sequence[Found]:
    """Numbers in groups, addresses, and a name of two words: at most 22 characters."""
    return [Found(*match.span(), "SECRET") for match in _NEW.finditer(text)]


def guarded(pieces: list[str], lookahead: int) -> tuple[str, int]:
    """What leaves, and how many findings were taken out."""
    guard = AnswerGuard(scan, lookahead)
    left = "".join(guard.feed(piece) for piece in pieces) + guard.flush()
    return left, guard.counts["SECRET"]


words = st.sampled_from(
    [
        "so ",
        "the cat, ",
        "1234 5678 9012 ",
        "abc@def.org ",
        "Bob Smith ",
        "12 ",
        "\n",
        "，你好",
        "x" * 40,
    ]
)
cuts = st.lists(st.integers(1, 30), max_size=40)


def cut(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of the given sizes."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


@given(st.lists(words, max_size=40).map("".join), cuts)
def test_pieces_do_not_matter(text: str, sizes: list[int]) -> None:
    """However an answer is cut, what leaves is what leaves when it is scanned as a whole."""
    whole = _NEW.sub("<SECRET>", text)
    assert guarded(cut(text, sizes), 32) == (whole, len(_NEW.findall(text)))


def test_an_answer_leaves_while_it_is_made() -> None:
    """Text that is ``lookahead`` behind the end does not wait."""
    guard = AnswerGuard(scan, 32)
    left = "".join(guard.feed("word ") for _ in range(100))
    assert len(left) > 400


def test_a_text_without_a_place_to_cut_is_not_scanned_at_every_piece() -> None:
    """The work stays in proportion to the text."""
    scanned: list[int] = []

    def counting(text: str) -> Sequence[Found]:
        scanned.append(len(text))
        return []

    guard = AnswerGuard(counting, 32)
    left = "".join(guard.feed("xx") for _ in range(5000)) + guard.flush()
    assert left == "x" * 10_000
    assert sum(scanned) < 10 * 10_000


@given(
    st.text("abc", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), max_size=12),
)
@example("abcd", ["abcd", "bc"], [1, 1, 1])
def test_stop_strings_do_not_depend_on_the_pieces(
    text: str, stop: list[str], sizes: list[int]
) -> None:
    """The text ends before the stop string that is complete first, however it arrives."""
    ends = [(text.find(one) + len(one), text.find(one)) for one in stop if one in text]
    expected = text[: min(ends)[1]] if ends else text
    found = StopFilter(tuple(stop))
    joined = "".join(found.feed(piece) for piece in cut(text, sizes)) + found.flush()
    assert joined == expected
    assert found.hit == bool(ends)
