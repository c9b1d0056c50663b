"""Looking for personal data where there should be none.

Two questions: does a given value survive in a text (:func:`surviving`), and does
an answer hold personal data that its prompt did not bring
(:func:`find_new_personal_data`), as a model that remembers its training might give.
"""

from collections.abc import Iterable, Iterator

import regex

from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve
from privacy.pii.finishing import TELLING_DIGITS
from privacy.pii.phrases import Phrases
from privacy.pii.placeholders import LOOKS_LIKE
from privacy.pii.scripts import digits_of, plain
from privacy.pii.session import RedactionSession

_SEPARATED = regex.compile(r"(?:[0-9][ ().+/-]{0,3}){7,40}")


def surviving(values: Iterable[str], text: str) -> list[int]:
    """Positions in ``values`` of those that stand in ``text``.

    Case, spacing and wide forms do not hide a value; separators do not hide one
    of seven or more digits.
    """
    view = plain(text)
    runs = {digits_of(run) for run in _SEPARATED.findall(view)}
    found = []
    for i, value in enumerate(values):
        digits = digits_of(plain(value))
        numeric = len(digits) >= TELLING_DIGITS and len(digits) * 2 >= len(value)
        if Phrases([value]).search(view) or (numeric and any(digits in run for run in runs)):
            found.append(i)
    return found


def find_new_personal_data(
    answer: str, known: RedactionSession, detector: Detector
) -> tuple[Span, ...]:
    """Personal data in ``answer`` that the conversation did not bring.

    Takes the answer before or after restoration: placeholders, values behind
    them, and words that stood in the redacted prompts are not new. Raises
    RedactionUnavailable where looking fails.
    """
    forms = [match.span() for match in LOOKS_LIKE.finditer(answer)]
    taken = sorted([*known.covered(answer), *forms])
    return resolve(
        part
        for span in detector.detect(answer)
        for part in _outside(span, taken)
        if part.of(answer).strip() and not known.brought(part.of(answer))
    )


def _outside(span: Span, taken: Iterable[tuple[int, int]]) -> Iterator[Span]:
    """The parts of a finding that lie outside all placeholders."""
    start = span.start
    for left, right in taken:
        if right <= start or left >= span.end:
            continue
        if left > start:
            yield Span(start, left, span.entity, span.score)
        start = max(start, right)
    if start < span.end:
        yield Span(start, span.end, span.entity, span.score)
