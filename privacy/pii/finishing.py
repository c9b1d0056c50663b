"""From raw findings to the answer that every detector gives.

Threshold, allow and deny lists, whole words, addresses made whole, repeated
values: what follows from the findings and the text alone, and therefore is the
same for every way of finding.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import regex

from privacy.pii.entities import Span, resolve
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.scripts import HAN, plain

_INSIDE_WORD: Final = regex.compile(r"[\p{Latin}\p{Mn}0-9]")
_EDGE: Final = " \t\r\n,;:!?\"'，。；：！？、[]{}<>《》“”"
_GLUE: Final = regex.compile(r"[ \t]*[,，]?[ \t]*\n?[ \t]*")
_NAME_GLUE: Final = regex.compile(r"[ \t]+|-|'")
_INITIAL: Final = regex.compile(r"(?:^|.*[ .-])\p{L}\.? ?")
_SPACE: Final = regex.compile(r"\s+")
_SEPARATORS: Final = regex.compile(r"[\s().+/-]+")
_BY_DIGITS: Final = frozenset(
    {"PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "BANK_ACCOUNT", "NATIONAL_ID", "ID_NUMBER"}
)
_NAMES: Final = frozenset({"PERSON", "LOCATION"})
# Shorter values occur by chance inside ordinary text.
_SECONDS: Final = 30.0
_LONGEST_REPEATED: Final = 200
_LEAST_REPEATED: Final = {"han": 2, "other": 4}


def normalise(value: str, entity: str) -> str:
    """The form under which two spellings of one value are the same.

    Case and spacing do not matter; in numbers, neither do separators.
    """
    folded = plain(value).casefold()
    if entity in _BY_DIGITS:
        return str(_SEPARATORS.sub("", folded))
    return str(_SPACE.sub(" ", folded)).strip()


class Finisher:
    """Turns raw findings of one text into disjoint, complete, wanted ones.

    Args:
        threshold: least score of a finding, in [0, 1].
        entities: kinds that are wanted.
        allow: values that are never personal data (case and spacing do not matter).
        deny: values that always are; found as ``TERM`` wherever they stand as words.
    """

    def __init__(
        self,
        threshold: float,
        entities: Collection[str],
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must lie in [0, 1]")
        self.threshold = threshold
        self.entities = frozenset(entities)
        self._allow = frozenset(normalise(value, "TERM") for value in allow if value.strip())
        self._deny = occurrences_of(value for value in deny if value.strip())

    def __call__(self, text: str, found: Iterable[Span]) -> tuple[Span, ...]:
        """Disjoint spans in order; every character of every kept finding is covered."""
        view = plain(text)
        wanted = [s for s in found if s.score >= self.threshold and s.entity in self.entities]
        spans = [span for one in wanted if (span := _whole(view, one)) is not None]
        if self._deny is not None:
            spans += [
                Span(match.start(), match.end(), "TERM", 1.0) for match in self._deny.finditer(view)
            ]
        spans = list(_join(view, resolve(spans)))
        spans += repeated(view, [(span.of(text), span.entity, span.score) for span in spans])
        return tuple(span for span in resolve(spans) if not self._allowed(view, span))

    def _allowed(self, view: str, span: Span) -> bool:
        return bool(self._allow) and normalise(span.of(view), "TERM") in self._allow


def repeated(text: str, values: Iterable[tuple[str, str, float]]) -> list[Span]:
    """Every place where one of the ``(value, entity, score)`` stands as words of its own.

    A name that a model found once is personal everywhere, in whatever case and
    spacing. Values of two or three Latin characters are left out, and a name of
    one word repeats only with a capital: Will, Grace and Mark are words too.
    """
    known: dict[str, tuple[str, float]] = {}
    for value, entity, score in values:
        least = _LEAST_REPEATED["han" if HAN.search(value) else "other"]
        if least <= len(value.strip()) <= _LONGEST_REPEATED:
            known.setdefault(normalise(value, "TERM"), (entity, score))
    pattern = occurrences_of(known)
    if pattern is None:
        return []
    spans = []
    try:
        matches = list(pattern.finditer(plain(text), timeout=_SECONDS))
    except TimeoutError as error:
        raise RedactionUnavailable(
            f"looking for {len(known)} values in {len(text)} characters took more than {_SECONDS:g} s"
        ) from error
    for match in matches:
        entity, score = known[normalise(match.group(), "TERM")]
        word = match.group()
        if entity in _NAMES and word[0].islower() and word.isalpha():
            continue
        spans.append(Span(match.start(), match.end(), entity, score))
    return spans


def occurrences_of(values: Iterable[str]) -> Any:
    """Pattern for any of the values as whole words, in any case and spacing; None without values."""
    parts = sorted({normalise(value, "TERM") for value in values}, key=len, reverse=True)
    if not parts:
        return None
    bodies = (r"\s+".join(regex.escape(word) for word in part.split(" ")) for part in parts)
    # Only the edges that are letters or digits need a boundary beside them.
    return regex.compile(
        r"(?<![\p{Latin}0-9](?=[\p{Latin}0-9]))(?:"
        + "|".join(bodies)
        + r")(?!(?<=[\p{Latin}0-9])[\p{Latin}0-9])",
        regex.IGNORECASE | regex.VERSION1,
    )


def _whole(view: str, span: Span) -> Span | None:
    """The span without punctuation at its edges, widened to whole Latin words."""
    start, end = span.start, min(span.end, len(view))
    while start < end and view[start] in _EDGE:
        start += 1
    while end > start and view[end - 1] in _EDGE:
        end -= 1
    if view[start:end].startswith("(") and ")" not in view[start:end]:
        start += 1
    if view[start:end].endswith(")") and "(" not in view[start:end]:
        end -= 1
    if span.entity == "PERSON" and view[start:end].casefold().endswith("'s"):
        end -= 2
    if start >= end:
        return None
    while start and _INSIDE_WORD.match(view[start]) and _INSIDE_WORD.match(view[start - 1]):
        start -= 1
    while end < len(view) and _INSIDE_WORD.match(view[end]) and _INSIDE_WORD.match(view[end - 1]):
        end += 1
    return Span(start, end, span.entity, span.score)


def _join(view: str, spans: Sequence[Span]) -> Iterable[Span]:
    """Parts of one address or of one name become one finding."""
    current: Span | None = None
    for span in spans:
        if current is not None and (entity := _same(view, current, span)):
            current = Span(current.start, span.end, entity, max(current.score, span.score))
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current


def _same(view: str, left: Span, right: Span) -> str | None:
    gap = view[left.end : right.start]
    kinds = {left.entity, right.entity}
    if kinds <= {"ADDRESS", "LOCATION"} and _GLUE.fullmatch(gap):
        return "ADDRESS" if "ADDRESS" in kinds else "LOCATION"
    if kinds == {"PERSON"} and not HAN.search(left.of(view)):
        initial = gap in {".", ". "} and _INITIAL.fullmatch(left.of(view))
        return "PERSON" if initial or _NAME_GLUE.fullmatch(gap) else None
    return None
