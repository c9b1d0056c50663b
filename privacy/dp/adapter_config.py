"""An adapter's shape and tensors as plain data: plans and checkpoints are read without a model library."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Adapter = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class AdapterConfig:
    """Shape of the adapter; public, the same on every node of a run.

    ``last_layers``: adapt only the last k transformer blocks (``None``, or more than there are:
    all of them); the backward pass then stops there. 0: no LoRA, ``trained_modules`` alone.
    ``factors``: ``"B"`` trains B alone, ``"AB"`` both.
    ``trained_modules``: last parts of the names of modules that are trained whole, such as a
    classification head or the embeddings; they travel with the adapter.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    last_layers: int | None = None
    factors: Literal["B", "AB"] = "B"
    trained_modules: tuple[str, ...] = ()

    def is_trained(self, name: str) -> bool:
        """Whether the tensor of this name is trained, and therefore what a node sends."""
        if "lora_A" in name:
            return self.factors == "AB"
        return "lora_B" in name or any(f".{m}." in name for m in self.trained_modules)
