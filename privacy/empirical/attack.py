"""Membership scores: the higher, the likelier the canary was trained on.

A score must not depend on who was included other than through what was released. The module knows
no canary file and no bound.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.dp.adapter_config import Adapter, AdapterConfig
from privacy.dp.encode import Example

Floats = NDArray[np.float64]


class LossModel(Protocol):
    """What the attack needs of :class:`privacy.dp.trainer.LoraTrainer`."""

    def losses(
        self, examples: Sequence[Example], config: AdapterConfig, adapter: Adapter | None
    ) -> list[float]:
        """Mean completion loss of each example, nats per token; ``None``: the base model alone."""
        ...


def loss_scores(
    model: LossModel, examples: Sequence[Example], config: AdapterConfig, adapter: Adapter
) -> list[float]:
    """By how much the adapter lowered each example's loss, nats per token.

    The base model's loss calibrates for how hard an example is (Watson et al. 2022,
    arXiv 2111.08440). This is what anybody can compute who holds the release.
    """
    before = model.losses(examples, config, None)
    after = model.losses(examples, config, adapter)
    return [b - a for b, a in zip(before, after, strict=True)]


def gradient_scores(noised: Floats, directions: Floats) -> Floats:
    """Inner products of the noised sums with the canaries' gradient directions, shape ``(m,)``.

    ``noised``: ``(steps, parameters)``, what the mechanism released. ``directions``:
    ``(m, parameters)``, chosen beforehand. For whoever sees every noised step (Nasr et al. 2023,
    arXiv 2302.07956, section 4), the strongest observer that the guarantee covers.
    """
    scores: Floats = directions @ noised.sum(axis=0)
    return scores
