"""The loss of each unit: its own mean over its own completion tokens.

``model(labels=…).loss`` averages over the tokens of the whole batch, so that one unit's gradient
would change with its neighbours' lengths and the clipping bound would no longer bound what a unit
contributes. Logits are formed at completion positions only: the vocabulary is the largest matrix
of a small model.

Shapes are fixed for a second reason of the same kind. Matrix products round differently in batches
of different shapes, so in a batch that shrinks or grows by one unit every other unit's gradient
would change a little: about 1e-6 of it in float32, 1e-2 in bfloat16, summed over the batch. With
shapes that do not depend on who else was drawn, a unit's gradient is a function of that unit alone, up
to float32 rounding of its place in the batch, and clipping bounds all that it can change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from privacy.dp.encode import Example

WIDTH_STEP = 16


@dataclass(frozen=True)
class MicroBatch:
    """Which examples go through the model together, in a tensor of which shape."""

    indices: tuple[int, ...]
    rows: int
    width: int


def per_unit_loss(
    model: PreTrainedModel,
    examples: Sequence[Example],
    shape: MicroBatch,
    states: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Mean negative log-likelihood in nats per completion token, one per unit: shape ``(units,)``.

    ``model``: a causal language model, with or without an injected adapter. ``examples``: those of
    ``shape.indices``. ``states``: hidden states ``(tokens, hidden)`` to start from instead of the
    embeddings (see :mod:`privacy.dp.prefix`). Padding is on the right, where a causal model never
    looks, so no mask is needed.
    """
    ids = pad([torch.tensor(e.input_ids) for e in examples], shape, model.device)
    entry = (
        {"input_ids": ids}
        if states is None
        else {"inputs_embeds": pad(states, shape, model.device)}
    )
    hidden = model.get_decoder()(**entry, use_cache=False).last_hidden_state
    # The state at position p predicts token p + 1.
    unit, position = _completion_positions(examples, model.device)
    logits = model.get_output_embeddings()(hidden[unit, position - 1]).float()
    token_loss = torch.nn.functional.cross_entropy(logits, ids[unit, position], reduction="none")
    lengths = torch.tensor(
        [len(e.input_ids) - e.completion_start for e in examples], device=model.device
    )
    summed = torch.zeros(len(examples), device=model.device).index_add(0, unit, token_loss)
    return summed / lengths


def micro_batches(
    indices: Sequence[int], examples: Sequence[Example], tokens: int
) -> Iterator[MicroBatch]:
    """Split ``indices`` into micro-batches, similar lengths together, each of a fixed shape.

    A sequence of n tokens always lands in the width that n alone determines, and every
    micro-batch of that width has the same number of rows, the last one with empty rows. Grouping
    changes the cost and not the result.
    """
    by_width: dict[int, list[int]] = {}
    for index in indices:
        width = -(-len(examples[index].input_ids) // WIDTH_STEP) * WIDTH_STEP
        by_width.setdefault(width, []).append(index)
    for width, members in sorted(by_width.items()):
        rows = max(1, tokens // width)
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


def _completion_positions(
    examples: Sequence[Example], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    units = [i for i, e in enumerate(examples) for _ in range(e.completion_start, len(e.input_ids))]
    positions = [p for e in examples for p in range(e.completion_start, len(e.input_ids))]
    return torch.tensor(units, device=device), torch.tensor(positions, device=device)
