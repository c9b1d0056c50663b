"""Looks at an answer before it leaves: removes personal data that the prompt did not bring.

Works on the text as the engine made it, placeholders included: whole, piece by piece, or as JSON
source. Knows no detector: it is given a scan.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from privacy.pii.bodies import Piece, Walker


@dataclass(frozen=True)
class Found:
    """``text[start:end]`` is new personal data of the kind ``entity``.

    ``stand_in`` takes its place, by default ``<ENTITY>``; with ``blocked`` the answer ends before it.
    """

    start: int
    end: int
    entity: str
    stand_in: str = ""
    blocked: bool = False


class AnswerBlocked(Exception):
    """The answer holds new personal data of a kind that the policy blocks in answers."""

    def __init__(self, entity: str) -> None:
        super().__init__(f"the policy blocks answers that hold {entity}")
        self.entity = entity


Scan = Callable[[str], Sequence[Found]]
ScanMany = Callable[[Sequence[str]], Sequence[Sequence[Found]]]

# Characters that belong to one word, number, address or placeholder: no cut between two of them.
_JOINED = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@._%+-/:<>#&=?'")


class AnswerGuard:
    """Replaces new personal data, for good.

    Text leaves only once ``lookahead`` characters after it were seen, never in the middle of a
    word, a number or a finding. An entity of at most ``lookahead`` characters is therefore seen
    whole before its first character leaves.

    Args:
        scan: finds new personal data in a text; called with at most a few ``lookahead`` of text
            unless the answer has no place to cut.
        lookahead: characters.
    """

    def __init__(self, scan: Scan, lookahead: int) -> None:
        self._scan = scan
        self._lookahead = lookahead
        self._step = max(1, lookahead // 2)  # scanning at every token would cost more than it shows
        self._context = ""
        self._pending = ""
        self._due = lookahead + self._step
        self.counts: Counter[str] = Counter()

    def take(self, one: Found) -> str:
        """Count one finding; what takes its place.

        Raises:
            AnswerBlocked: the answer may not go on.
        """
        self.counts[one.entity] += 1
        if one.blocked:
            raise AnswerBlocked(one.entity)
        return one.stand_in or f"<{one.entity}>"

    def feed(self, piece: str) -> str:
        """What may leave now.

        Raises:
            AnswerBlocked: the answer may not go on; what it found is counted.
        """
        self._pending += piece
        if len(self._pending) < self._due:
            return ""
        left = self._advance(final=False)
        # In proportion, so that a text without any place to cut is not scanned over and over.
        self._due = len(self._pending) + max(self._step, len(self._pending) // 2)
        return left

    def flush(self) -> str:
        """The rest, now that no more text comes. Raises AnswerBlocked, as :meth:`feed`."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        if not self._pending:
            return ""
        done = len(self._context)
        window = self._context + self._pending
        found = [one for one in self._scan(window) if one.end > done]
        cut = len(window) if final else self._cut(window, done, found)
        if cut <= done:
            return ""
        leaving = [one for one in found if one.start < cut]
        text, _ = text_guarded(window[:cut], leaving, self, begin=done)
        self._context = window[max(0, cut - self._lookahead) : cut]
        self._pending = window[cut:]
        return text

    def _cut(self, window: str, done: int, found: Sequence[Found]) -> int:
        """The last place to cut that has ``lookahead`` characters behind it; ``done`` if none."""
        cut = len(window) - self._lookahead
        while cut > done:
            inside = next((one for one in found if one.start < cut < one.end), None)
            if inside is not None:
                cut = inside.start
            elif _splits(window, cut):
                cut -= 1
            else:
                return cut
        return done


def text_guarded(
    text: str, found: Sequence[Found], guard: AnswerGuard, *, begin: int = 0
) -> tuple[str, list[Found]]:
    """A text from ``begin`` on without what was found in it, and which findings were taken out.

    Raises:
        AnswerBlocked: the answer may not go on.
    """
    made: list[str] = []
    taken: list[Found] = []
    at = begin
    for one in sorted(found, key=lambda one: one.start):
        if one.end <= at:
            continue
        made += [text[at : max(at, one.start)], guard.take(one)]
        taken.append(one)
        at = one.end
    return "".join([*made, text[at:]]), taken


def json_guarded(source: str, scan: ScanMany, guard: AnswerGuard) -> str:
    """JSON source without new personal data: replaced within its strings, so that it stays JSON.

    Keys, strings and long numbers are looked at, each with the key that it stands under; a number
    that has to go becomes a string. What is no JSON, such as an answer that was cut off, is looked
    at as one text. ``guard`` counts what was taken.

    Raises:
        AnswerBlocked: the answer may not go on.
        LimitExceeded: it nests deeper than can be looked into.
    """
    pieces: list[Piece] = []

    def collect(piece: Piece) -> str:
        pieces.append(piece)
        return piece.text

    Walker(collect).json_source(source)
    found = iter(scan([piece.lead + piece.text for piece in pieces]))

    def change(piece: Piece) -> str:
        lead = len(piece.lead)
        own = [
            replace(one, start=max(0, one.start - lead), end=one.end - lead)
            for one in next(found)
            if one.end > lead
        ]
        if piece.number and own:
            # A part of a number is no number: all of it goes.
            return guard.take(own[0])
        return text_guarded(piece.text, own, guard)[0]

    return Walker(change).json_source(source)


def _splits(text: str, cut: int) -> bool:
    """Whether cutting before ``text[cut]`` would part what belongs together."""
    before, after = text[cut - 1], text[cut]
    if before in _JOINED and after in _JOINED:
        return True
    # "4111 1111": groups of one number
    digits = [char for char in text[max(0, cut - 2) : cut + 2] if char.isdigit()]
    return len(digits) >= 2 and (before.isspace() or after.isspace())
