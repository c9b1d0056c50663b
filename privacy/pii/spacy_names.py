"""English names and places by a spaCy pipeline, of which only the entity recognizer is loaded.

spaCy keeps every string that it ever saw. Each batch is therefore read inside a
memory zone, which forgets them at its end; one lock guards the zone, because it
belongs to the pipeline and not to the thread.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import regex

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
# A date says when something was; "two weeks" and "yesterday" say nothing about a person.
_CALENDAR: Final = regex.compile(
    r"(?:18|19|20)\d\d|\d[/.:-]\d|\d(?:st|nd|rd|th)\b|\b\d{1,2} ?[ap]\.?m|o'clock|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|\b(?:january|february|march|april|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept?"
    r"|oct|nov|dec)\b|\bmay \d|\d may\b|christmas|easter",
    regex.IGNORECASE,
)
_AGE: Final = regex.compile(r"years?[ -]old|aged? \d", regex.IGNORECASE)
# Words of forms that the recognizer takes for organisations.
_FORM_WORDS: Final = frozenset(
    (
        *(
            "iban",
            "swift",
            "bic",
            "ssn",
            "vat",
            "id",
            "pin",
            "dob",
            "phone",
            "mobile",
            "email",
            "url",
        ),
        *("e-mail", "fax", "tel", "desk", "office", "address", "name", "password", "zip", "ip"),
    )
)
SCORE: Final = 0.85
"""The recognizer gives no probability; Presidio uses the same figure."""

_LONGEST: Final = 5_000
_OVERLAP: Final = 200
_BATCH: Final = 128


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
        """Findings of each text, all with the same score; equal texts are read once."""
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        if len(distinct) < len(texts):
            once = self.find(list(distinct))
            return [list(once[distinct[text]]) for text in texts]
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
                    if _says_something(entity.label_, entity.text):
                        found[i] += _lines(
                            entity.text, offset + entity.start_char, LABELS[entity.label_]
                        )
        return found


def _says_something(label: str, value: str) -> bool:
    if LABELS.get(label) == "DATE_TIME":
        return _CALENDAR.search(value) is not None and _AGE.search(value) is None
    if label == "ORG" and value.casefold().strip(" .:") in _FORM_WORDS:
        return False
    return label in LABELS


def _lines(value: str, start: int, entity: str) -> list[Span]:
    """One finding per line: names end with their line, though the recognizer may read on."""
    spans = []
    for line in value.split("\n"):
        if line.strip():
            spans.append(Span(start, start + len(line), entity, SCORE))
        start += len(line) + 1
    return spans
