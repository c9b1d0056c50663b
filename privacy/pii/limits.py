"""How much one call may take, and how long texts are read in pieces.

Beyond a limit a call is refused as a whole: nothing of the text goes on unread.
Rules and models see a long text in overlapping pieces, so that memory is bounded
by the piece and time grows with the length.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import regex

from privacy.pii.disguises import find_twice
from privacy.pii.entities import Span
from privacy.pii.errors import LimitExceeded, PiiError, RedactionUnavailable

LONGEST_PIECE: Final = 10_000
OVERLAP: Final = 500
"""Characters that neighbouring pieces share: what lies on a cut is whole in one of them."""

# Models sort what they are given by length, so large batches waste little on padding.
_MOST_PIECES: Final = 1024
_MOST_CHARACTERS: Final = 200_000
_SPACE: Final = regex.compile(r"\s")

Find = Callable[[Sequence[str]], Sequence[Sequence[Span]]]
"""Pieces -> the findings of each."""


@dataclass(frozen=True)
class Limits:
    """What one text, and one call, may take.

    Args:
        characters: most code points of one text.
        findings: most findings of one text, counted before overlapping ones become one.
        seconds: longest time of one call, by the wall clock.
    """

    characters: int = 20_000_000
    findings: int = 2_000_000
    seconds: float = 3_600.0

    def __post_init__(self) -> None:
        for name in ("characters", "findings", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


DEFAULT_LIMITS: Final = Limits()


def find_in_pieces(texts: Sequence[str], find: Find, limits: Limits) -> list[list[Span]]:
    """The findings of each text, with offsets of the text; they may overlap.

    Each piece is read twice where something in it is disguised (:mod:`privacy.pii.disguises`).

    Raises:
        LimitExceeded: a text is longer, holds more, or the call takes longer than ``limits`` allow.
        RedactionUnavailable: ``find`` failed, in whatever way.
    """
    for text in texts:
        if len(text) > limits.characters:
            raise LimitExceeded(
                f"a text has {len(text):,} characters, more than the limit of "
                f"{limits.characters:,}; send it in parts"
            )
    begun = time.monotonic()
    found: list[list[Span]] = [[] for _ in texts]
    for batch in _batches(texts):
        spent = time.monotonic() - begun
        if spent > limits.seconds:
            raise LimitExceeded(
                f"looking for personal data took {spent:.1f} s, more than the limit of "
                f"{limits.seconds:g} s; send less at once"
            )
        answers = each_once(partial(_findings, find), [piece for _, _, piece in batch])
        for (i, offset, _), spans in zip(batch, answers, strict=True):
            found[i] += [moved(span, offset) for span in spans] if offset else spans
            check_findings(len(found[i]), limits)
    return found


def _findings(find: Find, views: Sequence[str]) -> Sequence[Sequence[Span]]:
    try:
        found = find_twice(find, views)
    except PiiError:
        raise
    except Exception as error:
        # Its message may quote the text, so only its class is named and nothing is chained.
        raise RedactionUnavailable(
            f"personal data could not be looked for ({type(error).__name__})"
        ) from None
    if len(found) != len(views):
        raise RedactionUnavailable(f"{len(found)} answers came back for {len(views)} texts")
    return found


def each_once(find: Find, texts: Sequence[str]) -> list[list[Span]]:
    """The findings of each text; ``find`` is given equal texts once."""
    distinct = list(dict.fromkeys(texts))
    answers = dict(zip(distinct, find(distinct), strict=True))
    return [list(answers[text]) for text in texts]


def check_findings(count: int, limits: Limits) -> None:
    """Raises LimitExceeded where one text has too many findings."""
    if count > limits.findings:
        raise LimitExceeded(
            f"a text holds more than {limits.findings:,} findings, the limit; send it in parts"
        )


def pieces(
    text: str, longest: int = LONGEST_PIECE, overlap: int = OVERLAP
) -> Iterator[tuple[int, str]]:
    """(offset, piece) of at most ``longest`` characters; neighbours share about ``overlap``.

    Cuts stand at white space where there is some within ``overlap`` characters.
    """
    start = 0
    while len(text) - start > longest:
        end = _cut(text, start + longest, overlap)
        yield start, text[start:end]
        start = _cut(text, end - overlap, overlap)
    yield start, text[start:]


def moved(span: Span, offset: int, source: str = "") -> Span:
    """The same finding, ``offset`` characters further on; ``source`` where it names none."""
    start, end = span.start + offset, span.end + offset
    return Span(start, end, span.entity, span.score, span.source or source)


def _cut(text: str, latest: int, reach: int) -> int:
    """The last place after white space in the ``reach`` characters before ``latest``, or it."""
    for at in range(latest, latest - reach, -1):
        if _SPACE.match(text[at - 1]):
            return at
    return latest


def _batches(texts: Sequence[str]) -> Iterator[list[tuple[int, int, str]]]:
    """(text, offset, piece) of every piece, some at a time."""
    batch: list[tuple[int, int, str]] = []
    characters = 0
    for i, text in enumerate(texts):
        for offset, piece in pieces(text):
            batch.append((i, offset, piece))
            characters += len(piece)
            if len(batch) == _MOST_PIECES or characters >= _MOST_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
