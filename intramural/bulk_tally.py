"""What scrubbing found, to be kept by the department: counts, rates and shapes, never a value.

A shape shows how a value was written, ``Xxxx Xxxxx`` or ``9999 9999``: every letter, digit and
ideograph of it is exchanged.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

_SAMPLES: Final = 3
_LONGEST_SHAPE: Final = 40
_MOST_COLUMNS: Final = 500
_OTHERS: Final = "(further columns)"
_KEPT_SIGNS: Final = " .,:;-_/@+()"


def shape(value: str) -> str:
    """``value`` with nothing of it but its form."""
    shown = "".join(_sign(character) for character in value[:_LONGEST_SHAPE])
    return shown + "…" if len(value) > _LONGEST_SHAPE else shown


def _sign(character: str) -> str:
    if character in _KEPT_SIGNS:
        return character
    category = unicodedata.category(character)
    if category.startswith("N"):
        return "9"
    if category == "Lu":
        return "X"
    if category == "Lo":
        return "文"
    return "x" if category.startswith(("L", "M")) else "·"


@dataclass
class ColumnTally:
    """One column: its texts, those with findings, and the findings by type."""

    texts: int = 0
    characters: int = 0
    with_findings: int = 0
    types: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally:
    """Sums over rows. Adding batch after batch in the order of the file gives the same as one pass."""

    rows: int = 0
    blocked: int = 0
    texts: int = 0
    characters: int = 0
    subjects: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    rows_with: Counter[str] = field(default_factory=Counter)
    columns: dict[str, ColumnTally] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Line and reason of the rows that the detector refused; they are in no output."""

    @property
    def written(self) -> int:
        """Rows that are in the output."""
        return self.rows - self.blocked - len(self.refused)

    def column(self, name: str) -> ColumnTally:
        """The tally of a column; beyond some hundred columns, of all further ones together."""
        if name not in self.columns and len(self.columns) >= _MOST_COLUMNS:
            name = _OTHERS
        return self.columns.setdefault(name, ColumnTally())

    def sample(self, entity: str, value: str) -> None:
        """Keep the shape of one of the first values of a type."""
        shown = self.samples.setdefault(entity, [])
        if len(shown) < _SAMPLES and (form := shape(value)) not in shown:
            shown.append(form)

    def add(self, other: Tally) -> None:
        """Add a later part of the file."""
        for name in ("rows", "blocked", "texts", "characters", "subjects"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("counts", "kept", "rows_with"):
            getattr(self, name).update(getattr(other, name))
        for name, part in other.columns.items():
            whole = self.column(name)
            whole.texts += part.texts
            whole.characters += part.characters
            whole.with_findings += part.with_findings
            whole.types.update(part.types)
        for entity, forms in other.samples.items():
            shown = self.samples.setdefault(entity, [])
            shown += [form for form in forms if form not in shown][: _SAMPLES - len(shown)]
        self.refused += other.refused

    def as_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them back."""
        return {
            "rows": self.rows,
            "blocked": self.blocked,
            "texts": self.texts,
            "characters": self.characters,
            "subjects": self.subjects,
            "counts": dict(sorted(self.counts.items())),
            "kept": dict(sorted(self.kept.items())),
            "rows_with": dict(sorted(self.rows_with.items())),
            "columns": {
                name: {
                    "texts": part.texts,
                    "characters": part.characters,
                    "with_findings": part.with_findings,
                    "types": dict(sorted(part.types.items())),
                }
                for name, part in self.columns.items()
            },
            "samples": self.samples,
            "refused": [list(row) for row in self.refused],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """The tally that was written."""
        plain: dict[str, Any] = {
            k: value[k] for k in ("rows", "blocked", "texts", "characters", "subjects")
        }
        counted: dict[str, Any] = {k: Counter(value[k]) for k in ("counts", "kept", "rows_with")}
        columns = {
            name: ColumnTally(**{**part, "types": Counter(part["types"])})
            for name, part in value["columns"].items()
        }
        refused = [(line, reason) for line, reason in value["refused"]]
        return cls(**plain, **counted, columns=columns, samples=value["samples"], refused=refused)

    def report(self) -> dict[str, Any]:
        """The report of a whole file: rates by type, findings by column, shapes of samples."""
        types = {
            entity: {
                "replaced": self.counts[entity],
                "kept": self.kept[entity],
                "rows": self.rows_with[entity],
                "share_of_rows": round(self.rows_with[entity] / max(1, self.rows), 6),
                "per_10000_characters": round(
                    1e4 * (self.counts[entity] + self.kept[entity]) / max(1, self.characters), 4
                ),
                "samples": self.samples.get(entity, []),
            }
            for entity in sorted({*self.counts, *self.kept})
        }
        return {**self.as_json(), "types": types}
