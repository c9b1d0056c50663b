"""Several LoRA adapters as one: their ranks add. Knows no model.

An adapter is a mapping from PEFT's tensor names to arrays, A of shape (rank, in) and B of shape
(out, rank); what it adds to a projection is scale x B A.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privacy.dp.adapter_config import Adapter

_A, _B = ".lora_A.weight", ".lora_B.weight"


def concatenate(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """One adapter whose products B A are the weighted sums of the parts', module by module.

    Rows of A and columns of B stand side by side (FLoRA, Wang et al. 2024, arXiv 2409.05976,
    section 3), so parts may differ in rank and each keeps its own A; nothing is lost but the
    rounding of weight x B to float32. A module that some parts lack has the ranks of the others.

    Raises:
        ValueError: no part, a weight that is not finite, a tensor that is no LoRA factor or lacks
            the other one, or shapes that do not fit together.
    """
    if not parts:
        raise ValueError("there is no adapter to concatenate")
    columns: dict[str, list[npt.NDArray[np.float32]]] = {}
    rows: dict[str, list[npt.NDArray[np.float32]]] = {}
    for adapter, weight in parts:
        if not np.isfinite(weight):
            raise ValueError(f"weight={weight!r} must be a finite number")
        for module in modules(adapter):
            a, b = adapter[module + _A], adapter[module + _B]
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
                raise ValueError(f"{module}: A {a.shape} and B {b.shape} have no common rank")
            rows.setdefault(module, []).append(a)
            columns.setdefault(module, []).append((weight * b.astype(np.float64)).astype(b.dtype))
    whole: dict[str, npt.NDArray[np.float32]] = {}
    for module in sorted(rows):
        shapes = zip(rows[module], columns[module], strict=True)
        if len({(a.shape[1], b.shape[0]) for a, b in shapes}) > 1:
            raise ValueError(f"{module}: the adapters are for projections of different widths")
        whole[module + _A] = np.concatenate(rows[module], axis=0)
        whole[module + _B] = np.concatenate(columns[module], axis=1)
    return whole


def modules(adapter: Adapter) -> list[str]:
    """The adapted modules, sorted.

    Raises:
        ValueError: a tensor is no LoRA factor, or lacks the other one.
    """
    found = {name.removesuffix(_A).removesuffix(_B) for name in adapter}
    expected = {module + suffix for module in found for suffix in (_A, _B)}
    if expected != adapter.keys():
        odd = sorted(expected ^ adapter.keys())
        raise ValueError(f"these tensors are not pairs of LoRA factors: {odd}")
    return sorted(found)


def added(shared: Adapter, personal: Adapter) -> dict[str, npt.NDArray[np.float32]]:
    """The shared adapter with a personal one on top, of the same rank.

    Both have the same frozen A and ``personal`` names none, so (B + P) A = B A + P A.
    """
    return {
        name: tensor + personal[name] if name in personal else tensor
        for name, tensor in shared.items()
    }
