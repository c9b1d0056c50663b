"""One request on its way to the engine, and its answer on the way back.

The only module of the service that speaks to the redaction engine. Everything here may take
milliseconds of CPU: routes call it in a worker thread.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from api.answer import AnswerBlocked, AnswerGuard, Found, ScanMany, json_guarded, text_guarded
from api.engines.base import (
    Finished,
    FinishReason,
    Item,
    TokenLogprob,
    ToolCall,
    ToolCalled,
    Usage,
)
from api.errors import HttpError, invalid_request, permission_denied, unavailable
from api.logprobs import Cut, aligned
from policies.decisions import action_for
from policies.model import Action, Policy
from privacy.pii.detector import Detector
from privacy.pii.entities import Span
from privacy.pii.errors import CannotRedact, LimitExceeded, RefusedEntity
from privacy.pii.leaks import find_new_personal_data
from privacy.pii.restoring import StreamRestorer
from privacy.pii.scrub import irreversible
from privacy.pii.session import RedactionSession
from privacy.pii.stand_ins import StandIns


class Conversation:
    """Consistent stand-ins for all texts of one request; forgotten with it.

    Args:
        detector: finds personal data.
        policy: says what happens to it.
        role: of the principal that asks.
        release: that answers; None where no model is asked.
    """

    def __init__(
        self, detector: Detector, policy: Policy, role: str, release: str | None = None
    ) -> None:
        self._detector = detector
        self._policy = policy
        self._role = role
        self._release = release
        key = secrets.token_bytes(32)
        self._session = RedactionSession(_Looked(detector), self.action, key=key)
        self._stand_ins = StandIns(key)

    def action(self, entity: str) -> Action:
        """What the policy does with an entity in this principal's prompts."""
        return action_for(self._policy, entity, "prompt", self._role, self._release)

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

    def redact_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A whole request in OpenAI's form as the engine may see it. Raises as :meth:`redact`."""
        try:
            return self._session.redact_request(body)
        except Exception as error:
            fail(error)

    def counts(self) -> dict[str, int]:
        """Personal data found so far, by type."""
        return self._session.counts()

    def originals(self) -> dict[str, dict[str, str]]:
        """The way back, for sealing: personal data, never stored or logged."""
        return {name: dict(part) for name, part in self._session.export().items()}

    def answers(
        self, items: Iterator[Item], lookahead: int, *, json: bool, hold: bool = False
    ) -> "Answers":
        """Scan and restore what the engine says.

        ``json``: its texts are JSON source; ``hold``: each leaves only when it is complete.
        """
        return Answers(self._session, self._scan, items, lookahead, json=json, hold=hold)

    def _scan(self, texts: Sequence[str]) -> list[list[Found]]:
        """Personal data of answers that no text of the request brought, and what replaces it."""
        looked = _Looked(self._detector)
        looked.detect_many(texts)
        return [self._new(text, looked) for text in texts]

    def _new(self, text: str, looked: "_Looked") -> list[Found]:
        found = []
        for span in find_new_personal_data(text, self._session, looked):
            action = action_for(self._policy, span.entity, "answer", self._role, self._release)
            if action == "allow":
                continue
            # Whoever reads an answer has no key, so there is nothing to encrypt for.
            done: Action = "redact" if action == "encrypt" else action
            stand_in = irreversible(span.of(text), span.entity, done, self._stand_ins)
            blocked = action == "block"
            found.append(Found(span.start, span.end, span.entity, stand_in, blocked))
        return found


