"""Personal data in disguise: a second view of a text in which spelled, spaced, encoded values are plain.

A view is made only where something was disguised. Rules and models read it like any other text,
and what they find is carried back to the whole of the disguised characters: all of a base64
token, every number word, each hidden character in between. Findings that touch nothing disguised
are dropped, since the first reading has them.
"""

import base64
import binascii
import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import regex

from privacy.pii import lookalikes
from privacy.pii.entities import Span
from privacy.pii.lookalikes import Edit
from privacy.pii.rules_numbers import IBAN_LENGTHS, iban_checks
from privacy.pii.spelled import grouped_digits, number_words

Find = Callable[[Sequence[str]], Sequence[Sequence[Span]]]
"""Texts -> the findings of each."""

_ROUNDS: Final = 2
"""Encodings inside encodings are undone this many times."""

_LEAST_ENCODED: Final = 12
_FLAGS: Final = regex.VERSION1
_BASE64: Final = regex.compile(
    rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_LEAST_ENCODED},20000}}={{0,2}}(?![A-Za-z0-9+/_=-])",
    _FLAGS,
)
_HEX: Final = regex.compile(
    r"(?<![A-Za-z0-9])(?:0x)?(?P<hex>(?:[0-9a-fA-F]{2}){8,10000})(?![A-Za-z0-9])", _FLAGS
)
_PERCENT: Final = regex.compile(r"(?:%[0-9A-Fa-f]{2})+", _FLAGS)
_ENTITY: Final = regex.compile(r"&(?:#[0-9]{1,6}|#[xX][0-9A-Fa-f]{1,5}|[a-z]{2,8});", _FLAGS)
_ESCAPE: Final = regex.compile(r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|x(?P<code>[0-9A-Fa-f]{2}))", _FLAGS)
_BRACKETED: Final = regex.compile(
    r"(?<=[A-Za-z0-9]) ?[(\[{<] ?(?:dot|\.) ?[)\]}>] ?(?=[A-Za-z0-9])", _FLAGS | regex.I
)
_SCHEME: Final = regex.compile(
    r"h(?:xx|\*\*|tt)p(?=s?(?:://|\[:\]//|:\\\\/\\\\/))", _FLAGS | regex.I
)
_SPACED: Final = regex.compile(r"(?<!\S)\S(?: {1,3}\S){5,}(?!\S)", _FLAGS)
_SINGLE_SPACE: Final = regex.compile(r"(?<! ) (?! )|(?<= ) +", _FLAGS)
_DOTTED: Final = regex.compile(
    r"(?<![A-Za-z0-9])[A-Za-z](?:([.\-_*|])[A-Za-z])(?:\1[A-Za-z]){4,}(?![A-Za-z0-9])", _FLAGS
)
_BROKEN_ADDRESS: Final = regex.compile(
    r"(?<=[A-Za-z0-9])[ \t]*\r?\n[ \t]*(?=@[A-Za-z0-9])|(?<=[A-Za-z0-9]@)[ \t]*\r?\n[ \t]*(?=[A-Za-z0-9])"
    r"|(?<=@[A-Za-z0-9.-]{0,60}[A-Za-z0-9][.-])[ \t]*\r?\n[ \t]*(?=[a-z]{2,12}(?:\.|\b))"
    r"|(?<=@[A-Za-z0-9.-]{0,60}[A-Za-z0-9])[ \t]*\r?\n[ \t]*(?=\.[a-z]{2,6}\b)|(?<=\w[_-])\r?\n(?=[\w.-]{1,60}@)",
    _FLAGS,
)
_ACCOUNT: Final = regex.compile(
    r"(?<![A-Za-z0-9])[A-Za-z][ ._/-]?[A-Za-z](?:[ ._/\n-]{0,2}[0-9]){2}[ ._/\n-]{0,2}[A-Za-z0-9]",
    _FLAGS,
)
_ACCOUNT_GAP: Final = " ._/\n-"
_READABLE: Final = regex.compile(r"[\p{Latin}\p{Mn}\p{Han}\p{P}\p{S}0-9\s]+", _FLAGS)
_WORTHWHILE: Final = regex.compile(
    r"[@\p{Han}]|[0-9].*[0-9]|\p{L}{2,}[ :=._-]+\p{L}{2,}", _FLAGS | regex.S
)


