"""Consistent, reversible placeholders for one conversation.

One :class:`Pseudonymizer` lives for one request, in memory only. The same value
has the same placeholder in every message, whatever its case and spacing; two
different values never share one. Not thread-safe: a request has one owner.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from policies.model import Action
from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve
from privacy.pii.errors import RefusedEntity
from privacy.pii.finishing import normalise, occurrences_of, repeated
from privacy.pii.placeholders import LITERAL, PLACEHOLDER, StreamRestorer, restore, write
from privacy.pii.scripts import plain

_TELLING_DIGITS = 7
"""From this many digits on, equal digits are the same number, however they are written."""


def always_pseudonym(entity: str) -> Action:
    """The action for every entity where no policy says otherwise."""
    return "pseudonym"


class Pseudonymizer:
    """Replaces personal data by placeholders and puts it back.

    Where no entity is redacted for good, ``restore(redact(text)) == text`` for
    every text, also one that holds placeholders of its own.

    Args:
        detector: finds the personal data.
        action: entity -> what happens to it. ``pseudonym`` gives a placeholder that can be
            restored, ``redact`` a bare ``<ENTITY>`` that cannot, ``keep`` leaves it, ``refuse``
            refuses the text.
    """

    def __init__(
        self, detector: Detector, action: Callable[[str], Action] = always_pseudonym
    ) -> None:
        self._detector = detector
        self._action = action
        self._values: dict[str, str] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._spellings: dict[tuple[str, int], list[str]] = {}
        self._next: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._known: dict[str, Span] = {}
        self._seen: list[str] = []

    def redact(self, text: str) -> str:
        """``text`` as the model may see it. See :meth:`redact_many`."""
        return self.redact_many([text])[0]

    def redact_many(self, texts: Sequence[str]) -> list[str]:
        """The texts of one conversation as the model may see them.

        A value found in one of them, or in an earlier call, is replaced in all.

        Raises:
            RefusedEntity: the policy refuses what one of them holds; nothing was replaced.
            RedactionUnavailable: personal data could not be looked for.
        """
        found = self.spans(texts)
        for spans in found:
            for span in spans:
                if self._action(span.entity) == "refuse":
                    raise RefusedEntity(span.entity)
        redacted = []
        for text, spans in zip(texts, found, strict=True):
            redacted.append(self._replace(text, spans))
            self._seen.append(redacted[-1])
        return redacted

    def spans(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Personal data of each text, with values known from the others; replaces nothing."""
        found = self._detector.detect_many(texts)
        values = {
            normalise(span.of(text), "TERM"): (span.of(text), span.entity, span.score)
            for text, spans in zip(texts, found, strict=True)
            for span in spans
        }
        known = [(value, span.entity, span.score) for value, span in self._known.items()]
        every = [*known, *values.values()]
        return [
            resolve([*spans, *repeated(text, every)])
            for text, spans in zip(texts, found, strict=True)
        ]

    def restore(self, text: str) -> str:
        """``text`` with the original values in the place of this conversation's placeholders."""
        return restore(text, self._values)

    def stream_restorer(self) -> StreamRestorer:
        """A restorer for one answer that arrives in pieces."""
        return StreamRestorer(self._values)

    def counts(self) -> dict[str, int]:
        """Findings per entity so far, whatever was done with them."""
        return dict(sorted(self._counts.items()))

    @property
    def values(self) -> Mapping[str, str]:
        """Placeholder -> original value. Personal data: never store or log it."""
        return MappingProxyType(self._values)

    def brought(self, value: str) -> bool:
        """Whether the conversation itself brought this value, so that an answer may repeat it."""
        pattern = occurrences_of([value])
        if pattern is None:
            return True
        if any(pattern.search(plain(text)) for text in (*self._known, *self._seen)):
            return True
        digits = _digits(value).lstrip("0")
        return len(digits) >= _TELLING_DIGITS and any(digits in _digits(v) for v in self._known)

    def _replace(self, text: str, spans: Iterable[Span]) -> str:
        parts: list[str] = []
        done = 0
        for start, end, entity in self._cuts(text, spans):
            parts += [text[done:start], self._stand_in(text[start:end], entity)]
            done = end
        return "".join([*parts, text[done:]])

    def _cuts(self, text: str, spans: Iterable[Span]) -> Iterator[tuple[int, int, str]]:
        """What to cut out, in order: findings, and input that looks like a placeholder.

        A look-alike that touches a finding goes with it, so that no piece of
        either is left to join with its surroundings.
        """
        cuts: list[tuple[int, int, str]] = []
        for span in spans:
            self._counts[span.entity] += 1
            self._known[span.of(text)] = Span(0, span.end - span.start, span.entity, span.score)
            if self._action(span.entity) != "keep":
                cuts.append((span.start, span.end, span.entity))
        cuts += [(*match.span(), LITERAL) for match in PLACEHOLDER.finditer(text)]
        current: tuple[int, int, str] | None = None
        for start, end, entity in sorted(cuts):
            if current is not None and start < current[1]:
                kind = current[2] if entity == LITERAL else entity
                current = (current[0], max(end, current[1]), kind)
                continue
            if current is not None:
                yield current
            current = (start, end, entity)
        if current is not None:
            yield current

    def _stand_in(self, value: str, entity: str) -> str:
        if entity != LITERAL and self._action(entity) == "redact":
            return f"<{entity}>"
        key = (entity, value if entity == LITERAL else normalise(value, entity))
        if key not in self._numbers:
            self._next[entity] += 1
            self._numbers[key] = self._next[entity]
        number = self._numbers[key]
        spellings = self._spellings.setdefault((entity, number), [])
        if value not in spellings:
            spellings.append(value)
        placeholder = write(entity, number, spellings.index(value))
        self._values[placeholder] = value
        return placeholder


def _digits(value: str) -> str:
    return "".join(character for character in plain(value) if character in "0123456789")
