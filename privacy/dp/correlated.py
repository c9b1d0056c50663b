"""Noise that is correlated over a few steps, so that part of it cancels in the sum of the steps.

The mechanism of :class:`privacy.dp.events.BandedGaussian`: step after step the rows of C⁻¹ Z, with C
lower-triangular, Toeplitz and banded. The module does not know gradients nor where randomness comes
from.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def banded_coefficients(bands: int) -> Vector:
    """First column of C: those of (1 - x)^(-1/2) up to x^(bands - 1), scaled to norm 1.

    The banded square root of the prefix-sum matrix (Kalinin and Lampert 2024, arXiv 2405.13763).
    Columns of C that its last row cuts short have a smaller norm, so 1 bounds them all; and columns
    that lie ``bands`` apart have no row in common.

    Args:
        bands: at least 1.

    Returns:
        float64 ``(bands,)``, positive and falling.

    Raises:
        ValueError: ``bands`` below 1.
    """
    if bands < 1:
        raise ValueError(f"bands={bands} must be at least 1")
    ratios = 1 - 0.5 / np.arange(1, bands)
    coefficients = np.concatenate([[1.0], np.cumprod(ratios)])
    scaled: Vector = coefficients / np.linalg.norm(coefficients)
    return scaled


class CorrelatedNoise:
    """The noise of one step after another, each float64 ``(size,)``; remembers bands - 1 of them.

    Each series starts anew: what is correlated is one call of the mechanism, never two.
    """

    def __init__(
        self, bands: int, size: int, std: float, draw: Callable[[int], npt.NDArray[np.floating]]
    ) -> None:
        """``draw(size)`` gives independent standard normal values, fresh ones at every call.

        Args:
            bands: steps over which noise is correlated; 1 is independent noise.
            size: number of coordinates.
            std: standard deviation of the noise of one coordinate of Z, noise multiplier times
                clipping norm.

        Raises:
            ValueError: ``bands`` below 1.
        """
        self._first, *self._rest = banded_coefficients(bands)
        self._size, self._std, self._draw = size, std, draw
        self._past: deque[Vector] = deque(maxlen=bands - 1)

    def step(self) -> Vector:
        """The next step's noise: w_t = (z_t - sum over j >= 1 of c_j w_(t-j)) / c_0.

        Raises:
            ValueError: ``draw`` gave another shape than ``(size,)``.
        """
        noise = self._std * np.asarray(self._draw(self._size), dtype=np.float64)
        if noise.shape != (self._size,):
            raise ValueError(f"draw gave shape {noise.shape}, not ({self._size},)")
        for coefficient, earlier in zip(self._rest, self._past, strict=False):
            noise -= coefficient * earlier
        noise /= self._first
        # Kept apart from what is handed out: a caller that scales its noise in place must not
        # change the noise of later steps.
        self._past.appendleft(noise.copy())
        return noise
