"""Differentiable functions in the place of modules of a model, for as long as a block lasts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Call a differentiable function, which PyTorch leaves untyped."""
    return function.apply(*arguments)


@contextmanager
def replaced_forward(
    forwards: Sequence[tuple[nn.Module, Callable[..., torch.Tensor]]],
) -> Iterator[None]:
    """Within the block each module computes what stands beside it; blocks may be nested."""
    before = [vars(module).get("forward") for module, _ in forwards]
    for module, forward in forwards:
        module.forward = forward
    try:
        yield
    finally:
        for (module, _), own in zip(forwards, before, strict=True):
            if own is None:
                del module.forward
            else:
                module.forward = own
