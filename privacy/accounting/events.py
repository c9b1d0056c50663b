"""What a mechanism did. What it costs is the accountant's business.

The meaning of an event never changes: another mechanism, or another reading of a field, is a new
class with a new name or version.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from privacy.errors import EventInvalid


@dataclass(frozen=True, order=True)
class PoissonGaussian:
    """``steps`` times: a Poisson-sampled batch, per-unit clipping, Gaussian noise.

    Attributes:
        sampling_rate: probability with which each unit enters a step's batch, in (0, 1].
        noise_multiplier: standard deviation of the noise divided by the clipping norm, above 0.
        steps: number of noisy steps, at least 1. Steps with an empty batch count.
    """

    mechanism: ClassVar[str] = "poisson_gaussian"
    version: ClassVar[int] = 1

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "noise_multiplier"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EventInvalid(f"{name}={value!r} must be a number")
            if not math.isfinite(value):
                raise EventInvalid(f"{name}={value!r} must be finite")
            # One spelling per value: an integer 1 and a float 1.0 must give the same bytes.
            object.__setattr__(self, name, float(value))
        if not 0 < self.sampling_rate <= 1:
            raise EventInvalid(f"sampling_rate={self.sampling_rate!r} must be in (0, 1]")
        if self.noise_multiplier <= 0:
            raise EventInvalid(
                f"noise_multiplier={self.noise_multiplier!r} must be above 0; "
                "without noise there is no privacy to account for"
            )
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise EventInvalid(f"steps={self.steps!r} must be a whole number of at least 1")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`event_from_json` reads back."""
        return {
            "mechanism": self.mechanism,
            "version": self.version,
            "sampling_rate": self.sampling_rate,
            "noise_multiplier": self.noise_multiplier,
            "steps": self.steps,
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            EventInvalid: another mechanism or version, a missing, unknown or impossible field.
        """
        if not isinstance(value, dict):
            raise EventInvalid(f"an event is a JSON object, not {type(value).__name__}")
        expected = {"mechanism", "version", "sampling_rate", "noise_multiplier", "steps"}
        if set(value) != expected:
            raise EventInvalid(f"an event has the fields {sorted(expected)}, not {sorted(value)}")
        if (value["mechanism"], str(value["version"])) != (cls.mechanism, str(cls.version)):
            raise EventInvalid(
                f"unknown mechanism {value['mechanism']!r} version {value['version']!r}; "
                f"known: {cls.mechanism!r} version {cls.version}"
            )
        return cls(value["sampling_rate"], value["noise_multiplier"], value["steps"])


MechanismEvent = PoissonGaussian
"""Any event that an accountant can price; a second mechanism makes this a union."""


def event_from_json(value: object) -> MechanismEvent:
    """Read an event of any known mechanism.

    Raises:
        EventInvalid: unknown or malformed.
    """
    return PoissonGaussian.from_json(value)
