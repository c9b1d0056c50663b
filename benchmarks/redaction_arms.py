"""The redactors that are compared: stock Presidio, ours, and ours with patterns alone.

Stock Presidio is its analyzer with all that it brings by default and the spaCy pipeline that ours
uses too. It is kept off the network: the suffix list that two of its recognizers fetch is the one
that tldextract ships.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from intramural.parts import pii_models
from privacy.pii.detector import open_detector
from privacy.pii.entities import ENTITIES, PERSONAL, Span
from privacy.pii.evaluation import kinds_of
from privacy.pii.patterns import PatternDetector

STOCK_BATCH: Final = 64
_IGNORED: Final = "CARDINAL EVENT LANGUAGE LAW MONEY ORDINAL ORG ORGANIZATION PERCENT PRODUCT QUANTITY WORK_OF_ART"


class Arm(Protocol):
    """One redactor."""

    def one(self, text: str) -> Sequence[Span]:
        """Findings of one prompt."""

    def many(self, texts: Sequence[str]) -> Sequence[Sequence[Span]]:
        """Findings of many texts, in the way that it does this best."""


@dataclass(frozen=True)
class Ours:
    """A detector of this project."""

    detector: Any

    def one(self, text: str) -> Sequence[Span]:
        return tuple(self.detector.detect(text))

    def many(self, texts: Sequence[str]) -> Sequence[Sequence[Span]]:
        return list(self.detector.detect_many(texts))


@dataclass(frozen=True)
class Stock:
    """Presidio as it comes. ``batch`` is spaCy's, 1 by Presidio's own default."""

    analyzer: Any
    batches: Any
    batch: int = STOCK_BATCH

    def one(self, text: str) -> Sequence[Span]:
        return _spans(self.analyzer.analyze(text, "en"))

    def many(self, texts: Sequence[str]) -> Sequence[Sequence[Span]]:
        found = self.batches.analyze_iterator(texts, "en", batch_size=self.batch)
        return [_spans(results) for results in found]


def _spans(results: Iterable[Any]) -> list[Span]:
    """Presidio's results under our names, so that one evaluation serves both."""
    return [
        Span(r.start, r.end, next(iter(kinds_of(r.entity_type)), "TERM"), r.score)
        for r in results
        if r.end > r.start
    ]


def open_stock() -> Stock:
    """Stock Presidio over the fetched spaCy pipeline, with every pipe of it, as Presidio loads it."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    offline = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = offline
    tldextract.tldextract.TLD_EXTRACTOR = offline
    models = [{"lang_code": "en", "model_name": str(pii_models().spacy_en)}]
    engine = SpacyNlpEngine(models, NerModelConfiguration(labels_to_ignore=_IGNORED.split()))
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
    return Stock(analyzer, BatchAnalyzerEngine(analyzer))


def open_ours(entities: Iterable[str] = PERSONAL) -> Ours:
    """The full detector, both languages, as the service and the nodes open it."""
    return Ours(open_detector(pii_models(), ("en", "zh"), entities=frozenset(entities)))


def open_fast() -> Ours:
    """Patterns and checksums alone."""
    return Ours(PatternDetector())


OPENERS: Final = {"stock": open_stock, "ours": open_ours, "fast": open_fast}


def open_labelling() -> Ours:
    """The full detector, looking for every kind that there is: for quality, not for speed."""
    return open_ours(ENTITIES)
