"""Redaction for programs: one object that finds, replaces, restores and explains.

::

    >>> from privacy.pii import Redactor
    >>> redactor = Redactor(profile="fast")
    >>> result = redactor.redact("Mail ruth@corp.example or call +44 191 496 0063.")
    >>> result.text
    'Mail <EMAIL_ADDRESS_1> or call <PHONE_NUMBER_1>.'
    >>> result.restore("I wrote to <EMAIL_ADDRESS_1>.")
    'I wrote to ruth@corp.example.'
    >>> for finding in redactor.explain("卡号4111 1111 1111 1111"):
    ...     print(finding.entity, finding.start, finding.end, finding.score, finding.action)
    CREDIT_CARD 2 21 1.0 replace

A result keeps its values in memory, for as long as it lives; neither it nor a finding shows them
when printed. A Redactor itself keeps nothing, so that one may serve many people; what belongs to
one conversation is in its :meth:`Redactor.session`.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from policies.pii import Action
from privacy.pii.custom import CustomPattern
from privacy.pii.detector import DEFAULT_THRESHOLD, Detector, Language, PiiModels, open_detector
from privacy.pii.entities import ENTITIES, PERSONAL, Span
from privacy.pii.errors import DetectorNotReady, InvalidText
from privacy.pii.limits import DEFAULT_LIMITS, Limits
from privacy.pii.session import RedactionSession

Profile = Literal["full", "fast"]

_ASSETS: Final = {
    "spacy_en": "spacy-en-md",
    "token_classifier_en": "rampart-en-pii",
    "lexical_zh": "lac-zh",
}
_NEEDED: Final = {"en": ("spacy_en", "token_classifier_en"), "zh": ("lexical_zh",)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, and why it is one. Holds positions and names only, never the value.

    ``recognizer`` is what found it (``rule``, ``policy``, ``deny``, ``spacy``, ``classifier`` or
    ``lac``), ``rule`` which of its rules, where it has several. ``[start, end)`` counts code points.
    """

    start: int
    end: int
    entity: str
    score: float
    threshold: float
    recognizer: str
    rule: str
    action: Action

    def __str__(self) -> str:
        by = f"{self.recognizer} {self.rule}".strip() or "an unnamed recognizer"
        return (
            f"{self.entity} at [{self.start}, {self.end}): {self.action}; found by {by} with score "
            f"{self.score:.2f}, of which {self.threshold:.2f} is needed"
        )


@dataclass(frozen=True)
class Result:
    """A redacted text, its findings (offsets of the original), and the way back."""

    text: str
    findings: tuple[Finding, ...]
    _session: RedactionSession = field(repr=False, compare=False)

    def restore(self, text: str) -> str:
        """``text`` with the values in the place of this result's placeholders."""
        return self._session.restore(text)


