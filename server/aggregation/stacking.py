"""The mean of adapters of different ranks: exact by stacking, or brought back to one rank.

Both need all adapters at once, and the exact mean has the sum of their ranks. A run plan gives every
department the same rank; these are for adapters that come from runs of different ranks.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from privacy.composition import concatenate, modules
from privacy.exchange import Array


def stacked_mean(adapters: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """An adapter whose products B A are the means of the adapters' products.

    FLoRA (Wang et al. 2024, arXiv 2409.05976, section 3): exact but for the rounding of B / n to
    float32, while the mean of A times the mean of B is something else.

    Raises:
        ValueError: no adapter, or factors that do not fit together.
    """
    count = len(adapters)
    return dict(concatenate([(adapter, 1 / count) for adapter in adapters]))


def reproject(adapter: Mapping[str, Array], rank: int) -> dict[str, Array]:
    """The adapter of this rank whose products are closest (Frobenius) to those of ``adapter``.

    The truncated singular value decomposition (FlexLoRA, Bai et al. 2024, arXiv 2402.11505,
    section 3; Eckart and Young 1936), taken of the small core between two QR decompositions, in
    float64, without the product of full size. A comes out with orthonormal rows, as
    the initial A of a run, and B carries the singular values. A module whose adapter has a lower
    rank keeps its own.

    Raises:
        ValueError: ``rank`` below 1, or tensors that are no pairs of factors.
    """
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    result: dict[str, Array] = {}
    for module in modules(adapter):
        a, b = (f"{module}.lora_{factor}.weight" for factor in "AB")
        left, left_core = np.linalg.qr(adapter[b].astype(np.float64))
        right, right_core = np.linalg.qr(adapter[a].astype(np.float64).T)
        u, s, vt = np.linalg.svd(left_core @ right_core.T, full_matrices=False)
        result[b] = (left @ u[:, :rank] * s[:rank]).astype(np.float32)
        result[a] = np.ascontiguousarray(vt[:rank] @ right.T, dtype=np.float32)
    return result
