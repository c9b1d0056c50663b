"""Irreversible scrubbing of records before anything is learnt from them.

Unlike a prompt, a record never needs its values back: what is found becomes a
bare ``<ENTITY>``, or, with a key, ``<ENTITY_…>`` with a keyed digest, so that the
same person stays the same person without being named. Without the key the
digest cannot be computed from a guess.
"""

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from policies.model import Action
from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve
from privacy.pii.finishing import normalise, repeated

Item = TypeVar("Item")
_LEAST_KEY: Final = 16
_DIGEST: Final = 10


def always_redact(entity: str) -> Action:
    """The action for every entity where no policy says otherwise."""
    return "redact"


@dataclass(frozen=True)
class ScrubReport:
    """What was found, by type. Counts of one department: local, never sent anywhere."""

    texts: int = 0
    texts_with_findings: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    """Findings that the policy keeps in place."""

    @property
    def total(self) -> int:
        """Replaced findings."""
        return sum(self.counts.values())


class Scrubber:
    """Replaces personal data for good.

    Args:
        detector: finds the personal data.
        action: entity -> action; ``keep`` leaves a finding, every other action replaces it:
            there is nobody to refuse a record to, and nothing is restored.
        key: at least 16 bytes for keyed pseudonyms where the action is ``pseudonym``; without a
            key those are bare placeholders too.
    """

    def __init__(
        self,
        detector: Detector,
        action: Callable[[str], Action] = always_redact,
        *,
        key: bytes | None = None,
    ) -> None:
        if key is not None and len(key) < _LEAST_KEY:
            raise ValueError(f"the key has {len(key)} bytes, at least {_LEAST_KEY} are needed")
        self._detector = detector
        self._action = action
        self._key = key

    def scrub(self, text: str) -> str:
        """One text without its personal data."""
        return self.scrub_many([text])[0][0]

    def scrub_many(self, texts: Sequence[str]) -> tuple[list[str], ScrubReport]:
        """Each text by itself. Raises RedactionUnavailable; then none was scrubbed."""
        return self._scrub([[text] for text in texts])

    def scrub_items(
        self,
        items: Sequence[Item],
        map_text: Callable[[Item, Callable[[str], str]], Item],
    ) -> tuple[list[Item], ScrubReport]:
        """Records of several texts each, in one batch.

        A value found in one text of a record is replaced in all of its texts.
        ``map_text(item, f)`` returns the item with ``f`` applied to each text;
        it must reach the texts in the same order every time.
        """
        groups: list[list[str]] = []
        for item in items:
            group: list[str] = []
            map_text(item, lambda text, group=group: group.append(text) or text)  # type: ignore[misc]
            groups.append(group)
        scrubbed, report = self._scrub(groups)
        remaining = iter(scrubbed)
        return [map_text(item, lambda _: next(remaining)) for item in items], report

    def _scrub(self, groups: Sequence[Sequence[str]]) -> tuple[list[str], ScrubReport]:
        flat = [text for group in groups for text in group]
        found = iter(self._detector.detect_many(flat))
        counts: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        touched = 0
        results = []
        for group in groups:
            spans = [next(found) for _ in group]
            for text, complete in zip(group, _shared(group, spans), strict=True):
                parts, done = [], 0
                for span in complete:
                    if self._action(span.entity) == "keep":
                        kept[span.entity] += 1
                        continue
                    counts[span.entity] += 1
                    parts += [text[done : span.start], self._stand_in(span, text)]
                    done = span.end
                touched += bool(parts)
                results.append("".join([*parts, text[done:]]))
        report = ScrubReport(
            len(flat), touched, dict(sorted(counts.items())), dict(sorted(kept.items()))
        )
        return results, report

    def _stand_in(self, span: Span, text: str) -> str:
        if self._key is None or self._action(span.entity) != "pseudonym":
            return f"<{span.entity}>"
        value = f"{span.entity}\0{normalise(span.of(text), span.entity)}"
        digest = hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), "sha256").hex()
        return f"<{span.entity}_{digest[:_DIGEST]}>"


def _shared(texts: Sequence[str], found: Iterable[tuple[Span, ...]]) -> Iterator[tuple[Span, ...]]:
    """The findings of each text, with the values that another text of the record gave away."""
    spans = list(found)
    if len(texts) == 1:
        yield spans[0]
        return
    values = [
        (span.of(text), span.entity, span.score)
        for text, group in zip(texts, spans, strict=True)
        for span in group
    ]
    for text, group in zip(texts, spans, strict=True):
        yield resolve([*group, *repeated(text, values)])
