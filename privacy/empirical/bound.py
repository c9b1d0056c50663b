"""What an attack proves: lower bounds on epsilon from membership guesses, with their confidence.

The accountant says how much a mechanism may reveal, these bounds say how much one attack found it
to reveal. A bound above the claim refutes the claim (or met the stated chance of error); a bound
below it proves nothing about stronger attacks. Adjacency is add or remove one unit.

The module knows counts and scores. It does not know what was attacked, nor how.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.empirical.errors import BoundInvalid

CONFIDENCE = 0.95
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the canaries that are guessed about. Fixed here, before any score is seen."""

_BISECTIONS = 40


@dataclass(frozen=True)
class OneRunBound:
    """What guesses about one run's canaries prove.

    Attributes:
        epsilon: with ``confidence``, the run is not (epsilon', delta)-DP for any epsilon' below.
        canaries: how many were included or left out by a fair coin each.
        guesses, correct: guesses made and right at the number of guesses that gave ``epsilon``.
        confidence: of the bound, one-sided, corrected for the numbers of guesses that were tried.
        ceiling: the bound that the same audit would give if every guess were right. A claim above
            it cannot be refuted with so few canaries.
    """

    epsilon: float
    canaries: int
    guesses: int
    correct: int
    confidence: float
    ceiling: float


