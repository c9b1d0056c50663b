"""One request's texts on their way to the engine, and its answer on the way back.

The only module of the service that speaks to the redaction engine. Everything here may take
milliseconds of CPU: routes call it in a worker thread.
"""

from collections.abc import Iterator, Sequence
from typing import NoReturn

from api.answer import AnswerGuard, Found
from api.engines.base import Finished, FinishReason, TextDelta, Usage
from api.errors import HttpError, invalid_request, unavailable
from policies.decisions import action_for
from policies.model import Action, Policy
from privacy.pii.detector import Detector
from privacy.pii.entities import Span
from privacy.pii.errors import RefusedEntity
from privacy.pii.leaks import find_new_personal_data
from privacy.pii.pseudonyms import Pseudonymizer


class Conversation:
    """Consistent pseudonyms for all texts of one request; forgotten with it."""

    def __init__(self, detector: Detector, policy: Policy) -> None:
        self._detector = detector
        self._policy = policy
        self._pseudonyms = Pseudonymizer(detector, self.action)

    def action(self, entity: str) -> Action:
        """What the policy does with an entity."""
        return action_for(self._policy, entity)

    def find(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Personal data of each text; replaces nothing.

        Raises:
            HttpError: 503 when it cannot be looked for.
        """
        try:
            return self._pseudonyms.spans(texts)
        except Exception as error:
            fail(error)

    def redact(self, texts: Sequence[str]) -> list[str]:
        """What the engine may see of the texts; a value found in one is replaced in all.

        Raises:
            HttpError: 400 for an entity that the policy refuses, 503 when redaction fails.
        """
        try:
            return self._pseudonyms.redact_many(texts)
        except Exception as error:
            fail(error)

    def counts(self) -> dict[str, int]:
        """Personal data found so far, by type."""
        return self._pseudonyms.counts()

    def answer(self, items: Iterator[TextDelta | Finished], lookahead: int) -> "Answer":
        """Scan and restore what the engine says."""
        return Answer(self._pseudonyms, AnswerGuard(self._new, lookahead), items)

    def _new(self, text: str) -> list[Found]:
        """Personal data in an answer that no text of the request brought."""
        spans = find_new_personal_data(text, self._pseudonyms, self._detector)
        return [
            Found(span.start, span.end, span.entity)
            for span in spans
            if self.action(span.entity) != "keep"
        ]


class Answer:
    """The engine's answer as pieces of text that may leave: scanned, then restored.

    After the iteration, ``finish_reason`` and ``usage`` are the engine's, ``text`` is all that
    left and ``counts`` the new personal data that was taken out. While iterating, ``usage`` counts
    what was generated so far.
    """

    def __init__(
        self,
        pseudonyms: Pseudonymizer,
        guard: AnswerGuard,
        items: Iterator[TextDelta | Finished],
    ) -> None:
        self._restorer = pseudonyms.stream_restorer()
        self._guard = guard
        self._items = items
        self._left: list[str] = []
        self.usage = Usage(0, 0)
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """All that left so far."""
        return "".join(self._left)

    @property
    def counts(self) -> dict[str, int]:
        """New personal data taken out so far, by type."""
        return dict(self._guard.counts)

    def __iter__(self) -> Iterator[str]:
        """Non-empty pieces.

        Raises:
            HttpError: 503 when the scan fails: what is not scanned does not leave.
            EngineError: the engine failed.
        """
        for item in self._items:
            self.usage = item.usage
            if isinstance(item, Finished):
                self.finish_reason = item.finish_reason
                yield from self._leave(self._scanned(None))
                return
            yield from self._leave(self._scanned(item.text))

    def _scanned(self, piece: str | None) -> str:
        try:
            if piece is not None:
                return self._restorer.feed(self._guard.feed(piece))
            return self._restorer.feed(self._guard.flush()) + self._restorer.flush()
        except Exception as error:
            fail(error)

    def _leave(self, text: str) -> Iterator[str]:
        if text:
            self._left.append(text)
            yield text


def fail(error: Exception) -> NoReturn:
    """Refuse the request because of what redaction raised; its text goes nowhere.

    Raises:
        HttpError: always.
    """
    if isinstance(error, HttpError):
        raise error
    if isinstance(error, RefusedEntity):
        raise invalid_request(
            f"the policy refuses requests that hold {error.entity}; remove it and send again",
            code="entity_refused",
        ) from None
    raise unavailable(
        "personal data cannot be looked for at present, so the request is refused",
        code="redaction_unavailable",
    ) from None
