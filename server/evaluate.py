"""Evaluation on public held-out records: before against after, each figure with its interval.

The intervals say how far the figure could be off because the held-out records are a sample; they say
nothing about another run with other noise.

Public data only. Evaluating on private records would be a release of its own, which nobody has
accounted for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from privacy.dp.adapter_config import Adapter, AdapterConfig
from privacy.dp.encode import Example
from privacy.dp.errors import DpError
from server.errors import EvaluationInvalid

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
BOOTSTRAP_SEED = 20260101
BOOTSTRAP_SAMPLES = 2000
_BATCH = 50


class Scorer(Protocol):
    """What evaluation needs of :class:`privacy.dp.trainer.LoraTrainer`."""

    def losses(
        self, examples: Sequence[Example], config: AdapterConfig, adapter: Adapter | None
    ) -> list[float]:
        """Mean completion loss of each example, nats per token."""
        ...

    def choose(
        self,
        prompts: Sequence[str],
        candidates: Sequence[str],
        config: AdapterConfig,
        adapter: Adapter | None,
        max_tokens: int,
    ) -> list[int]:
        """For each prompt the index of the likeliest candidate."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A figure with its two-sided 95 % confidence interval."""

    value: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, Any]:
        """``{name: value, name_95: [low, high]}``, ready to be merged into a JSON object."""
        return {name: self.value, f"{name}_95": [self.low, self.high]}


@dataclass(frozen=True)
class Accuracy:
    """Share of prompts with the right candidate chosen, of ``items`` prompts.

    ``before`` and ``after`` have Wilson score intervals. ``gained`` prompts were wrong before and
    right after, ``lost`` the other way round; ``p_value`` is McNemar's exact two-sided test of
    equal accuracy on these pairs.
    """

    items: int
    before: Estimate
    after: Estimate
    gained: int
    lost: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object, with the methods named."""
        return {
            "items": self.items,
            **self.before.named("before"),
            **self.after.named("after"),
            "interval": "Wilson score, 95 %",
            "gained": self.gained,
            "lost": self.lost,
            "p_value": self.p_value,
            "test": "McNemar, exact, two-sided",
        }


@dataclass(frozen=True)
class Loss:
    """Mean completion loss over ``items`` examples, nats per token of each example's own mean.

    ``before`` and ``after`` have normal intervals; ``change`` (after minus before, paired) has a
    bootstrap percentile interval.
    """

    items: int
    before: Estimate
    after: Estimate
    change: Estimate

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object, with the methods named."""
        return {
            "items": self.items,
            **self.before.named("before"),
            **self.after.named("after"),
            "interval": "normal, 95 %",
            **self.change.named("change"),
            "change_interval": (
                f"paired bootstrap percentile, 95 %, {BOOTSTRAP_SAMPLES} samples, "
                f"seed {BOOTSTRAP_SEED}"
            ),
        }


@dataclass(frozen=True)
class EvaluationResult:
    """What the public data say about an adapter; a part that had no data is None."""

    accuracy: Accuracy | None
    loss: Loss | None

    def to_json(self) -> dict[str, Any]:
        """``{"accuracy": …, "loss": …}``, what there is of them; a release stores it as its metrics."""
        parts = {"accuracy": self.accuracy, "loss": self.loss}
        return {name: part.to_json() for name, part in parts.items() if part is not None}


