"""The plan of one differentially private training call: what must agree, in one frozen object.

Sampler, clipping, noise and accounting event are read from the same :class:`DpPlan`, so that they
cannot disagree. Every field is public: none is computed from private records. The module does not
know models, files or departments.
"""

import math
from dataclasses import dataclass

from privacy.accounting.events import PoissonGaussian
from privacy.dp.errors import InvalidPlan


@dataclass(frozen=True)
class DpPlan:
    """DP-SGD with Poisson sampling (Abadi et al. 2016, arXiv 1607.00133, Algorithm 1).

    ``sampling_rate``
        Probability with which each unit independently enters a step, in (0, 1].
    ``steps``
        Noised steps of this call; an empty batch is a step too.
    ``noise_multiplier``
        Standard deviation of the noise in units of ``clipping_norm``.
    ``clipping_norm``
        Bound C on the L2 norm of one unit's gradient over all trained tensors together.
    ``expected_batch_size``
        Public normaliser of the noised sum. It is never the size of the drawn batch, which is
        private, nor derived from the number of records.

    Raises :class:`~privacy.dp.errors.InvalidPlan` for a value outside its bounds.
    """

    sampling_rate: float
    steps: int
    noise_multiplier: float
    clipping_norm: float
    expected_batch_size: float

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
        if self.steps < 1:
            raise InvalidPlan(f"steps={self.steps} must be at least 1")

    def event(self) -> PoissonGaussian:
        """The mechanism event that this plan costs, adjacency add-or-remove-one."""
        return PoissonGaussian(
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps,
        )

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of the summed gradient."""
        return self.noise_multiplier * self.clipping_norm
