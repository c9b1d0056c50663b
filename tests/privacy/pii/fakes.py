"""Detectors for tests: one that is told what to find, one that finds anything, one that fails."""

import random
from collections.abc import Mapping, Sequence
from typing import Final

import regex

from privacy.pii.entities import PERSONAL, Span, resolve
from privacy.pii.errors import RedactionUnavailable


class ToldDetector:
    """Finds the given values wherever they stand, exactly as written."""

    covers_names: Final = True

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    @property
    def entities(self) -> frozenset[str]:
        return PERSONAL

    def detect(self, text: str) -> tuple[Span, ...]:
        return resolve(
            Span(match.start(), match.end(), entity, 0.9)
            for value, entity in self._values.items()
            for match in regex.finditer(regex.escape(value), text)
        )

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        return [self.detect(text) for text in texts]


class WildDetector(ToldDetector):
    """Calls arbitrary stretches of a text personal; the same ones for the same text and seed."""

    def __init__(self, seed: int) -> None:
        super().__init__({})
        self._seed = seed

    def detect(self, text: str) -> tuple[Span, ...]:
        dice = random.Random(f"{self._seed}{text!r}")
        spans = []
        for _ in range(dice.randrange(4) if text else 0):
            start = dice.randrange(len(text))
            end = min(len(text), start + dice.randint(1, 9))
            spans.append(Span(start, end, dice.choice(sorted(PERSONAL)), dice.random()))
        return resolve(spans)


class FailingDetector(ToldDetector):
    """Cannot look for anything."""

    def __init__(self) -> None:
        super().__init__({})

    def detect(self, text: str) -> tuple[Span, ...]:
        raise RedactionUnavailable("the model is gone")
