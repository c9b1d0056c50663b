"""From raw findings to the answer that every detector gives.

Thresholds, allow and deny lists, whole words, addresses made whole, repeated
values: what follows from the findings and the text alone, and therefore is the
same for every way of finding. The rules, in the order in which they apply:

1. A finding below its kind's threshold, or of a kind not asked for, is dropped.
2. A finding is trimmed of punctuation at its edges and widened to whole words.
3. What the deny list names is a ``TERM`` with score 1, wherever it stands as words.
4. Findings that share a character become one over their union, so that text is
   never spliced and no part of a weaker finding stays. A certain finding (checksum,
   unmistakable format) names it, else the longest, else one by a pattern of the
   policy, else the most confident
   (:func:`privacy.pii.entities.resolve`).
5. Parts of one name or of one address become one finding.
6. A value found once is found wherever it stands as words, in whatever case and
   spacing, numbers in whatever grouping; all its occurrences are of one kind, the
   kind that rule 4 would choose among them.
7. What the allow list names is dropped, unless it is part of a longer finding.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import regex

from privacy.pii.entities import Span, rank, resolve
from privacy.pii.limits import DEFAULT_LIMITS, Limits, check_findings
from privacy.pii.phrases import INVISIBLE, Phrases
from privacy.pii.scripts import HAN, plain

TELLING_DIGITS: Final = 7
"""From this many digits on, equal digits are the same number, however they are written."""

_INSIDE_WORD: Final = regex.compile(r"[\p{Latin}\p{Mn}0-9]")
_EDGE: Final = " \t\r\n,;:!?\"'，。；：！？、[]{}<>《》“”"
_GLUE: Final = regex.compile(r"[ \t]*[,，]?[ \t]*\n?[ \t]*")
_NAME_GLUE: Final = regex.compile(r"[ \t]+|-|'")
_INITIAL: Final = regex.compile(r"(?:^|.*[ .-])\p{L}\.? ?")
_SPACE: Final = regex.compile(r"\s+")
_SEPARATORS: Final = regex.compile(r"[\s().+/-]+")
_DIGIT_GROUPS: Final = regex.compile(r"[0-9]+(?:[ ().+/-]{1,3}[0-9]+)*")
_GROUP: Final = regex.compile(r"[0-9]+")
_BY_DIGITS: Final = frozenset(
    {"PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "BANK_ACCOUNT", "NATIONAL_ID", "ID_NUMBER"}
)
_NAMES: Final = frozenset({"PERSON", "LOCATION"})
_PLACES: Final = frozenset({"ADDRESS", "LOCATION", "POSTCODE"})
# Shorter values occur by chance inside ordinary text.
_LONGEST_REPEATED: Final = 200
_LEAST_REPEATED: Final = {"han": 2, "other": 4}
_MOST_DIGITS: Final = 34
_MOST_GROUPS: Final = 12
# Longer names and addresses are lists of them; bounds the time for texts that are nothing else.
_LONGEST_JOINED: Final = 300
_LONGEST_WORD: Final = 200
_ROUNDS: Final = 4


def normalise(value: str, entity: str) -> str:
    """The form under which two spellings of one value are the same.

    Case, spacing and invisible characters do not matter; in numbers, neither do
    separators.
    """
    folded = plain(value).translate(INVISIBLE).casefold()
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
        thresholds: entity -> least score, for kinds that have one of their own.
        limits: the most findings of one text.
    """

    def __init__(
        self,
        threshold: float,
        entities: Collection[str],
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        *,
        thresholds: Mapping[str, float] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.entities = frozenset(entities)
        self.threshold = threshold
        self.thresholds = dict(thresholds or {})
        self.limits = limits
        for name, value in [("threshold", threshold), *self.thresholds.items()]:
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1]")
        self._allow = frozenset(normalise(value, "TERM") for value in allow if value.strip())
        self._deny = Phrases(deny)

    def least(self) -> float:
        """The lowest threshold of any wanted kind: what scores below it need not be found."""
        return min(map(self.threshold_of, self.entities), default=self.threshold)

    def threshold_of(self, entity: str) -> float:
        """Least score of a finding of this kind."""
        return self.thresholds.get(entity, self.threshold)

    def wants(self, span: Span) -> bool:
        """Whether a finding is of a kind that is wanted, and sure enough."""
        return span.entity in self.entities and span.score >= self.threshold_of(span.entity)

    def __call__(self, text: str, found: Iterable[Span]) -> tuple[Span, ...]:
        """Disjoint spans in order; every character of every kept finding is covered.

        Raises:
            LimitExceeded: there are more than ``limits.findings``.
        """
        view = plain(text)
        wanted = filter(self.wants, found)
        spans = [span for one in wanted if (span := _whole(view, one)) is not None]
        if self._deny:
            spans += [Span(*place, "TERM", 1.0, "deny") for place in self._deny.find(view)]
        check_findings(len(spans), self.limits)
        whole = self._complete(view, resolve(spans))
        check_findings(len(whole), self.limits)
        return tuple(span for span in whole if not self._allowed(view, span))

    def _complete(self, view: str, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        """Joined parts, repeated values, one kind for each: until none makes another."""
        for _ in range(_ROUNDS):
            joined = list(_join(view, spans))
            again = repetitions(view, [(span.of(view), span) for span in joined])
            more = tuple(_one_kind_each(view, resolve([*joined, *again])))
            if more == spans:
                break
            spans = more
        return spans

    def _allowed(self, view: str, span: Span) -> bool:
        return bool(self._allow) and normalise(span.of(view), "TERM") in self._allow


def repeated(text: str, values: Iterable[tuple[str, str, float]]) -> list[Span]:
    """Every place where one of the ``(value, entity, score)`` stands; see :func:`repetitions`."""
    return repetitions(
        text, [(value, Span(0, max(1, len(value)), kind, score)) for value, kind, score in values]
    )


def repetitions(text: str, values: Iterable[tuple[str, Span]]) -> list[Span]:
    """Every place where one of the values stands as words of its own, like its finding.

    A name that a model found once is personal everywhere, in whatever case and
    spacing; a number of seven digits and more in whatever grouping. Values of two
    or three Latin characters are left out, and a name of one word repeats only
    with a capital: Will, Grace and Mark are words too.
    """
    known: dict[str, Span] = {}
    numbers: dict[str, Span] = {}
    for value, span in values:
        least = _LEAST_REPEATED["han" if HAN.search(value) else "other"]
        if not least <= len(value.strip()) <= _LONGEST_REPEATED:
            continue
        _keep(known, normalise(value, "TERM"), span)
        digits = normalise(value, "ID_NUMBER")
        if TELLING_DIGITS <= len(digits) <= _MOST_DIGITS and digits.isdecimal():
            _keep(numbers, digits, span)
    if not known:
        return []
    view = plain(text)
    spans = []
    for start, end in Phrases(known).find(view):
        word = view[start:end]
        span = known[normalise(word, "TERM")]
        if not (span.entity in _NAMES and word[0].islower() and word.isalpha()):
            spans.append(_again(span, start, end))
    for start, end, digits in _digit_runs(view, numbers):
        spans.append(_again(numbers[digits], start, end))
    return spans


def _keep(known: dict[str, Span], value: str, span: Span) -> None:
    if value not in known or rank(span) > rank(known[value]):
        known[value] = span


def _again(span: Span, start: int, end: int) -> Span:
    return Span(start, end, span.entity, span.score, span.source)


def _one_kind_each(view: str, spans: Sequence[Span]) -> Iterator[Span]:
    """The spans, all occurrences of a value being of one kind."""
    best: dict[str, Span] = {}
    values = [normalise(span.of(view), "TERM") for span in spans]
    for value, span in zip(values, spans, strict=True):
        _keep(best, value, span)
    for value, span in zip(values, spans, strict=True):
        known = best[value]
        same = span.entity == known.entity
        yield span if same else replace(known, start=span.start, end=span.end)


def _digit_runs(view: str, numbers: Collection[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, digits) of those of the numbers that occur, also in several groups of digits."""
    longest = max(map(len, numbers), default=0)
    for run in _DIGIT_GROUPS.finditer(view) if numbers else ():
        groups = [match.span() for match in _GROUP.finditer(view, *run.span())]
        for first, (start, _) in enumerate(groups):
            digits = ""
            for left, end in groups[first : first + _MOST_GROUPS]:
                digits += view[left:end]
                if len(digits) > longest:
                    break
                if digits in numbers and not (_within_word(view, start) or _within_word(view, end)):
                    yield start, end, digits


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
    first, last = start - _LONGEST_WORD, end + _LONGEST_WORD
    while start > first and _within_word(view, start):
        start -= 1
    while end < last and _within_word(view, end):
        end += 1
    return replace(span, start=start, end=end)


def _within_word(view: str, at: int) -> bool:
    """Whether position ``at`` has a letter or digit on both sides."""
    return 0 < at < len(view) and bool(
        _INSIDE_WORD.match(view[at - 1]) and _INSIDE_WORD.match(view[at])
    )


def _join(view: str, spans: Sequence[Span]) -> Iterable[Span]:
    """Parts of one address or of one name become one finding."""
    current: Span | None = None
    for span in spans:
        if current is not None and (entity := _same(view, current, span)):
            longer = max(current, span, key=rank)
            score = max(current.score, span.score)
            current = Span(current.start, span.end, entity, score, longer.source)
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current


def _same(view: str, left: Span, right: Span) -> str | None:
    if right.end - left.start > _LONGEST_JOINED:
        return None
    gap = view[left.end : right.start]
    kinds = {left.entity, right.entity}
    if _GLUE.fullmatch(gap):
        if kinds == {"LOCATION"}:
            return "LOCATION"
        if "ADDRESS" in kinds and kinds <= _PLACES:
            return "ADDRESS"
    if kinds == {"PERSON"} and not HAN.search(left.of(view)):
        initial = gap in {".", ". "} and _INITIAL.fullmatch(left.of(view))
        return "PERSON" if initial or _NAME_GLUE.fullmatch(gap) else None
    return None