class _Looked:
    """A detector that looks at each text once, however often it is asked."""

    def __init__(self, detector: Detector) -> None:
        self.entities = detector.entities
        self.covers_names = detector.covers_names
        self._detector = detector
        self._found: dict[str, tuple[Span, ...]] = {}

    def detect(self, text: str) -> tuple[Span, ...]:
        """What is found in this text."""
        return self.detect_many([text])[0]

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """What is found in these texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._found]
        if new:
            looked = self._detector.detect_many(new)
            self._found |= {text: tuple(spans) for text, spans in zip(new, looked, strict=True)}
        return [self._found[text] for text in texts]


class Choice:
    """One answer of several: what left of it so far."""

    def __init__(self, guard: AnswerGuard, restorer: StreamRestorer) -> None:
        self.guard = guard
        self.restorer = restorer
        self.raw: list[str] = []
        self.left: list[str] = []
        self.calls: list[ToolCall] = []
        self.finish_reason: FinishReason | None = None
        self.logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """All text that left so far."""
        return "".join(self.left)


Piece = tuple[int, str | ToolCall]
"""Number of the answer, and what may leave of it: text, or a whole call."""


class Answers:
    """The engine's answers as pieces that may leave: scanned, then restored.

    After the iteration, ``choices`` are whole and ``counts`` the new personal data that was taken
    out. While iterating, ``usage`` counts what was generated so far.

    Text leaves as it comes. JSON, and text whose log-probabilities were asked for, leaves when its
    answer is complete: only then it is known what stands between which quotes, and which tokens
    belong together.
    """

    def __init__(
        self,
        session: RedactionSession,
        scan: ScanMany,
        items: Iterator[Item],
        lookahead: int,
        *,
        json: bool,
        hold: bool,
    ) -> None:
        self._session = session
        self._scan = scan
        self._items = items
        self._lookahead = lookahead
        self._json = json
        self._hold = json or hold
        self.choices: dict[int, Choice] = {}
        self.usage = Usage(0, 0)

    @property
    def counts(self) -> dict[str, int]:
        """New personal data taken out so far, by type."""
        total: dict[str, int] = {}
        for choice in self.choices.values():
            for entity, count in choice.guard.counts.items():
                total[entity] = total.get(entity, 0) + count
        return total

    def texts(self) -> list[str]:
        """All that left so far, answer by answer, for its digest."""
        return [
            choice.text + "".join(call.arguments for call in choice.calls)
            for _, choice in sorted(self.choices.items())
        ]

    def choice(self, index: int) -> Choice:
        """The answer of this number."""
        if index not in self.choices:
            self.choices[index] = Choice(
                AnswerGuard(lambda text: self._scan([text])[0], self._lookahead),
                self._session.stream_restorer(),
            )
        return self.choices[index]

    def __iter__(self) -> Iterator[Piece]:
        """Pieces that are not empty.

        Raises:
            HttpError: 503 when the scan fails: what is not scanned does not leave; 403 for new
                personal data that the policy blocks in answers.
            EngineError: the engine failed.
        """
        for item in self._items:
            self.usage = item.usage
            choice = self.choice(item.index)
            if isinstance(item, ToolCalled):
                # What was said before a call leaves before it.
                if not self._hold:
                    yield from self._leave(item.index, self._rest(choice))
                call = self._called(choice, item.call)
                choice.calls.append(call)
                yield item.index, call
            elif isinstance(item, Finished):
                choice.finish_reason = item.finish_reason
                rest = self._whole(choice, item) if self._hold else self._rest(choice)
                yield from self._leave(item.index, rest)
            elif self._hold:
                choice.raw.append(item.text)
            else:
                yield from self._leave(item.index, self._scanned(choice, item.text))

    def _scanned(self, choice: Choice, piece: str) -> str:
        try:
            return choice.restorer.feed(choice.guard.feed(piece))
        except Exception as error:
            fail(error)

    def _rest(self, choice: Choice) -> str:
        try:
            made = choice.restorer.feed(choice.guard.flush()) + choice.restorer.flush()
            choice.restorer = self._session.stream_restorer()
        except Exception as error:
            fail(error)
        return made

    def _called(self, choice: Choice, call: ToolCall) -> ToolCall:
        try:
            guarded = json_guarded(call.arguments, self._scan, choice.guard)
            return ToolCall(call.id, call.name, self._session.restore_json(guarded))
        except Exception as error:
            fail(error)

    def _whole(self, choice: Choice, end: Finished) -> str:
        text = "".join(choice.raw)
        try:
            if self._json:
                shown = self._session.restore_json(json_guarded(text, self._scan, choice.guard))
                # JSON is told as one: what changed in it is not followed token by token.
                cuts = [] if shown == text else [Cut(0, len(text), shown)]
            else:
                guarded, taken = text_guarded(text, self._scan([text])[0], choice.guard)
                shown = self._session.restore(guarded)
                cuts = [Cut(one.start, one.end, one.stand_in) for one in taken]
                cuts += [
                    Cut(start, stop, self._session.restore(text[start:stop]))
                    for start, stop in self._session.covered(text)
                ]
            choice.logprobs = aligned(end.logprobs, text, cuts, shown)
        except Exception as error:
            fail(error)
        return shown

    def _leave(self, index: int, text: str) -> Iterator[Piece]:
        if text:
            self.choices[index].left.append(text)
            yield index, text


def fail(error: Exception) -> NoReturn:
    """Refuse the request because of what redaction raised; its text goes nowhere.

    Raises:
        HttpError: always.
    """
    if isinstance(error, HttpError):
        raise error
    if isinstance(error, RefusedEntity):
        raise invalid_request(
            f"the policy refuses requests that hold {error.entity}, or refuses them for this "
            "model; remove it and send again",
            code="entity_refused",
        ) from None
    if isinstance(error, AnswerBlocked):
        raise permission_denied(
            f"the answer holds {error.entity} that your request did not bring, which the policy "
            "blocks; ask otherwise",
            code="answer_blocked",
        ) from None
    if isinstance(error, CannotRedact):
        raise invalid_request(str(error), code="unsupported_content") from None
    if isinstance(error, LimitExceeded):
        raise invalid_request(str(error), code="too_much_text") from None
    raise unavailable(
        "personal data cannot be looked for at present, so the request is refused",
        code="redaction_unavailable",
    ) from None
