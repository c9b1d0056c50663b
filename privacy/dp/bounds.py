"""Two bounds on epsilon that owe nothing to privacy loss distributions: the accountant's witnesses.

Both in closed form, in numpy. The module does not know what an event is: a :data:`Part` is
(sampling rate, noise multiplier, steps) of a Poisson-sampled Gaussian mechanism, adjacency
add-or-remove-one.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr  # type: ignore[import-untyped]

Part = tuple[float, float, int]
Vector = npt.NDArray[np.float64]

# Whole orders only: their sum is finite and exact, that of fractional ones is a series.
_ORDERS = np.array([*range(2, 65), 80, 96, 128, 192, 256, 512, 1024], dtype=np.float64)
_TERMS = np.arange(2, _ORDERS[-1] + 1)
with np.errstate(all="ignore"):
    # log C(order, k) for k = 2 ..., minus infinity where k is beyond the order.
    _LOG_BINOMIAL = np.where(
        _ORDERS[:, None] < _TERMS,
        -np.inf,
        gammaln(_ORDERS[:, None] + 1)
        - gammaln(_TERMS + 1)
        - gammaln(np.maximum(_ORDERS[:, None] - _TERMS, 0) + 1),
    )


def renyi_upper_bound(parts: Sequence[Part], delta: float) -> float:
    """Upper bound on epsilon by Rényi differential privacy of orders 2 to 1024.

    Mironov et al. 2019, arXiv 1908.10530, section 3.3; turned into epsilon by Canonne et al. 2020,
    arXiv 2004.00010, proposition 12.
    """
    if not parts:
        return 0.0
    # Summed in the order of ``parts``, so that the same parts give the same bits.
    total = np.zeros_like(_ORDERS)
    for rate, noise, steps in parts:
        total += steps * _renyi(rate, noise)
    # delta <= sqrt(1 - exp(-KL)), and the divergence of order 2 is at least KL.
    if -math.expm1(-float(total[0])) < delta**2:
        return 0.0
    costs = total + np.log1p(-1 / _ORDERS) - np.log(delta * _ORDERS) / (_ORDERS - 1)
    return max(float(np.min(costs)), 0.0)


@lru_cache(maxsize=4096)
def _renyi(rate: float, noise: float) -> Vector:
    """Rényi divergence of one step at each order."""
    if rate == 1.0:
        return _ORDERS / (2 * noise**2)
    # A(order) - 1 = sum over k >= 2 of C(order, k) (1 - q)^(order - k) q^k (exp((k² - k)/2σ²) - 1),
    # because the terms without the exponential sum to 1. Taking that 1 off keeps every digit where
    # the rate is tiny; a difference of rounded logarithms could come out at or below 0.
    powers = (_TERMS**2 - _TERMS) / (2 * noise**2)
    with np.errstate(divide="ignore"):
        growth = powers + np.log(-np.expm1(-powers))
    left = np.maximum(_ORDERS[:, None] - _TERMS, 0)
    terms = _LOG_BINOMIAL + left * math.log1p(-rate) + _TERMS * math.log(rate) + growth
    bound: Vector = np.logaddexp(0.0, _log_sum(terms)) / (_ORDERS - 1)
    return bound


def _log_sum(terms: Vector) -> Vector:
    """log of the sum of exp over the last axis."""
    largest = np.max(terms, axis=-1, keepdims=True)
    total: Vector = np.log(np.sum(np.exp(terms - largest), axis=-1)) + largest[..., 0]
    return total


def attack_delta(parts: Sequence[Part], epsilon: float) -> float:
    """Lower bound on the delta of ``parts`` at ``epsilon``: what two explicit attacks achieve.

    The attacker compares the sum of one part's noisy outputs, or the largest of them, to a
    threshold. Exact for one step and for full batches, otherwise somewhat below the truth. A
    composition is attacked through its dearest part, and as if every step were as private as the
    most private one: less noise and a larger sampling rate only make the attack easier.
    """
    if not parts:
        return 0.0
    dearest = max(parts, key=lambda part: part[0] / part[1] * math.sqrt(part[2]))
    pooled = (
        min(rate for rate, _, _ in parts),
        max(noise for _, noise, _ in parts),
        sum(steps for _, _, steps in parts),
    )
    attacks = (_sum_attack, _largest_attack)
    return max(attack(part, epsilon) for part in {dearest, pooled} for attack in attacks)


def _sum_attack(part: Part, epsilon: float) -> float:
    """P(S) - exp(epsilon) Q(S) for S = {sum of outputs above a threshold}.

    With the unit the sum is N(b, T σ²), b binomial(T, q); without it N(0, T σ²). The likelihood
    ratio grows with the sum, so the best threshold is where it is exp(epsilon); any other is a
    valid, weaker attack.
    """
    rate, noise, steps = part
    scale = noise * math.sqrt(steps)
    counts, weights = _binomial(steps, rate)
    shifts = counts / scale

    def log_ratio(threshold: float) -> float:
        return float(_log_sum(weights + shifts * (threshold - shifts / 2)))

    low, high = 0.0, 1.0
    while log_ratio(high) < epsilon:
        low, high = high, 2 * high
        if high > 1e9:
            return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if log_ratio(middle) < epsilon else (low, middle)
    with_unit = float(_log_sum(weights + log_ndtr(shifts - high)))
    without = float(log_ndtr(-high))
    return math.exp(with_unit) - math.exp(min(epsilon + without, 0.0))


def _largest_attack(part: Part, epsilon: float) -> float:
    """P(S) - exp(epsilon) Q(S) for S = {some output above a threshold}, the best of a grid."""
    rate, noise, steps = part
    thresholds = np.linspace(0.0, 1 / noise + 10.0, 200)
    alone = log_ndtr(-thresholds)
    above = (1 - rate) * np.exp(alone) + rate * np.exp(log_ndtr(1 / noise - thresholds))
    with_unit = -np.expm1(steps * np.log1p(-np.minimum(above, 0.5)))
    # At most the sum over the steps; an exact 1 - (1 - Q)^T would round far tails down to 0, and
    # an attack that never errs refutes every epsilon.
    without = math.log(steps) + alone
    return float(np.max(with_unit - np.exp(np.minimum(epsilon + without, 1.0))))


def _binomial(steps: int, rate: float) -> tuple[Vector, Vector]:
    """Numbers of successes within nine standard deviations, and the logs of their probabilities.

    What is left out only weakens the attack.
    """
    if rate == 1.0:
        return np.array([float(steps)]), np.zeros(1)
    mean, spread = steps * rate, math.sqrt(steps * rate * (1 - rate))
    first = max(0, math.floor(mean - 9 * spread - 9))
    last = min(steps, math.ceil(mean + 9 * spread + 9))
    counts = np.arange(first, last + 1, dtype=np.float64)
    logs = (
        gammaln(steps + 1.0)
        - gammaln(counts + 1)
        - gammaln(steps - counts + 1)
        + counts * math.log(rate)
        + (steps - counts) * math.log1p(-rate)
    )
    # Rounding in gammaln must not add probability.
    return counts, logs - max(float(_log_sum(logs)), 0.0)
