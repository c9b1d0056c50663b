"""A detector of patterns alone: no model, no start-up time, and no names in running text.

For tests of other rooms and for texts that hold only numbers and addresses. It
says so through ``covers_names``; whoever handles real records must refuse it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from privacy.pii.custom import CustomPattern, find_custom
from privacy.pii.detector import DEFAULT_THRESHOLD
from privacy.pii.entities import PERSONAL, Span
from privacy.pii.finishing import Finisher
from privacy.pii.limits import DEFAULT_LIMITS, Limits, find_in_pieces
from privacy.pii.rules import Rule, find_all, rules_for
from privacy.pii.rules_numbers import NUMBER_RULES
from privacy.pii.rules_places import PLACE_RULES
from privacy.pii.rules_words import WORD_RULES
from privacy.pii.rules_zh import ZH_RULES
from privacy.pii.scripts import plain

RULES: Final[tuple[Rule, ...]] = (*NUMBER_RULES, *PLACE_RULES, *WORD_RULES, *ZH_RULES)


class PatternDetector:
    """Finds what has a form; see :class:`privacy.pii.detector.Detector` for the promises."""

    covers_names: Final = False

    def __init__(
        self,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        entities: Collection[str] = PERSONAL,
        thresholds: Mapping[str, float] | None = None,
        patterns: Iterable[CustomPattern] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._patterns = tuple(patterns)
        self._limits = limits
        wanted = {*entities, *(pattern.entity for pattern in self._patterns)}
        self._rules = rules_for(RULES, wanted)
        self._finish = Finisher(
            threshold, wanted, allow, deny, thresholds=thresholds, limits=limits
        )

    @property
    def entities(self) -> frozenset[str]:
        return self._finish.entities

    def detect(self, text: str) -> tuple[Span, ...]:
        return self.detect_many([text])[0]

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        found = find_in_pieces([plain(text) for text in texts], self._find, self._limits)
        return [self._finish(text, spans) for text, spans in zip(texts, found, strict=True)]

    def _find(self, views: Sequence[str]) -> list[list[Span]]:
        return [find_all(self._rules, view) + find_custom(self._patterns, view) for view in views]
