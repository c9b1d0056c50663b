"""Drawing the next token from its scores."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Sampler:
    """The tokens of one answer. Equal seeds and scores give equal tokens, whoever is beside it.

    Args:
        temperature: 0 takes the likeliest.
        top_p: nucleus mass (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).
        seed: of this answer's own generator.
        processors: change scores ``(1, vocabulary)`` given ids ``(1, tokens)``, in order.
        prompt: token ids, shape (1, prompt tokens).
    """

    def __init__(
        self,
        temperature: float,
        top_p: float,
        seed: int,
        processors: Sequence[Callable[[Any, Any], Any]],
        prompt: torch.Tensor,
    ) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._generator = torch.Generator().manual_seed(seed % 2**63)
        self._processors = tuple(processors)
        self._ids = prompt

    def __call__(self, scores: torch.Tensor) -> int:
        """The next token by its scores, shape (vocabulary,), float32."""
        row = scores[None]
        for process in self._processors:
            row = process(self._ids, row)
        token = self._drawn(row[0])
        if self._processors:
            self._ids = torch.cat([self._ids, torch.tensor([[token]])], dim=1)
        return token

    def _drawn(self, scores: torch.Tensor) -> int:
        if self._temperature == 0:
            return int(scores.argmax())
        likely = torch.softmax(scores / self._temperature, dim=0)
        if self._top_p == 1.0:
            return int(torch.multinomial(likely, 1, generator=self._generator))
        values, tokens = torch.sort(likely, descending=True)
        # The nucleus is the fewest tokens that come to the mass: those before which it is not full.
        values = values.masked_fill(values.cumsum(dim=0) - values >= self._top_p, 0.0)
        return int(tokens[torch.multinomial(values, 1, generator=self._generator)])
