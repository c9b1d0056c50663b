"""English names and places by a spaCy pipeline, of which only the entity recognizer is loaded.

spaCy keeps every string that it ever saw. Each batch is therefore read inside a
memory zone, which forgets them at its end; one lock guards the zone, because it
belongs to the pipeline and not to the thread.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from privacy.pii.entities import Span
from privacy.pii.errors import DetectorNotReady
from privacy.pii.scripts import windows

LABELS: Final = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "NORP": "NATIONALITY",
}
SCORE: Final = 0.85
"""The recognizer gives no probability; Presidio uses the same figure."""

_LONGEST: Final = 5_000
_OVERLAP: Final = 200
_BATCH: Final = 32


class SpacyNames:
    """Raw findings of English texts. Thread-safe, one text batch at a time."""

    def __init__(self, folder: Path) -> None:
        import spacy

        try:
            names = spacy.util.load_config(folder / "config.cfg")["nlp"]["pipeline"]
            others = [name for name in names if name != "ner"]
            self._pipeline: Any = spacy.load(folder, exclude=others)
        except (OSError, ValueError, KeyError) as error:
            raise DetectorNotReady(f"{folder} holds no usable spaCy pipeline") from error
        if self._pipeline.pipe_names != ["ner"]:
            raise DetectorNotReady(f"the spaCy pipeline in {folder} has no entity recognizer 'ner'")
        self._lock = threading.Lock()

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Findings of each text, all with the same score."""
        pieces = [
            (i, offset, piece)
            for i, text in enumerate(texts)
            for offset, piece in windows(text, _LONGEST, _OVERLAP)
            if piece
        ]
        found: list[list[Span]] = [[] for _ in texts]
        with self._lock, self._pipeline.memory_zone():
            documents = self._pipeline.pipe((piece for _, _, piece in pieces), batch_size=_BATCH)
            for (i, offset, _), document in zip(pieces, documents, strict=True):
                for entity in document.ents:
                    if entity.label_ in LABELS:
                        found[i] += _lines(
                            entity.text, offset + entity.start_char, LABELS[entity.label_]
                        )
        return found


def _lines(value: str, start: int, entity: str) -> list[Span]:
    """One finding per line: names end with their line, though the recognizer may read on."""
    spans = []
    for line in value.split("\n"):
        if line.strip():
            spans.append(Span(start, start + len(line), entity, SCORE))
        start += len(line) + 1
    return spans
