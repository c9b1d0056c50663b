"""One request's texts on their way to the engine, and its answer on the way back.

The only module of the service that speaks to the redaction engine. Everything here may take
milliseconds of CPU: routes call it in a worker thread.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import NoReturn

from api.answer import AnswerBlocked, AnswerGuard, Found
from api.engines.base import Finished, FinishReason, TextDelta, Usage
from api.errors import HttpError, invalid_request, permission_denied, unavailable
from policies.decisions import action_for
from policies.model import Action, Policy
from privacy.pii.detector import Detector
from privacy.pii.entities import Span
from privacy.pii.errors import LimitExceeded, RefusedEntity
from privacy.pii.leaks import find_new_personal_data
from privacy.pii.scrub import irreversible
from privacy.pii.session import RedactionSession
from privacy.pii.stand_ins import StandIns


class Conversation:
    """Consistent stand-ins for all texts of one request; forgotten with it.

    Args:
        detector: finds personal data.
        policy: says what happens to it.
        role: of the principal that asks.
    """

    def __init__(self, detector: Detector, policy: Policy, role: str) -> None:
        self._detector = detector
        self._policy = policy
        self._role = role
        key = secrets.token_bytes(32)
        self._session = RedactionSession(detector, self.action, key=key)
        self._stand_ins = StandIns(key)

    def action(self, entity: str) -> Action:
        """What the policy does with an entity in this principal's prompts."""
        return action_for(self._policy, entity, "prompt", self._role)

    def find(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Personal data of each text; replaces nothing.

        Raises:
            HttpError: 503 when it cannot be looked for.
        """
        try:
            return self._session.spans(texts)
        except Exception as error:
            fail(error)

    def redact(self, texts: Sequence[str]) -> list[str]:
        """What the engine may see of the texts; a value found in one is replaced in all.

        Raises:
            HttpError: 400 for an entity that the policy refuses, 503 when redaction fails.
        """
        try:
            return self._session.redact_many(texts)
        except Exception as error:
            fail(error)

    def counts(self) -> dict[str, int]:
        """Personal data found so far, by type."""
        return self._session.counts()

    def answer(self, items: Iterator[TextDelta | Finished], lookahead: int) -> "Answer":
        """Scan and restore what the engine says."""
        return Answer(self._session, AnswerGuard(self._new, lookahead), items)

    def _new(self, text: str) -> list[Found]:
        """Personal data in an answer that no text of the request brought, and what replaces it."""
        found = []
        for span in find_new_personal_data(text, self._session, self._detector):
            action = action_for(self._policy, span.entity, "answer", self._role)
            if action == "allow":
                continue
            # Whoever reads an answer has no key, so there is nothing to encrypt for.
            done: Action = "redact" if action == "encrypt" else action
            stand_in = irreversible(span.of(text), span.entity, done, self._stand_ins)
            blocked = action == "block"
            found.append(Found(span.start, span.end, span.entity, stand_in, blocked))
        return found


class Answer:
    """The engine's answer as pieces of text that may leave: scanned, then restored.

    After the iteration, ``finish_reason`` and ``usage`` are the engine's, ``text`` is all that
    left and ``counts`` the new personal data that was taken out. While iterating, ``usage`` counts
    what was generated so far.
    """

    def __init__(
        self,
        session: RedactionSession,
        guard: AnswerGuard,
        items: Iterator[TextDelta | Finished],
    ) -> None:
        self._restorer = session.stream_restorer()
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
            HttpError: 503 when the scan fails: what is not scanned does not leave; 403 for new
                personal data that the policy blocks in answers.
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
    if isinstance(error, AnswerBlocked):
        raise permission_denied(
            f"the answer holds {error.entity} that your request did not bring, which the policy "
            "blocks; ask otherwise",
            code="answer_blocked",
        ) from None
    if isinstance(error, LimitExceeded):
        raise invalid_request(str(error), code="too_much_text") from None
    raise unavailable(
        "personal data cannot be looked for at present, so the request is refused",
        code="redaction_unavailable",
    ) from None
