"""The loss of each row: its own mean over its own completion tokens, or of its own label.

``model(labels=…).loss`` averages over the tokens of the whole batch, so that one unit's gradient
would change with its neighbours' lengths and the clipping bound would no longer bound what a unit
contributes. Logits are formed at completion positions only and a few at a time: the vocabulary is
the largest matrix of a small model.

Shapes are fixed for a second reason of the same kind. Matrix products round differently in batches
of different shapes, so in a batch that shrinks or grows by one unit every other unit's gradient
would change a little: about 1e-6 of it in float32, 1e-2 in bfloat16, summed over the batch. With
shapes that do not depend on who else was drawn, a unit's gradient is a function of that unit alone, up
to float32 rounding of its place in the batch, and clipping bounds all that it can change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from privacy.dp.encode import AnyExample, Example, LabelledExample
from privacy.dp.errors import InvalidExample
from privacy.dp.replaced import apply

Pooling = Literal["mean", "model"]
"""What an encoder's head reads: the mean of its row's states, or what the model's own code gives."""

WIDTH_STEP = 16
LOGITS_AT_ONCE = 256
"""Positions whose logits are in memory together: 50 MB in float32 for a vocabulary of 50,000."""


@dataclass(frozen=True)
class MicroBatch:
    """Which examples go through the model together, in a tensor of which shape."""

    indices: tuple[int, ...]
    rows: int
    width: int


