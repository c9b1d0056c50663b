"""Rules that bear a few arbitrary updates. They see the updates, so they need them unmasked.

Unlike the mean they need all updates at once: the hub's memory grows with the number of nodes.
What they withstand, with f updates of any values at all and the others honest, is in
:func:`policies.model.least_cohort`. They protect the adapter from a faulty node; no department's
epsilon depends on them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from policies.model import Aggregation, least_cohort
from privacy.exchange import Array

Update = Mapping[str, Array]
Stack = npt.NDArray[np.float64]


def coordinate_median(updates: Sequence[Update], faulty: int) -> dict[str, Array]:
    """The median of each value by itself; of an even number, the mean of the middle two.

    Yin et al. 2018, arXiv 1803.01498, definition 1. Each value lies within those of the honest
    nodes while there are at least 2 ``faulty`` + 1 updates.

    Raises:
        ValueError: fewer updates than that.
    """
    _check("median", updates, faulty)
    return _by_tensor(updates, lambda stack: np.median(stack, axis=0))


def trimmed_mean(updates: Sequence[Update], faulty: int) -> dict[str, Array]:
    """The mean of each value by itself, without its ``faulty`` smallest and largest.

    Yin et al. 2018, arXiv 1803.01498, definition 2. Each value lies within those of the honest
    nodes while there are at least 2 ``faulty`` + 1 updates.

    Raises:
        ValueError: fewer updates than that.
    """
    _check("trimmed_mean", updates, faulty)
    kept = slice(faulty, len(updates) - faulty)
    return _by_tensor(updates, lambda stack: np.sort(stack, axis=0)[kept].mean(axis=0))


def krum(updates: Sequence[Update], faulty: int) -> dict[str, Array]:
    """The one update that lies closest to its n - ``faulty`` - 2 nearest others.

    Blanchard et al. 2017, Machine Learning with Adversaries, section 4: the smallest sum of squared
    distances, over all tensors together; of equals the first. It needs 2 ``faulty`` + 3 updates.

    Raises:
        ValueError: fewer updates than that.
    """
    _check("krum", updates, faulty)
    names = sorted(updates[0])
    flat = [np.concatenate([np.ravel(u[n]).astype(np.float64) for n in names]) for u in updates]
    count = len(flat)
    distances = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            distances[i, j] = distances[j, i] = float(np.sum((flat[i] - flat[j]) ** 2))
    nearest = count - faulty - 2
    scores = [np.sort(np.delete(row, i))[:nearest].sum() for i, row in enumerate(distances)]
    return dict(updates[int(np.argmin(scores))])


RULES: Mapping[str, Callable[[Sequence[Update], int], dict[str, Array]]] = {
    "median": coordinate_median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
}


class KeptUpdates:
    """All updates of a round, for a rule that needs them together; see the module's note on memory.

    The rule sees them in the order of the departments' names, whatever the order of the answers.
    """

    def __init__(self, rule: Aggregation, faulty: int) -> None:
        self._rule = RULES[rule]
        self._faulty = faulty
        self._updates: dict[str, Update] = {}

    def add(self, department: str, update: Update) -> None:
        """Keep the update of ``department``."""
        self._updates[department] = update

    def result(self) -> dict[str, Array]:
        """What the rule makes of the updates.

        Raises:
            ValueError: too few of them for the number of faulty nodes.
        """
        return self._rule([self._updates[name] for name in sorted(self._updates)], self._faulty)


def _by_tensor(updates: Sequence[Update], rule: Callable[[Stack], Stack]) -> dict[str, Array]:
    return {
        name: rule(np.stack([u[name].astype(np.float64) for u in updates])).astype(np.float32)
        for name in updates[0]
    }


def _check(rule: Aggregation, updates: Sequence[Update], faulty: int) -> None:
    least = least_cohort(rule, faulty)
    if len(updates) < least:
        raise ValueError(
            f"{rule} with faulty_nodes={faulty} needs at least {least} updates, there are "
            f"{len(updates)}: wait for more nodes, or expect fewer faulty ones"
        )
    if any(update.keys() != updates[0].keys() for update in updates):
        raise ValueError("the updates have different tensors")
