"""Looks at an answer before it leaves: removes personal data that the prompt did not bring.

Works on the text as the engine made it, placeholders included, whole or piece by piece. Knows no
detector: it is given a scan.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass


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
        text = self._replaced(window, done, cut, found)
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

    def _replaced(self, window: str, done: int, cut: int, found: Sequence[Found]) -> str:
        pieces: list[str] = []
        at = done
        for one in sorted(found, key=lambda one: one.start):
            if one.start >= cut:
                break
            pieces.append(window[at : max(at, one.start)])
            if one.end > at:
                self.counts[one.entity] += 1
                if one.blocked:
                    raise AnswerBlocked(one.entity)
                pieces.append(one.stand_in or f"<{one.entity}>")
                at = one.end
        pieces.append(window[at:cut])
        return "".join(pieces)


def _splits(text: str, cut: int) -> bool:
    """Whether cutting before ``text[cut]`` would part what belongs together."""
    before, after = text[cut - 1], text[cut]
    if before in _JOINED and after in _JOINED:
        return True
    # "4111 1111": groups of one number
    digits = [char for char in text[max(0, cut - 2) : cut + 2] if char.isdigit()]
    return len(digits) >= 2 and (before.isspace() or after.isspace())
