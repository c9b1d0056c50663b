"""English personal data by a BERT token classifier on ONNX Runtime.

The folder holds ``model.onnx``, ``tokenizer.json`` and ``config.json`` with
``id2label`` in BIO form. Texts of any length are read in overlapping token
windows, so that nothing is cut off at the model's limit; where windows overlap,
the more suspicious reading of a token counts.

Each window is a call of its own. The quantised model takes one scale from all that it
is given at once, so beside other texts, or padding, a text would get other scores; and
on one core a batch is no faster.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import regex

from privacy.pii.entities import MODEL_CEILING, Span
from privacy.pii.errors import DetectorNotReady
from privacy.pii.limits import each_once
from privacy.pii.onnx_session import open_session

LABELS: Final = {
    "GIVEN_NAME": "PERSON",
    "SURNAME": "PERSON",
    "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER",
    "URL": "URL",
    "TAX_ID": "NATIONAL_ID",
    "BANK_ACCOUNT": "BANK_ACCOUNT",
    "ROUTING_NUMBER": "BANK_ACCOUNT",
    "GOVERNMENT_ID": "NATIONAL_ID",
    "PASSPORT": "PASSPORT",
    "DRIVERS_LICENSE": "DRIVER_LICENSE",
    "BUILDING_NUMBER": "ADDRESS",
    "STREET_NAME": "ADDRESS",
    "SECONDARY_ADDRESS": "ADDRESS",
    "ZIP_CODE": "POSTCODE",
    "CITY": "LOCATION",
    "STATE": "LOCATION",
}
# Kinds that are nothing without digits or an "@"; the least number of such characters.
_NEEDED: Final = {
    "EMAIL_ADDRESS": (regex.compile("@|\\bat\\b"), 1),
    "URL": (regex.compile("[./]"), 1),
    "PHONE_NUMBER": (regex.compile("[0-9]"), 5),
    "NATIONAL_ID": (regex.compile("[0-9]"), 5),
    "BANK_ACCOUNT": (regex.compile("[0-9]"), 5),
    "PASSPORT": (regex.compile("[0-9]"), 5),
    "DRIVER_LICENSE": (regex.compile("[0-9]"), 4),
    "POSTCODE": (regex.compile("[0-9]"), 3),
}
_NUMBER: Final = regex.compile(r"[\W0-9]*|\p{L}")
_LEAST_HOUSE_NUMBER: Final = 4
# The model takes many a lower-case word for a name: raised to this power, 0.8 becomes 0.5. With
# capitals it errs the other way.
_LOWER_POWER: Final = 3.0
_CAPITAL_POWER: Final = 0.7
_WINDOW: Final = 126
_OVERLAP: Final = 24


class TokenClassifier:
    """Raw findings of English texts. Thread-safe; reads no more than the folder given."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        from tokenizers import Tokenizer

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            names = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the tokenizer raises plain Exception
            raise DetectorNotReady(f"{folder} holds no usable token classifier") from error
        unknown = {name[2:] for name in names[1:]} - set(LABELS)
        if names[0] != "O" or unknown:
            raise DetectorNotReady(f"{folder} has labels without a meaning here: {sorted(unknown)}")
        self._entities = [LABELS[name[2:]] for name in names[1:]]
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._edges = [self._tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
        self._session = open_session(folder / "model.onnx", threads)
        self._inputs = {item.name for item in self._session.get_inputs()}

    def find(self, texts: Sequence[str], threshold: float) -> list[list[Span]]:
        """Findings of each text. A token counts from ``1 - P(O) >= threshold`` on.

        Equal texts are read once.
        """
        return each_once(partial(self._find, threshold=threshold), texts)

    def _find(self, texts: Sequence[str], threshold: float) -> list[list[Span]]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            self._spans(text, e.offsets, self._scores(e.ids, e.word_ids), threshold)
            for text, e in zip(texts, encodings, strict=True)
        ]

    def _scores(self, ids: list[int], words: Sequence[int | None]) -> npt.NDArray[np.float32]:
        """Label probabilities ``(token, label)`` of one text; column 0 is 1 - P(O)."""
        scores = np.zeros((len(ids), len(self._entities) + 1), np.float32)
        for first in _windows(len(ids), words):
            fresh = self._probabilities(ids[first : first + _WINDOW])
            # Turned round, so that the maximum keeps the suspicious reading.
            fresh[:, 0] = 1 - fresh[:, 0]
            seen = scores[first : first + len(fresh)]
            worse = fresh[:, 0] > seen[:, 0]
            seen[worse] = fresh[worse]
        return scores

    def _probabilities(self, window: Sequence[int]) -> npt.NDArray[np.float32]:
        """Label probabilities ``(token, label)`` of one window."""
        ids = np.array([[self._edges[0], *window, self._edges[1]]], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feed["token_type_ids"] = np.zeros_like(ids)
        chosen = {name: array for name, array in feed.items() if name in self._inputs}
        logits = self._session.run(None, chosen)[0][0, 1:-1]
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)

    def _spans(
        self,
        text: str,
        offsets: Sequence[tuple[int, int]],
        scores: npt.NDArray[np.float32],
        threshold: float,
    ) -> list[Span]:
        least = max(min(threshold, threshold ** (1 / _CAPITAL_POWER)), 1e-6)
        labels = scores[:, 1:].argmax(-1) if len(scores) else scores
        spans: list[Span] = []
        for i in np.flatnonzero(scores[:, 0] >= least).tolist():
            start, end = offsets[i]
            if end <= start:
                continue
            entity, score = self._entities[int(labels[i])], float(scores[i, 0])
            last = spans[-1] if spans else None
            if (
                last is not None
                and last.entity == entity
                and not text[last.end : start].strip(" -'.")
            ):
                spans[-1] = Span(last.start, max(end, last.end), entity, max(score, last.score))
            else:
                spans.append(Span(start, end, entity, score))
        return [
            Span(span.start, span.end, span.entity, score)
            for span, score in zip(spans, _judged(text, spans), strict=True)
            if score >= threshold
        ]


