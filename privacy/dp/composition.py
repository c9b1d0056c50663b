"""Privacy loss distributions of compositions, kept between questions: one more round is cheap.

The only module that knows ``dp_accounting``. A history grows by one event at a time, and all but
one of its distributions are those of the last question. They are kept by what they are the
distribution of, and each is a function of that alone: the tree below fixes the order of composition
by the parts themselves, so that what is in the cache, or was dropped from it, cannot change a bit
of an answer.
"""

import hashlib
import math
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from dp_accounting.pld import privacy_loss_distribution as pld

from privacy.dp.bounds import Part

DISCRETISATION = 1e-3
CACHE_BYTES = 128 * 2**20


class Distributions:
    """Composed distributions, at most ``limit`` bytes of them; those not used for longest go first.

    Safe to share between threads: two that miss at once compute the same value twice.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, tuple[pld.PrivacyLossDistribution, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are held now."""
        return self._bytes

    def epsilon(self, parts: Sequence[Part], delta: float) -> float:
        """Upper bound on epsilon of distinct, sorted ``parts`` together.

        Doroshenko et al. 2022, arXiv 2207.04380: distributions rounded pessimistically, composed by
        FFT, tails beyond 1e-15 counted as infinite loss. Infinite where delta is below that.
        """
        found = float(self._composed(tuple(parts), 0).get_epsilon_for_delta(delta))
        # A value that is no number must never pass for a small one.
        return math.inf if math.isnan(found) else max(found, 0.0)

    def _composed(self, parts: tuple[Part, ...], depth: int) -> pld.PrivacyLossDistribution:
        """A binary tree whose forks are bits of the parts' digests.

        Where a part stands depends on no other part nor on its steps, so that a history with more
        steps of one part differs on the path to that part only: log2(parts) compositions.
        """
        if len(parts) == 1:
            return self._kept(parts, lambda: self._repeated(*parts[0]))
        sides: tuple[list[Part], list[Part]] = ([], [])
        for part in parts:
            sides[_digest(part) >> depth & 1].append(part)
        left, right = (tuple(side) for side in sides)
        if not (left and right):
            return self._composed(parts, depth + 1)
        return self._kept(
            parts,
            lambda: self._composed(left, depth + 1).compose(self._composed(right, depth + 1)),
        )

    def _repeated(self, rate: float, noise: float, steps: int) -> pld.PrivacyLossDistribution:
        if rate == 1.0:
            # Gaussian mechanisms compose to a Gaussian mechanism, without rounding again.
            return _one_step(1.0, noise / math.sqrt(steps))
        step = self._kept((rate, noise), lambda: _one_step(rate, noise))
        return step.self_compose(steps)

    def _kept(
        self, key: Hashable, make: Callable[[], pld.PrivacyLossDistribution]
    ) -> pld.PrivacyLossDistribution:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
        made = make()
        size = _bytes(made)
        with self._lock:
            if key not in self._held:
                self._held[key] = made, size
                self._bytes += size
            while self._bytes > self._limit:
                _, (_, freed) = self._held.popitem(last=False)
                self._bytes -= freed
        return made


def _one_step(rate: float, noise: float) -> pld.PrivacyLossDistribution:
    return pld.from_gaussian_mechanism(
        standard_deviation=noise,
        value_discretization_interval=DISCRETISATION,
        sampling_prob=rate,
    )


def _digest(part: Part) -> int:
    rate, noise, _ = part
    return int.from_bytes(hashlib.blake2b(struct.pack("<dd", rate, noise)).digest(), "little")


def _bytes(made: pld.PrivacyLossDistribution) -> int:
    """What a distribution holds, about: one double per grid point and direction."""
    return 8 * int(made._pmf_remove.size + made._pmf_add.size)
