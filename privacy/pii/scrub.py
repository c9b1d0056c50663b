"""Scrubbing of records before anything is learnt from them.

Unlike a prompt, a record never needs its values back: what is found becomes a bare ``<ENTITY>``, a
mask, or a stand-in that follows from a key, so that the same person stays the same person without
being named. Nothing is remembered from record to record: any number of processes that share the key
scrub alike.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from policies.model import Action
from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve
from privacy.pii.finishing import repeated
from privacy.pii.stand_ins import StandIns, mask

Item = TypeVar("Item")
Seen = Callable[[int, str, Span, Action], None]
_BARE: Final[frozenset[Action]] = frozenset({"replace", "redact", "block"})
_DRAWN: Final = 32


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
    """Findings that the policy allows in place."""
    blocked: tuple[int, ...] = ()
    """Positions of the records that hold what the policy blocks; whoever must not have them at all
    leaves them out."""

    @property
    def total(self) -> int:
        """Replaced findings."""
        return sum(self.counts.values())


class Scrubber:
    """Replaces personal data in records.

    Args:
        detector: finds the personal data.
        action: entity -> action. ``allow`` leaves a finding; ``replace``, ``redact`` and ``block``
            put the bare type, ``block`` also reports the record; ``mask`` puts stars; ``hash``,
            ``pseudonym`` and ``encrypt`` put keyed stand-ins.
        key: at least 16 bytes. Without one, stand-ins are the same within this scrubber only.
        seen: called for every finding with the position of its text in the batch, the text, the
            finding and its action; for local reports.

    Raises:
        ValueError: the key is shorter, or there is none and a kind is to be encrypted: nobody could
            ever decrypt it.
    """

    def __init__(
        self,
        detector: Detector,
        action: Callable[[str], Action] = always_redact,
        *,
        key: bytes | None = None,
        seen: Seen | None = None,
    ) -> None:
        if key is None:
            encrypted = [e for e in sorted(detector.entities) if action(e) == "encrypt"]
            if encrypted:
                raise ValueError(
                    f"{', '.join(encrypted)}: to encrypt takes a key that is kept; give one, or use "
                    "'hash', which needs none"
                )
        self._detector = detector
        self._action = action
        self._stand_ins = StandIns(secrets.token_bytes(_DRAWN) if key is None else key)
        self._seen = seen

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
        blocked: list[int] = []
        touched = 0
        results: list[str] = []
        for number, group in enumerate(groups):
            spans = [next(found) for _ in group]
            actions: set[Action] = set()
            for text, complete in zip(group, _shared(group, spans), strict=True):
                parts, done = [], 0
                for span in complete:
                    action = self._action(span.entity)
                    actions.add(action)
                    if self._seen is not None:
                        self._seen(len(results), text, span, action)
                    if action == "allow":
                        kept[span.entity] += 1
                        continue
                    counts[span.entity] += 1
                    made = irreversible(span.of(text), span.entity, action, self._stand_ins)
                    parts += [text[done : span.start], made]
                    done = span.end
                touched += bool(parts)
                results.append("".join([*parts, text[done:]]))
            if "block" in actions:
                blocked.append(number)
        report = ScrubReport(
            len(flat),
            touched,
            dict(sorted(counts.items())),
            dict(sorted(kept.items())),
            tuple(blocked),
        )
        return results, report


def irreversible(value: str, entity: str, action: Action, stand_ins: StandIns) -> str:
    """What stands for a value where no map is kept: in records, and in answers."""
    if action in _BARE:
        return f"<{entity}>"
    if action == "mask":
        return mask(value, entity)
    if action == "hash":
        return stand_ins.digest(value, entity)
    if action == "encrypt":
        return stand_ins.encrypt(value, entity)
    return stand_ins.pseudonym(value, entity)


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
