"""Linear layers of a model in 8 bits, for CPUs: a quarter of the weights to read for each token.

A weight's row and a token's activations each have a scale of their own, the largest magnitude over
127 (Dettmers et al. 2022, arXiv 2208.07339, section 2.1, without its treatment of outliers). The
products are summed as integers, exactly: what a layer gives for a token does not depend on who is
decoded beside it.
"""

from typing import Any

import torch
from torch import nn

_LARGEST = 127.0
_SMALLEST = 1e-12


class Int8Linear(nn.Module):
    """A linear layer whose weights ``(in, out)`` are whole numbers from -127 to 127."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float()
        scale = rows.abs().amax(dim=1).clamp_min(_SMALLEST) / _LARGEST
        whole = (rows / scale[:, None]).round().to(torch.int8).t()
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``(…, in)`` to ``(…, out)``, in the precision of the states."""
        tokens = states.reshape(-1, states.shape[-1]).float()
        scale = tokens.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST) / _LARGEST
        whole = (tokens / scale).round().to(torch.int8)
        made = torch._int_mm(whole, self.weight).float() * (scale * self.scale)
        if self.bias is not None:
            made = made + self.bias
        return made.to(states.dtype).reshape(*states.shape[:-1], -1)


def quantise(model: Any) -> None:
    """Put every linear layer of a model into 8 bits, except those of an adapter that stays apart."""
    for where, module in list(model.named_modules()):
        for name, inner in list(module.named_children()):
            if type(inner) is nn.Linear and "lora_" not in f"{where}.{name}":
                setattr(module, name, Int8Linear(inner))
