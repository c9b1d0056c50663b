"""The kinds of personal data and the spans that mark them in a text.

Offsets count Unicode code points, as Python slices do. This module knows no
detector: it only says what a finding is and how overlapping findings become one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

PERSONAL: Final = frozenset(
    {
        "ADDRESS",
        "AGE",
        "BANK_ACCOUNT",
        "CREDIT_CARD",
        "CRYPTO",
        "DATE_OF_BIRTH",
        "DRIVER_LICENSE",
        "EMAIL_ADDRESS",
        "IBAN_CODE",
        "ID_NUMBER",
        "IP_ADDRESS",
        "LICENSE_PLATE",
        "LOCATION",
        "MAC_ADDRESS",
        "NATIONAL_ID",
        "PASSPORT",
        "PERSON",
        "PHONE_NUMBER",
        "POSTCODE",
        "SECRET",
        "TERM",
        "URL",
        "USER_HANDLE",
    }
)
"""Looked for by default. TERM is what a policy's ``deny`` list names."""

ON_REQUEST: Final = frozenset({"DATE_TIME", "NATIONALITY", "ORGANIZATION", "TITLE"})
"""Rarely personal by themselves: found only where a detector is asked for them."""

ENTITIES: Final = PERSONAL | ON_REQUEST
"""Every kind there is. Closed, so that a placeholder can be told from other text."""

# A checksum or an unmistakable format outranks any guess of a model, however long.
_CERTAIN: Final = 0.95
MODEL_CEILING: Final = 0.94
"""No model is certain: its scores are cut here, below those of checksums and formats."""


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """One finding: ``text[start:end]`` is an ``entity`` with confidence ``score`` in [0, 1].

    ``source`` names what found it, as in ``"rule:iban"`` or ``"spacy"``; it takes no part in
    comparisons and never quotes the text.
    """

    start: int
    end: int
    entity: str
    score: float
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span [{self.start}, {self.end}) is empty or negative")
        if self.entity not in ENTITIES:
            raise ValueError(f"{self.entity!r} is not a known entity; see privacy.pii.entities")

    def of(self, text: str) -> str:
        """The marked part of ``text``."""
        return text[self.start : self.end]


def rank(span: Span) -> tuple[bool, int, bool, float, str, str]:
    """Which of several findings names what they have in common: the greatest.

    A certain one (checksum, unmistakable format) before any guess, then the longest, then
    that of the policy's own pattern, then the most confident; the names only make the
    choice independent of the order.
    """
    certain, own = span.score >= _CERTAIN, span.source.startswith("policy:")
    return certain, span.end - span.start, own, span.score, span.entity, span.source


def resolve(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Disjoint spans in order that cover every character that any given span covers.

    Spans that share a character become one span over their union, so that no
    part of a weaker finding is left in the text; :func:`rank` says which of them
    gives it its entity, score and source. The order of the spans given does not
    matter, and resolving twice changes nothing.
    """
    merged: list[Span] = []
    cluster: list[Span] = []
    reach = 0
    for span in sorted(spans):
        if cluster and span.start >= reach:
            merged.append(_union(cluster))
            cluster = []
        reach = max(reach, span.end) if cluster else span.end
        cluster.append(span)
    if cluster:
        merged.append(_union(cluster))
    return tuple(merged)


def _union(cluster: Sequence[Span]) -> Span:
    best = max(cluster, key=rank)
    start = min(span.start for span in cluster)
    end = max(span.end for span in cluster)
    return Span(start, end, best.entity, best.score, best.source)