@dataclass(frozen=True)
class PublicSet:
    """Held-out public records.

    ``prompts`` with the index of the right one of ``candidates`` in ``answers``, for accuracy;
    ``examples`` for the loss. Either may be empty.
    """

    prompts: Sequence[str] = ()
    answers: Sequence[int] = ()
    candidates: Sequence[str] = ()
    examples: Sequence[Example] = ()

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.answers):
            raise EvaluationInvalid(
                f"{len(self.prompts)} prompts need as many answers, not {len(self.answers)}"
            )
        if self.prompts and len(self.candidates) < 2:
            raise EvaluationInvalid(
                f"choosing needs at least 2 candidates, not {len(self.candidates)}"
            )
        for place, answer in enumerate(self.answers):
            if not 0 <= answer < len(self.candidates):
                raise EvaluationInvalid(
                    f"answers[{place}]={answer} is none of the {len(self.candidates)} candidates"
                )
        if not self.prompts and not self.examples:
            raise EvaluationInvalid("an evaluation needs at least one prompt or example")

    def to_json(self) -> dict[str, Any]:
        """The set as a JSON object."""
        return {
            "prompts": list(self.prompts),
            "answers": list(self.answers),
            "candidates": list(self.candidates),
            "examples": [[list(e.input_ids), e.completion_start] for e in self.examples],
        }

    @classmethod
    def from_json(cls, value: Any) -> "PublicSet":
        """Read :meth:`to_json`'s object.

        Raises:
            EvaluationInvalid: it is none.
        """
        try:
            examples = [Example(tuple(ids), start) for ids, start in value["examples"]]
            return cls(value["prompts"], value["answers"], value["candidates"], examples)
        except (KeyError, TypeError, ValueError, DpError) as error:
            raise EvaluationInvalid(f"no set of public records: {error}") from None


def evaluate(
    scorer: Scorer,
    public: PublicSet,
    *,
    config: AdapterConfig,
    max_tokens: int,
    after: Mapping[str, npt.NDArray[np.float32]],
    before: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> EvaluationResult:
    """Compare the adapter ``after`` with ``before`` (None: the base model alone)."""
    accuracy = loss = None
    if public.prompts:
        chosen = [
            scorer.choose(public.prompts, public.candidates, config, adapter, max_tokens)
            for adapter in (before, after)
        ]
        right = [[c == a for c, a in zip(choice, public.answers, strict=True)] for choice in chosen]
        accuracy = compare_accuracy(*right)
    if public.examples:
        loss = compare_losses(
            scorer.losses(public.examples, config, before),
            scorer.losses(public.examples, config, after),
        )
    return EvaluationResult(accuracy, loss)


def compare_accuracy(before: Sequence[bool], after: Sequence[bool]) -> Accuracy:
    """Paired comparison of right and wrong answers to the same prompts.

    Raises:
        EvaluationInvalid: no item, or not as many before as after.
    """
    items = _paired(before, after)
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    return Accuracy(
        items=items,
        before=wilson(sum(before), items),
        after=wilson(sum(after), items),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )


def compare_losses(before: Sequence[float], after: Sequence[float]) -> Loss:
    """Paired comparison of the losses of the same examples.

    Raises:
        EvaluationInvalid: fewer than 2 examples, not as many before as after, or a loss that is not finite.
    """
    items = _paired(before, after)
    if items < 2:
        raise EvaluationInvalid("one example has no interval; give at least 2")
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise EvaluationInvalid("a loss is not finite; the adapter cannot be evaluated")
    change = second - first
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    # In batches: all samples at once would need memory in proportion to the number of examples.
    means = np.concatenate(
        [
            change[rng.integers(0, items, (_BATCH, items))].mean(axis=1)
            for _ in range(BOOTSTRAP_SAMPLES // _BATCH)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Loss(
        items=items,
        before=normal(first),
        after=normal(second),
        change=Estimate(float(change.mean()), float(low), float(high)),
    )


def wilson(successes: int, items: int) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4)."""
    share, square = successes / items, Z95 * Z95
    centre = (share + square / (2 * items)) / (1 + square / items)
    half = (Z95 / (1 + square / items)) * math.sqrt(
        share * (1 - share) / items + square / (4 * items * items)
    )
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def normal(values: npt.NDArray[np.float64]) -> Estimate:
    """A mean with its normal 95 % interval; at least two values."""
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value that gains and losses are equally likely (McNemar 1947).

    Twice the smaller tail of Binomial(gained + lost, 1/2), at most 1.
    """
    pairs = gained + lost
    tail = sum(math.comb(pairs, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


def _paired(before: Sequence[Any], after: Sequence[Any]) -> int:
    if not before or len(before) != len(after):
        raise EvaluationInvalid(
            f"a paired comparison needs the same items, not {len(before)} and {len(after)}"
        )
    return len(before)
