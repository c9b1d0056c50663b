"""What mechanism events cost: (epsilon, delta) under add-or-remove-one adjacency.

The figure is that of privacy loss distributions (PLD; Koskela et al. 2020, arXiv 1906.03049), tight
within the discretisation, which adds at most 4e-6 to epsilon per step in the cases that we compared:
0.002 after 500 steps, but 0.1 after 100 000 steps of a sampling rate of 0.001. Every
figure stands between two witnesses that share no code with it: above by the Rényi bound, the
smaller of the two being reported since both are upper bounds; below by what an explicit attack
achieves, and a figure below that is an error, not an answer.

This module does not know whose events they are, nor what may be spent.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from privacy.dp.bounds import Part, attack_delta, renyi_upper_bound
from privacy.dp.composition import CACHE_BYTES, DISCRETISATION, Distributions
from privacy.dp.events import MechanismEvent
from privacy.errors import AccountingDisagrees, EventInvalid

ACCOUNTANT = f"PLD, discretisation {DISCRETISATION:g} (dp-accounting)"
GRID = 1000
"""Calibrated noise multipliers are multiples of 1/GRID."""

# Distributions of a hopeless epsilon take minutes and say nothing; at a delta near the rounding
# errors of an FFT they say nothing either. There the (looser, instant) Rényi bound is reported; it
# is an upper bound as well, so nothing is ever understated.
_PLD_UP_TO = 200.0
_PLD_FROM_DELTA = 1e-11
_LARGEST_MULTIPLIER = 1_000_000
# How far below the lower bound a figure may lie: rounding, far less than anyone would act on.
_SLACK = 1e-4

_distributions = Distributions(CACHE_BYTES)


@dataclass(frozen=True)
class PrivacyLoss:
    """(epsilon, delta) of a history: an upper bound, with what it means and who computed it."""

    epsilon: float
    delta: float
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"
    accountant: str = ACCOUNTANT


def privacy_loss(events: Iterable[MechanismEvent], delta: float) -> PrivacyLoss:
    """Upper bound on epsilon of the composition of ``events``, in any order.

    Args:
        events: the whole history, of any mechanisms; none costs 0.
        delta: in (0, 1).

    Raises:
        EventInvalid: delta outside of (0, 1).
        AccountingDisagrees: the figure is below what an attack achieves.
    """
    _check_delta(delta)
    return PrivacyLoss(_composed(_merge(events), float(delta)), float(delta))


def epsilon(events: Iterable[MechanismEvent], delta: float) -> float:
    """The epsilon of :func:`privacy_loss`, which see."""
    return privacy_loss(events, delta).epsilon


def calibrate_noise(
    events_for: Callable[[float], Iterable[MechanismEvent]], epsilon: float, delta: float
) -> float:
    """Smallest noise multiplier, on a grid of 1e-3, whose events cost at most ``epsilon``.

    Args:
        events_for: the whole plan at a noise multiplier; more noise must never cost more.
        epsilon, delta: the bound, at add-or-remove-one adjacency.

    Raises:
        EventInvalid: an impossible argument, or a bound that only absurd noise would meet.
        AccountingDisagrees: see :func:`privacy_loss`.
    """
    _check_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise EventInvalid(f"epsilon={epsilon!r} must be finite and above 0")

    def fits(point: int) -> bool:
        return privacy_loss(events_for(point / GRID), delta).epsilon <= epsilon

    def fits_surely(point: int) -> bool:
        return renyi_upper_bound(_merge(events_for(point / GRID)), delta) <= epsilon

    high = GRID
    # The Rényi bound is instant and lies above, so it brackets the search for the tight one.
    while not fits_surely(high):
        high *= 2
        if high > _LARGEST_MULTIPLIER * GRID:
            raise EventInvalid(
                f"no noise multiplier up to {_LARGEST_MULTIPLIER} gives epsilon={epsilon:g} at "
                f"delta={delta:g}; raise epsilon or delta, lower steps or sampling rate, or, with "
                "adaptive clipping, whose count has its own noise, raise the expected batch"
            )
    high = _smallest(fits_surely, 0, high)
    step = max(1, high // 16)
    low = high - step
    while low > 0 and fits(low):
        high, low = low, low - step
    return _smallest(fits, max(low, 0), high) / GRID


def _smallest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Smallest fitting grid point in (low, high], where ``high`` fits and ``low`` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise EventInvalid(f"delta={delta!r} must be between 0 and 1")


def _merge(events: Iterable[MechanismEvent]) -> tuple[Part, ...]:
    """Steps by the parameters of the dominating mechanism, sorted: any history of them is one key."""
    steps: dict[tuple[float, float], int] = defaultdict(int)
    for event, count in Counter(events).items():
        plain = event.dominated_by()
        steps[plain.sampling_rate, plain.noise_multiplier] += count * plain.steps
    return tuple((rate, noise, count) for (rate, noise), count in sorted(steps.items()))


@lru_cache(maxsize=64)
def _composed(parts: tuple[Part, ...], delta: float) -> float:
    if not parts:
        return 0.0
    cost = renyi_upper_bound(parts, delta)
    if cost <= _PLD_UP_TO and delta >= _PLD_FROM_DELTA:
        cost = min(cost, _distributions.epsilon(parts, delta))
    _refuse_refuted(parts, cost, delta)
    return cost


def _refuse_refuted(parts: tuple[Part, ...], cost: float, delta: float) -> None:
    """Refuse a figure that an attack refutes."""
    above = cost + _SLACK * max(cost, 1.0)
    if math.isfinite(above) and attack_delta(parts, above) > delta:
        raise AccountingDisagrees(
            f"the accountant says epsilon={cost:.6g} at delta={delta:g}, but an attack on these "
            f"{len(parts)} mechanisms shows more: nothing is priced by it. Report this with the "
            "ledger's mechanism events"
        )
