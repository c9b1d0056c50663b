"""The frozen prefix: blocks below the first adapted one, run once for each record.

With an adapter on the last k blocks only, the hidden states that enter them never change during a
run. They are computed once, kept (see :mod:`privacy.dp.state_cache`), and every later pass over
the same record starts from them. The result is the same; only the cost differs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from privacy.dp.encode import AnyExample
from privacy.dp.loss import MicroBatch, micro_batches, pad
from privacy.dp.state_cache import StateCache

Run = Callable[[Sequence[AnyExample], MicroBatch], object]


class FrozenPrefix:
    """Hidden states of records at the entry of block ``first`` of ``model``.

    ``tokens``: size of a micro-batch. ``run``: passes examples through the model, whatever becomes
    of the result.
    """

    def __init__(
        self, model: PreTrainedModel, first: int, tokens: int, run: Run, cache: StateCache
    ) -> None:
        blocks = find_blocks(model)
        if blocks is None:
            raise TypeError(f"{type(model).__name__} has no list of blocks")
        self._parent, self._name = blocks
        self._blocks: nn.ModuleList = getattr(self._parent, self._name)
        self._device = model.device
        self._first = first
        self._tokens = tokens
        self._run = run
        self._cache = cache

    def states(self, examples: Sequence[AnyExample]) -> list[torch.Tensor]:
        """One tensor ``(tokens, hidden)`` per example, without gradient.

        Ask for a whole batch rather than for its micro-batches: what is missing is then computed
        in full ones.
        """
        distinct = {e.input_ids: e for e in examples}
        found = {ids: self._cache.get(ids) for ids in distinct}
        missing = [e for ids, e in distinct.items() if found[ids] is None]
        for group in micro_batches(range(len(missing)), missing, self._tokens):
            members = [missing[i] for i in group.indices]
            for example, fresh in zip(members, self._compute(members, group), strict=True):
                found[example.input_ids] = fresh
                self._cache.put(example.input_ids, fresh)
        return [state for e in examples if (state := found[e.input_ids]) is not None]

    @contextmanager
    def entered(self, states: Sequence[torch.Tensor], shape: MicroBatch) -> Iterator[None]:
        """Within the block the model starts at block ``first``, from ``states``."""
        padded = pad(states, shape, self._device)
        with self._standing_in([_Given(padded), *self._passing(1, self._first)], after=self._first):
            yield

    @torch.no_grad()
    def _compute(self, examples: Sequence[AnyExample], shape: MicroBatch) -> list[torch.Tensor]:
        kept = _Kept(self._blocks[self._first - 1])
        above = [kept, *self._passing(self._first, len(self._blocks))]
        with self._standing_in([*self._blocks[: self._first - 1], *above], after=len(self._blocks)):
            self._run(examples, shape)
        return [kept.states[i, : len(e.input_ids)].clone() for i, e in enumerate(examples)]

    @staticmethod
    def _passing(start: int, end: int) -> list[nn.Module]:
        return [_Passing() for _ in range(start, end)]

    @contextmanager
    def _standing_in(self, below: list[nn.Module], *, after: int) -> Iterator[None]:
        """The list keeps its length: some models look things up by a block's position."""
        for stand_in, block in zip(below, self._blocks, strict=False):
            if stand_in is not block and hasattr(block, "attention_type"):
                stand_in.attention_type = block.attention_type
        setattr(self._parent, self._name, nn.ModuleList([*below, *self._blocks[after:]]))
        try:
            yield
        finally:
            setattr(self._parent, self._name, self._blocks)


def prefix_length(model: PreTrainedModel, last_layers: int | None) -> int:
    """Number of blocks that run once for each record: 0 where the blocks cannot be told."""
    if last_layers is None or find_blocks(model) is None:
        return 0
    return max(0, int(model.config.num_hidden_layers) - last_layers)


def find_blocks(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The module and attribute that hold the model's one list of transformer blocks."""
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
    found = [
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    return found[0] if len(found) == 1 else None


class _Passing(nn.Module):
    """Stands for a block and changes nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


class _Kept(nn.Module):
    """Remembers what its block gives."""

    states: torch.Tensor

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._block = block

    def forward(self, *given: Any, **named: Any) -> Any:
        result = self._block(*given, **named)
        self.states = result[0] if isinstance(result, tuple) else result
        return result


class _Given(nn.Module):
    """Gives what it holds, whatever comes to it."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self._states = states

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return self._states