@dataclass(frozen=True)
class View:
    """A text derived from another, character ``i`` standing for ``[starts[i], ends[i])`` of it."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    changed: Sequence[bool]

    def back(self, span: Span) -> Span | None:
        """The finding in the original text; None where it touches nothing disguised."""
        if not any(self.changed[span.start : span.end]):
            return None
        start = min(self.starts[span.start : span.end])
        return replace(span, start=start, end=max(self.ends[span.start : span.end]))

    def edited(self, edits: Iterable[Edit]) -> "View":
        """The view after replacing parts of it; edits are in order, overlapping ones are skipped."""
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        changed: list[bool] = []
        at = 0
        touched = False

        def copy(until: int) -> None:
            nonlocal touched
            pieces.append(self.text[at:until])
            starts.extend(self.starts[at:until])
            ends.extend(self.ends[at:until])
            kept = list(self.changed[at:until])
            if touched and kept:
                kept[0], touched = True, False
            changed.extend(kept)

        for first, last, new in edits:
            if first < at or last <= first:
                continue
            copy(first)
            pieces.append(new)
            starts.extend([self.starts[first]] * len(new))
            ends.extend([self.ends[last - 1]] * len(new))
            changed.extend([True] * len(new))
            if not new:
                # Nothing stands for what was taken out, so its neighbours do.
                touched = True
                if changed:
                    changed[-1], ends[-1] = True, self.ends[last - 1]
            at = last
        copy(len(self.text))
        return View("".join(pieces), starts, ends, changed)


def reveal(text: str) -> View | None:
    """The view of ``text`` without its disguises; None where there are none."""
    view: View | None = None
    for _ in range(_ROUNDS):
        before = view
        for step in _STEPS:
            edits = step(text if view is None else view.text)
            if edits:
                plain = range(len(text))
                base = view or View(text, plain, [at + 1 for at in plain], [False] * len(text))
                view = base.edited(edits)
        if view is before:
            break
    return view


def find_twice(find: Find, texts: Sequence[str]) -> list[list[Span]]:
    """What ``find`` finds in the texts, and in the views of those where something is disguised."""
    found = [list(spans) for spans in find(texts)]
    views = [(i, view) for i, text in enumerate(texts) if (view := reveal(text)) is not None]
    if views:
        for (i, view), spans in zip(views, find([view.text for _, view in views]), strict=True):
            found[i] += [
                back
                for span in spans
                if span.source not in _TOO_WEAK and (back := view.back(span)) is not None
            ]
    return found


_TOO_WEAK: Final = frozenset({"rule:long_number", "rule:long_code"})
"""Any long number is somebody's in a text, but not where putting digits together has made it."""


def _lookalikes(text: str) -> list[Edit]:
    return [] if text.isascii() else lookalikes.edits(text)


def _encodings(text: str) -> list[Edit]:
    """Percent signs, character entities and escapes, each for itself."""
    edits: list[Edit] = []
    if "%" in text:
        for match in _PERCENT.finditer(text):
            edits += _bytes_edit(match, unquote_to_bytes(match.group()))
    if "&" in text:
        for match in _ENTITY.finditer(text):
            plain = html.unescape(match.group())
            if plain != match.group() and plain.isprintable():
                edits.append((match.start(), match.end(), plain))
    if "\\" in text:
        for match in _ESCAPE.finditer(text):
            plain = chr(int(match.group("code"), 16))
            if plain.isprintable():
                edits.append((match.start(), match.end(), plain))
    return sorted(edits)


def _bytes_edit(match: Any, raw: bytes) -> list[Edit]:
    try:
        plain = raw.decode()
    except UnicodeDecodeError:
        return []
    return [(match.start(), match.end(), plain)] if plain.isprintable() else []


def _tokens(text: str) -> list[Edit]:
    """Base64 and hexadecimal tokens that hold readable text."""
    edits: list[Edit] = []
    if max(map(len, text.split()), default=0) < _LEAST_ENCODED:
        return edits
    for match in _BASE64.finditer(text):
        edits += _readable(match, _from_base64(match.group()))
    for match in _HEX.finditer(text):
        edits += _readable(match, bytes.fromhex(match.group("hex")))
    return sorted(edits)


def _from_base64(token: str) -> bytes:
    """The bytes of a token in either alphabet, with or without padding; none where it is no base64."""
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _readable(match: Any, raw: bytes) -> list[Edit]:
    try:
        plain = raw.decode()
    except UnicodeDecodeError:
        return []
    if not _READABLE.fullmatch(plain) or not _WORTHWHILE.search(plain):
        return []
    return [(match.start(), match.end(), f" {plain.strip()} ")]


def _spacing(text: str) -> list[Edit]:
    """Single letters or digits with a space or a sign between each two."""
    edits: list[Edit] = []
    for match in _SPACED.finditer(text):
        # A wider gap is a space between two words.
        gaps = _SINGLE_SPACE.finditer(text, *match.span())
        edits += [(gap.start(), gap.end(), "") for gap in gaps]
    for match in _DOTTED.finditer(text):
        edits += [(at, at + 1, "") for at in range(match.start() + 1, match.end(), 2)]
    return sorted(edits)


def _signs(text: str) -> list[Edit]:
    """Bracketed dots, defused schemes, addresses and account numbers broken over lines."""
    edits: list[Edit] = []
    if "[" in text or "(" in text or "{" in text or "<" in text:
        edits += [(match.start(), match.end(), ".") for match in _BRACKETED.finditer(text)]
    edits += [(m.start(), m.end(), "http") for m in _SCHEME.finditer(text) if m.group() != "http"]
    if "\n" in text and "@" in text:
        edits += [(match.start(), match.end(), "") for match in _BROKEN_ADDRESS.finditer(text)]
    for match in _ACCOUNT.finditer(text):
        edits += _account_gaps(text, match.start())
    return sorted(edits)


def _account_gaps(text: str, start: int) -> list[Edit]:
    """The gaps inside a valid IBAN that begins at ``start``, whatever its grouping."""
    value, gaps, at, wanted = "", [], start, 0
    while at < len(text) and (wanted == 0 or len(value) < wanted):
        if text[at] in _ACCOUNT_GAP:
            gaps.append((at, at + 1, ""))
        elif text[at].isascii() and text[at].isalnum():
            value += text[at].upper()
        else:
            return []
        at += 1
        if len(value) == 2 and wanted == 0:
            wanted = IBAN_LENGTHS.get(value, 0)
            if not wanted:
                return []
    return gaps if len(value) == wanted and iban_checks(value) else []


_STEPS: Final[tuple[Callable[[str], list[Edit]], ...]] = (
    _lookalikes,
    _encodings,
    _tokens,
    _spacing,
    _signs,
    number_words,
    grouped_digits,
)
