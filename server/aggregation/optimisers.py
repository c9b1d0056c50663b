"""What the hub does with the combined update: take it, or take a step of its own towards it.

Post-processing of what the nodes released, so it costs no budget. The moments are part of the run's
checkpoint: a resumed run takes the same steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.model import ServerOptimiser as Kind
from privacy.exchange import Array

Moments = Mapping[str, npt.NDArray[np.float64]]
"""``first/<tensor>`` and, of Adam, ``second/<tensor>``; empty before the first step."""

SECOND_DECAY = 0.99
ADAPTIVITY = 1e-3


@dataclass(frozen=True)
class ServerOptimiser:
    """One step from the adapter that was sent, along d = combined update - adapter.

    ``none``: the combined update itself (FedAvg). ``avgm``: v <- momentum v + d, x <- x + rate v
    (FedAvgM, Hsu et al. 2019, arXiv 1909.06335, section 4.3). ``adam``: m <- b1 m + (1 - b1) d,
    v <- b2 v + (1 - b2) d², x <- x + rate m / (sqrt(v) + tau), with b1 = momentum, b2 = 0.99,
    tau = 1e-3, v = tau² at first and no bias correction (FedAdam, Reddi et al. 2021,
    arXiv 2003.00295, algorithm 2).
    """

    kind: Kind = "none"
    learning_rate: float = 1.0
    momentum: float = 0.9

    def step(
        self, before: Mapping[str, Array], combined: Mapping[str, Array], moments: Moments
    ) -> tuple[dict[str, Array], Moments]:
        """The trained tensors after the step (float32), and the moments for the next (float64).

        ``before`` may hold frozen tensors too; only those of ``combined`` move.
        """
        if self.kind == "none":
            return dict(combined), {}
        after: dict[str, Array] = {}
        kept: dict[str, npt.NDArray[np.float64]] = {}
        for name, tensor in combined.items():
            start = before[name].astype(np.float64)
            change = tensor.astype(np.float64) - start
            first = moments.get(f"first/{name}", np.zeros_like(start))
            if self.kind == "avgm":
                first = direction = self.momentum * first + change
            else:
                first = self.momentum * first + (1 - self.momentum) * change
                second = moments.get(f"second/{name}", np.full_like(start, ADAPTIVITY**2))
                second = SECOND_DECAY * second + (1 - SECOND_DECAY) * change**2
                kept[f"second/{name}"] = second
                direction = first / (np.sqrt(second) + ADAPTIVITY)
            kept[f"first/{name}"] = first
            after[name] = (start + self.learning_rate * direction).astype(np.float32)
        return after, kept
