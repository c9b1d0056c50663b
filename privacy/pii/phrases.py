"""Finding any of thousands of phrases in a text, as whole words, in linear time.

Text and phrases are cut into words of Latin letters and digits, single other
characters, and white space. Phrases form a prefix tree over these, so that one
walk finds them all and a phrase never matches inside a longer word; the time for
a character does not depend on how many phrases there are.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import regex

from privacy.pii.limits import pieces
from privacy.pii.scripts import plain

_RANGES: Final = ((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069))
# Soft hyphen, zero-width characters and direction marks: invisible, so they part no word.
INVISIBLE: Final = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x180E, 0xFEFF]
    + [code for first, last in _RANGES for code in range(first, last + 1)]
)
_WORD: Final = r"\p{Latin}\p{Mn}0-9"
_HIDDEN: Final = "".join(rf"\u{code:04x}" for code in INVISIBLE)
_TOKEN: Final = regex.compile(rf"[{_WORD}{_HIDDEN}]+|\s+|.", regex.DOTALL)
_END: Final = ""
_PIECE: Final = 200_000
_OVERLAP: Final = 1_000


class Phrases:
    """Phrases to look for, whatever their case and spacing.

    Args:
        phrases: in any number; those without a visible character are left out.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._tree: dict[str, Any] = {}
        for phrase in phrases:
            node = self._tree
            for token, _, _ in _tokens(plain(phrase).strip()):
                node = node.setdefault(token, {})
            if node is not self._tree:
                node[_END] = True

    def __bool__(self) -> bool:
        return bool(self._tree)

    def search(self, text: str) -> bool:
        """Whether any of the phrases stands in ``text``."""
        return next(self.find(text), None) is not None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """[start, end) of phrases in order of their start.

        At each place the longest phrase counts. One that ends inside an earlier
        match is left out; matches may overlap otherwise.
        """
        reach = 0
        for offset, piece in pieces(plain(text), _PIECE, _OVERLAP):
            for start, end in self._find(piece):
                if offset + end > reach:
                    reach = offset + end
                    yield offset + start, reach

    def _find(self, text: str) -> Iterator[tuple[int, int]]:
        tokens = list(_tokens(text))
        for first in [i for i, (token, _, _) in enumerate(tokens) if token in self._tree]:
            node = self._tree
            end = 0
            for i in range(first, len(tokens)):
                token, _, stop = tokens[i]
                if token not in node:
                    break
                node = node[token]
                if _END in node:
                    end = stop
            if end:
                yield tokens[first][1], end


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """(folded token, start, end); white space is one blank, invisible characters are left out."""
    end = 0
    for raw in _TOKEN.findall(text):
        start, end = end, end + len(raw)
        token = " " if raw.isspace() else raw.translate(INVISIBLE).casefold()
        if token:
            yield token, start, end