def one_run_p_value(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """Bound on the chance of so many right guesses if the mechanism is (epsilon, delta)-DP.

    Each of ``canaries`` m was included by an independent fair coin; r guesses were made, v of them
    were right, the rest abstained. With q = e^ε / (1 + e^ε) and W ~ Binomial(r, q)::

        P[W >= v] + 2 m δ · max over 1 <= i <= v of P[v - i <= W < v] / i

    Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, Theorem 5.2 and appendix D.

    Raises:
        BoundInvalid: impossible counts, epsilon or delta.
    """
    _check_guesses(canaries, guesses, correct)
    _check_delta(delta)
    if not epsilon >= 0:
        raise BoundInvalid(f"epsilon={epsilon!r} must be a number of at least 0")
    pmf = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    tail = float(pmf[correct:].sum())
    if correct == 0 or delta == 0:
        return min(tail, 1.0)
    below = np.cumsum(pmf[:correct][::-1]) / np.arange(1, correct + 1)
    return min(tail + 2 * canaries * delta * float(below.max()), 1.0)


def one_run_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Largest epsilon that so many right guesses reject: a lower bound, 0 where they reject none.

    ``guesses`` must have been fixed before the scores were seen; :func:`one_run_audit` tries
    several and corrects for it. Never above the true epsilon with probability ``confidence``.

    Raises:
        BoundInvalid: as :func:`one_run_p_value`, or a confidence outside of (0, 1).
    """
    _check_confidence(confidence)

    def rejected(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, correct, epsilon, delta) < 1 - confidence

    if not rejected(0.0):
        return 0.0
    high = 1.0
    # Ends: with q -> 1 the chance that at least v of r >= v guesses are right tends to 1.
    while rejected(high):
        high *= 2
    return _last_true(rejected, 0.0, high)


def one_run_audit(
    scores: Sequence[float],
    included: Sequence[bool],
    delta: float,
    confidence: float = CONFIDENCE,
    shares: Sequence[float] = SHARES,
) -> OneRunBound:
    """Guess the canaries of the highest scores in and as many of the lowest out; take the best.

    For each of ``shares`` that share of the canaries is guessed about, half of it each way. The
    error probability is divided by the number of shares (Bonferroni), so that the best of the
    bounds holds with ``confidence``. Scores must not have been computed from ``included``.

    Raises:
        BoundInvalid: fewer than two canaries, a score that is not finite, no usable share.
    """
    m = len(scores)
    if m != len(included) or m < 2:
        raise BoundInvalid(
            f"{m} scores for {len(included)} canaries; give one each, of at least two canaries"
        )
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BoundInvalid("a canary's score is not finite; the model or its adapter is damaged")
    if not shares or not all(0 < share <= 1 for share in shares):
        raise BoundInvalid(f"shares={tuple(shares)!r} must lie above 0 and at most at 1")
    _check_confidence(confidence)
    sides = sorted({max(1, int(share * m / 2)) for share in shares})
    level = 1 - (1 - confidence) / len(sides)
    inside = np.asarray(included, dtype=bool)[np.argsort(values, kind="stable")]
    tried = []
    for side in sides:
        correct = int(inside[m - side :].sum() + (~inside[:side]).sum())
        tried.append((one_run_bound(m, 2 * side, correct, delta, level), 2 * side, correct))
    epsilon, guesses, correct = max(tried)
    ceiling = max(one_run_bound(m, 2 * side, 2 * side, delta, level) for side in sides)
    return OneRunBound(epsilon, m, guesses, correct, confidence, ceiling)


def two_sample_bound(
    true_positives: int,
    members: int,
    false_positives: int,
    non_members: int,
    delta: float,
    confidence: float = CONFIDENCE,
) -> float:
    """Lower bound on epsilon from a membership test over independent runs, 0 where it shows none.

    Under (ε, δ)-DP, TPR <= e^ε FPR + δ and 1 - FPR <= e^ε (1 - TPR) + δ (Kairouz et al. 2015,
    arXiv 1311.0776); both rates take their Clopper-Pearson bound at half the error probability, as
    in Nasr et al. 2021, arXiv 2101.04535, section 3. The threshold must have been fixed before,
    and each of the ``members`` and ``non_members`` observations come from a run of its own: within
    one run they are not independent, see :func:`one_run_audit` for that.

    Raises:
        BoundInvalid: impossible counts, delta or confidence.
    """
    _check_delta(delta)
    _check_confidence(confidence)
    for name, count, total in (
        ("true_positives", true_positives, members),
        ("false_positives", false_positives, non_members),
    ):
        if not 0 <= count <= total or total < 1:
            raise BoundInvalid(f"{name}={count} must lie between 0 and {total}, which is above 0")
    error = (1 - confidence) / 2
    tpr = clopper_pearson_lower(true_positives, members, error)
    # The upper bound on FPR is one less the lower bound on the share of true negatives.
    tnr = clopper_pearson_lower(non_members - false_positives, non_members, error)
    ratios = [(tpr - delta) / (1 - tnr), (tnr - delta) / (1 - tpr)]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


def clopper_pearson_lower(successes: int, trials: int, error: float) -> float:
    """Lower bound on a probability that exceeds it in at most ``error`` of all samples, exact.

    Clopper and Pearson 1934, doi 10.1093/biomet/26.4.404: the p with P[Binomial(n, p) >= k] equal
    to ``error``; always below 1.
    """
    if successes == 0:
        return 0.0

    def rejected(p: float) -> bool:
        return float(_binomial(trials, p)[successes:].sum()) < error

    return _last_true(rejected, 0.0, 1.0)


def auc(scores: Sequence[float], included: Sequence[bool]) -> tuple[float, float, float]:
    """Area under the ROC curve, and an interval of 95 % around it.

    The chance that an included canary scores above one that was left out; ties count one half. The
    interval inverts the normal approximation with the largest variance that the statistic can
    have, A (1 - A) / min(in, out) (Birnbaum and Klose 1957, Ann. Math. Statist. 28). It stays
    wide where the scores are few, also at an area of 1.

    Raises:
        BoundInvalid: all canaries are in, or all are out.
    """
    inside, outside = _split(scores, included)
    below = np.searchsorted(outside, inside, side="left")
    not_above = np.searchsorted(outside, inside, side="right")
    area = float((below + not_above).sum() / (2 * len(inside) * len(outside)))
    n, z = min(len(inside), len(outside)), 1.959964
    middle = (area + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(area * (1 - area) / n + z * z / (4 * n * n))
    return area, max(0.0, middle - half), min(1.0, middle + half)


def tpr_at_fpr(scores: Sequence[float], included: Sequence[bool], fpr: float = 0.01) -> float:
    """Share of included canaries above the threshold that at most ``fpr`` of the others pass.

    Raises:
        BoundInvalid: all canaries are in, or all are out.
    """
    inside, outside = _split(scores, included)
    threshold = outside[len(outside) - 1 - int(fpr * len(outside))]
    return float((inside > threshold).mean())


def _split(
    scores: Sequence[float], included: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, chosen = np.asarray(scores, dtype=np.float64), np.asarray(included, dtype=bool)
    if chosen.all() or not chosen.any():
        raise BoundInvalid("all canaries are in, or all are out; use more of them")
    return np.sort(values[chosen]), np.sort(values[~chosen])


def _binomial(trials: int, p: float) -> NDArray[np.float64]:
    """Probabilities of 0 to ``trials`` successes, shape ``(trials + 1,)``."""
    if p >= 1:
        sure = np.zeros(trials + 1)
        sure[trials] = 1.0
        return sure
    k = np.arange(trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    choices = logs[-1] - logs - logs[::-1]
    result: NDArray[np.float64] = np.exp(choices + k * math.log(p) + (trials - k) * math.log1p(-p))
    return result


def _last_true(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The end of the stretch from ``low`` on where ``holds`` is true, to within rounding below."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _check_guesses(canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise BoundInvalid(
            f"correct={correct} must lie between 0 and guesses={guesses}, and guesses between 1 "
            f"and canaries={canaries}"
        )


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise BoundInvalid(f"delta={delta!r} must be at least 0 and below 1")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BoundInvalid(f"confidence={confidence!r} must lie between 0 and 1")
