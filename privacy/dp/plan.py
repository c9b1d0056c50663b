"""The plan of one differentially private training call: what must agree, in one frozen object.

Sampler, clipping, noise and accounting event are read from the same :class:`DpPlan`, so that they
cannot disagree. Every field is public: none is computed from private records. The module does not
know models, files or departments.
"""

import math
from dataclasses import dataclass
from typing import Literal

from privacy.dp.errors import InvalidPlan
from privacy.dp.events import (
    AdaptiveClipGaussian,
    BandedGaussian,
    MechanismEvent,
    PoissonGaussian,
)
from privacy.errors import EventInvalid

Clipping = Literal["flat", "automatic", "adaptive"]
Optimiser = Literal["adam", "sgd"]

COUNT_NOISE_SHARE = 0.05
"""Adaptive clipping: noise on the count of unclipped units, over the expected batch size (the value
that Andrew et al. 2021, section 3.1, recommend)."""


@dataclass(frozen=True)
class DpPlan:
    """DP-SGD with Poisson sampling (Abadi et al. 2016, arXiv 1607.00133, Algorithm 1).

    ``sampling_rate``
        Probability with which each unit independently enters a step, in (0, 1]; with ``bands``
        above 1 the mean of it over the steps.
    ``steps``
        Noised steps of this call; an empty batch is a step too.
    ``noise_multiplier``
        Standard deviation of the noise in units of the clipping norm.
    ``clipping_norm``
        Bound C on the L2 norm of one unit's gradient over all trained tensors together; with
        adaptive clipping its value at the first step.
    ``expected_batch_size``
        Public normaliser of the noised sum. It is never the size of the drawn batch, which is
        private, nor derived from the number of records.
    ``clipping``
        ``"flat"``: scale by min(1, C / norm). ``"automatic"``: by C / (norm + 0.01), so that small
        gradients count too (Bu et al. 2022, arXiv 2206.07136). ``"adaptive"``: flat, with a C that
        follows the median norm (Andrew et al. 2021, arXiv 1905.03871).
    ``optimiser``
        DP-Adam or DP-SGD: what is done with the noised gradient, which costs nothing more.
    ``bands``
        Steps over which the noise is correlated; 1 is independent noise.
    ``examples_per_unit``
        Of each sampled unit at most so many examples are drawn; their mean is the contribution.

    Raises :class:`~privacy.dp.errors.InvalidPlan` for a value outside its bounds.
    """

    sampling_rate: float
    steps: int
    noise_multiplier: float
    clipping_norm: float
    expected_batch_size: float
    clipping: Clipping = "flat"
    optimiser: Optimiser = "adam"
    bands: int = 1
    examples_per_unit: int = 1

    def __post_init__(self) -> None:
        positive = {
            "noise_multiplier": self.noise_multiplier,
            "clipping_norm": self.clipping_norm,
            "expected_batch_size": self.expected_batch_size,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise InvalidPlan(f"{name}={value} must be a finite number above 0")
        if not 0 < self.sampling_rate <= 1:
            raise InvalidPlan(f"sampling_rate={self.sampling_rate} must be above 0 and at most 1")
        for name in ("steps", "bands", "examples_per_unit"):
            if getattr(self, name) < 1:
                raise InvalidPlan(f"{name}={getattr(self, name)} must be at least 1")
        try:
            self.event()
        except EventInvalid as error:
            raise InvalidPlan(str(error)) from None

    def event(self) -> MechanismEvent:
        """The mechanism event that this plan costs, adjacency add-or-remove-one."""
        return mechanism_event(
            sampling_rate=self.sampling_rate,
            steps=self.steps,
            noise_multiplier=self.noise_multiplier,
            expected_batch_size=self.expected_batch_size,
            clipping=self.clipping,
            bands=self.bands,
        )

    @property
    def count_noise_multiplier(self) -> float:
        """Adaptive clipping: standard deviation of the noise on the centred count, in units."""
        return _count_noise(self.expected_batch_size)


@dataclass(frozen=True)
class PublicPlan:
    """Ordinary training on public data: the same sampler and optimiser, no clipping, no noise.

    It promises nothing about what it was given and has no event. Never for a department's records.
    """

    sampling_rate: float
    steps: int
    expected_batch_size: float
    optimiser: Optimiser = "adam"
    examples_per_unit: int = 1


def mechanism_event(
    *,
    sampling_rate: float,
    steps: int,
    noise_multiplier: float,
    expected_batch_size: float,
    clipping: Clipping,
    bands: int,
) -> MechanismEvent:
    """The one way from a mechanism's public parameters to the event that it costs.

    Raises:
        EventInvalid: parameters that no mechanism has, or adaptive clipping with correlated noise,
            for which no event is defined.
    """
    if clipping == "adaptive":
        if bands > 1:
            raise EventInvalid(
                f"bands={bands} cannot be combined with adaptive clipping: a clipping norm that "
                "changes within the correlated steps has no accounted guarantee; choose one of them"
            )
        count_noise = _count_noise(expected_batch_size)
        return AdaptiveClipGaussian(sampling_rate, noise_multiplier, steps, count_noise)
    if bands > 1:
        return BandedGaussian(sampling_rate, noise_multiplier, steps, bands)
    return PoissonGaussian(sampling_rate, noise_multiplier, steps)


def _count_noise(expected_batch_size: float) -> float:
    return COUNT_NOISE_SHARE * expected_batch_size
