"""The frozen prefix: blocks below the first adapted one, run once for each record.

With an adapter on the last k blocks only, the hidden states that enter them never change during a
run. They are computed once, kept in memory up to a bound, and every later pass over the same
record starts from them. The result is the same; only the cost differs.

Hidden states are as private as the records they come from: they stay in the memory of the process
and are never written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from privacy.dp.encode import Example
from privacy.dp.loss import MicroBatch, micro_batches, pad

DEFAULT_BYTES = 2**30


class FrozenPrefix:
    """Hidden states of records at the entry of block ``first`` of ``model``.

    ``tokens``: size of a micro-batch. ``bytes_bound``: memory for kept states; what does not fit is
    computed again at each use.
    """

    def __init__(
        self, model: PreTrainedModel, first: int, tokens: int, bytes_bound: int = DEFAULT_BYTES
    ) -> None:
        self._model = model
        self._first = first
        self._tokens = tokens
        self._bound = bytes_bound
        self._used = 0
        self._states: dict[Example, torch.Tensor] = {}

    def states(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """One tensor ``(tokens, hidden)`` per example, without gradient.

        Ask for a whole batch rather than for its micro-batches: what is missing is then computed
        in full ones.
        """
        missing = [e for e in dict.fromkeys(examples) if e not in self._states]
        fresh: dict[Example, torch.Tensor] = {}
        for group in micro_batches(range(len(missing)), missing, self._tokens):
            members = [missing[i] for i in group.indices]
            fresh |= dict(zip(members, self._compute(members, group), strict=True))
        for example, state in fresh.items():
            size = state.numel() * state.element_size()
            if self._used + size <= self._bound:
                self._used += size
                self._states[example] = state
        return [fresh[e] if e in fresh else self._states[e] for e in examples]

    @torch.no_grad()
    def _compute(self, examples: Sequence[Example], shape: MicroBatch) -> list[torch.Tensor]:
        ids = pad([torch.tensor(e.input_ids) for e in examples], shape, self._model.device)
        decoder = self._model.get_decoder()
        norm = decoder.norm
        with _blocks(decoder, slice(0, self._first)):
            decoder.norm = nn.Identity()
            try:
                hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
            finally:
                decoder.norm = norm
        return [hidden[i, : len(e.input_ids)].clone() for i, e in enumerate(examples)]

    @contextmanager
    def skipped(self, model: nn.Module) -> Iterator[None]:
        """Within the block ``model``'s decoder starts at block ``first``, from ``inputs_embeds``.

        ``model`` is the base model itself or an adapter injected into it.
        """
        with _blocks(model.get_decoder(), slice(self._first, None)):  # type: ignore[operator]
            yield


def prefix_length(model: PreTrainedModel, last_layers: int | None) -> int:
    """Number of blocks that can be skipped: 0 where the architecture is not known to allow it.

    Allowed are decoders that turn embeddings into states by a uniform stack of blocks with rotary
    positions and a final norm (Llama, Mistral, Qwen2, …): position embeddings added to the input,
    scaled embeddings or alternating attention kinds would make a restart in the middle differ.
    """
    if last_layers is None:
        return 0
    decoder = model.get_decoder()
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    uniform = model.config.model_type in {"llama", "mistral", "qwen2", "qwen3"}
    if not uniform or len(kinds) > 1 or not hasattr(decoder, "norm"):
        return 0
    return max(0, int(model.config.num_hidden_layers) - last_layers)


@contextmanager
def _blocks(decoder: nn.Module, kept: slice) -> Iterator[None]:
    every = decoder.layers
    if not isinstance(every, nn.ModuleList):
        raise TypeError(f"{type(decoder).__name__}.layers is not a list of blocks")
    decoder.layers = every[kept]
    try:
        yield
    finally:
        decoder.layers = every
