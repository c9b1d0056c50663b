"""One conversation: its personal data are replaced on the way to a model and put back on the way home.

A :class:`RedactionSession` lives for one request, in memory only. The same value has the same
stand-in in every text, whatever its case and spacing; two different values never share one. Not
thread-safe: a request has one owner.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import regex

from policies.model import Action
from privacy.pii.assigning import REVERSIBLE, Assigned
from privacy.pii.bodies import Piece, RawNumber, Walker, restored, wants_json
from privacy.pii.chunks import ChunkRestorer
from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve
from privacy.pii.errors import RedactionUnavailable, RefusedEntity
from privacy.pii.finishing import TELLING_DIGITS, normalise, repeated
from privacy.pii.placeholders import LITERAL, bare
from privacy.pii.restoring import StreamRestorer, Utf8Restorer
from privacy.pii.scripts import digits_of, plain
from privacy.pii.stand_ins import StandIns

_KEYED: Final[frozenset[Action]] = frozenset({"hash", "pseudonym", "encrypt"})
_NUMBER = regex.compile(r"-?(?:0|[1-9][0-9]*)")
_LATIN = r"[\p{Latin}0-9]"


def always_replace(entity: str) -> Action:
    """The action for every entity where no policy says otherwise."""
    return "replace"


class RedactionSession:
    """Replaces the personal data of one conversation and puts it back.

    Where no entity is masked or redacted for good, ``restore(redact(text)) == text`` for every
    text, also one that holds placeholders of its own.

    Args:
        detector: finds the personal data.
        action: entity -> what happens to it (:data:`policies.model.Action`). ``replace``, ``hash``,
            ``pseudonym`` and ``encrypt`` are restored; ``mask`` and ``redact`` are for good.
            Where a realistic surrogate could be confused with what is said anyway, as an age could,
            ``pseudonym`` puts a placeholder.
        key: at least 16 bytes, for keyed stand-ins that are the same in several sessions; by
            default one is drawn and forgotten with the session.

    Raises:
        ValueError: the key is shorter.
    """

    def __init__(
        self,
        detector: Detector,
        action: Callable[[str], Action] = always_replace,
        *,
        key: bytes | None = None,
    ) -> None:
        self._detector = detector
        self._action = action
        self._map = Assigned(StandIns(secrets.token_bytes(32) if key is None else key))
        self._counts: Counter[str] = Counter()
        self._known: dict[str, Span] = {}
        self._seen: list[str] = []
        self._said: str | None = None
        self._json_answers = False

    # --- to the model -----------------------------------------------------------------------------

    def redact(self, text: str) -> str:
        """``text`` as the model may see it. See :meth:`redact_many`."""
        return self.redact_many([text])[0]

    def redact_many(self, texts: Sequence[str]) -> list[str]:
        """The texts of one conversation as the model may see them.

        A value found in one of them, or in an earlier call, is replaced in all.

        Raises:
            RefusedEntity: the policy blocks what one of them holds; nothing was replaced.
            RedactionUnavailable: personal data could not be looked for.
        """
        return self._redact([Piece(text) for text in texts])

    def redact_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request in OpenAI's form as the model may see it; the one given stays as it is.

        Every message, content part, tool definition, response schema, tool argument (as JSON),
        stop string, metadata, and unknown field is looked at. A message's ``name`` counts as a
        person and ``user`` as a handle, whatever they hold. Roles, ids, names of functions and
        schema keywords stay.

        Raises:
            CannotRedact: it holds images, sound, files or token ids.
            LimitExceeded: it nests deeper, or holds more texts, than :mod:`privacy.pii.bodies` says.
            RefusedEntity, RedactionUnavailable: as :meth:`redact_many`.
        """
        self._json_answers = wants_json(body)
        pieces: list[Piece] = []

        def collect(piece: Piece) -> str:
            pieces.append(piece)
            return piece.text

        Walker(collect).request(body)
        redacted = iter(self._redact(pieces))

        def change(piece: Piece) -> Any:
            made = next(redacted)
            whole = piece.number and _NUMBER.fullmatch(made)
            return RawNumber(made) if whole and made != piece.text else made

        return Walker(change).request(body)

    def spans(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Personal data of each text, with values known from the others; replaces nothing."""
        return self._spans([Piece(text) for text in texts])

    # --- from the model ---------------------------------------------------------------------------

    def restore(self, text: str) -> str:
        """``text`` with the original values in the place of this conversation's stand-ins."""
        return self._map.originals().restore(text)

    def restore_json(self, source: str) -> str:
        """JSON source, such as the arguments of a tool call, with values escaped for it."""
        return self._map.originals(json=True).restore(source)

    def restore_response(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer in OpenAI's form with the original values; log-probabilities become ``None``.

        In arguments of tools, and where the request asked for JSON, values are escaped for JSON.

        Raises:
            LimitExceeded: it nests deeper than the limit allows.
        """
        return restored(body, self.restore, self.restore_json, json_answers=self._json_answers)

    def stream_restorer(self, *, json: bool = False) -> StreamRestorer:
        """A restorer for one answer that arrives in pieces."""
        return StreamRestorer(self._map.originals(json=json))

    def byte_restorer(self) -> Utf8Restorer:
        """A restorer for one answer that arrives as UTF-8 bytes, cut anywhere."""
        return Utf8Restorer(self._map.originals())

    def chunk_restorer(self) -> ChunkRestorer:
        """A restorer for the chunk objects of one streamed answer in OpenAI's form."""
        return ChunkRestorer(
            self._map.originals(),
            self._map.originals(json=True),
            json_answers=self._json_answers,
        )

    # --- what it knows ----------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Findings per entity so far, whatever was done with them."""
        return dict(sorted(self._counts.items()))

    @property
    def values(self) -> Mapping[str, str]:
        """Placeholder -> original value. Personal data: never store or log it."""
        return MappingProxyType(self._map.placeholders)

    def export(self) -> dict[str, Mapping[str, str]]:
        """The way back, by the arguments of :class:`Originals`. Personal data: only ever encrypted."""
        return self._map.export()

    @property
    def longest_held(self) -> int:
        """The most characters that a restorer of this conversation holds back."""
        return self._map.originals().longest

    def covered(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of everything in ``text`` that stands for a value of the conversation."""
        return self._map.originals().covered(text)

    def brought(self, value: str) -> bool:
        """Whether the conversation itself brought this value, so that an answer may repeat it."""
        needle = normalise(value, "TERM")
        if not needle:
            return True
        if self._said is None:
            self._said = "\n".join(normalise(t, "TERM") for t in (*self._known, *self._seen))
        edges = rf"(?<!{_LATIN}(?={_LATIN})){regex.escape(needle)}(?!(?<={_LATIN}){_LATIN})"
        if regex.search(edges, self._said):
            return True
        digits = digits_of(plain(value)).lstrip("0")
        return len(digits) >= TELLING_DIGITS and any(
            digits in digits_of(plain(known)) for known in self._known
        )

    # --- how it is done ---------------------------------------------------------------------------

    def _redact(self, pieces: Sequence[Piece]) -> list[str]:
        found = self._spans(pieces)
        for spans in found:
            for span in spans:
                if self._action(span.entity) == "block":
                    raise RefusedEntity(span.entity)
        for piece, spans in zip(pieces, found, strict=True):
            self._map.said(piece.text)
            for span in spans:
                self._counts[span.entity] += 1
                value = _spoken(span.of(piece.text)) if piece.entity else span.of(piece.text)
                self._known.setdefault(value, span)
        made = self._rendered(pieces, found, {})
        if wrong := self._not_restored(made):
            # A surrogate beside other words can read as one of another value: placeholders cannot.
            made = self._rendered(pieces, found, dict.fromkeys(wrong, "replace"))
            if self._not_restored(made):
                raise RedactionUnavailable(
                    "a text could not be redacted so that it can be restored"
                )
        redacted = [text for text, _ in made]
        self._seen += redacted
        self._said = None
        for text in redacted:
            self._map.said(text)
        return redacted

    def _spans(self, pieces: Sequence[Piece]) -> list[tuple[Span, ...]]:
        free = [piece for piece in pieces if piece.entity is None]
        looked = iter(self._detector.detect_many([piece.lead + piece.text for piece in free]))
        found = [
            [Span(0, len(piece.text), piece.entity, 1.0, "field")]
            if piece.entity
            else _without_lead(piece, next(looked))
            for piece in pieces
        ]
        best: dict[str, tuple[str, Span]] = {}
        for piece, spans in zip(pieces, found, strict=True):
            for span in spans:
                value = span.of(piece.text)
                key = _identity(value)
                if key not in best or span.score > best[key][1].score:
                    best[key] = (_spoken(value) if piece.entity else value, span)
        # What an earlier call found keeps its kind, and so its number.
        best |= {_identity(value): (value, span) for value, span in self._known.items()}
        if not best:
            return [() for _ in pieces]
        every = [(value, span.entity, span.score) for value, span in best.values()]
        return [
            tuple(spans)
            if piece.entity
            else tuple(
                _as_known(piece.text, span, best)
                for span in resolve([*spans, *repeated(piece.text, every)])
            )
            for piece, spans in zip(pieces, found, strict=True)
        ]

    def _rendered(
        self,
        pieces: Sequence[Piece],
        found: Sequence[Sequence[Span]],
        instead: Mapping[int, Action],
    ) -> list[tuple[str, str | None]]:
        """Each text redacted, and what it must be restored to. ``instead``: for surrogates."""
        # Keyed ones first: one that is made for a later text may stand in an earlier one.
        for i, (piece, spans) in enumerate(zip(pieces, found, strict=True)):
            for span in spans:
                action = self._action(span.entity)
                if action in _KEYED and not (action == "pseudonym" and i in instead):
                    self._map.stand_in(
                        span.of(piece.text), span.entity, action, number=piece.number
                    )
        return [
            self._replace(piece, spans, instead.get(i))
            for i, (piece, spans) in enumerate(zip(pieces, found, strict=True))
        ]

    def _replace(
        self, piece: Piece, spans: Sequence[Span], surrogate: Action | None
    ) -> tuple[str, str | None]:
        text = piece.text
        parts: list[str] = []
        expected: list[str] = []
        done = 0
        for start, end, entity in self._cuts(text, spans):
            if piece.number:
                # A part of a number is no number: all of it goes.
                start, end = 0, len(text)
            value = _spoken(text) if piece.entity else text[start:end]
            action = "replace" if entity == LITERAL else self._action(entity)
            if action == "pseudonym" and surrogate is not None:
                action = surrogate
            made = self._map.stand_in(value, entity, action, number=piece.number)
            if piece.entity:
                # Such fields take neither spaces nor angle brackets.
                made = (bare(made) if made.startswith("<") else made).replace(" ", "_")
            parts += [text[done:start], made]
            expected += [text[done:start], value if action in REVERSIBLE else made]
            done = end
            if piece.number:
                break
        rest = text[done:]
        redacted = "".join([*parts, rest])
        # Fields of identity do not come back in answers, so any form will do.
        return redacted, None if piece.entity else "".join([*expected, rest])

    def _not_restored(self, made: Sequence[tuple[str, str | None]]) -> list[int]:
        restore = self._map.originals().restore
        return [
            i
            for i, (text, expected) in enumerate(made)
            if expected is not None and restore(text) != expected
        ]

    def _cuts(self, text: str, spans: Iterable[Span]) -> Iterator[tuple[int, int, str]]:
        """What to cut out, in order: findings, and input that looks like a stand-in of ours.

        A look-alike that touches a finding goes with it, so that no piece of
        either is left to join with its surroundings.
        """
        cuts = [
            (span.start, span.end, span.entity)
            for span in spans
            if self._action(span.entity) != "allow"
        ]
        cuts += [(*place, LITERAL) for place in self._map.look_alikes(text)]
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


def _without_lead(piece: Piece, spans: Iterable[Span]) -> list[Span]:
    """The findings in the text itself, counted from its start."""
    lead = len(piece.lead)
    return [
        Span(max(0, span.start - lead), span.end - lead, span.entity, span.score, span.source)
        for span in spans
        if span.end > lead
    ]


def _identity(value: str) -> str:
    """Equal for spellings of one value, whatever kind it is taken for."""
    digits = normalise(value, "ID_NUMBER")
    if len(digits) >= TELLING_DIGITS and digits.isdecimal():
        return digits
    return normalise(value, "TERM")


def _as_known(text: str, span: Span, best: Mapping[str, tuple[str, Span]]) -> Span:
    """The finding, of the kind that its value has in the whole conversation."""
    known = best.get(_identity(span.of(text)))
    if known is None or known[1].entity == span.entity:
        return span
    return replace(span, entity=known[1].entity)


def _spoken(name: str) -> str:
    """A name as it would stand in a sentence: fields that take no spaces hold ``Ruth_Baker``."""
    return name.replace("_", " ").strip() or name
