"""Clipping of per-unit gradients: bounded, finite contributions in float32 whatever comes in.

Norms are taken of exactly the float32 numbers that are summed, accumulated in float64: a norm in
lower precision than the sum would let a contribution exceed the bound (a known fault of hook-based
clipping under autocast).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from privacy.dp.plan import Clipping

STABILITY = 0.01
"""Automatic clipping's gamma (Bu et al. 2022, arXiv 2206.07136, section 4)."""


@dataclass(frozen=True)
class ClippedSum:
    """Sum of clipped contributions, with two private counts.

    ``total``: float32 tensors, one per parameter and of its shape. ``non_finite``: units that were
    replaced by zero. ``within``: units whose norm did not exceed the bound. The counts leave the
    node in no form but through a mechanism that the plan accounts for.
    """

    total: tuple[torch.Tensor, ...]
    non_finite: int
    within: int


def clip_and_sum(
    per_unit: Sequence[torch.Tensor], clipping_norm: float, clipping: Clipping = "flat"
) -> ClippedSum:
    """Bound each unit's gradient to an L2 norm of at most ``clipping_norm`` and sum over units.

    ``per_unit``: one tensor ``(units, *parameter.shape)`` per trained parameter; a unit's norm is
    taken over all of them together. The factor is ``C / max(norm, C)``: no division by zero for an
    all-zero gradient, and no enlargement of a small one. Automatic clipping takes ``C / (norm +
    0.01)``, below C for every norm. A unit with a NaN or infinite entry contributes zero.
    """
    flat = [g.detach().to(torch.float32).flatten(1) for g in per_unit]
    squares = torch.stack(
        [torch.linalg.vector_norm(g, dim=1, dtype=torch.float64).square() for g in flat]
    )
    norms = squares.sum(0).sqrt()
    finite = torch.isfinite(norms)
    if clipping == "automatic":
        factors = clipping_norm / (norms + STABILITY)
    else:
        factors = clipping_norm / norms.clamp(min=clipping_norm)
    weights = torch.where(finite, factors, 0.0).to(torch.float32)
    if not bool(finite.all()):
        # 0 * inf is NaN: the entries themselves have to go as well.
        flat = [torch.where(finite[:, None], g, torch.zeros_like(g)) for g in flat]
    total = tuple((weights @ g).view(p.shape[1:]) for g, p in zip(flat, per_unit, strict=True))
    within = int((norms <= clipping_norm).sum())  # false for NaN
    return ClippedSum(total=total, non_finite=int((~finite).sum()), within=within)
