"""What is fuzzed: each target takes any bytes and raises where a promise is broken.

Plain functions, so that a test can run them without a fuzzer. The fuzzer itself is in
`fuzz/run.py`.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from privacy.pii.custom import CustomPattern, find_custom
from privacy.pii.disguises import reveal
from privacy.pii.entities import ENTITIES, PERSONAL, Span, resolve
from privacy.pii.errors import PatternRefused, RedactionUnavailable
from privacy.pii.finishing import Finisher
from privacy.pii.patterns import PatternDetector
from privacy.pii.placeholders import write
from privacy.pii.restoring import Originals, StreamRestorer, Utf8Restorer
from privacy.pii.session import RedactionSession

_KINDS: Final = sorted(ENTITIES)
_VALUES: Final = {
    write("PERSON", 1): "Ruth Baker",
    write("PERSON", 1, 1): "RUTH",
    write("PERSON", 2): "王小明",
    write("EMAIL_ADDRESS", 1): "ruth@corp.example",
    write("DATE_OF_BIRTH", 11): "3 May 1990",
    write("TEXT", 1): "<PERSON_1>",
}
_LITERALS: Final = {"Ann Lee": "Eve Stone", "138****8000": "13800138000"}
_SECONDS: Final = 20.0
_FAST: Final = PatternDetector()


class Broken(AssertionError):
    """A promise does not hold."""


def placeholders(data: bytes) -> None:
    """Reading placeholders: any text is taken, and a text without any stays as it is."""
    text = _text(data)
    originals = Originals(_VALUES, _LITERALS)
    restored = originals.restore(text)
    covered = originals.covered(text)
    _check(bool(covered) or restored == text, "a text without stand-ins was changed")
    for start, end in covered:
        _check(0 <= start < end <= len(text), "a stand-in lies outside the text")
    Originals(_VALUES, json=True).restore(json.dumps(text))


def stream(data: bytes) -> None:
    """Restoring a stream: any cuts give what the whole gives, and little is held back."""
    cuts, _, body = data.partition(b"\x00")
    text = _text(body)
    originals = Originals(_VALUES, _LITERALS)
    whole = originals.restore(text)
    restorer = StreamRestorer(originals)
    parts = []
    for chunk in _cut(text, cuts):
        parts.append(restorer.feed(chunk))
        _check(restorer.held <= originals.longest, "too much is held back")
    _check("".join([*parts, restorer.flush()]) == whole, "a cut changed what is restored")
    valid = text.encode("utf-8", "replace")
    bytewise = Utf8Restorer(originals)
    fed = [bytewise.feed(valid[i : i + 1]) for i in range(len(valid))]
    expected = originals.restore(valid.decode("utf-8")).encode("utf-8")
    _check(b"".join([*fed, bytewise.flush()]) == expected, "single bytes changed what is restored")


def resolver(data: bytes) -> None:
    """Resolving findings: disjoint, ordered, complete, the same in any order and when repeated."""
    size, _, body = data.partition(b"\x00")
    text = _text(body)
    found = list(_spans(size, len(text)))
    union = resolve(found)
    _disjoint(union)
    _check(resolve(union) == union, "resolving twice changes the result")
    _check(resolve(reversed(found)) == union, "the order of the findings changes the result")
    _check(_positions(union) == _positions(found), "resolving changed what is covered")
    finish = Finisher(0.5, PERSONAL, deny=["Bluebird", "蓝鸟"])
    spans = finish(text, found)
    _disjoint(spans)
    _check(finish(text, reversed(found)) == spans, "the order of the findings changes the spans")
    _check(all(span.end <= len(text) for span in spans), "a span lies outside the text")


def disguises(data: bytes) -> None:
    """Hostile writing: any text is read in bounded time, and comes back as it was."""
    text = _text(data)
    begun = time.process_time()
    reveal(text)
    spans = _FAST.detect(text)
    _disjoint(spans)
    _check(all(span.end <= len(text) for span in spans), "a span lies outside the text")
    session = RedactionSession(_FAST)
    _check(session.restore(session.redact(text)) == text, "the text did not come back")
    _check(time.process_time() - begun < _SECONDS, "it took too long")


def patterns(data: bytes) -> None:
    """Patterns of a policy: refused by name, or bounded in time."""
    expression, _, body = _text(data).partition("\x00")
    begun = time.process_time()
    try:
        found = find_custom([CustomPattern("fuzzed", "ID_NUMBER", expression)], body)
    except (PatternRefused, RedactionUnavailable) as error:
        _check("'fuzzed'" in str(error), "the refusal does not name the pattern")
    else:
        _check(all(span.end <= len(body) for span in found), "a span lies outside the text")
    _check(time.process_time() - begun < _SECONDS, "it took too long")


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "placeholders": placeholders,
    "stream": stream,
    "resolver": resolver,
    "disguises": disguises,
    "patterns": patterns,
}


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _cut(text: str, cuts: bytes) -> Iterator[str]:
    """``text`` in pieces whose lengths the bytes of ``cuts`` give, over and over."""
    at, i = 0, 0
    while at < len(text):
        length = 1 + (cuts[i % len(cuts)] % 16 if cuts else 0)
        yield text[at : at + length]
        at, i = at + length, i + 1


def _spans(data: bytes, length: int) -> Iterator[Span]:
    """Three bytes make one finding in a text of ``length`` characters."""
    for first, second, third in zip(data[::3], data[1::3], data[2::3], strict=False):
        if length:
            start = first % length
            end = min(length, start + 1 + second % 24)
            yield Span(start, end, _KINDS[third % len(_KINDS)], (third % 20 + 1) / 20, "rule:fuzz")


def _positions(spans: list[Span] | tuple[Span, ...]) -> set[int]:
    return {i for span in spans for i in range(span.start, span.end)}


def _disjoint(spans: tuple[Span, ...]) -> None:
    _check(all(a.end <= b.start for a, b in pairwise(spans)), "spans overlap or are out of order")
