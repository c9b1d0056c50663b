"""Weights that several loaded models have in common are held once.

Releases of one base model differ in few of its tensors. Which, nobody has to say: a tensor that has
the bytes of one that another model holds under the same name is replaced by it. So no answer can
change, and what differs stays apart. Knows no releases.
"""

import threading
import weakref
from typing import Any

import torch


class SharedWeights:
    """The weights of the models that are loaded now; keeps none alive. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakValueDictionary[str, torch.Tensor] = weakref.WeakValueDictionary()

    def share(self, model: Any) -> None:
        """Let a model that nobody will write into any more have the tensors that others hold."""
        with self._lock:
            for where, module in model.named_modules():
                for name, own in list(module.named_parameters(recurse=False)):
                    # An adapter that stays apart stands around the layer that it adapts.
                    known = f"{where}.{name}".replace(".base_layer", "")
                    held = self._held.setdefault(known, own)
                    if held is not own and _equal(held, own):
                        setattr(module, name, held)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)
