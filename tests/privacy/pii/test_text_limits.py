"""Long, dense and strange inputs: bounded time and memory, or a clear refusal."""

import random
import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.pii.entities import Span
from privacy.pii.errors import LimitExceeded
from privacy.pii.finishing import Finisher
from privacy.pii.limits import LONGEST_PIECE, Limits, find_in_pieces, pieces
from privacy.pii.patterns import PatternDetector
from privacy.pii.phrases import Phrases
from tests.privacy.pii.models import full_detector

ENGLISH = (
    "On Tuesday the board met in the large room; Ruth will mail ruth{}@corp.example about it.\n"
)
CHINESE = "昨天他在北京市海淀区中关村大街{}号见了同事，电话1380013{:04d}，之后一起吃了午饭。\n"


def long_text(characters: int) -> str:
    lines = (
        ENGLISH.format(i) if i % 2 else CHINESE.format(i, i % 10_000) for i in range(characters)
    )
    parts, size = [], 0
    while size < characters:
        parts.append(next(lines))
        size += len(parts[-1])
    return "".join(parts)


@given(st.text(alphabet="ab \n王", max_size=300), st.integers(20, 60))
def test_pieces_cover_a_text_and_share_what_lies_on_a_cut(text: str, longest: int) -> None:
    """Pieces are short, stand where they say, and every stretch up to the overlap is in one whole."""
    overlap = longest // 4
    cut = list(pieces(text, longest, overlap))
    assert all(len(piece) <= longest and text.startswith(piece, at) for at, piece in cut)
    assert cut[-1][0] + len(cut[-1][1]) == len(text)
    for (left, piece), (right, _) in pairwise(cut):
        assert left < right <= left + len(piece) - overlap


