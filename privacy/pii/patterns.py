"""A detector of patterns alone: no model, no start-up time, and no names in running text.

For tests of other rooms and for texts that hold only numbers and addresses. It
says so through ``covers_names``; whoever handles real records must refuse it.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from privacy.pii.detector import DEFAULT_THRESHOLD
from privacy.pii.entities import PERSONAL, Span
from privacy.pii.finishing import Finisher
from privacy.pii.rules import Rule, find_all
from privacy.pii.rules_numbers import NUMBER_RULES
from privacy.pii.rules_places import PLACE_RULES
from privacy.pii.rules_words import WORD_RULES
from privacy.pii.scripts import plain

RULES: Final[tuple[Rule, ...]] = (*NUMBER_RULES, *PLACE_RULES, *WORD_RULES)


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
    ) -> None:
        self._finish = Finisher(threshold, entities, allow, deny)

    @property
    def entities(self) -> frozenset[str]:
        return self._finish.entities

    def detect(self, text: str) -> tuple[Span, ...]:
        return self._finish(text, find_all(RULES, plain(text)))

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        return [self.detect(text) for text in texts]
