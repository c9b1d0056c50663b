"""The rule engine: patterns with a check and with cues, in every language at once.

Boundaries are ASCII (``\\b`` and ``\\w`` would see no boundary between a Chinese
character and a digit). Patterns are anchored at the start of a run of their own
characters, so scanning stays linear, and each search of a longer text has a time
limit: a text that exceeds it is refused, not passed on half-read.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.errors import RedactionUnavailable

ASCII: Final = regex.ASCII | regex.VERSION1
LETTERS: Final = regex.VERSION1
"""For patterns with ``\\p{...}``, which regex.ASCII would confine to ASCII."""

LEFT: Final = r"(?<![A-Za-z0-9])"
RIGHT: Final = r"(?![A-Za-z0-9])"
HAN_RANGES: Final = r"\u3400-\u4dbf\u4e00-\u9fff"
"""For character classes: Chinese characters."""

DIGITS: Final = tuple("0123456789")
"""For ``needs``: what holds a digit."""

CUE_DISTANCE: Final = 40
"""Characters before a match in which a cue word counts."""

_SECONDS: Final = 5.0
_SHORT: Final = 500

Check = Callable[[Any], float | None]
"""Match -> score, or None where the match is something else."""


_LATIN: Final = regex.compile(r"\p{Latin}")
_DIGIT: Final = regex.compile(r"[0-9]")


@dataclass(frozen=True)
class Facts:
    """What decides cheaply which rules are worth trying on a text."""

    folded: str
    ascii_only: bool
    latin: bool
    digits: int

    @classmethod
    def of(cls, text: str) -> "Facts":
        """The facts of one text."""
        latin = _LATIN.search(text) is not None
        return cls(text.lower(), text.isascii(), latin, len(_DIGIT.findall(text)))


@dataclass(frozen=True)
class Rule:
    """One pattern for one kind of personal data.

    ``score`` holds without further evidence, ``cued`` where a cue word stands
    shortly before the match. ``check`` replaces ``score`` by its own judgement.
    A group named ``value`` narrows the finding to it. ``name`` says in a finding's
    ``source`` which rule it was; where it is empty, the entity stands for it.

    The rule is tried only on texts that hold one of the substrings ``needs`` (lower case; no
    substring: any text), ``digits`` ASCII digits, if ``latin`` a Latin letter and if
    ``beyond_ascii`` a character beyond ASCII. This costs next to nothing and saves most rules
    from most texts.
    """

    entity: str
    pattern: Any
    score: float = 0.0
    check: Check | None = None
    cue: Any = None
    cued: float = 0.0
    name: str = ""
    needs: tuple[str, ...] = ()
    beyond_ascii: bool = False
    latin: bool = False
    digits: int = 0

    def may_match(self, facts: Facts) -> bool:
        """Whether a text of which this is known can hold a match."""
        if self.digits > facts.digits or (self.latin and not facts.latin):
            return False
        if self.beyond_ascii and facts.ascii_only:
            return False
        return not self.needs or any(part in facts.folded for part in self.needs)

    @property
    def entities(self) -> frozenset[str]:
        """The kinds that it may find."""
        return frozenset({self.entity})

    @property
    def source(self) -> str:
        """What the findings name as their source."""
        return f"rule:{self.name or self.entity.lower()}"

    def find(self, text: str) -> Iterator[Span]:
        named = "value" in self.pattern.groupindex
        source = self.source
        for match in self.pattern.finditer(text, timeout=time_limit(text)):
            start, end = match.span("value") if named else match.span()
            score = self.score if self.check is None else self.check(match)
            if self.cue is not None and (score is None or score < self.cued):
                before = text[max(0, start - CUE_DISTANCE) : start]
                if self.cue.search(before):
                    score = self.cued
            if score and end > start:
                yield Span(start, end, self.entity, score, source)


def time_limit(text: str) -> float | None:
    """Seconds that one search of ``text`` may take.

    None for a short text, which bounds the time of any pattern here by itself: they all take
    polynomial time, and reading the clock takes ten times as long as searching a short text.
    """
    return _SECONDS if len(text) > _SHORT else None


def rule(
    entity: str,
    pattern: str,
    score: float = 0.0,
    *,
    check: Check | None = None,
    cue: str | None = None,
    cued: float = 0.0,
    flags: int = 0,
    name: str = "",
    needs: tuple[str, ...] = (),
    latin: bool = False,
    digits: int = 0,
) -> Rule:
    """A :class:`Rule` with its pattern between ASCII boundaries and its cue compiled."""
    base = LETTERS if r"\p{" in pattern else ASCII
    compiled = regex.compile(f"{LEFT}(?:{pattern}){RIGHT}", base | flags)
    found = None if cue is None else words(cue)
    return Rule(
        entity, compiled, score, check, found, cued, name, needs, latin=latin, digits=digits
    )


def words(alternatives: str) -> Any:
    """Pattern for any of the words, case-insensitive; Chinese ones need no boundary."""
    return regex.compile(
        rf"(?<![A-Za-z])(?:{alternatives})(?![A-Za-z])|(?:(?=[^\x00-\x7f])(?:{alternatives}))",
        ASCII | regex.IGNORECASE,
    )


def rules_for(rules: Iterable[Rule], entities: Collection[str]) -> tuple[Rule, ...]:
    """Those of the rules that may find one of the kinds; the others need not be tried."""
    return tuple(one for one in rules if not one.entities.isdisjoint(entities))


def find_all(rules: Iterable[Rule], text: str) -> list[Span]:
    """Every finding of every rule; they may overlap.

    Raises:
        RedactionUnavailable: a pattern took longer than its time limit.
    """
    try:
        facts = Facts.of(text)
        return [span for one in rules if one.may_match(facts) for span in one.find(text)]
    except TimeoutError as error:
        raise RedactionUnavailable(
            f"a pattern took more than {_SECONDS:g} s on a text of {len(text)} characters"
        ) from error