def _judged(text: str, spans: Sequence[Span]) -> Iterator[float]:
    """Scores after a look at the form of each finding; 0 where it cannot be what it is called."""
    for i, span in enumerate(spans):
        value = span.of(text)
        needed, least = _NEEDED.get(span.entity, (None, 0))
        lacking = needed is not None and len(needed.findall(value)) < least
        if lacking or (span.entity in {"ADDRESS", "POSTCODE"} and _bare(text, spans, i)):
            yield 0
        elif span.entity not in {"PERSON", "LOCATION"}:
            yield min(MODEL_CEILING, span.score)
        elif value.islower() and " " not in value:
            yield min(MODEL_CEILING, span.score**_LOWER_POWER)
        else:
            yield min(MODEL_CEILING, span.score**_CAPITAL_POWER)


def _bare(text: str, spans: Sequence[Span], i: int) -> bool:
    """Whether a short number is called an address with nothing of an address beside it."""
    value = spans[i].of(text)
    digits = sum(character.isdigit() for character in value)
    if not _NUMBER.fullmatch(value) or digits >= _LEAST_HOUSE_NUMBER:
        return False
    beside = [*spans[max(0, i - 1) : i], *spans[i + 1 : i + 2]]
    return not any(
        other.entity in {"ADDRESS", "LOCATION", "POSTCODE"}
        and max(other.start - spans[i].end, spans[i].start - other.end) <= 3
        for other in beside
    )


def _windows(tokens: int, words: Sequence[int | None]) -> Iterator[int]:
    """First tokens of the overlapping windows over a text; each opens at the start of a word."""
    start = 0
    while start < tokens:
        yield start
        if start + _WINDOW >= tokens:
            break
        following = start + _WINDOW - _OVERLAP
        while following - 1 > start and words[following] == words[following - 1]:
            following -= 1
        start = following
