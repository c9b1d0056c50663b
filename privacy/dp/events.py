"""What a mechanism did. What it costs is the accountant's business.

The meaning of an event never changes: another mechanism, or another reading of a field, is a new
class with a new name or version. Each event names the theorem by which its privacy is that of a
composition of Poisson-sampled Gaussian mechanisms, see :meth:`MechanismEvent.dominated_by`.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from privacy.errors import EventInvalid


@dataclass(frozen=True, order=True)
class MechanismEvent(ABC):
    """Noisy steps over Poisson-sampled batches of units, each unit's contribution clipped.

    Attributes:
        sampling_rate: mean over the steps of the probability with which each unit enters a step's
            batch, in (0, 1].
        noise_multiplier: standard deviation of the noise divided by the clipping norm, above 0.
        steps: number of noisy steps, at least 1. Steps with an empty batch count.
    """

    mechanism: ClassVar[str]
    version: ClassVar[int] = 1

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise EventInvalid(
                        f"{field.name}={value!r} must be a whole number of at least 1"
                    )
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EventInvalid(f"{field.name}={value!r} must be a number")
            if not math.isfinite(value):
                raise EventInvalid(f"{field.name}={value!r} must be finite")
            if value <= 0:
                why = (
                    "; without noise there is no privacy to account for"
                    if "noise" in field.name
                    else ""
                )
                raise EventInvalid(f"{field.name}={value!r} must be above 0{why}")
            # One spelling per value: an integer 1 and a float 1.0 must give the same bytes.
            object.__setattr__(self, field.name, float(value))
        if self.sampling_rate > 1:
            raise EventInvalid(f"sampling_rate={self.sampling_rate!r} must be in (0, 1]")

    @abstractmethod
    def dominated_by(self) -> "PoissonGaussian":
        """The plain mechanism whose (epsilon, delta) hold for this one, for every delta."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`event_from_json` reads back."""
        return {"mechanism": self.mechanism, "version": self.version} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            EventInvalid: a missing, unknown or impossible field, or another version.
        """
        expected = {"mechanism", "version"} | {field.name for field in dataclasses.fields(cls)}
        if set(value) != expected:
            raise EventInvalid(f"an event has the fields {sorted(expected)}, not {sorted(value)}")
        if type(value["version"]) is not int or value["version"] != cls.version:
            raise EventInvalid(
                f"unknown version {value['version']!r} of mechanism {cls.mechanism!r}; "
                f"known: {cls.version}"
            )
        return cls(**{field.name: value[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True, order=True)
class PoissonGaussian(MechanismEvent):
    """``steps`` times: a Poisson-sampled batch, per-unit clipping, independent Gaussian noise.

    Abadi et al. 2016, arXiv 1607.00133, Algorithm 1.
    """

    mechanism: ClassVar[str] = "poisson_gaussian"

    def dominated_by(self) -> "PoissonGaussian":
        """Itself."""
        return self


@dataclass(frozen=True, order=True)
class AdaptiveClipGaussian(MechanismEvent):
    """As :class:`PoissonGaussian`, and each step also releases how many units were not clipped.

    Adaptive clipping (Andrew et al. 2021, arXiv 1905.03871, Algorithm 1): the count is centred, so
    that one unit moves it by at most 1/2.

    Attributes:
        count_noise_multiplier: standard deviation of the noise on the centred count, in units.
    """

    mechanism: ClassVar[str] = "adaptive_clip_gaussian"

    count_noise_multiplier: float

    def dominated_by(self) -> PoissonGaussian:
        """Both releases of a step are one Gaussian mechanism (their Theorem 1).

        Scaled to unit noise, a unit moves the sum by at most 1/z and the count by at most
        1/(2 s), together sqrt(1/z² + 1/(4 s²)), z and s being the two noise multipliers.
        """
        sensitivity = math.hypot(1 / self.noise_multiplier, 1 / (2 * self.count_noise_multiplier))
        return PoissonGaussian(self.sampling_rate, 1 / sensitivity, self.steps)


@dataclass(frozen=True, order=True)
class BandedGaussian(MechanismEvent):
    """Noise correlated over ``bands`` consecutive steps, with cyclic Poisson sampling.

    Each unit belongs to one of ``bands`` groups, drawn without regard to anything in it; step t
    samples from group t mod bands alone, with probability ``bands * sampling_rate``. The noise of
    the steps is C⁻¹ Z, C lower-triangular with ``bands`` bands and columns of norm at most 1.

    Attributes:
        bands: at least 1 (then equal to :class:`PoissonGaussian`); bands * sampling_rate is at
            most 1.
    """

    mechanism: ClassVar[str] = "banded_gaussian"

    bands: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bands * self.sampling_rate > 1:
            raise EventInvalid(
                f"bands={self.bands} times sampling_rate={self.sampling_rate!r} must be at most 1: "
                "a step samples one group of units, each with that probability"
            )

    def dominated_by(self) -> PoissonGaussian:
        """Each unit takes part in at most ceil(steps / bands) steps, whose columns do not overlap.

        Choquette-Choo et al. 2023, arXiv 2306.08153, Theorem 4.
        """
        taken = -(-self.steps // self.bands)
        return PoissonGaussian(self.bands * self.sampling_rate, self.noise_multiplier, taken)


_KNOWN: dict[str, type[MechanismEvent]] = {
    kind.mechanism: kind for kind in (PoissonGaussian, AdaptiveClipGaussian, BandedGaussian)
}


def event_from_json(value: object) -> MechanismEvent:
    """Read an event of any known mechanism.

    Raises:
        EventInvalid: unknown or malformed.
    """
    if not isinstance(value, dict):
        raise EventInvalid(f"an event is a JSON object, not {type(value).__name__}")
    kind = _KNOWN.get(value["mechanism"]) if isinstance(value.get("mechanism"), str) else None
    if kind is None:
        raise EventInvalid(
            f"unknown mechanism {value.get('mechanism')!r}; known: {', '.join(sorted(_KNOWN))}"
        )
    return kind.from_json(value)
