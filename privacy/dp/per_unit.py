"""Per-unit gradients through Opacus' hooks; the only module that knows Opacus.

Opacus is used for what it does well, the gradient of each unit of a batch in one backward pass.
Sampling, clipping, noise and accounting are ours, bound together by
:class:`~privacy.dp.plan.DpPlan`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import nn

from privacy.dp.errors import TrainingFailed


class PerUnitGradients:
    """Reads, after a backward pass of a summed loss, the gradient of each unit of the batch."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters

    def take(self, units: int) -> list[torch.Tensor]:
        """Tensors ``(units, *shape)`` per parameter of the last pass, which are then forgotten.

        Raises :class:`~privacy.dp.errors.TrainingFailed` where a parameter took no part: an
        adapter that silently is not trained (Opacus issue 820) must not look like one that is.
        """
        taken = []
        for parameter in self._parameters:
            gradient = getattr(parameter, "grad_sample", None)
            if not isinstance(gradient, torch.Tensor) or gradient.shape[0] != units:
                raise TrainingFailed(
                    "a trained tensor received no per-unit gradient; the adapter must be injected "
                    "after the model is on its device, and every trained layer must be used"
                )
            taken.append(gradient)
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.grad = None
        return taken


@contextmanager
def per_unit_gradients(model: nn.Module) -> Iterator[PerUnitGradients]:
    """Attach the hooks to ``model``'s trainable parameters; leaves it as it was on exit.

    The loss of a pass must be the *sum* over units of each unit's own loss: a mean over the
    batch, or over its tokens, would let one unit's gradient depend on its neighbours.
    """
    was_training = model.training
    model.train()  # the hooks record nothing in evaluation mode
    hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=True)
    try:
        yield PerUnitGradients([p for p in model.parameters() if p.requires_grad])
    finally:
        hooks.cleanup()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = None
        model.train(was_training)