def test_what_lies_on_a_cut_is_found_whole() -> None:
    """A card number is found as one, wherever in a long text it stands."""
    card = "4111 1111 1111 1111"
    detector = PatternDetector()
    for shift in range(-30, 12, 3):
        text = "x " * ((LONGEST_PIECE + shift) // 2) + card + " end" * 200
        (span,) = detector.detect(text)
        assert (span.of(text), span.entity) == (card, "CREDIT_CARD")


def test_a_megabyte_is_read_in_bounded_time() -> None:
    """A megabyte of mixed text takes under two minutes of one processor, and all of it is read."""
    text = long_text(1_000_000)
    begun = time.process_time()
    spans = PatternDetector().detect(text)
    assert time.process_time() - begun < 120
    found = "\n".join(span.of(text) for span in spans)
    assert found.count("@corp.example") == text.count("@corp.example")
    assert all(f"1380013{i % 10_000:04d}" in found for i in range(0, 1_000, 2))


def test_time_grows_with_the_length_alone() -> None:
    """Four times as many distinct values in four times the text take less than ten times as long."""

    def seconds(count: int) -> float:
        text = " ".join(f"person{i}@mail{i}.example.org" for i in range(count))
        found = [Span(m, m + 6, "EMAIL_ADDRESS", 0.9) for m in range(0, len(text) - 6, 31)]
        finish = Finisher(0.5, {"EMAIL_ADDRESS"})
        best = 1e9
        for _ in range(3):
            begun = time.process_time()
            finish(text, found)
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(8_000) < 10 * seconds(2_000)


def test_ten_thousand_findings_in_one_text() -> None:
    """Ten thousand distinct card numbers are all found, in seconds."""
    draw = random.Random(7)
    cards = [f"4{draw.randrange(10**15):015d}" for _ in range(10_000)]
    text = ", ".join(cards)
    begun = time.process_time()
    found = {span.of(text) for span in PatternDetector().detect(text)}
    assert time.process_time() - begun < 60
    left = text
    for value in sorted(found, key=len, reverse=True):
        left = left.replace(value, "")
    assert not any(character.isdigit() for character in left)


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", ".", "@", "王", "Mr Ann Bell ", "\n", "a:", "<[", "(1)"]
)
def test_monotonous_texts_take_no_longer(unit: str) -> None:
    """Long runs of anything are read in bounded time, whatever patterns might begin there."""
    text = (unit * 300_000)[:300_000]
    begun = time.process_time()
    PatternDetector().detect(text)
    assert time.process_time() - begun < 60


def test_every_unicode_block_is_taken() -> None:
    """Characters of every block, assigned or not, are read; an address among them is found."""
    detector = PatternDetector()
    texts = [
        "".join(map(chr, range(first, first + 0x400))) + " ann@example.org "
        for first in range(0, 0x110000, 0x400)
    ]
    for text, spans in zip(texts, detector.detect_many(texts), strict=True):
        assert any("ann@example.org" in span.of(text) for span in spans), ascii(text[:3])
    assert {unicodedata.category(text[0]) for text in texts} > {"Lo", "Cn", "Cs", "Co"}


def test_limits_refuse_the_whole_text() -> None:
    """One character, one finding or one moment too many is an error that names the limit."""
    with pytest.raises(LimitExceeded, match="101 characters, more than the limit of 100"):
        PatternDetector(limits=Limits(characters=100)).detect("a" * 101)
    assert PatternDetector(limits=Limits(characters=100)).detect("a" * 100) == ()
    many = "ann@example.org, bob@example.org, eve@example.org"
    with pytest.raises(LimitExceeded, match="more than 2 findings"):
        PatternDetector(limits=Limits(findings=2)).detect(many)
    with pytest.raises(LimitExceeded, match="more than the limit of 1e-09 s"):
        find_in_pieces(["a"], lambda views: [[] for _ in views], Limits(seconds=1e-9))
    with pytest.raises(ValueError, match="seconds=0"):
        Limits(seconds=0)


def test_long_deny_and_allow_lists() -> None:
    """Ten thousand denied and ten thousand allowed phrases cost seconds at most, and all count."""
    deny = [f"Project {i} Falcon" for i in range(10_000)]
    allow = [f"help{i}@corp.example" for i in range(10_000)]
    text = (
        "project 1 FALCON, Project  9999 Falcon; help77@corp.example; help77777@corp.example. " * 50
    )
    begun = time.process_time()
    found = {
        span.of(text): span.entity for span in PatternDetector(deny=deny, allow=allow).detect(text)
    }
    assert time.process_time() - begun < 20
    assert found == {
        "project 1 FALCON": "TERM",
        "Project  9999 Falcon": "TERM",
        "help77777@corp.example": "EMAIL_ADDRESS",
    }


@given(
    st.lists(st.text(alphabet="abß王 1-", max_size=5), max_size=6),
    st.text(alphabet="abABßS王 \t1-\u200b", max_size=40),
)
def test_phrases_are_found_like_by_looking_at_every_place(phrases: list[str], text: str) -> None:
    """The prefix tree finds what comparing each phrase at each place finds, and nothing else."""
    import regex

    def folded(value: str) -> str:
        return regex.sub(r"\s+", " ", value.replace("\u200b", "")).casefold().strip()

    def edge(at: int) -> bool:
        word = regex.compile(r"[\p{Latin}\p{Mn}0-9\u200b]")
        return not (0 < at < len(text) and word.match(text[at - 1]) and word.match(text[at]))

    wanted = {folded(phrase) for phrase in phrases} - {""}
    expected: dict[int, int] = {}
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            part = text[start:end]
            if part != part.strip() or not part.strip("\u200b") or not (edge(start) and edge(end)):
                continue
            if folded(part) in wanted:
                expected[start] = end
    covered = {i for start, end in Phrases(phrases).find(text) for i in range(start, end)}
    visible = {i for i, character in enumerate(text) if character != "\u200b"}
    whole = {i for start, end in expected.items() for i in range(start, end)}
    assert covered & visible == whole & visible


@pytest.mark.e2e
def test_the_full_detector_reads_long_texts_like_short_ones() -> None:
    """What the models find in a text of many pieces is what they find in its sentences."""
    text = long_text(40_000)
    begun = time.process_time()
    spans = full_detector().detect(text)
    assert time.process_time() - begun < 120
    covered = "".join(span.of(text) for span in spans)
    assert covered.count("@corp.example") == text.count("@corp.example")
    assert covered.count("中关村大街") == text.count("中关村大街")
