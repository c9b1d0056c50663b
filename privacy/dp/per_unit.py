"""Per-unit gradients through Opacus' hooks: the reference, and the way for layers of any kind.

The only module that knows Opacus. It is used for what it does well, the gradient of each row of a
batch in one backward pass; sampling, clipping, noise and accounting are ours, bound together by
:class:`~privacy.dp.plan.DpPlan`. The faster way for LoRA is :mod:`privacy.dp.one_pass`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import nn

from privacy.dp.errors import TrainingFailed


class RowGradients(Protocol):
    """Reads the gradients that a backward pass of a summed loss has left."""

    def take(self, rows: int) -> torch.Tensor:
        """Gradient of each row's loss, float32 ``(rows, parameters)``, which is then forgotten.

        Columns are the flattened trained parameters in the order in which they were given. The
        tensor is valid until the next backward pass.

        Raises :class:`~privacy.dp.errors.TrainingFailed` where a parameter took no part: an
        adapter that silently is not trained (Opacus issue 820) must not look like one that is.
        """
        ...


class HookGradients:
    """:class:`RowGradients` over Opacus' hooks."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def take(self, rows: int) -> torch.Tensor:
        """See :meth:`RowGradients.take`."""
        taken = []
        for parameter in self._parameters:
            gradient = getattr(parameter, "grad_sample", None)
            if not isinstance(gradient, torch.Tensor) or gradient.shape[0] != rows:
                raise untouched()
            taken.append(gradient.detach().to(torch.float32).flatten(1))
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.grad = None
        return torch.cat(taken, dim=1)


@contextmanager
def hook_gradients(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[HookGradients]:
    """Attach the hooks to ``model``; it is left as it was on exit.

    The loss of a pass must be the *sum* over rows of each row's own loss: a mean over the batch, or
    over its tokens, would let one unit's gradient depend on its neighbours.
    """
    was_training = model.training
    model.train()  # the hooks record nothing in evaluation mode
    hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=True)
    try:
        yield HookGradients(parameters)
    finally:
        hooks.cleanup()
        for parameter in parameters:
            parameter.grad = None
        model.train(was_training)


def untouched() -> TrainingFailed:
    """What to raise where a trained tensor took no part in a pass."""
    return TrainingFailed(
        "a trained tensor received no per-unit gradient; the adapter must be injected after the "
        "model is on its device, and every trained layer must be used"
    )
