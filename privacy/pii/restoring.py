"""Putting original values back in the place of what stood for them, in whole texts and in streams.

One scanner serves both, so a text cut into any pieces gives what the whole gives. From left to
right, at each place the first form that fits counts. A stream holds back from the first place at
which more characters could still make or change a match, and gives out everything before it.
"""

import codecs
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import regex

from privacy.pii.placeholders import (
    BEGINS,
    BOUNDED,
    GRAMMAR,
    LONGEST,
    STARTS,
    in_form,
    in_json,
    read,
)

_WORD: Final = r"A-Za-z0-9_À-ɏ"
_IS_WORD: Final[Any] = regex.compile(f"[{_WORD}]")
# In JSON source "\\n" is no letter; brackets in this form are a form of ours, though.
_ESCAPE: Final[Any] = regex.compile(r'\\(?:["\\/bfnrt]|u(?!003[ceCE])[0-9a-fA-F]{4})')
_CUT_ESCAPE: Final[Any] = regex.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")


@functools.cache
def _lower() -> dict[int, int]:
    """Small letters, one for one and whatever stands beside them, unlike :meth:`str.lower`."""
    pairs = ((code, chr(code).lower()) for code in range(0x1F000))
    return {code: ord(low) for code, low in pairs if len(low) == 1 and ord(low) != code}


def folded(text: str) -> str:
    """``text`` without its case, of equal length. Long lists are looked up in it, in constant time."""
    return text.lower() if text.isascii() else text.translate(_lower())


def _without_escapes(source: str) -> str:
    """JSON source with every escape as characters that are no letters, of equal length."""
    return str(_ESCAPE.sub(lambda match: "\0" * len(match.group()), source))


class AnyOf:
    """Looks for any of many literals, whatever their case; the time does not depend on how many.

    Args:
        literals: not empty.
        bounded: not inside Latin words; beside Chinese characters there are no words to be inside.
    """

    def __init__(self, literals: Iterable[str], *, bounded: bool) -> None:
        self._names = {folded(name) for name in literals}
        self._bounded = bounded
        self._prefixes = {name[:i] for name in self._names for i in range(1, len(name))}
        firsts = "".join(map(regex.escape, sorted({name[0] for name in self._names})))
        left = f"(?<![{_WORD}](?=[{_WORD}]))" if bounded else ""
        self._first: Any = regex.compile(f"{left}[{firsts}]")
        self.longest = max(map(len, self._names))

    def find(self, low: str, start: int = 0) -> tuple[int, int] | None:
        """The first and there the longest [start, end) in folded text, from ``start`` on."""
        for place in self._first.finditer(low, start):
            at, found = place.start(), 0
            for end in range(at + 1, min(len(low), at + self.longest) + 1):
                piece = low[at:end]
                if piece in self._names and not (self._bounded and self._in_word(low, end)):
                    found = end
                if piece not in self._prefixes:
                    break
            if found:
                return at, found
        return None

    def open_from(self, low: str, start: int) -> int:
        """The first place from which more characters could make or lengthen a literal."""
        for place in self._first.finditer(low, max(start, len(low) - self.longest)):
            tail = low[place.start() :]
            # A whole literal that ends with a letter awaits what follows.
            if tail in self._prefixes or (tail in self._names and _IS_WORD.match(tail[-1])):
                return int(place.start())
        return len(low)

    @staticmethod
    def _in_word(low: str, end: int) -> bool:
        return bool(end < len(low) and _IS_WORD.match(low[end - 1]) and _IS_WORD.match(low[end]))


