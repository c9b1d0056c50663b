"""A model with an adapter attached, ready for passes: losses, gradients of rows, descents.

This is where the parts of the fast path meet: fused frozen layers, the frozen prefix, one-pass
gradients or, for layers they do not know, Opacus' hooks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn

from privacy.dp import one_pass
from privacy.dp.descent import Descent, Rows
from privacy.dp.encode import AnyExample, Example, LabelledExample, Unit
from privacy.dp.fused import fused
from privacy.dp.loss import (
    MicroBatch,
    Pooling,
    completion_loss,
    label_logits,
    label_loss,
    micro_batches,
    of_task,
)
from privacy.dp.per_unit import RowGradients, hook_gradients
from privacy.dp.plan import DpPlan, PublicPlan
from privacy.dp.prefix import FrozenPrefix


class Session:
    """Passes over one attached adapter.

    ``model``: the model with its adapter. ``task``: the kind of example it learns from. ``prefix``:
    states to start from, or None to start from tokens. ``tokens``: size of a micro-batch.
    ``checkpointing``: keep no activations inside of blocks. ``pooling``: see
    :func:`~privacy.dp.loss.label_logits`.
    """

    def __init__(
        self,
        model: Any,
        task: type[AnyExample],
        prefix: FrozenPrefix | None,
        tokens: int,
        checkpointing: bool = False,
        pooling: Pooling = "model",
    ) -> None:
        self._model = model
        self._task = task
        self._prefix = prefix
        self._tokens = tokens
        self._checkpointing = checkpointing
        self._pooling = pooling
        self._trained = [p for p in model.parameters() if p.requires_grad]

    def losses(self, examples: Sequence[AnyExample]) -> list[float]:
        """Loss of each example in nats: per completion token, or of its label."""
        return self._each(examples, lambda members, group: self._loss(members, group, None)[1])

    def predictions(self, examples: Sequence[LabelledExample]) -> list[int]:
        """The likeliest label of each example, whatever label it carries."""

        def likeliest(members: list[AnyExample], group: MicroBatch) -> torch.Tensor:
            labelled = cast("list[LabelledExample]", members)
            return label_logits(self._model, labelled, group, self._pooling).argmax(1)

        return self._each(examples, likeliest)

    def _each(
        self,
        examples: Sequence[AnyExample],
        of: Callable[[list[AnyExample], MicroBatch], torch.Tensor],
    ) -> list[Any]:
        """What ``of`` gives for each example, in their order, without gradients."""
        result: list[Any] = [None] * len(examples)
        with fused(self._model), torch.no_grad():
            for group, members in self._grouped(examples):
                for index, value in zip(group.indices, of(members, group).tolist(), strict=True):
                    result[index] = value
        return result

    @contextmanager
    def descent(
        self, units: Sequence[Unit], plan: DpPlan | PublicPlan, learning_rate: float
    ) -> Iterator[Descent]:
        """Steps of ``plan`` over ``units``; the adapter's trained tensors move with them.

        Raises :class:`~privacy.dp.errors.InvalidExample` for examples of another task.
        """
        for unit in units:
            of_task(unit, self._task)
        flat = _flattened(self._trained)
        # Of public figures only, so that shapes do not depend on who is drawn.
        expected = plan.expected_batch_size * plan.examples_per_unit
        most_rows = 2 ** max(0, math.ceil(math.log2(expected)))
        with (
            self._recomputing(),
            self._row_gradients(summed=isinstance(plan, PublicPlan)) as gradients,
        ):

            def of(examples: Sequence[AnyExample], weights: Sequence[float]) -> Iterator[Rows]:
                for group, members in self._grouped(examples, most_rows):
                    own = torch.tensor(
                        [weights[i] for i in group.indices], device=self._model.device
                    )
                    total, _ = self._loss(members, group, own)
                    total.backward()
                    yield group.indices, gradients.take(group.rows)[: len(group.indices)]

            yield Descent(flat, of, units, plan, learning_rate)

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Within the block, where asked for, activations are computed again in the backward pass."""
        if not self._checkpointing:
            yield
            return
        model = self._model.get_base_model()
        # The reentrant kind is the one that Opacus' hooks bear; it wants inputs with gradients.
        reentrant = not one_pass.covers(self._model)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        try:
            yield
        finally:
            if reentrant:
                model.disable_input_require_grads()
            model.gradient_checkpointing_disable()

    @contextmanager
    def _row_gradients(self, *, summed: bool) -> Iterator[RowGradients]:
        with ExitStack() as stack:
            # Dropout is off for good; but quantised layers choose their kernels by this mode, and
            # those for inference have other gradients.
            stack.callback(self._model.train, self._model.training)
            self._model.train()
            if one_pass.covers(self._model):
                stack.enter_context(fused(self._model))
                way = one_pass.one_pass_gradients(self._model, self._trained, summed=summed)
                yield stack.enter_context(way)
            else:
                yield stack.enter_context(hook_gradients(self._model, self._trained))

    def _grouped(
        self, examples: Sequence[AnyExample], most_rows: int | None = None
    ) -> Iterator[tuple[MicroBatch, list[AnyExample]]]:
        """Micro-batches with their examples; within each the model starts where it has to."""
        states = None if self._prefix is None else self._prefix.states(examples)
        for group in micro_batches(range(len(examples)), examples, self._tokens, most_rows):
            members = [examples[i] for i in group.indices]
            if self._prefix is None or states is None:
                yield group, members
            else:
                with self._prefix.entered([states[i] for i in group.indices], group):
                    yield group, members

    def _loss(
        self, members: list[AnyExample], group: MicroBatch, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._task is Example:
            completions = cast("list[Example]", members)
            return completion_loss(self._model, completions, group, weights)
        labelled = cast("list[LabelledExample]", members)
        return label_loss(self._model, labelled, group, weights, self._pooling)


def _flattened(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """One float32 vector of which the parameters become views."""
    flat = torch.cat([p.detach().to(torch.float32).flatten() for p in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return flat
