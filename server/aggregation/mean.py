"""The mean of updates as they arrive, in memory that does not grow with their number."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from privacy.exchange import Array

Exact = npt.NDArray[np.float64]


class RunningMean:
    """The uniform mean of the updates added, each tensor by name.

    The sum is exact, so that neither the order of the nodes' answers nor a resumed round changes a
    bit of the mean. It is kept as an expansion of float64 arrays whose exact sum is the sum of the
    updates (Shewchuk 1997, Adaptive Precision Floating-Point Arithmetic): two arrays where values
    are of like magnitude, and seven for a thousand float32 updates of any values at all.

    With one frozen A the mean of B is exactly the mean of the products B A (FFA-LoRA,
    arXiv 2403.12313, section 3). With A and B trained it is plain averaging of each factor, the
    baseline, which is not the mean of the products.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[Exact]] = {}
        self._count = 0

    def add(self, department: str, update: Mapping[str, Array]) -> None:
        """Add an update; nothing of it is kept but the sum.

        Raises:
            ValueError: other names or shapes than those of the first update, or a value that is
                not finite; the sum is then unchanged.
        """
        shapes = {name: parts[0].shape for name, parts in self._sums.items()}
        found = {name: tensor.shape for name, tensor in update.items()}
        if self._count and found != shapes:
            differing = sorted({name for name, _ in shapes.items() ^ found.items()})
            raise ValueError(f"the update of {department!r} differs in tensors {differing}")
        for name, tensor in update.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name!r} of {department!r} is not finite")
        for name, tensor in update.items():
            _grow(self._sums.setdefault(name, []), tensor.astype(np.float64))
        self._count += 1

    def result(self) -> dict[str, Array]:
        """The mean, float32: the sum rounded once to float64, divided, rounded to float32.

        Raises:
            ValueError: nothing was added.
        """
        if not self._count:
            raise ValueError("the mean of no update at all is undefined")
        return {
            name: (_rounded(parts) / self._count).astype(np.float32)
            for name, parts in self._sums.items()
        }


def _grow(parts: list[Exact], value: Exact) -> None:
    """Add ``value`` to the expansion without any loss (Knuth's TwoSum, array by array)."""
    for place, part in enumerate(parts):
        total = part + value
        shifted = total - part
        value = (part - (total - shifted)) + (value - shifted)
        parts[place] = total
        if not value.any():
            return
    parts.append(value)


def _rounded(parts: list[Exact]) -> Exact:
    """The float64 next to the exact sum: it depends on the sum alone, not on how it is expanded."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    if len(parts) > 2:
        # Rounding twice could go wrong where three parts overlap; few entries have a third one.
        third = np.any([part != 0 for part in parts[2:]], axis=0)
        for place in map(tuple, np.argwhere(third)):
            total[place] = math.fsum(float(part[place]) for part in parts)
    return total