class Originals:
    """What stands for what: placeholders, and literal stand-ins of any other form.

    Personal data, in memory only. Two stand-ins differ in more than case.

    Args:
        placeholders: ``<ENTITY_n>`` -> original.
        literals: any other stand-in -> original.
        json: originals are put into JSON source, between its quotes, and are escaped for it.
        numbers: placeholders, in JSON source with their quotes, -> JSON number.
    """

    def __init__(
        self,
        placeholders: Mapping[str, str],
        literals: Mapping[str, str] | None = None,
        *,
        json: bool = False,
        numbers: Mapping[str, str] | None = None,
    ) -> None:
        self._placeholders = placeholders
        self._json = json
        given = {
            folded(_without_escapes(in_json(key)) if json else key): self._escaped(value)
            for key, value in (literals or {}).items()
        }
        if json:
            given |= {folded(f'"{key}"'): value for key, value in (numbers or {}).items()}
        self._literals = given
        self._any = AnyOf(given, bounded=True) if given else None
        self.longest = max(LONGEST, self._any.longest if self._any else 0)
        """No stream holds back more characters than this."""

    def restore(self, text: str) -> str:
        """``text`` with originals in the place of what stands for them; the rest stays."""
        return self.advance("", text, final=True)[0]

    def covered(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of everything in ``text`` that stands for an original."""
        view, low = self._views(text)
        found = self._matches(view, low, 0)
        return [(start, end) for start, end, value in found if value != text[start:end]]

    def advance(self, before: str, text: str, *, final: bool) -> tuple[str, int, str]:
        """What ``text`` restores to, as far as it is certain, where that ends, and what is there.

        ``before`` is the third of these from the call before, ``""`` at first. ``final``: no more
        text comes, so all of it is certain.
        """
        start = len(before)
        text = before + text
        view, low = self._views(text)
        parts: list[str] = []
        done = start
        limit = len(text) if final else self._first_open(view, low, start)
        for begin, end, value in self._matches(view, low, start):
            if begin >= limit:
                break
            parts += [text[done:begin], value]
            done = end
            if done > limit:
                limit = self._first_open(view, low, done)
        parts.append(text[done:limit])
        return "".join(parts), limit - start, view[max(0, limit - 1) : limit]

    def _views(self, text: str) -> tuple[str, str]:
        """``text`` as forms, and as literals, are looked for in it; both of its length."""
        if self._json:
            text = _without_escapes(text)
        return text, folded(text) if self._any else text

    def _first_open(self, text: str, low: str, start: int) -> int:
        """The first place from which more characters could still make or change a match."""
        limit = len(text) if self._any is None else self._any.open_from(low, start)
        if self._json and (cut := _CUT_ESCAPE.search(text, start)):
            limit = min(limit, cut.start())
        for place in _STARTS.finditer(text, max(start, len(text) - LONGEST)):
            if place.start() >= limit:
                break
            form = _OPEN.fullmatch(text, place.start(), partial=True)
            if form is not None and (form.partial or form["closed"] is None):
                return int(place.start())
        return limit

    def _matches(self, text: str, low: str, start: int) -> Iterator[tuple[int, int, str]]:
        """(start, end, value) from left to right; of two at one place the literal counts."""
        if self._any is None:
            for match in _FORM.finditer(text, start):
                yield match.start(), match.end(), self._value(match)
            return
        literal, form = self._any.find(low, start), _FORM.search(text, start)
        while literal is not None or form is not None:
            if literal is not None and (form is None or literal[0] <= form.start()):
                begin, end = literal
                yield begin, end, self._literals[low[begin:end]]
            else:
                begin, end = form.span()
                yield begin, end, self._value(form)
            if literal is not None and literal[0] < end:
                literal = self._any.find(low, end)
            if form is not None and form.start() < end:
                form = _FORM.search(text, end)

    def _value(self, match: Any) -> str:
        exact, any_spelling = read(match)
        known = self._placeholders.get(exact)
        rest = match["suffix"] or ""
        if known is None and match["variant"]:
            # An unknown spelling of a known value is still that value; without brackets it is
            # the value and what follows it.
            known = self._placeholders.get(any_spelling)
            if match["closed"] is None:
                rest = match.group()[match.end("index") - match.start() :]
        if known is None:
            return str(match.group())
        return self._escaped(known) + rest if self._json else in_form(known, match) + rest

    def _escaped(self, value: str) -> str:
        return in_json(value) if self._json else value


_FORM: Final[Any] = regex.compile(f"{BEGINS}(?:{BOUNDED})")
_OPEN: Final[Any] = regex.compile(GRAMMAR)
_STARTS: Final[Any] = regex.compile(STARTS)


class StreamRestorer:
    """Restores a text that arrives in pieces; the pieces may cut placeholders anywhere.

    The outputs, joined, equal the restored inputs, joined. What may still become a placeholder is
    held back, at most ``originals.longest`` characters, and nothing else.
    """

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._before = ""
        self._held = ""

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return len(self._held)

    def feed(self, chunk: str) -> str:
        """Take a piece and return what is certain by now, possibly nothing."""
        return self._advance(chunk, final=False)

    def flush(self) -> str:
        """What was held back when the stream ended."""
        return self._advance("", final=True)

    def _advance(self, chunk: str, *, final: bool) -> str:
        text = self._held + chunk
        out, end, self._before = self._originals.advance(self._before, text, final=final)
        self._held = text[end:]
        return out


class Utf8Restorer:
    """As :class:`StreamRestorer`, for UTF-8 bytes cut anywhere, also inside a character.

    Bytes that are no UTF-8 pass unchanged.
    """

    def __init__(self, originals: Originals) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._restorer = StreamRestorer(originals)

    def feed(self, chunk: bytes) -> bytes:
        """Take some bytes and return what is certain by now."""
        return _bytes(self._restorer.feed(self._decoder.decode(chunk)))

    def flush(self) -> bytes:
        """What was held back when the stream ended."""
        rest = self._restorer.feed(self._decoder.decode(b"", final=True))
        return _bytes(rest + self._restorer.flush())


def _bytes(text: str) -> bytes:
    # A value restored from JSON may hold a lone surrogate that stands for no byte.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
