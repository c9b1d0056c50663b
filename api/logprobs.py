"""Log-probabilities of an answer in the words that leave.

A model's tokens cut placeholders into pieces, and what stands for a placeholder in the answer is
no token at all. Where something was put back or taken out, the tokens of the place are told as one,
with their joint log-probability and no alternatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from api.engines.base import TokenLogprob


@dataclass(frozen=True)
class Cut:
    """``text[start:end]`` of the engine's text left as ``shown``."""

    start: int
    end: int
    shown: str


def aligned(
    tokens: Sequence[TokenLogprob], text: str, cuts: Sequence[Cut], shown: str
) -> tuple[TokenLogprob, ...]:
    """Tokens that join to ``shown``, from those that join to ``text``.

    Where that cannot be had token by token, the whole answer is told as one.
    """
    made: list[TokenLogprob] = []
    waiting = sorted(cuts, key=lambda cut: cut.start)
    group: list[TokenLogprob] = []
    start = at = 0
    for token in tokens:
        group.append(token)
        at += len(token.token)
        inside = [cut for cut in waiting if cut.start < at]
        if any(cut.end > at for cut in inside):
            continue
        made.append(_joint(group, _shown(text, start, at, inside)) if inside else group[0])
        waiting = [cut for cut in waiting if cut not in inside]
        group, start = [], at
    joined = "".join(one.token for one in made)
    if joined != shown:
        return (_joint(tokens, shown),) if tokens else ()
    return tuple(made)


def _joint(tokens: Sequence[TokenLogprob], shown: str) -> TokenLogprob:
    return TokenLogprob(shown, sum(one.logprob for one in tokens))


def _shown(text: str, start: int, end: int, cuts: Sequence[Cut]) -> str:
    parts: list[str] = []
    for cut in cuts:
        parts += [text[start : max(start, cut.start)], cut.shown]
        start = max(start, cut.end)
    return "".join([*parts, text[start:end]])
