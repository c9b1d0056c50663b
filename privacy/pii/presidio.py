"""The full detector: our rules and models as recognizers in Presidio's analyzer.

The only module that knows Presidio. Its analyzer runs the recognizers, applies
the threshold and drops duplicates. Its stock pattern recognizers stay out: on a
time-out they log and skip, and one logs the text that it failed on, where this
product must refuse and stay silent; besides, their ``\\b`` sees no boundary
beside Chinese characters. For the same reason its decision log is never enabled.

The models run as Presidio's "NLP engine", which is where it batches.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import regex
from presidio_analyzer import (
    AnalyzerEngine,
    BatchAnalyzerEngine,
    EntityRecognizer,
    RecognizerRegistry,
    RecognizerResult,
)
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
from spacy.lang.en.stop_words import STOP_WORDS

from privacy.pii.custom import CustomPattern, find_custom
from privacy.pii.detector import DEFAULT_THRESHOLD, Language, PiiModels
from privacy.pii.entities import ENTITIES, ON_REQUEST, PERSONAL, Span
from privacy.pii.errors import DetectorNotReady, RedactionUnavailable
from privacy.pii.finishing import Finisher
from privacy.pii.lexical_zh import LexicalAnalyser
from privacy.pii.limits import DEFAULT_LIMITS, Limits, find_in_pieces, moved
from privacy.pii.patterns import RULES
from privacy.pii.rules import find_all, rules_for
from privacy.pii.scripts import has_han, latin_segments, plain
from privacy.pii.spacy_names import SpacyNames
from privacy.pii.token_classifier import TokenClassifier

# One name for Presidio's language parameter: languages are told apart within a text.
_ANY: Final = "any"
_FEW_WORDS: Final = 4
_AS_A_NAME: Final = regex.compile(r"\p{Lu}\p{Ll}")
_BATCH: Final = 1024

logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)


class PresidioDetector:
    """Finds personal data by patterns and models; see :class:`privacy.pii.detector.Detector`.

    Args:
        models: folders of the models; each configured language needs its own.
        languages: ``en``, ``zh`` or both. Patterns are looked for in every language.
        threshold: least score of a finding.
        allow: values that are never personal data.
        deny: values that always are, found as ``TERM``.
        entities: kinds to look for.
        threads: threads of each ONNX session.
        thresholds: entity -> least score, for kinds that have one of their own.
        patterns: patterns of the policy; what they find is looked for besides ``entities``.
        limits: what one text and one call may take.

    Raises:
        DetectorNotReady: no or an unknown language, or a model that is absent or unusable.
    """

    covers_names: Final = True

    def __init__(
        self,
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
    ) -> None:
        own = tuple(patterns)
        wanted = {*entities, *(pattern.entity for pattern in own)}
        self._finish = Finisher(
            threshold, wanted, allow, deny, thresholds=thresholds, limits=limits
        )
        self._limits = limits
        least = self._finish.least()
        engine = _Models(models, tuple(languages), self._finish, threads)
        registry = RecognizerRegistry(
            recognizers=[_Rules(own, wanted), _Findings()], supported_languages=[_ANY]
        )
        analyzer = AnalyzerEngine(
            registry=registry,
            nlp_engine=engine,
            log_decision_process=False,
            default_score_threshold=least,
            supported_languages=[_ANY],
            context_aware_enhancer=_CuesAreInTheRules(),
        )
        self._analyzer = BatchAnalyzerEngine(analyzer)

    @property
    def entities(self) -> frozenset[str]:
        return self._finish.entities

    def detect(self, text: str) -> tuple[Span, ...]:
        return self.detect_many([text])[0]

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        views = [plain(text) for text in texts]
        found = find_in_pieces(views, self._find, self._limits)
        return [self._finish(text, spans) for text, spans in zip(texts, found, strict=True)]

    def _find(self, views: Sequence[str]) -> list[list[Span]]:
        """The raw findings of each piece of text."""
        results = self._analyzer.analyze_iterator(
            views, language=_ANY, batch_size=_BATCH, score_threshold=self._finish.least()
        )
        return [[_span(result) for result in found] for found in results]


class _ModelFindings(NlpArtifacts):
    """What the models found in one text, in the place where Presidio carries NLP results."""

    def __init__(self, spans: Sequence[Span]) -> None:
        nothing: Any = None
        super().__init__([], nothing, [], [], nothing, _ANY, [])
        self.spans = spans


class _Models(NlpEngine):
    """The models of the configured languages, as Presidio's NLP engine."""

    def __init__(
        self, models: PiiModels, languages: tuple[str, ...], finish: Finisher, threads: int
    ) -> None:
        if not languages or set(languages) - {"en", "zh"}:
            raise DetectorNotReady(f"languages={list(languages)} must be some of 'en' and 'zh'")
        self._threshold = finish.least()
        self._wanted = finish.wants
        # Only its names need a capital.
        self._all_of_it = not finish.entities.isdisjoint(ON_REQUEST)
        self._english: tuple[TokenClassifier, SpacyNames] | None = None
        self._chinese: LexicalAnalyser | None = None
        if "en" in languages:
            classifier = TokenClassifier(_given(models.token_classifier_en, "en"), threads)
            self._english = classifier, SpacyNames(_given(models.spacy_en, "en"))
        if "zh" in languages:
            self._chinese = LexicalAnalyser(_given(models.lexical_zh, "zh"), threads)

    def process_batch(
        self, texts: Iterable[str], language: str, batch_size: int = _BATCH, *_: Any, **__: Any
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        waiting = list(texts)
        for first in range(0, len(waiting), batch_size):
            batch = waiting[first : first + batch_size]
            for text, spans in zip(batch, self._find(batch), strict=True):
                yield text, _ModelFindings(spans)

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        return _ModelFindings(self._find([text])[0])

    def _find(self, texts: Sequence[str]) -> list[list[Span]]:
        found: list[list[Span]] = [[] for _ in texts]
        if self._english is not None:
            classifier, names = self._english
            segments = [
                (i, offset, segment, has_han(text) and len(segment.split()) < _FEW_WORDS)
                for i, text in enumerate(texts)
                for offset, segment in latin_segments(text)
            ]
            # Models mislead themselves over a word or two between Chinese characters: product names
            # and models of aeroplanes become anything. There, only what is written as a name counts.
            read = [s for s in segments if not s[3] or _AS_A_NAME.search(s[2])]
            answers = classifier.find([segment for _, _, segment, _ in read], self._threshold)
            for (i, offset, segment, fragment), spans in zip(read, answers, strict=True):
                found[i] += [
                    moved(span, offset, "classifier")
                    for span in spans
                    if (span.entity == "PERSON" and span.of(segment).istitle())
                    or not (fragment or span.of(segment) in STOP_WORDS)
                ]
            passages = [
                (i, offset + start, passage)
                for i, offset, segment, fragment in segments
                if not fragment
                for start, passage in self._passages(names, segment, offset, found[i])
            ]
            for (i, offset, _), spans in zip(
                passages, names.find([passage for _, _, passage in passages]), strict=True
            ):
                found[i] += [moved(span, offset, "spacy") for span in spans]
        if self._chinese is not None:
            for spans, more in zip(found, self._chinese.find(texts, self._threshold), strict=True):
                spans += more
        return found

    def _passages(
        self, names: SpacyNames, segment: str, offset: int, known: Sequence[Span]
    ) -> Iterable[tuple[int, str]]:
        """What spaCy has to read of a segment at ``offset`` of a text, given the text's findings."""
        if self._all_of_it:
            return [(0, segment)]
        inside = [
            moved(span, -offset)
            for span in known
            if self._wanted(span) and offset <= span.start < offset + len(segment)
        ]
        return names.unexplained(segment, inside)

    def load(self) -> None:
        """Nothing left to do: models are loaded by the constructor, so that it can refuse."""

    def is_loaded(self) -> bool:
        return True

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return False

    def get_supported_entities(self) -> list[str]:
        return sorted(ENTITIES)

    def get_supported_languages(self) -> list[str]:
        return [_ANY]


class _OurRecognizer(EntityRecognizer):
    """A recognizer whose findings are :class:`Span` objects."""

    def __init__(self) -> None:
        super().__init__(sorted(ENTITIES), name=type(self).__name__, supported_language=_ANY)

    def load(self) -> None:
        """Nothing to load."""

    def spans(self, text: str, findings: _ModelFindings) -> Iterable[Span]:
        raise NotImplementedError

    def analyze(
        self, text: str, entities: Sequence[str], nlp_artifacts: NlpArtifacts | None
    ) -> list[RecognizerResult]:
        if not isinstance(nlp_artifacts, _ModelFindings):
            raise RedactionUnavailable("the analyzer ran without the models' findings")
        return [
            self._result(span)
            for span in self.spans(text, nlp_artifacts)
            if span.entity in entities
        ]

    def _result(self, span: Span) -> RecognizerResult:
        told = {
            RecognizerResult.RECOGNIZER_NAME_KEY: span.source,
            RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
        }
        return RecognizerResult(
            span.entity, span.start, span.end, span.score, recognition_metadata=told
        )


class _Rules(_OurRecognizer):
    """The patterns of :mod:`privacy.pii.patterns` and of the policy."""

    def __init__(self, own: Sequence[CustomPattern], wanted: Collection[str]) -> None:
        super().__init__()
        self._own = own
        self._built_in = rules_for(RULES, wanted)

    def spans(self, text: str, findings: _ModelFindings) -> Iterable[Span]:
        return find_all(self._built_in, text) + find_custom(self._own, text)


class _Findings(_OurRecognizer):
    """What the models found."""

    def spans(self, text: str, findings: _ModelFindings) -> Iterable[Span]:
        return findings.spans


class _CuesAreInTheRules(ContextAwareEnhancer):
    """Leaves scores alone: our rules weigh the words around a match themselves."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0, 0)

    def enhance_using_context(
        self, text: str, raw_results: list[RecognizerResult], *_: Any, **__: Any
    ) -> list[RecognizerResult]:
        return raw_results


def _given(folder: Path | None, language: str) -> Path:
    if folder is None or not folder.is_dir():
        raise DetectorNotReady(
            f"language {language!r} is configured but its model is not at {folder}; fetch the model "
            "assets or take the language out of the policy's pii.languages"
        )
    return folder


def _span(result: RecognizerResult) -> Span:
    source = result.recognition_metadata[RecognizerResult.RECOGNIZER_NAME_KEY]
    return Span(result.start, result.end, result.entity_type, result.score, source)