def completion_loss(
    model: Any, examples: Sequence[Example], shape: MicroBatch, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean negative log-likelihood in nats per completion token of each row.

    ``model``: a causal language model, with or without an injected adapter. ``examples``: those of
    ``shape.indices``. ``weights``: what each row counts in the total, shape ``(rows,)``; 1 by
    default. Padding is on the right, where a causal model never looks, so no mask is needed.

    Returns the weighted total, to differentiate, and each row's loss, shape ``(rows,)``.
    """
    ids = pad([torch.tensor(e.input_ids) for e in examples], shape, model.device)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    row, position = _completion_positions(examples, model.device)
    lengths = torch.tensor([len(e.input_ids) - e.completion_start for e in examples])
    lengths = lengths.to(model.device, torch.float32)
    share = (1 / lengths if weights is None else weights / lengths)[row]
    head = model.get_output_embeddings()
    # The state at position p predicts token p + 1.
    total, token_loss = apply(
        _CompletionLoss,
        hidden[row, position - 1],
        head.weight,
        head.bias,
        ids[row, position],
        share,
    )
    summed = torch.zeros(len(examples), device=model.device).index_add(0, row, token_loss)
    return total, summed / lengths


class _CompletionLoss(torch.autograd.Function):
    """Cross-entropy whose input gradient is formed together with it, a few positions at a time.

    states ``(positions, hidden)``, weight ``(vocabulary, hidden)`` frozen, targets and share
    ``(positions,)``. Logits never exist for more than :data:`LOGITS_AT_ONCE` positions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        share: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(states) if wanted else None
        losses = torch.empty(len(states), device=states.device)
        for start in range(0, len(states), LOGITS_AT_ONCE):
            part = slice(start, start + LOGITS_AT_ONCE)
            logits = F.linear(states[part], weight, bias).float()
            target = targets[part, None]
            norm = logits.logsumexp(-1, keepdim=True)
            losses[part] = (norm - logits.gather(1, target))[:, 0]
            if gradient is not None:
                slope = logits.sub_(norm).exp_()
                slope.scatter_add_(1, target, slope.new_full(target.shape, -1.0))
                gradient[part] = slope.mul_(share[part, None]).to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(losses)
        return (losses * share).sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None, None


def label_loss(
    model: Any,
    examples: Sequence[LabelledExample],
    shape: MicroBatch,
    weights: torch.Tensor | None = None,
    pooling: Pooling = "model",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy in nats of each row's label.

    Arguments and result as :func:`completion_loss` and :func:`label_logits`.
    """
    logits = label_logits(model, examples, shape, pooling)
    labels = torch.tensor([e.label for e in examples], device=logits.device)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses if weights is None else losses * weights).sum(), losses.detach()


def label_logits(
    model: Any,
    examples: Sequence[LabelledExample],
    shape: MicroBatch,
    pooling: Pooling = "model",
) -> torch.Tensor:
    """Float32 logits ``(rows, labels)`` of a sequence classifier.

    An encoder gets a mask, since it looks at both sides; with ``pooling="mean"`` its head reads the
    mean over the row's own tokens, special ones included (Reimers and Gurevych 2019,
    arXiv 1908.10084, section 3). A causal model answers at its row's last token in either case.
    """
    ids = pad([torch.tensor(e.input_ids) for e in examples], shape, model.device)
    # An empty row answers at its first position, and sees it: attention over nothing at all is not
    # a number, and every layer must see the same rows.
    lengths = torch.ones(shape.rows, dtype=torch.long, device=model.device)
    lengths[: len(examples)] = torch.tensor([len(e.input_ids) for e in examples])
    head = getattr(model, "score", None)
    if head is not None:
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        rows = torch.arange(shape.rows, device=model.device)
        logits = head(states[rows, lengths - 1])
    else:
        mask = torch.arange(shape.width, device=model.device)[None] < lengths[:, None]
        given = {"input_ids": ids, "attention_mask": mask.long()}
        if pooling == "mean":
            encoder = getattr(model, model.base_model_prefix)
            states = encoder(**given).last_hidden_state.float()
            # Padding goes by a mask, not by a product: zero times infinity is not zero.
            summed = states.masked_fill(~mask[..., None], 0.0).sum(1)
            logits = model.classifier(summed / lengths[:, None])
        else:
            logits = model(**given).logits
    return logits[: len(examples)].float()  # type: ignore[no-any-return]


def micro_batches(
    indices: Sequence[int],
    examples: Sequence[AnyExample],
    tokens: int,
    most_rows: int | None = None,
) -> Iterator[MicroBatch]:
    """Split ``indices`` into micro-batches, similar lengths together, each of a fixed shape.

    A sequence of n tokens always lands in the width that n alone determines, and every
    micro-batch of that width has the same number of rows, the last one with empty rows. Grouping
    changes the cost and not the result. ``most_rows``, a public figure, keeps small batches from
    paying for many empty rows.
    """
    by_width: dict[int, list[int]] = {}
    for index in indices:
        width = -(-len(examples[index].input_ids) // WIDTH_STEP) * WIDTH_STEP
        by_width.setdefault(width, []).append(index)
    for width, members in sorted(by_width.items()):
        rows = max(1, min(tokens // width, most_rows or tokens))
        for start in range(0, len(members), rows):
            yield MicroBatch(tuple(members[start : start + rows]), rows, width)


def pad(rows: Sequence[torch.Tensor], shape: MicroBatch, device: torch.device) -> torch.Tensor:
    """Stack tensors ``(tokens, …)`` into zeros of ``(shape.rows, shape.width, …)``."""
    first = rows[0]
    padded = torch.zeros(
        shape.rows, shape.width, *first.shape[1:], dtype=first.dtype, device=device
    )
    for row, values in zip(padded, rows, strict=False):
        row[: len(values)] = values
    return padded


def of_task(examples: Sequence[AnyExample], kind: type[AnyExample]) -> None:
    """Refuse examples of another task before they reach a model.

    Raises :class:`~privacy.dp.errors.InvalidExample`.
    """
    for example in examples:
        if type(example) is not kind:
            raise InvalidExample(
                f"the model learns from {kind.__name__}, not from {type(example).__name__}: "
                "choose the task that fits the records"
            )


def _completion_positions(
    examples: Sequence[Example], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [i for i, e in enumerate(examples) for _ in range(e.completion_start, len(e.input_ids))]
    positions = [p for e in examples for p in range(e.completion_start, len(e.input_ids))]
    return torch.tensor(rows, device=device), torch.tensor(positions, device=device)
