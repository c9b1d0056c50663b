"""English names and places by a spaCy pipeline, of which only the entity recognizer is loaded.

spaCy keeps every string that it ever saw. Each batch is therefore read inside a
memory zone, which forgets them at its end; one lock guards the zone, because it
belongs to the pipeline and not to the thread.

Names have capitals in a text that has any. So where dates and organisations are not
asked for, it need only read the sentences in which a capital is left over from what
others have found: about half of an ordinary text.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.errors import DetectorNotReady
from privacy.pii.limits import each_once
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

# No sentence ends with an initial or a title: "J. Smith", "Mrs. Smith".
_BREAK: Final = regex.compile(r"(?<!\b\p{Lu}\p{Ll}{0,2})[.!?]+\s+|\n\s*\n\s*")
_CAPITAL: Final = regex.compile(r"\p{Lu}[\p{L}\p{Mn}'’]*")
_ENDING: Final = regex.compile(r"['’](?:s|m|d|re|ll|ve)?$")
_NOT: Final = regex.compile(r".*n['’]t", regex.IGNORECASE)
# With a capital, these stop words may be names.
_NAMES_TOO: Final = frozenset({"may", "will"})
_OPENERS: Final = (
    "hello hi hey dear please thanks thank regards sincerely cheers sorry excuse welcome yes ok okay oh ah wow"
    " need want let mr mrs ms dr sir monday tuesday wednesday thursday friday saturday sunday january february"
    " july september october november december phone fax e mail email address date name title number note click"
    " send call contact tell ask give find check open create make use using add update learn include if"
)
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
        recognizer: Any = self._pipeline.get_pipe("ner")
        _use_numpy(recognizer.model)
        self._lock = threading.Lock()
        words = set(self._pipeline.Defaults.stop_words).union(_OPENERS.split())
        self._ordinary = frozenset(words - _NAMES_TOO)

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Findings of each text, all with the same score; equal texts are read once."""
        return each_once(self._find, texts)

    def _find(self, texts: Sequence[str]) -> list[list[Span]]:
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

    def unexplained(self, text: str, known: Iterable[Span]) -> Iterator[tuple[int, str]]:
        """(offset, passage) of the sentences with a capital that is neither known nor ordinary.

        Neighbouring ones stay together, because the recognizer reads a word by its neighbours. A
        text without capitals is read as a whole: there their absence says nothing.
        """
        if not _CAPITAL.search(text):
            yield 0, text
            return
        covered = bytearray(len(text))
        for span in known:
            covered[span.start : span.end] = b"\1" * (span.end - span.start)
        opened: int | None = None
        for start, end in _sentences(text):
            if self._tells(text, start, end, covered):
                opened = start if opened is None else opened
            elif opened is not None:
                yield opened, text[opened:start]
                opened = None
        if opened is not None:
            yield opened, text[opened:]

    def _tells(self, text: str, start: int, end: int, covered: bytearray) -> bool:
        """Whether some word of ``text[start:end]`` that is not covered may be a name, or part of one."""
        return any(
            0 in covered[slice(*word.span())] and not self._is_ordinary(word[0])
            for word in _CAPITAL.finditer(text, start, end)
        )

    def _is_ordinary(self, word: str) -> bool:
        """Whether a capitalised word has its capital from the sentence it opens."""
        bare = _ENDING.sub("", word)
        if len(bare) > 1 and bare.isupper():
            return False
        return bare.lower() in self._ordinary or _NOT.fullmatch(word) is not None


def _use_numpy(model: Any) -> None:
    """Multiply matrices by numpy, which is twice as fast as thinc's own library where that was
    built for no processor in particular."""
    from thinc.api import NumpyOps

    ops = NumpyOps(use_blis=False)
    for node in model.walk():
        node.ops = ops


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for mark in _BREAK.finditer(text):
        yield start, mark.end()
        start = mark.end()
    if start < len(text):
        yield start, len(text)


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
