"""Decodes answers of several callers together: one pass of the model makes a token of each.

Decoding reads all weights for each pass, so a pass for eight answers costs little more than one for
one. Answers join and leave between any two passes (iteration-level scheduling: Yu et al. 2022,
Orca, OSDI, section 4.1). A prompt is read by itself, exactly as it would be alone, and once, however
many answers it is to have; its keys and values then stand beside the others', padded on the left to
one length, the padding masked.

Sums of a pass for several answers may round otherwise than those of a pass for one. In float32 the
scores stay within 1e-4 of each other, so a greedy answer differs only where two tokens are that
close; in bfloat16 the bound is the format's own, some 1e-2.

Knows no tokenizer and no request: a row tells what to do with its scores.
"""

import copy
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from api.errors import EngineError

_log = logging.getLogger(__name__)


class Row(Protocol):
    """One answer, as the batcher sees it. All is called in the batcher's thread."""

    prompt: torch.Tensor
    """Token ids, shape (1, prompt tokens)."""
    most: int
    """Tokens of prompt and answer together, at most."""

    def cancelled(self) -> bool:
        """Whether nobody wants the rest."""
        ...

    def choose(self, scores: torch.Tensor) -> int | None:
        """The next token by its scores, shape (vocabulary,), float32 on the CPU; ``None`` ends.

        Raises:
            EngineError: this answer, and no other, has failed.
        """
        ...

    def ended(self, error: EngineError | None) -> None:
        """Called once, when nothing works for this row any more."""
        ...


