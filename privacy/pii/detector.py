"""The port through which everything else asks for personal data, and how to open it.

:class:`Detector` promises, for every implementation (``tests/contracts/test_detector.py``):

* spans are disjoint, in order and inside the text; offsets are those of the text given;
* ``detect_many(texts)[i] == detect(texts[i])``;
* any ``str`` within the limits is taken, lone surrogates and empty texts included;
* where looking failed, :class:`~privacy.pii.errors.RedactionUnavailable` is raised; an empty
  answer always means that nothing was found;
* it may be used from several threads at once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from privacy.pii.custom import CustomPattern
from privacy.pii.entities import PERSONAL, Span
from privacy.pii.limits import DEFAULT_LIMITS, Limits

DEFAULT_THRESHOLD: Final = 0.5
"""Least score of a finding unless a policy says otherwise. Presidio's own default is 0."""

Language = Literal["en", "zh"]


class Detector(Protocol):
    """Finds personal data in texts."""

    @property
    def covers_names(self) -> bool:
        """False where names in running text are not looked for: not fit for real personal data."""

    @property
    def entities(self) -> frozenset[str]:
        """The kinds that can be found."""

    def detect(self, text: str) -> tuple[Span, ...]:
        """Findings of one text."""

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Findings of each text, in the order given; cheaper than one call for each."""


@dataclass(frozen=True)
class PiiModels:
    """Folders of the models that the configured languages need.

    English takes a spaCy pipeline and an ONNX token classifier, Chinese the LAC
    analyser as ONNX.
    """

    spacy_en: Path | None = None
    token_classifier_en: Path | None = None
    lexical_zh: Path | None = None


def open_detector(
    models: PiiModels,
    languages: Iterable[Language] = ("en", "zh"),
    *,
    threshold: float = DEFAULT_THRESHOLD,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    entities: Collection[str] = PERSONAL,
    threads: int = 1,
    thresholds: Mapping[str, float] | None = None,
    patterns: Iterable[CustomPattern] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Detector:
    """The full detector: patterns and models in Presidio's frame.

    Imports Presidio and spaCy, which takes seconds; keep one per process. The parameters are those
    of :class:`privacy.pii.presidio.PresidioDetector`.

    Raises:
        DetectorNotReady: a configured language lacks a model.
    """
    from privacy.pii.presidio import PresidioDetector

    return PresidioDetector(
        models,
        languages,
        threshold=threshold,
        allow=allow,
        deny=deny,
        entities=entities,
        threads=threads,
        thresholds=thresholds,
        patterns=patterns,
        limits=limits,
    )
