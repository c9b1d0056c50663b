"""Texts with labelled personal data: JSON Lines of ``{"id", "text", "spans": [[start, end, type], …]}``.

Offsets count characters (Unicode code points). A span may also be an object with ``start``, ``end``
and one of ``type``, ``label`` and ``entity_type``. Other keys are ignored, and nothing here ever
quotes a text.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from client.errors import RecordError, RowFault
from client.formats import format_of, kind_of, parse_json
from privacy.pii.detector import Detector
from privacy.pii.entities import Span
from privacy.pii.evaluation import Evaluation, Mark, Scores, kinds_of

_AT_ONCE: Final = 512
_LABEL_KEYS: Final = ("type", "label", "entity_type")
_LONGEST_LABEL: Final = 100
_SHOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One line. ``id`` is as the file has it, or the number of the line."""

    id: str | int
    text: str
    marks: tuple[Mark, ...]


class _Fault(Exception):
    """A line that is no labelled text; the text is the reason."""


def read_labelled(path: Path) -> Iterator[LabelledText]:
    """Every labelled text of a file, which may be gzipped; one line is in memory at a time.

    Raises:
        RecordError: the file cannot be read, or a line is no labelled text; ``faults`` then tells
            every such line, once all lines were read.
    """
    format_, zipped = format_of(path)
    if format_ != "jsonl":
        raise RecordError(f"{path}: labelled texts are JSON Lines, with an ending such as .jsonl")
    if not path.is_file():
        raise RecordError(f"{path}: no such file")
    faults: list[RowFault] = []
    count = 0
    number = 0
    try:
        with cast("IO[bytes]", gzip.open(path, "rb")) if zipped else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    yield _labelled(
                        line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, number
                    )
                except _Fault as fault:
                    if len(faults) < _SHOWN:
                        faults.append(RowFault(str(path), number, str(fault)))
                else:
                    count += 1
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "the gzip file is damaged or incomplete"
        raise RecordError(f"{path}: {reason} (after line {number})") from None
    if faults:
        raise RecordError(f"{path}: {len(faults):,} lines are no labelled texts:", faults)
    if not count:
        raise RecordError(f"{path}: holds no labelled text")


def _labelled(line: bytes, number: int) -> LabelledText:
    try:
        value = parse_json(line.decode())
    except UnicodeDecodeError:
        raise _Fault("is not UTF-8") from None
    except ValueError as error:
        raise _Fault(str(error)) from None
    if not isinstance(value, dict):
        raise _Fault(f'is {kind_of(value)}, not an object {{"id", "text", "spans"}}')
    text = value.get("text")
    if not isinstance(text, str):
        raise _Fault('has no "text"' if "text" not in value else f'"text" is {kind_of(text)}')
    given = value.get("id", number)
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise _Fault(f'"id" is {kind_of(given)}, not a text or a number')
    spans = value.get("spans")
    if not isinstance(spans, list):
        raise _Fault(
            'has no "spans"; a text without personal data has an empty list'
            if "spans" not in value
            else f'"spans" is {kind_of(spans)}, not a list'
        )
    return LabelledText(given, text, tuple(_mark(s, i, len(text)) for i, s in enumerate(spans)))


def _mark(value: Any, place: int, length: int) -> Mark:
    told = f"spans[{place}]"
    if isinstance(value, dict):
        label = next((value[key] for key in _LABEL_KEYS if key in value), None)
        parts: list[Any] = [value.get("start"), value.get("end"), label]
    elif isinstance(value, list):
        parts = value
    else:
        raise _Fault(f"{told} is {kind_of(value)}, not [start, end, type]")
    if len(parts) != 3:
        raise _Fault(f"{told} has {len(parts)} parts, not start, end and type")
    start, end, label = parts
    for name, offset in (("start", start), ("end", end)):
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise _Fault(f"{told} has no whole number as its {name}")
    if not 0 <= start < end <= length:
        raise _Fault(f"{told} is [{start}, {end}), but must lie within the {length} characters")
    if not isinstance(label, str) or not label.strip() or len(label) > _LONGEST_LABEL:
        raise _Fault(f"{told} has no type")
    return Mark(start, end, label.strip())


def labels_of(texts: Iterable[LabelledText]) -> Counter[str]:
    """How often each label occurs."""
    return Counter(mark.label for text in texts for mark in text.marks)


def kinds_for(labels: Iterable[str], every: frozenset[str]) -> frozenset[str]:
    """The kinds that a file's labels speak of, out of ``every``.

    All of them where no label is given, or one is unknown: who labels what we have no name for
    would count what we find of it as wrong, were it not looked for.
    """
    known = [kinds_of(label) for label in labels]
    if not known or not all(known):
        return every
    return frozenset(kind for kinds in known for kind in kinds) & every


def evaluate(
    texts: Iterable[LabelledText],
    detector: Detector,
    kinds: frozenset[str],
    predictions: IO[str] | None = None,
) -> Scores:
    """Detect in every text, count what is found of ``kinds``, and write it to ``predictions``.

    Raises:
        RedactionUnavailable: personal data could not be looked for.
    """
    evaluation = Evaluation()
    for batch in _batches(texts):
        found = detector.detect_many([item.text for item in batch])
        for item, spans in zip(batch, found, strict=True):
            wanted = [span for span in spans if span.entity in kinds]
            evaluation.add(len(item.text), item.marks, wanted)
            if predictions is not None:
                predictions.write(_prediction(item, wanted))
    return evaluation.scores()


def _prediction(item: LabelledText, spans: Sequence[Span]) -> str:
    told = {"id": item.id, "spans": [[span.start, span.end, span.entity] for span in spans]}
    # A lone surrogate in an id has no UTF-8 form.
    with suppress(UnicodeEncodeError):
        line = json.dumps(told, ensure_ascii=False)
        line.encode()
        return line + "\n"
    return json.dumps(told) + "\n"


def _batches(texts: Iterable[LabelledText]) -> Iterator[list[LabelledText]]:
    batch: list[LabelledText] = []
    for item in texts:
        batch.append(item)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