class _Waiting:
    """Rows that wait for room, all of one prompt, and what reading the prompt gave."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = deque(rows)
        self.prompt = rows[0].prompt
        self.read: tuple[Any, torch.Tensor] | None = None


class Batcher:
    """Args:
    model: a causal language model of transformers, in evaluation mode.
    rows: answers that are decoded together, at most.
    tokens: bound of rows x longest row, padding included; a longer row is decoded alone.
    """

    def __init__(self, model: Any, *, rows: int = 8, tokens: int = 16_384) -> None:
        self._model = model
        self._device = next(iter(model.parameters())).device
        # A model with another kind of memory than keys and values of every token is not joined.
        plain = all(type(one) is DynamicLayer for one in DynamicCache(config=model.config).layers)
        self._most_rows = rows if plain else 1
        self._most_tokens = tokens
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._running = False
        self._rows: list[Row] = []
        self._cache: Any = None
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self._next = torch.empty(0, 1, dtype=torch.long)

    def submit(self, rows: Sequence[Row]) -> None:
        """Decode rows of one prompt as soon as there is room; those that came before go first.

        Where there is not room for all, some begin and the others follow; the prompt is read once.
        """
        with self._lock:
            self._waiting.append(_Waiting(rows))
            if self._running:
                return
            self._running = True
        # It ends with the work, so that an engine that nobody uses any more can be forgotten.
        threading.Thread(target=self._work, name="intramural-decode", daemon=True).start()

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                waiting, rows = self._admitted()
                if waiting is None and not self._rows:
                    return
                try:
                    if waiting is not None:
                        self._join(waiting, rows)
                    if self._rows:
                        self._step()
                except Exception as error:
                    failed = [*self._rows, *rows]
                    self._rows, self._cache = [], None
                    for each in failed:
                        each.ended(_failure(error))

    def _admitted(self) -> tuple[_Waiting | None, list[Row]]:
        """The next rows for which there is room, of one prompt, so that others go on too."""
        with self._lock:
            self._forget_cancelled()
            if not self._waiting:
                self._running = bool(self._rows)
                return None, []
            first = self._waiting[0]
            rows: list[Row] = []
            while first.rows and self._has_room([*self._rows, *rows, first.rows[0]]):
                rows.append(first.rows.popleft())
            if not rows:
                return None, []
            if not first.rows:
                self._waiting.popleft()
            return first, rows

    def _forget_cancelled(self) -> None:
        for waiting in list(self._waiting):
            for row in [row for row in waiting.rows if row.cancelled()]:
                waiting.rows.remove(row)
                row.ended(None)
            if not waiting.rows:
                self._waiting.remove(waiting)

    def _has_room(self, rows: Sequence[Row]) -> bool:
        longest = max(row.most for row in rows)
        fits = len(rows) <= self._most_rows and len(rows) * longest <= self._most_tokens
        return fits or len(rows) == 1

    def _join(self, waiting: _Waiting, rows: list[Row]) -> None:
        """Put rows of one prompt beside the others, each with its first token; empties the list."""
        if waiting.read is None:
            waiting.read = self._read(waiting.prompt)
        new, scores = waiting.read
        chosen = [(row, self._choose(row, scores)) for row in rows]
        rows.clear()
        joining = [row for row, token in chosen if token is not None]
        if not joining:
            return
        # From here on a failure is one of all rows.
        others, self._rows = len(self._rows), [*self._rows, *joining]
        if waiting.rows:
            new = copy.deepcopy(new)  # those that follow begin with it too
        if len(joining) > 1:
            new.batch_repeat_interleave(len(joining))
        mask = torch.ones_like(waiting.prompt, device=self._device).expand(len(joining), -1)
        tokens = [[token] for _, token in chosen if token is not None]
        following = torch.tensor(tokens, device=self._device)
        if not others:
            self._cache, self._mask, self._next = new, mask, following
            return
        width = max(self._mask.shape[1], mask.shape[1])
        for here, there in zip(self._cache.layers, new.layers, strict=True):
            here.keys = torch.cat([_widened(here.keys, width), _widened(there.keys, width)])
            here.values = torch.cat([_widened(here.values, width), _widened(there.values, width)])
        self._mask = torch.cat([_padded(self._mask, width), _padded(mask, width)])
        self._next = torch.cat([self._next, following])

    def _read(self, prompt: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """One pass over a prompt: its cache, and the scores of what follows."""
        ids = prompt.to(self._device)
        cache = DynamicCache(config=self._model.config)
        out = self._model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.past_key_values, out.logits[0, -1].float().cpu()

    def _step(self) -> None:
        """One token of every row."""
        kept = [index for index, row in enumerate(self._rows) if not row.cancelled()]
        self._keep(kept)
        if not self._rows:
            return
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        out = self._model(
            input_ids=self._next,
            attention_mask=self._mask,
            position_ids=self._mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = out.past_key_values
        scores = out.logits[:, -1].float().cpu()
        chosen = [self._choose(row, scores[index]) for index, row in enumerate(self._rows)]
        going = [index for index, token in enumerate(chosen) if token is not None]
        tokens = [[token] for token in chosen if token is not None]
        # Those that ended were told so; only the others' places are kept.
        self._keep(going, told=True)
        self._next = torch.tensor(tokens, device=self._device)

    def _choose(self, row: Row, scores: torch.Tensor) -> int | None:
        try:
            token = row.choose(scores)
        except Exception as error:
            row.ended(error if isinstance(error, EngineError) else _failure(error))
            return None
        if token is None:
            row.ended(None)
        return token

    def _keep(self, kept: list[int], *, told: bool = False) -> None:
        """Let go of all rows but these."""
        if len(kept) == len(self._rows):
            return
        if not told:
            for index, row in enumerate(self._rows):
                if index not in kept:
                    row.ended(None)
        self._rows = [self._rows[index] for index in kept]
        if not kept:
            self._cache = None
            return
        places = torch.tensor(kept, device=self._device)
        mask = self._mask[places]
        # Columns in which nobody who is left has a token.
        first = int(mask.any(dim=0).int().argmax())
        self._mask = mask[:, first:]
        if self._next.shape[0] > len(kept):
            self._next = self._next[places]
        for layer in self._cache.layers:
            layer.keys = layer.keys[places, :, first:].contiguous()
            layer.values = layer.values[places, :, first:].contiguous()


def _failure(error: Exception) -> EngineError:
    # The text of a foreign exception may quote its input; its type may not.
    kind = type(error).__name__
    _log.error("generation failed: %s", kind)
    return EngineError(f"the generation failed ({kind})")


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values ``(rows, heads, tokens, size)``, padded on the left to ``width`` tokens."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))


def _padded(mask: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
