"""Numbers in words and digits with odd signs between them, as the digits they stand for."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import regex

from privacy.pii.lookalikes import Edit
from privacy.pii.rules_numbers import luhn

_FLAGS: Final = regex.VERSION1
_ENGLISH: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TEENS: Final = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
_OTHERS: Final = (
    "null eins zwei drei vier fünf sechs sieben acht neun",
    "zéro un deux trois quatre cinq six sept huit neuf",
    "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "zero uno due tre quattro cinque sei sette otto nove",
)
_VALUES: Final = {
    **{word: str(i) for line in _OTHERS for i, word in enumerate(line.split())},
    **{word: str(i) for i, word in enumerate(_ENGLISH)},
    **{word: str(10 + i) for i, word in enumerate(_TEENS)},
    **{word: str(20 + 10 * i) for i, word in enumerate(_TENS)},
    "hundred": "00",
    "thousand": "000",
    "oh": "0",
    "o": "0",
    "nought": "0",
    "naught": "0",
    "zwo": "2",
    "niner": "9",
}
_ROUND: Final = frozenset({"hundred", "thousand"})
"""At the end of a spoken number; elsewhere they make it an amount."""

_COUNTING: Final = "".join(str(i) for i in range(31))
_REPEATS: Final = {"double": 2, "triple": 3, "treble": 3}
_SIGNS: Final = {
    **dict.fromkeys(("dash", "hyphen", "minus", "space", "pause", "then", "and", "slash"), "-"),
    **dict.fromkeys(("dot", "point", "period"), "."),
    "plus": "+",
}
_WORD: Final = "|".join(sorted({*_VALUES, *_REPEATS, *_SIGNS}, key=len, reverse=True))
_RUN: Final = regex.compile(
    rf"(?<![\p{{L}}\d])(?:(?:{_WORD})(?![\p{{L}}])|\d{{1,4}}(?!\p{{L}}))(?:[\s,.;/-]{{1,3}}(?:(?:{_WORD})(?!\p{{L}})|\d{{1,4}}(?![\p{{L}}\d]))){{4,60}}",
    _FLAGS | regex.IGNORECASE,
)
_TOKEN: Final = regex.compile(r"\p{L}+|\d+", _FLAGS)
_HINTS: Final = tuple(
    {*_ENGLISH, "oh", *(w for line in _OTHERS for w in line.split() if len(w) > 3)}
)
_LEAST_HINTS: Final = 2
_LEAST_DIGITS: Final = 6


def number_words(text: str) -> list[Edit]:
    """Runs of at least five number words or digits that make a number of six digits or more."""
    folded = text.lower()
    if sum(word in folded for word in _HINTS) < _LEAST_HINTS and not _repeated_word(folded):
        return []
    edits: list[Edit] = []
    for run in _RUN.finditer(text):
        edits += _spelled_run(run)
    return edits


def _repeated_word(folded: str) -> bool:
    return any(folded.count(word) >= _LEAST_DIGITS - 1 for word in _ENGLISH)


def _spelled_run(run: Any) -> list[Edit]:
    tokens = [
        (match.group().casefold(), run.start() + match.start(), run.start() + match.end())
        for match in _TOKEN.finditer(run.group())
    ]
    while tokens and tokens[-1][0] in (*_SIGNS, *_REPEATS):
        tokens.pop()
    while tokens and tokens[0][0] in _SIGNS and tokens[0][0] != "plus":
        tokens.pop(0)
    words = sum(token in _VALUES for token, _, _ in tokens)
    if any(token in _ROUND for token, _, _ in tokens[:-1]) or _counts(run.group(), tokens):
        return []
    pieces = list(_digits(tokens))
    total = sum(character.isdigit() for piece, _, _ in pieces for character in piece)
    if words < 3 or total < _LEAST_DIGITS:
        return []
    edits: list[Edit] = []
    reach = None
    for piece, start, end in pieces:
        # The gap before a piece goes with it, so that the digits stand together.
        edits.append((start if reach is None else reach, end, piece))
        reach = end
    return edits


def _counts(text: str, tokens: list[tuple[str, int, int]]) -> bool:
    """Whether somebody counts ("one, two, three"): ascending, with a comma after each."""
    digits = "".join(_VALUES.get(token, token) for token, _, _ in tokens)
    return digits in _COUNTING and text.count(",") >= len(tokens) - 2


def _digits(tokens: list[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """(digits or sign, start, end) of each number in words; "double five" and "forty two" are one."""
    i = 0
    while i < len(tokens):
        word, start, end = tokens[i]
        following = _VALUES.get(tokens[i + 1][0]) if i + 1 < len(tokens) else None
        if word in _REPEATS:
            if following is not None:
                yield following * _REPEATS[word], start, tokens[i + 1][2]
                i += 1
        elif word in _TENS and following is not None and len(following) == 1 and following != "0":
            yield str(int(_VALUES[word]) + int(following)), start, tokens[i + 1][2]
            i += 1
        elif word in _SIGNS:
            yield _SIGNS[word], start, end
        else:
            yield _VALUES.get(word, word), start, end
        i += 1


_GAP: Final = r"[\s.\-/_*·•|~,'\"()\[\]…\\]"
_GROUPS: Final = regex.compile(
    rf"(?<![A-Za-z0-9.,/:-])\(?\+?\d{{1,19}}(?:{_GAP}{{1,5}}\d{{1,19}}){{1,24}}(?![A-Za-z0-9:]|[.,]\d)",
    _FLAGS,
)
_GROUP: Final = regex.compile(r"\d+", _FLAGS)
_ORDINARY: Final = regex.compile(r"[ .-]|\) ?|[ -]?\(", _FLAGS)
_THOUSANDS: Final = regex.compile(r"\d{1,3}(?:[,.' ]\d{3})+(?:[.,]\d+)?", _FLAGS)
_DATE: Final = regex.compile(
    r"(?:19|20)\d\d\D{1,3}\d{1,2}\D{1,3}\d{1,2}(?:\D.*)?|\d{1,2}\D{1,3}\d{1,2}\D{1,3}(?:19|20)\d\d(?:\D.*)?",
    _FLAGS | regex.S,
)
_SHAPES: Final = frozenset(
    {
        (4, 4, 4, 4),
        (4, 6, 5),
        (3, 2, 4),
        (3, 3, 4),
        (1, 3, 3, 4),
        (3, 4, 4),
        (6, 4, 4, 4),
        (6, 8, 4),
    }
)
_CUE: Final = regex.compile(
    r"phone|telephone|tel\b|call|mobile|cell|fax|whatsapp|reach|card|visa|ssn|social|account|acct|iban|passport|aadhaar|nhs"
    r"|tax|id\b|number|no\.|电话|手机|卡号|身份证|账号|号码",
    _FLAGS | regex.IGNORECASE,
)
_CUE_DISTANCE: Final = 40
_FEWEST: Final = 7
_MOST: Final = 19
_MIXED: Final = regex.compile(r"[0-9][ .()-]?[OoIl]{1,3}[ .()-]?[0-9]", _FLAGS)
_LETTER_DIGITS: Final = regex.compile(
    r"(?<=\d[ .()-]?)[OoIl](?=[ .()-]?[\dOoIl])|(?<=\d[ .()-]?[OoIl])[OoIl](?=[ .()-]?\d)", _FLAGS
)


def grouped_digits(text: str) -> list[Edit]:
    """Numbers whose digits stand apart by signs, lines or wide gaps, joined by plain hyphens.

    Only where the groups have the form of a card, phone or security number, where the whole
    passes as a card, or where a word before it says that a number follows: columns of figures
    stay columns.
    """
    edits: list[Edit] = []
    for match in _LETTER_DIGITS.finditer(text) if _MIXED.search(text) else ():
        around = text[max(0, match.start() - 8) : match.end() + 8]
        if sum(character.isdigit() for character in around) >= 5:
            edits.append((match.start(), match.end(), "0" if match.group() in "Oo" else "1"))
    if edits:
        return edits
    for match in _GROUPS.finditer(text):
        edits += _joined(text, match)
    return edits


def _joined(text: str, match: Any) -> list[Edit]:
    value = match.group()
    groups = [group.span() for group in _GROUP.finditer(value)]
    gaps = [(left[1], right[0]) for left, right in pairwise(groups)]
    lengths = tuple(end - start for start, end in groups)
    digits = "".join(value[start:end] for start, end in groups)
    if not _FEWEST <= len(digits) <= _MOST:
        return []
    ordinary = all(_ORDINARY.fullmatch(value[start:end]) for start, end in gaps)
    single = len(groups) >= _FEWEST and max(lengths) == 1
    if (ordinary and not single) or _THOUSANDS.fullmatch(value) or _DATE.fullmatch(value):
        return []
    card = len(digits) >= 13 and digits[0] in "3456" and luhn(digits) and _in_fours(value, groups)
    before = text[max(0, match.start() - _CUE_DISTANCE) : match.start()]
    dialled = value.lstrip("(").startswith("+")
    if not (card or dialled or lengths in _SHAPES or _CUE.search(before)):
        return []
    sign = "-" if lengths in _SHAPES else ""
    return [(match.start() + start, match.start() + end, sign) for start, end in gaps]


def _in_fours(value: str, groups: list[tuple[int, int]]) -> bool:
    """Whether all groups have four digits, but for one that a line break cuts in two.

    A postcode above a phone number passes for a card once in ten times.
    """
    broken = [
        i for i, (left, right) in enumerate(pairwise(groups)) if "\n" in value[left[1] : right[0]]
    ]
    if not broken:
        return True
    cut = {i + step for i in broken for step in (0, 1)}
    return all(end - start == 4 for i, (start, end) in enumerate(groups) if i not in cut)
