"""Synthetic units that are trained on or not, by a fair coin each, so that leakage can be measured.

A canary is a row of common words in random order and tells nothing about anybody. Half of them
enter in expectation; the guarantee covers each as it covers every other unit. Which ones did is
what the audit guesses, so the coins never leave the node.
"""

import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from privacy.canonical import canonical_json
from privacy.dp.encode import Example, Unit
from privacy.empirical.errors import CanariesUnusable
from privacy.files import create_exclusive, write_atomic

WORDS_PER_CANARY = 16
_PRIVATE = 0o600

_NOUNS = """
acorn anchor apple arrow autumn badge basket beacon bell bench birch blanket boat bottle branch
bread bridge brook brush bucket button cabin candle canyon carpet castle cedar chair cherry circle
clay cliff clock cloud clover coast coin copper corner cotton cradle crane creek crown curtain
desert dolphin door dream drum eagle earth ember engine falcon feather fence fern field flame
flute forest fountain frost garden gate glass grain grape hammer harbor hazel hedge hill honey
island ivory jacket jar kettle key ladder lake lantern leaf lemon linen log maple marble meadow
mirror moon moss mountain needle nest oak ocean orchard otter paddle paper path pearl pebble
pepper pillow pine pond quilt rain ribbon river rope saddle sail salt shell silver spoon stone
thread trumpet valley velvet walnut willow
"""
# 128 everyday nouns: 7 bits a word, so that no two canaries are alike.
WORDS = tuple(_NOUNS.split())


@dataclass(frozen=True)
class CanarySet:
    """The canaries of one department in one run.

    ``texts`` are made up and harmless. ``included`` is private: its coins are known to the node
    alone, and ``repr`` does not show them.
    """

    texts: tuple[str, ...]
    included: tuple[bool, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.included) or not self.texts:
            raise CanariesUnusable(
                f"{len(self.texts)} canaries with {len(self.included)} coins; each needs one"
            )

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def draw(cls, count: int) -> "CanarySet":
        """``count`` new canaries; words and coins come from the operating system."""
        texts = tuple(
            " ".join(secrets.choice(WORDS) for _ in range(WORDS_PER_CANARY)) for _ in range(count)
        )
        return cls(texts, tuple(bool(secrets.randbits(1)) for _ in range(count)))

    @classmethod
    def load(cls, path: Path) -> "CanarySet":
        """The canaries kept at ``path``.

        Raises:
            CanariesUnusable: no such file, a damaged one, or one that others can read.
        """
        value = _read(path, "canaries")
        texts, included = value.get("texts"), value.get("included")
        if (
            not (isinstance(texts, list) and all(isinstance(text, str) for text in texts))
            or not isinstance(included, list)
            or not all(isinstance(coin, bool) for coin in included)
        ):
            raise CanariesUnusable(f"{path} holds no canaries; restore it from a copy")
        return cls(tuple(texts), tuple(included))

    @classmethod
    def load_or_draw(cls, path: Path, count: int) -> "CanarySet":
        """The run's one set: drawn at the first call, and the same at every later one.

        Raises:
            CanariesUnusable: as :meth:`load`, or the kept set has another size than ``count``.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            drawn = cls.draw(count)
            content = {"texts": list(drawn.texts), "included": list(drawn.included)}
            # A crash before: no canaries, and nothing was trained on any. A crash after: this set,
            # whatever becomes of the run.
            create_exclusive(path, canonical_json(content), mode=_PRIVATE)
        kept = cls.load(path)
        if len(kept) != count:
            raise CanariesUnusable(
                f"{path} holds {len(kept)} canaries, the policy's training.canaries is {count}; "
                "give back the policy that the run began with"
            )
        return kept

    def examples(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Example]:
        """Every canary as tokens, at most ``max_tokens`` of it, learned from its second token on."""
        encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts)
        return [Example(tuple(ids[:max_tokens]), completion_start=1) for ids in encoded]

    def units(self, examples: Sequence[Example]) -> list[Unit]:
        """The included ones of ``examples``, each a unit of its own. Private, as the coins are."""
        pairs = zip(examples, self.included, strict=True)
        return [(example,) for example, included in pairs if included]


def save_scores(path: Path, scores: Sequence[float], adapter: str) -> None:
    """Keep a run's scores beside its canaries; ``adapter`` is the digest of what was attacked."""
    write_atomic(
        path, json.dumps({"adapter": adapter, "scores": list(scores)}).encode(), mode=_PRIVATE
    )


def load_scores(path: Path, adapter: str) -> list[float]:
    """The scores of the adapter with this digest, one for each canary.

    Raises:
        CanariesUnusable: there are none for this adapter, or others can read them.
    """
    value = _read(path, "scores")
    scores = value.get("scores")
    if value.get("adapter") != adapter or not isinstance(scores, list):
        raise CanariesUnusable(
            f"{path} does not hold the scores of adapter {adapter[:12]}; run the same command "
            "again, which scores the canaries anew"
        )
    return [float(score) for score in scores]


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode & 0o777
        content = path.read_bytes()
    except FileNotFoundError:
        raise CanariesUnusable(f"there are no {what} at {path}") from None
    if mode & 0o077:
        raise CanariesUnusable(
            f"{what} {path} have mode {mode:04o}; whoever knows the coins makes the audit void. "
            f"Run `chmod 600 {path}` if you know that nobody read them"
        )
    value: object = None
    with contextlib.suppress(ValueError):
        value = json.loads(content)
    if not isinstance(value, dict):
        raise CanariesUnusable(f"{path} is damaged; restore it from a copy")
    return value