class Redactor:
    """Finds and replaces personal data in English and Chinese texts.

    Opening the full profile takes seconds: keep one per process. It may be used from several
    threads at once.

    Args:
        languages: ``en``, ``zh`` or both: whose models are loaded. Patterns of both are always
            looked for.
        profile: ``full`` reads names, places and addresses with models; ``fast`` looks for
            patterns and checksums alone, without models, and misses names in running text.
        actions: entity -> what happens to it: ``replace``, ``mask``, ``hash``, ``pseudonym``,
            ``encrypt``, ``redact``, ``block`` or ``allow``.
        default_action: what happens to the kinds that ``actions`` does not name.
        key: at least 16 bytes for ``hash``, ``pseudonym`` and ``encrypt``: equal values have equal
            stand-ins wherever the key is the same.
        entities: kinds to look for; those that ``actions`` names are added.
        threshold: least score of a finding, ``thresholds`` that of one kind.
        allow: values that are never personal data.
        deny: values that always are.
        patterns: regular expressions of your own identifiers.
        limits: what one text and one call may take.
        models: the models' folders; by default those that ``intramural assets fetch`` prepared.
        threads: threads of each model.
        detector: one that is already open, instead of all that concerns finding.

    Raises:
        DetectorNotReady: a language lacks its model, or a pattern is refused.
        ValueError: an unknown kind, action or profile, or a key too short.
    """

    def __init__(
        self,
        languages: Iterable[Language] = ("en", "zh"),
        profile: Profile = "full",
        *,
        actions: Mapping[str, Action] | None = None,
        default_action: Action = "replace",
        key: bytes | None = None,
        entities: Collection[str] = PERSONAL,
        threshold: float = DEFAULT_THRESHOLD,
        thresholds: Mapping[str, float] | None = None,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        patterns: Iterable[CustomPattern] = (),
        limits: Limits = DEFAULT_LIMITS,
        models: PiiModels | None = None,
        threads: int = 1,
        detector: Detector | None = None,
    ) -> None:
        self._actions = dict(actions or {})
        self._default: Action = default_action
        self._thresholds = dict(thresholds or {})
        self._threshold = threshold
        self._key = key
        named = {*self._actions, *self._thresholds, *entities}
        if named - ENTITIES:
            raise ValueError(
                f"{sorted(named - ENTITIES)} are no kinds that are looked for: {sorted(ENTITIES)}"
            )
        wanted = {*entities, *self._actions}
        if detector is not None:
            self._detector = detector
        elif profile == "fast":
            from privacy.pii.patterns import PatternDetector

            self._detector = PatternDetector(
                threshold=threshold,
                allow=allow,
                deny=deny,
                entities=wanted,
                thresholds=thresholds,
                patterns=patterns,
                limits=limits,
            )
        elif profile == "full":
            chosen = tuple(languages)
            self._detector = open_detector(
                models or default_models(chosen),
                chosen,
                threshold=threshold,
                allow=allow,
                deny=deny,
                entities=wanted,
                threads=threads,
                thresholds=thresholds,
                patterns=patterns,
                limits=limits,
            )
        else:
            raise ValueError(f"profile={profile!r} must be 'full' or 'fast'")
        self.session()

    def redact(self, text: str | bytes) -> Result:
        """One text without its personal data.

        Raises:
            InvalidText: bytes that are no UTF-8.
            RefusedEntity: it holds what is to be blocked.
            RedactionUnavailable, LimitExceeded: it could not be read as a whole.
        """
        return self.redact_many([text])[0]

    def redact_many(self, texts: Sequence[str | bytes]) -> list[Result]:
        """Each text by itself, with placeholders of its own; cheaper than one call for each."""
        decoded = [_text(text) for text in texts]
        found = self._detector.detect_many(decoded)
        return [self._result(text, spans) for text, spans in zip(decoded, found, strict=True)]

    def redact_iter(self, texts: Iterable[str | bytes], batch: int = 256) -> Iterator[Result]:
        """Each text by itself, in order, for any number of them: ``batch`` are in memory at once."""
        if batch < 1:
            raise ValueError(f"batch={batch} must be at least 1")
        remaining = iter(texts)
        while some := list(islice(remaining, batch)):
            yield from self.redact_many(some)

    def explain(self, text: str | bytes) -> tuple[Finding, ...]:
        """What would be replaced in ``text``, by what it was found, and why."""
        return tuple(map(self._finding, self._detector.detect(_text(text))))

    def restore(self, text: str, result: Result) -> str:
        """``text`` with the values of ``result`` in the place of its placeholders."""
        return result.restore(text)

    def session(self) -> RedactionSession:
        """A conversation: the same value has the same placeholder in all its messages."""
        return RedactionSession(self._detector, self._action, key=self._key)

    def _action(self, entity: str) -> Action:
        return self._actions.get(entity, self._default)

    def _result(self, text: str, spans: tuple[Span, ...]) -> Result:
        session = RedactionSession(_Told(self._detector, spans), self._action, key=self._key)
        redacted = session.redact(text)
        return Result(redacted, tuple(map(self._finding, spans)), session)

    def _finding(self, span: Span) -> Finding:
        recognizer, _, rule = span.source.partition(":")
        return Finding(
            span.start,
            span.end,
            span.entity,
            span.score,
            self._thresholds.get(span.entity, self._threshold),
            recognizer,
            rule,
            self._action(span.entity),
        )


class _Told:
    """The findings of one text, as a detector, so that texts of many sessions share a batch."""

    def __init__(self, detector: Detector, spans: tuple[Span, ...]) -> None:
        self.covers_names = detector.covers_names
        self.entities = detector.entities
        self._spans = spans

    def detect(self, text: str) -> tuple[Span, ...]:
        return self._spans

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        return [self._spans for _ in texts]


def default_models(languages: Iterable[str] = ("en", "zh"), home: Path | None = None) -> PiiModels:
    """The models that ``intramural assets fetch`` prepared on this machine.

    They lie under ``home``, by default ``$INTRAMURAL_HOME``, else ``$XDG_CACHE_HOME/intramural``,
    else ``~/.cache/intramural``. Their digests were checked when they were fetched; `intramural
    assets verify` checks them again.

    Raises:
        DetectorNotReady: one of those that the languages need is not there.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = os.environ.get("INTRAMURAL_HOME") or f"{cache}/intramural"
    assets = (home or Path(default)).expanduser() / "assets"
    folders: dict[str, Path] = {}
    for kind in dict.fromkeys(kind for name in languages for kind in _NEEDED.get(name, ())):
        name = _ASSETS[kind]
        ready = [path.parent for path in assets.glob(f"{name}-*/manifest.json")]
        if not ready:
            raise DetectorNotReady(
                f"the model {name!r} is not in {assets}; run `intramural assets fetch {name}`, give "
                "`models`, or use profile='fast', which finds no names in running text"
            )
        folders[kind] = max(ready, key=lambda path: path.stat().st_mtime)
    return PiiModels(**folders)


def _text(given: str | bytes) -> str:
    if isinstance(given, str):
        return given
    try:
        return given.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"{len(given)} bytes are no UTF-8 at byte {error.start}; decode them first with the "
            "encoding that they are in"
        ) from None
