"""Patterns that a policy brings: regular expressions of an organisation's own identifiers.

They come from people who need not know what makes a regular expression run for
years. So each is checked when it is loaded, against its size and against texts
that make such expressions explode, and each search has a time limit: a text that
exceeds it is refused, never passed on half-read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import regex

from privacy.pii.entities import ENTITIES, Span
from privacy.pii.errors import PatternRefused, RedactionUnavailable

CONTEXT_DISTANCE: Final = 60
"""Characters before a match in which a context word counts."""
CONTEXT_BONUS: Final = 0.35
"""What a context word adds to the score, as Presidio's context enhancer does."""
LONGEST_PATTERN: Final = 1_000
SECONDS: Final = 1.0
"""Time limit of one search in one piece of a text."""

# The engine unrolls counted repetitions: nested ones take memory without bound.
_LARGEST: Final = 5_000
_PROBE_SECONDS: Final = 0.2
_NAME: Final = regex.compile(r"[a-z][a-z0-9_-]{0,39}")
_COUNTED: Final = regex.compile(r"\{(\d*)(?:(,)(\d*))?\}")


@dataclass(frozen=True)
class CustomPattern:
    """One pattern of a policy, compiled and checked.

    Args:
        name: how findings name it, as ``policy:<name>``; lower-case letters, digits, ``-``, ``_``.
        entity: the kind of what it finds, one of :data:`privacy.pii.entities.ENTITIES`.
        regex: the expression, in Python's syntax with ASCII classes, so that ``\\b`` stands beside
            Chinese characters; a group named ``value`` narrows the finding to it.
        score: confidence without further evidence, above 0 and at most 1.
        context: words that raise the score by :data:`CONTEXT_BONUS` where one stands within
            :data:`CONTEXT_DISTANCE` characters before the match, in whatever case.

    Raises:
        PatternRefused: it is malformed, matches the empty text, is too large, or takes too long on
            texts that make expressions explode.
    """

    name: str
    entity: str
    regex: str
    score: float = 0.6
    context: tuple[str, ...] = ()
    _pattern: Any = field(init=False, repr=False, compare=False)
    _context: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PatternRefused(
                f"pattern name {self.name!r} must be 1 to 40 of a-z, 0-9, '-' and '_', from a letter on"
            )
        if self.entity not in ENTITIES:
            raise self._refused(
                f"entity {self.entity!r} is none of those that are looked for: "
                f"{', '.join(sorted(ENTITIES))}"
            )
        if not 0 < self.score <= 1:
            raise self._refused(f"score={self.score} must be above 0 and at most 1")
        object.__setattr__(self, "_pattern", self._compiled())
        words = "|".join(regex.escape(word.strip()) for word in self.context if word.strip())
        cue = regex.compile(rf"(?<![a-z])(?:{words})", regex.IGNORECASE) if words else None
        object.__setattr__(self, "_context", cue)

    def find(self, text: str) -> Iterator[Span]:
        """Findings in ``text``.

        Raises:
            TimeoutError: a search took more than :data:`SECONDS`.
        """
        group: str | int = "value" if "value" in self._pattern.groupindex else 0
        for match in self._pattern.finditer(text, timeout=SECONDS):
            start, end = match.span(group)
            if start >= end:
                continue
            score = self.score
            if self._context is not None and self._context.search(
                text, max(0, start - CONTEXT_DISTANCE), start
            ):
                score = min(1.0, score + CONTEXT_BONUS)
            yield Span(start, end, self.entity, score, f"policy:{self.name}")

    def _compiled(self) -> Any:
        if not 0 < len(self.regex) <= LONGEST_PATTERN:
            raise self._refused(
                f"has {len(self.regex)} characters; 1 to {LONGEST_PATTERN} are taken"
            )
        size = _size(self.regex)
        if size > _LARGEST:
            raise self._refused(
                f"repeats up to {size:,} times, more than {_LARGEST:,}; lower its counts"
            )
        try:
            pattern = regex.compile(self.regex, regex.ASCII | regex.VERSION0)
        except (regex.error, ValueError, OverflowError, RecursionError) as error:
            raise self._refused(f"is no regular expression: {error}") from None
        if pattern.search("") is not None:
            raise self._refused("matches the empty text, so it would match everywhere")
        try:
            for probe in _probes(self.regex):
                for _ in pattern.finditer(probe, timeout=_PROBE_SECONDS):
                    pass
        except TimeoutError:
            raise self._refused(
                f"took more than {_PROBE_SECONDS:g} s on a short text; nested or overlapping "
                "repetitions such as (a+)+ do that, write each part so that it can match in one way"
            ) from None
        return pattern

    def _refused(self, why: str) -> PatternRefused:
        return PatternRefused(f"pattern {self.name!r}: {why}")


def find_custom(patterns: Iterable[CustomPattern], text: str) -> list[Span]:
    """Every finding of every pattern; they may overlap.

    Raises:
        RedactionUnavailable: a pattern took longer than its time limit.
    """
    found: list[Span] = []
    for pattern in patterns:
        try:
            found += pattern.find(text)
        except TimeoutError:
            raise RedactionUnavailable(
                f"the policy's pattern {pattern.name!r} took more than {SECONDS:g} s on "
                f"{len(text)} characters; simplify it"
            ) from None
    return found


def _probes(expression: str) -> Iterator[str]:
    """Texts on which careless expressions explode: long repetitions that fail at their end.

    What the expression itself says comes after them too, because the engine stops early where a
    letter that must occur is missing.
    """
    said = "".join(c for c in expression if c.isalnum() or c in "!@#%&_-:;,=/")[:40]
    ends = ("!", "\n\x00", said + "!\x00", said[::-1] + "\x00", "\x00" + said)
    for unit in [*"a1A_ -.@/", "王", "a1", "a ", "1-", "ab", "x.", *sorted(set(said))]:
        for end in ends:
            yield unit * (60 // len(unit)) + end
        yield unit * 2_000 + "!"
    yield said * 40 + "!"


def _size(expression: str) -> int:
    """How often the innermost part may be repeated by counts, counts of groups multiplied.

    Escapes and classes count as one; an upper bound that is missing counts as the lower one.
    """
    stack: list[int] = [0]
    last = 0
    i = 0
    while i < len(expression):
        character = expression[i]
        counted = _COUNTED.match(expression, i) if character == "{" else None
        if character == "(":
            stack.append(0)
        elif character == ")" and len(stack) > 1:
            last = max(1, stack.pop())
            stack[-1] += last
        elif counted is not None and any(counted.groups()):
            low, high = int(counted[1] or 0), int(counted[3] or 0)
            stack[-1] += last * (max(low, high, 1) - 1)
            last *= max(low, high, 1)
            i = counted.end()
            continue
        elif character == "[":
            i = _class_end(expression, i)
            last = 1
            stack[-1] += 1
        else:
            i += character == "\\"
            last = 1
            stack[-1] += 1
        i += 1
    return sum(stack)


def _class_end(expression: str, start: int) -> int:
    """Position of the bracket that closes the class opened at ``start``, or the last position."""
    i = start + 1
    i += expression[i : i + 1] == "^"
    i += expression[i : i + 1] == "]"
    while i < len(expression) and expression[i] != "]":
        i += 2 if expression[i] == "\\" else 1
    return min(i, len(expression) - 1)
