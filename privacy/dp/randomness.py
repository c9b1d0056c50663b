"""Randomness that privacy rests on: cryptographically strong, seeded by the operating system.

A statistical generator (Mersenne Twister, PCG) would let an observer who recovers its state
subtract the noise. Every call of :func:`secure_generator` draws a fresh 256-bit ChaCha20 key from
the operating system, so no stream is ever continued after a restart or shared between nodes.
"""

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from randomgen import ChaCha


def secure_generator() -> np.random.Generator:
    """A NumPy generator over a ChaCha20 key stream (RFC 8439) with a fresh 256-bit key."""
    return np.random.Generator(ChaCha(key=secrets.randbits(256), rounds=20))


def poisson_sample(units: int, sampling_rate: float, rng: np.random.Generator) -> Sequence[int]:
    """Indices of one Poisson-sampled batch: each of ``units`` enters independently.

    The batch may be empty; its size is Binomial(units, sampling_rate) and private.
    """
    indices: list[int] = np.flatnonzero(rng.random(units) < sampling_rate).tolist()
    return indices


def gaussian_noise(size: int, std: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent N(0, std²) draws of shape ``(size,)`` in float64.

    Floating point: the draws are made and added to the sum in float64, and only the noised sum is
    rounded to float32, whose grid is then far below the noise. This blunts attacks on the least
    significant bits (Mironov 2012, doi 10.1145/2382196.2382264) but is not a proof against them.
    """
    return rng.standard_normal(size) * std
