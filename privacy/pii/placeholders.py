"""The form of a placeholder, and putting values back in its place.

A placeholder is ``<ENTITY_n>``, or ``<ENTITY_n.m>`` for another spelling of the
same value. Language models change case and spacing, so ``< person_1 >`` and
``<Person 1>`` are read as ``<PERSON_1>``. A placeholder has one ``<`` and one
``>``, its first and last character: therefore it can be found in a stream
from left to right without ever looking back.
"""

from collections.abc import Mapping
from typing import Any, Final

import regex

from privacy.pii.entities import ENTITIES

LITERAL: Final = "TEXT"
"""Stands for input that already looked like a placeholder."""

_NAMES: Final = "|".join(
    name.replace("_", "[ _-]") for name in sorted(ENTITIES | {LITERAL}, key=len, reverse=True)
)
PLACEHOLDER: Final[Any] = regex.compile(
    rf"<\s{{0,2}}(?P<entity>{_NAMES})[ _-](?P<index>[0-9]{{1,6}})(?:\.(?P<variant>[0-9]{{1,4}}))?\s{{0,2}}>",
    regex.IGNORECASE | regex.ASCII,
)
LONGEST: Final = 6 + max(map(len, ENTITIES)) + 1 + 6 + 5
"""No placeholder is longer; a stream never holds back more characters than this."""


def write(entity: str, index: int, variant: int = 0) -> str:
    """The placeholder of one value; ``variant`` counts its other spellings."""
    return f"<{entity}_{index}.{variant}>" if variant else f"<{entity}_{index}>"


def restore(text: str, values: Mapping[str, str]) -> str:
    """``text`` with every placeholder of ``values`` replaced; unknown ones stay as they are."""
    return str(PLACEHOLDER.sub(lambda match: _value(match, values), text))


def _value(match: Any, values: Mapping[str, str]) -> str:
    entity = match["entity"].upper().replace(" ", "_").replace("-", "_")
    index, variant = int(match["index"]), int(match["variant"] or 0)
    known = values.get(write(entity, index, variant))
    # An unknown spelling of a known value is still that value.
    if known is None and variant:
        known = values.get(write(entity, index))
    return match.group() if known is None else known


class StreamRestorer:
    """Restores a text that arrives in pieces; the pieces may cut placeholders anywhere.

    The outputs, joined, equal :func:`restore` of the inputs, joined. What may
    still become a placeholder is held back, and nothing else.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._held = ""

    def feed(self, chunk: str) -> str:
        """Take a piece and return what is certain by now, possibly nothing."""
        waiting = self._held + chunk
        cut = waiting.rfind("<")
        if cut < 0 or not _unfinished(waiting[cut:]):
            cut = len(waiting)
        self._held = waiting[cut:]
        return restore(waiting[:cut], self._values)

    def flush(self) -> str:
        """What was held back when the stream ended."""
        held, self._held = self._held, ""
        return restore(held, self._values)


def _unfinished(tail: str) -> bool:
    """Whether more characters could make ``tail`` a placeholder, which it is not yet."""
    match = PLACEHOLDER.fullmatch(tail, partial=True)
    return match is not None and match.partial
