"""Per-row gradients of LoRA in the same backward pass that computes the input gradients.

For a linear layer y = x Wᵀ + s (x Aᵀ) Bᵀ autograd forms dB = s Σ g hᵀ, h = x Aᵀ, over all rows at
once. Here the sum stops at the row: dB_i = s g_iᵀ h_i, a batched product of the same cost, written
into one flat float32 matrix of (rows, parameters). No second pass, no copy of activations beyond
those that autograd keeps. Norms and the clipped sum are later taken of exactly these numbers.

Covered are PEFT's LoRA on linear layers (``nn.Linear``, GPT-2's ``Conv1D``, quantised layers of any
library: their own forward is kept) and linear layers that are trained whole, such as a
classification head. For anything else :func:`covers` says no, and :mod:`privacy.dp.per_unit` is
the way.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from privacy.dp.errors import TrainingFailed
from privacy.dp.per_unit import untouched
from privacy.dp.replaced import apply, replaced_forward

Put = Callable[[torch.Tensor], None]


class OnePassGradients:
    """The flat matrix, and which columns of it belong to which parameter.

    With ``summed`` the gradients are summed over rows at once, as ordinary training does: for
    public data, and to compare costs. :meth:`take` then returns one row.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, summed: bool = False) -> None:
        self._slices: dict[int, slice] = {}
        start = 0
        for parameter in parameters:
            self._slices[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self._width = start
        self.summed = summed
        self._matrix = torch.empty(0, start)
        self._rows = 0
        self._seen: set[int] = set()

    def put(self, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        """Store ``(rows, *parameter.shape)``; a layer that is used twice in a pass adds up."""
        flat = gradient.flatten(1)
        if not self._seen:
            self._rows = len(flat)
            if self._matrix.shape[0] < self._rows or self._matrix.device != flat.device:
                self._matrix = torch.empty(self._rows, self._width, device=flat.device)
        elif len(flat) != self._rows:
            raise TrainingFailed(
                f"a layer saw {len(flat)} rows where another saw {self._rows}; this model mixes "
                "rows, so that a unit's gradient cannot be told apart"
            )
        place = self._matrix[: self._rows, self._slices[id(parameter)]]
        if id(parameter) in self._seen:
            place.add_(flat)
        else:
            place.copy_(flat)
            self._seen.add(id(parameter))

    def take(self, rows: int) -> torch.Tensor:
        """See :meth:`privacy.dp.per_unit.RowGradients.take`."""
        seen, self._seen = self._seen, set()
        if seen != self._slices.keys() or self._rows != (1 if self.summed else rows):
            raise untouched()
        return self._matrix[: self._rows]


def covers(model: nn.Module) -> bool:
    """Whether every trained parameter of ``model`` belongs to a layer that this module knows."""
    known = {
        id(p)
        for module in model.modules()
        for p in _trained(module)
        if _is_lora(module) or type(module) is nn.Linear
    }
    return all(id(p) in known for p in model.parameters() if p.requires_grad)


@contextmanager
def one_pass_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], *, summed: bool = False
) -> Iterator[OnePassGradients]:
    """Replace the forward of ``model``'s trained layers; it is left as it was on exit.

    The loss of a pass must be the sum over rows of each row's own loss.
    """
    gradients = OnePassGradients(parameters, summed=summed)
    inside_lora: set[int] = set()
    forwards: list[tuple[nn.Module, Callable[..., torch.Tensor]]] = []
    for module in model.modules():
        if _is_lora(module) and _trained(module):
            forwards.append((module, _lora_forward(module, gradients)))
            inside_lora |= {id(part) for part in module.modules()}
        elif type(module) is nn.Linear and _trained(module) and id(module) not in inside_lora:
            forwards.append((module, _linear_forward(module, gradients)))
    with replaced_forward(forwards):
        yield gradients


def _is_lora(module: nn.Module) -> bool:
    """A LoRA layer over a matrix, without dropout or variants, whose one adapter is active."""
    if not isinstance(module, LoraLayer) or list(module.lora_A) != ["default"]:
        return False
    plain = isinstance(module.lora_dropout["default"], nn.Identity) and not module.lora_variant
    return bool(plain and module.lora_A["default"].weight.ndim == 2 and not module.merged)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    if isinstance(module, LoraLayer):
        parts = (module.lora_A, module.lora_B)
        return [p for part in parts for p in part.parameters() if p.requires_grad]
    return [p for p in module.parameters(recurse=False) if p.requires_grad]


