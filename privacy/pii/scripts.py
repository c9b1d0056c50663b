"""Which script a text is in, and views of it that keep every offset.

Both views map one code point to one code point: what is found at [start, end)
of the view is at [start, end) of the text.
"""

from collections.abc import Iterator
from typing import Final

import regex

_WIDE_TO_ASCII: Final = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_LOOKALIKES: Final = {
    **_WIDE_TO_ASCII,
    **dict.fromkeys((0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000), 0x20),
    **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212), 0x2D),
    **dict.fromkeys((0x2018, 0x2019), 0x27),
}
_SURROGATE: Final = regex.compile(r"[\ud800-\udfff]")
# Ideographs, kana, CJK punctuation and wide forms: what no English model has learnt.
_CJK: Final = r"\u2e80-\u312f\u3190-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
HAN: Final = regex.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN_RUN: Final = regex.compile(rf"[^{_CJK}]+")
_LETTER: Final = regex.compile(r"\p{Latin}")
_DIGIT: Final = regex.compile(r"[0-9]")
_SENTENCE: Final = regex.compile(r"[^。！？；\n]+[。！？；\n]*|[。！？；\n]+")


def plain(text: str) -> str:
    """``text`` with wide forms, odd spaces and dashes as ASCII, and no lone surrogates.

    Regular expressions then need no variants, and models take the text: lone
    surrogates, which JSON may carry, have no UTF-8 form.
    """
    if text.isascii():
        return text
    return str(_SURROGATE.sub("\ufffd", text)).translate(_LOOKALIKES)


def digits_of(text: str) -> str:
    """The ASCII digits of ``text``, in order."""
    return "".join(_DIGIT.findall(text))


def has_han(text: str) -> bool:
    """Whether a Chinese character occurs in ``text``."""
    return HAN.search(text) is not None


def latin_segments(text: str) -> Iterator[tuple[int, str]]:
    """(offset, segment) of the stretches that an English model can read.

    The whole text where it holds no Chinese; otherwise what stands between the
    Chinese characters and has a Latin letter.
    """
    if not has_han(text):
        if _LETTER.search(text):
            yield 0, text
        return
    for run in _LATIN_RUN.finditer(text):
        segment = run.group()
        if _LETTER.search(segment):
            lead = len(segment) - len(segment.lstrip())
            yield run.start() + lead, segment.strip()


def han_sentences(text: str, longest: int, overlap: int) -> Iterator[tuple[int, str]]:
    """(offset, sentence) for every sentence of ``text`` that holds a Chinese character.

    Sentences above ``longest`` characters are cut into windows that share
    ``overlap`` characters, so that what lies on a cut is whole in one of them.
    """
    for match in _SENTENCE.finditer(text):
        sentence = match.group()
        for offset, window in windows(sentence, longest, overlap):
            if has_han(window):
                yield match.start() + offset, window


def windows(text: str, longest: int, overlap: int) -> Iterator[tuple[int, str]]:
    """(offset, piece) of at most ``longest`` characters; neighbours share ``overlap`` of them."""
    if not 0 <= overlap < longest:
        raise ValueError(f"overlap={overlap} must lie in [0, {longest})")
    start = 0
    while True:
        yield start, text[start : start + longest]
        if start + longest >= len(text):
            return
        start += longest - overlap
