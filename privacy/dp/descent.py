"""Optimiser steps from a plan: sample, clip, sum, add noise, step.

Every figure comes from one frozen plan, so that what is done and what is accounted for cannot
disagree. The module knows tensors and units; it knows no model (see
:class:`~privacy.dp.session.Session`).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.dp.clipping import ClippedSum, clip_and_sum
from privacy.dp.correlated import CorrelatedNoise
from privacy.dp.encode import AnyExample, Unit
from privacy.dp.plan import DpPlan, PublicPlan
from privacy.dp.randomness import gaussian_noise, poisson_sample, secure_generator

UNIT_BYTES = 2**28
"""Memory for the gradients of units that have several examples."""

TARGET_QUANTILE = 0.5
QUANTILE_RATE = 0.2
"""Adaptive clipping's gamma and step size (Andrew et al. 2021, arXiv 1905.03871, section 3)."""

Rows = tuple[Sequence[int], torch.Tensor]
"""Which of the examples that were asked for the rows belong to, and ``(rows, parameters)``."""

RowGradientsOf = Callable[[Sequence[AnyExample], Sequence[float]], Iterator[Rows]]
"""Gradients of examples, each loss counted with its weight, micro-batch after micro-batch."""


class Descent:
    """Takes the steps of one plan on one flat vector of parameters.

    ``flat``: float32 ``(parameters,)``, moved in place. ``replaced`` counts units whose gradient
    was not finite; it is private.
    """

    def __init__(
        self,
        flat: torch.Tensor,
        gradients: RowGradientsOf,
        units: Sequence[Unit],
        plan: DpPlan | PublicPlan,
        learning_rate: float,
    ) -> None:
        self._flat = flat
        self._gradients = gradients
        self._units = units
        self._plan = plan
        self._rng = secure_generator()
        self._optimiser = _optimiser(flat, plan, learning_rate)
        self._step = 0
        self.replaced = 0
        self.clipping_norm = math.inf
        if isinstance(plan, DpPlan):
            self.clipping_norm = plan.clipping_norm
            self._noise = CorrelatedNoise(plan.bands, flat.numel(), 1.0, self._draw)
            # Drawn without regard to anything in a unit, as the event of the plan asks.
            self._groups = self._rng.integers(0, plan.bands, len(units))

    def step(self, chosen: Sequence[int] | None = None) -> None:
        """One step on a batch that is sampled as the plan says.

        ``chosen``: exactly these units instead, for tests and measurements: no guarantee.
        """
        batch = [self._units[i] for i in (self._sample() if chosen is None else chosen)]
        examples, owners, weights = self._drawn(batch)
        if isinstance(self._plan, PublicPlan):
            total = torch.zeros_like(self._flat)
            for _, rows in self._gradients(examples, weights):
                total += rows.sum(0)
            self._flat.grad = total / self._plan.expected_batch_size
        else:
            self._flat.grad = self._noised(self._plan, len(batch), examples, owners, weights)
        self._optimiser.step()
        self._flat.grad = None
        self._step += 1

    def _sample(self) -> Sequence[int]:
        plan = self._plan
        bands = plan.bands if isinstance(plan, DpPlan) else 1
        rate = min(1.0, bands * plan.sampling_rate)
        drawn = poisson_sample(len(self._units), rate, self._rng)
        if bands == 1:
            return drawn
        return [i for i in drawn if self._groups[i] == self._step % bands]

    def _drawn(self, batch: Sequence[Unit]) -> tuple[list[AnyExample], list[int], list[float]]:
        """Examples of the batch, the position of the unit of each, and its weight."""
        examples: list[AnyExample] = []
        owners: list[int] = []
        weights: list[float] = []
        for owner, unit in enumerate(batch):
            taken: Sequence[AnyExample] = unit
            if len(unit) > self._plan.examples_per_unit:
                picked = self._rng.choice(len(unit), self._plan.examples_per_unit, replace=False)
                taken = [unit[i] for i in picked]
            examples += taken
            owners += [owner] * len(taken)
            weights += [1 / len(taken)] * len(taken)
        return examples, owners, weights

    def _noised(
        self,
        plan: DpPlan,
        units: int,
        examples: Sequence[AnyExample],
        owners: Sequence[int],
        weights: Sequence[float],
    ) -> torch.Tensor:
        # A batch without any unit passes no model; its sum is zero, its noise is not.
        total = torch.zeros_like(self._flat)
        within = 0
        for part in self._clipped(plan, units, examples, owners, weights):
            total += part.total[0]
            within += part.within
            self.replaced += part.non_finite
        # The noise is made and added in float64 on the CPU; see gaussian_noise.
        noise = self._noise.step() * (plan.noise_multiplier * self.clipping_norm)
        noised = total.cpu().double() + torch.from_numpy(noise)
        if plan.clipping == "adaptive":
            self._adapt(plan, within - units / 2)
        return (noised / plan.expected_batch_size).to(total.device, torch.float32)

    def _clipped(
        self,
        plan: DpPlan,
        units: int,
        examples: Sequence[AnyExample],
        owners: Sequence[int],
        weights: Sequence[float],
    ) -> Iterator[ClippedSum]:
        if len(examples) == units:  # one example to a unit: rows are units
            for _, rows in self._gradients(examples, weights):
                yield clip_and_sum([rows], self.clipping_norm, plan.clipping)
            return
        at_once = max(1, UNIT_BYTES // (4 * self._flat.numel()))
        for start in range(0, units, at_once):
            count = min(at_once, units - start)
            own = [i for i, owner in enumerate(owners) if start <= owner < start + count]
            sums = torch.zeros(count, self._flat.numel(), device=self._flat.device)
            parts = self._gradients([examples[i] for i in own], [weights[i] for i in own])
            for indices, rows in parts:
                owner = torch.tensor([owners[own[i]] - start for i in indices], device=sums.device)
                sums.index_add_(0, owner, rows)
            yield clip_and_sum([sums], self.clipping_norm, plan.clipping)

    def _adapt(self, plan: DpPlan, centred_count: float) -> None:
        """Move the clipping norm towards the median norm by a noised, centred count."""
        noise = float(gaussian_noise(1, plan.count_noise_multiplier, self._rng)[0])
        share = (centred_count + noise) / plan.expected_batch_size + 0.5
        share = min(1.0, max(0.0, share))
        self.clipping_norm *= math.exp(-QUANTILE_RATE * (share - TARGET_QUANTILE))

    def _draw(self, size: int) -> NDArray[np.float64]:
        return gaussian_noise(size, 1.0, self._rng)


def _optimiser(
    flat: torch.Tensor, plan: DpPlan | PublicPlan, learning_rate: float
) -> torch.optim.Optimizer:
    if plan.optimiser == "sgd":
        return torch.optim.SGD([flat], lr=learning_rate, momentum=0.9)
    return torch.optim.Adam([flat], lr=learning_rate, betas=(0.9, 0.98))
