"""Ends a text before the first stop string, also when that string arrives in pieces."""


class StopFilter:
    """Passes text on except for what could still become a stop string.

    For every way of cutting a text into pieces, the joined output is the text before the stop
    string that is complete first, or the whole text after :meth:`flush`.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """What may leave now; ``""`` for good once :attr:`hit` is true."""
        if self.hit:
            return ""
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.hit = True
            self._held = ""
            # The one that is complete first decides, or the result would depend on the pieces:
            # a longer one may begin earlier and never be completed.
            return text[: min(found)[1]]
        keep = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return "" if self.hit else held


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``mark``."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
