"""Frozen layers that keep less for the backward pass than autograd would.

A frozen RMS norm needs no gradient of its weight, a frozen SwiGLU block none of its matrices. Told
so, their backward passes need fewer tensors and fewer operations; the result is the same up to
rounding. A layer is taken over only where it proves, on a small input, that it computes what the
faster form computes; every other one stays as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.replaced import apply, replaced_forward

Forward = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Within the block the frozen norms and gated blocks of ``model`` take their faster form."""
    forwards: list[tuple[nn.Module, Forward]] = []
    for module in model.modules():
        faster = _rms_norm(module) or _gated(module)
        if faster is not None and _agree(module, faster):
            forwards.append((module, faster))
    with replaced_forward(forwards):
        yield


def _frozen(module: nn.Module) -> bool:
    return all(
        type(p) is nn.Parameter and p.is_floating_point() and not p.requires_grad
        for p in module.parameters()
    )


def _agree(module: nn.Module, faster: Forward) -> bool:
    weight = next(module.parameters())
    width = weight.shape[-1]
    x = torch.linspace(-2, 2, 2 * width, dtype=weight.dtype, device=weight.device).view(1, 2, width)
    with torch.no_grad():
        expected, found = module(x).float(), faster(x).float()
    tolerance = 1e-5 if weight.dtype == torch.float32 else 2e-2
    scale = expected.abs().max().clamp(min=1e-6)
    return bool((expected - found).abs().max() <= tolerance * scale)


def _rms_norm(module: nn.Module) -> Forward | None:
    named = type(module).__name__.endswith("RMSNorm") and _frozen(module)
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not named or not isinstance(weight, nn.Parameter) or not isinstance(eps, float):
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = apply(_RmsNorm, x, weight, eps)
        return result

    return forward


class _RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) * weight, in float32 inside (Zhang and Sennrich 2019, 1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        # vector_norm needs no tensor of squares.
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        normed: torch.Tensor = (wide * inverse).mul_(weight).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, inverse, weight = ctx.saved_tensors
        wide = x.float()
        g = grads[0].float() * weight
        along = torch.linalg.vecdot(g, wide).unsqueeze(-1).mul_(inverse.pow(3)).div_(x.shape[-1])
        return g.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype), None, None


def _gated(module: nn.Module) -> Forward | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    plain = [p for p in parts if isinstance(p, nn.Linear) and type(p) is nn.Linear]
    matrices = [p.weight for p in plain if p.bias is None]
    silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    if not (len(matrices) == 3 and silu and _frozen(module)):
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = apply(_Gated, x, *matrices)
        return result

    return forward


class _Gated(torch.autograd.Function):
    """down(silu(gate x) * up x), all three frozen (Shazeer 2020, arXiv 2002.05202)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor
    ) -> torch.Tensor:
        g, u = F.linear(x, gate), F.linear(x, up)
        ctx.save_for_backward(g, u, gate, up, down)
        return F.linear(F.silu(g).mul_(u), down)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        g, u, gate, up, down = ctx.saved_tensors
        inner = grads[0] @ down
        sigmoid = torch.sigmoid(g)
        silu = g * sigmoid
        # d silu(g) / dg = sigmoid + silu (1 - sigmoid)
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        dx = silu.mul_(inner).flatten(0, -2) @ up
        dx.addmm_(slope.mul_(u).mul_(inner).flatten(0, -2), gate)
        return dx.view(*grads[0].shape[:-1], gate.shape[1]), None, None, None