def _lora_forward(module: Any, gradients: OnePassGradients) -> Callable[..., torch.Tensor]:
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    scale = float(module.scaling["default"])
    base = module.base_layer
    # A frozen floating-point matrix: one function for base and adapter, which keeps x only where
    # A is trained. Anything else (a quantised layer, Conv1D) computes its own part itself.
    fused = type(base) is nn.Linear and type(base.weight) is nn.Parameter
    fused = fused and base.weight.is_floating_point() and not base.weight.requires_grad

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        result: Any
        if fused:
            result = apply(_LoraLinear, x, base.weight, base.bias, a, b, scale, gradients)
        else:
            result = base(x)
            result = result + apply(_LoraLinear, x, None, None, a, b, scale, gradients).to(result)
        return result  # type: ignore[no-any-return]

    return forward


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + bias + s (x Aᵀ) Bᵀ in x's precision; W may be absent.

    x: (rows, …, in); A: (rank, in); B: (out, rank), both float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        a: nn.Parameter,
        b: nn.Parameter,
        scale: float,
        gradients: OnePassGradients,
    ) -> torch.Tensor:
        down, up = a.to(x.dtype), b.to(x.dtype)
        h = F.linear(x, down)
        flat = h.flatten(0, -2)
        if weight is None:
            y = (flat @ up.t()).mul_(scale)
        else:
            y = F.linear(x, weight, bias).flatten(0, -2)
            y.addmm_(flat, up.t(), alpha=scale)
        ctx.save_for_backward(x if a.requires_grad else None, h, weight, down, up)
        ctx.a, ctx.b, ctx.scale, ctx.gradients = a, b, scale, gradients
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, h, weight, down, up = ctx.saved_tensors
        g = grads[0]
        back = g @ up  # (rows, …, rank): the gradient of h over s
        if ctx.b.requires_grad:
            ctx.gradients.put(ctx.b, _outer(g, h, ctx))
        if ctx.a.requires_grad:
            ctx.gradients.put(ctx.a, _outer(back, x, ctx))
        dx = None
        if ctx.needs_input_grad[0]:
            flat = back.flatten(0, -2)
            if weight is None:
                dx = (flat @ down).mul_(ctx.scale)
            else:
                dx = g.flatten(0, -2) @ weight
                dx.addmm_(flat, down, alpha=ctx.scale)
            dx = dx.view(*g.shape[:-1], down.shape[1])
        return dx, None, None, None, None, None, None


def _outer(left: torch.Tensor, right: torch.Tensor, ctx: Any) -> torch.Tensor:
    """s Σ_t left_t rightᵀ_t for each row, or over all rows: float32 ``(rows or 1, out, in)``."""
    if ctx.gradients.summed:
        left, right = left.flatten(0, -2)[None], right.flatten(0, -2)[None]
    elif left.ndim == 2:  # one position to a row
        left, right = left[:, None], right[:, None]
    else:
        left, right = left.flatten(1, -2), right.flatten(1, -2)
    return torch.bmm(left.transpose(1, 2), right).float().mul_(ctx.scale)


def _linear_forward(module: nn.Linear, gradients: OnePassGradients) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = apply(_TrainedLinear, x, module.weight, module.bias, gradients)
        return result

    return forward


class _TrainedLinear(torch.autograd.Function):
    """y = x Wᵀ + bias with W (and bias) trained; computed in W's precision."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        gradients: OnePassGradients,
    ) -> torch.Tensor:
        wide = x.to(weight.dtype)
        ctx.save_for_backward(wide)
        ctx.weight, ctx.bias, ctx.gradients, ctx.dtype = weight, bias, gradients, x.dtype
        ctx.scale = 1.0
        return F.linear(wide, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = grads[0]
        if ctx.weight.requires_grad:
            ctx.gradients.put(ctx.weight, _outer(g, x, ctx))
        if ctx.bias is not None and ctx.bias.requires_grad:
            ctx.gradients.put(ctx.bias, _outer(g, torch.ones_like(g[..., :1]), ctx).squeeze(-1))
        dx = (g @ ctx.weight).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return dx, None, None, None
