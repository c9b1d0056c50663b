"""An engine in this process: a causal language model run by transformers.

A verified release's adapter is merged into the base model when the engine is built, so an answer
costs what the base model costs; or it stays apart, so that several releases hold one base model.
Answers of several callers are decoded together, see :mod:`api.engines.batching`; all of one engine
are of one release. Knows neither HTTP nor personal data.
"""

import queue
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from api.engines.base import (
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationResult,
    Item,
    TextDelta,
    ToolCall,
    ToolCalled,
    Usage,
    whole,
)
from api.engines.batching import Batcher
from api.engines.guide import Guide, Likelihoods, Told, Vocabulary, grammar_for
from api.engines.int8 import quantise
from api.engines.json_grammar import Symbol
from api.engines.releases import id_of, with_adapter
from api.engines.sampling import Sampler
from api.engines.stop import StopFilter
from api.engines.tool_calls import ToolCallReader, described, for_template, told
from api.engines.weights import SharedWeights
from api.errors import ContextTooLong, EngineError, UnknownModel
from privacy.errors import ReleaseInvalid
from privacy.release import VerifiedRelease

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TransformersEngine:
    """Serves one model under one id.

    Args:
        base_model: folder of the base model with its tokenizer; nothing is ever downloaded.
        release: the verified release whose adapter is served; ``None`` serves the base model.
        model_id: the id it is served under; the release's by default.
        dtype: of the weights while serving; merging is done in float32. ``torch.int8``, on CPUs
            alone, is for the linear layers, see :mod:`api.engines.int8`; the rest stays float32.
        device: where it runs.
        batch: answers that are decoded together.
        batch_tokens: bound of a batch's tokens, see :class:`api.engines.batching.Batcher`.
        merge: add the adapter to the weights; else it is computed beside them.
        weights: those of the engines with which this one shares what is equal.

    Raises:
        EngineError: the model or the adapter cannot be loaded, they do not belong together, or
            there is neither a release nor a name for the bare base model.
    """

    def __init__(
        self,
        base_model: Path,
        release: VerifiedRelease | None = None,
        *,
        model_id: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        batch: int = 8,
        batch_tokens: int = 16_384,
        merge: bool = True,
        weights: SharedWeights | None = None,
    ) -> None:
        self._model_id = id_of(release, model_id)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                base_model, local_files_only=True, dtype=torch.float32
            )
            if release is not None:
                model = with_adapter(model, release, merge=merge)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ReleaseInvalid) as error:
            raise EngineError(f"{self._model_id} cannot be loaded: {error}") from error
        whole = torch.float32 if dtype is torch.int8 else dtype
        self._model = model.to(device=device, dtype=whole).eval()
        if dtype is torch.int8:
            quantise(self._model)
        if weights is not None:
            weights.share(self._model)
        self._batcher = Batcher(self._model, rows=batch, tokens=batch_tokens)
        self.context_length = int(self._model.config.max_position_embeddings)
        self._eos = _eos_tokens(self._model, self._tokenizer)
        self._tokens: Vocabulary | None = None

    def models(self) -> list[str]:
        """The one id that it serves."""
        return [self._model_id]

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See :meth:`api.engines.base.Engine.generate`."""
        return whole(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See :meth:`api.engines.base.Engine.stream`. Input is checked before this returns.

        Several answers are made at once, the second of a seed with the seed after it.
        """
        if request.model != self._model_id:
            raise UnknownModel(f"this engine serves {self._model_id} only")
        grammar = grammar_for(request)
        ids = self._encode(request)
        limit = min(self.context_length, request.max_context or self.context_length)
        room = limit - ids.shape[1]
        if room < 1 or (request.max_tokens > room and not request.fit):
            raise ContextTooLong(ids.shape[1], request.max_tokens, limit)
        return self._answers(request, ids, min(request.max_tokens, room), grammar)

    def _encode(self, request: GenerationRequest) -> torch.Tensor:
        """Token ids, shape (1, prompt tokens)."""
        if request.prompt is not None:
            encoded = self._tokenizer(request.prompt, return_tensors="pt")
        elif self._tokenizer.chat_template is None:
            raise EngineError(f"{self._model_id} has no chat template: use /v1/completions")
        else:
            tools = request.callable_tools()
            knows = "tools" in self._tokenizer.chat_template
            encoded = self._tokenizer.apply_chat_template(
                for_template(request.messages) if knows else told(request.messages, tools),
                tools=[described(tool) for tool in tools] if knows and tools else None,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        ids: torch.Tensor = encoded["input_ids"]
        if ids.shape[1] == 0:
            start = self._tokenizer.bos_token_id
            ids = torch.tensor([[self._eos[0] if start is None else start]])
        return ids

    def _answers(
        self,
        request: GenerationRequest,
        ids: torch.Tensor,
        max_tokens: int,
        grammar: tuple[Symbol, ...] | None,
    ) -> Iterator[Item]:
        out: queue.SimpleQueue[Item | EngineError] = queue.SimpleQueue()
        rows = []
        for index in range(request.n):
            # torch's default generator starts every process alike: unseeded requests draw a seed.
            seed = secrets.randbits(63) if request.seed is None else request.seed + index
            likelihoods = (
                None if request.logprobs is None else Likelihoods(request.logprobs, self._tokenizer)
            )
            processors: list[Any] = [] if likelihoods is None else [likelihoods]
            if grammar is not None:
                guide = Guide(grammar, self._vocabulary(), self._eos, ids.shape[1])
                processors.append(guide)
            row = _Row(
                self._tokenizer,
                self._eos,
                out,
                request,
                index,
                likelihoods,
                sampler=Sampler(request.temperature, request.top_p, seed, processors, ids),
                prompt=ids,
                max_tokens=max_tokens,
            )
            rows.append(row)
        return self._decoded(rows, out)

    def _vocabulary(self) -> Vocabulary:
        """Made when it is needed first: it takes about a second for fifty thousand tokens."""
        if self._tokens is None:
            self._tokens = Vocabulary(self._tokenizer)
        return self._tokens

    def _decoded(
        self, rows: "Sequence[_Row]", out: "queue.SimpleQueue[Item | EngineError]"
    ) -> Iterator[Item]:
        """The items of all rows as they come; each row counts its own tokens, an item has all."""
        self._batcher.submit(rows)
        made, open_rows = [0] * len(rows), len(rows)
        try:
            while open_rows:
                item = out.get()
                if isinstance(item, EngineError):
                    raise item
                made[item.index] = item.usage.completion_tokens
                open_rows -= isinstance(item, Finished)
                yield replace(item, usage=Usage(item.usage.prompt_tokens, sum(made)))
        finally:
            for row in rows:
                row.leave()
            for row in rows:
                row.wait()


class _Row:
    """One answer: decodes each token as it is made, counts it, and says when to stop.

    Being asked inside the decoding loop, it stops exactly at the token that completed a stop
    string, so usage is the same for equal requests.
    """

    def __init__(
        self,
        tokenizer: Any,
        eos: list[int],
        out: "queue.SimpleQueue[Item | EngineError]",
        request: GenerationRequest,
        index: int,
        likelihoods: Likelihoods | None,
        *,
        sampler: Sampler,
        prompt: torch.Tensor,
        max_tokens: int,
    ) -> None:
        self._out = out
        self.prompt = prompt
        self.most = prompt.shape[1] + max_tokens
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._left = threading.Event()
        self._gone = threading.Event()
        self._tokenizer = tokenizer
        self._eos = eos
        self._index = index
        self._filter = StopFilter(request.stop)
        self._calls = ToolCallReader(
            request.callable_tools(), None if request.parallel_tool_calls else 1
        )
        self._likelihoods = likelihoods
        self._told = Told()
        self._tokens: list[int] = []
        self._context = 0  # start of the tokens that were passed on last
        self._shown = 0  # end of them
        self._count = 0
        self._length = 0  # characters of text that left
        self._complete = False

    def leave(self) -> None:
        """Nobody wants the rest."""
        self._left.set()

    def wait(self) -> None:
        """Return when nothing works for it any more."""
        self._gone.wait()

    def cancelled(self) -> bool:
        """See :class:`api.engines.batching.Row`."""
        return self._left.is_set()

    def choose(self, scores: torch.Tensor) -> int | None:
        """See :class:`api.engines.batching.Row`."""
        token = self._sampler(scores)
        self._count += 1
        if token in self._eos:
            self._complete = True
            return None
        self._tokens.append(token)
        text = self._new_text()
        if self._likelihoods is not None:
            self._told.token(*self._likelihoods.of(token), text)
        self._take(self._filter.feed(text))
        done = self._filter.hit or self._calls.full or self._count >= self._max_tokens
        return None if done else token

    def ended(self, error: EngineError | None) -> None:
        """See :class:`api.engines.batching.Row`."""
        if error is None and not self._left.is_set():
            self._finish()
        elif error is not None:
            self._out.put(error)
        self._gone.set()

    def _finish(self) -> None:
        """Send what is still held back, then the end."""
        if not self._filter.hit:
            self._take(self._filter.feed(self._new_text(final=True)))
            self._take(self._filter.flush())
        for part in self._calls.flush():
            self._send(part)
        reason: FinishReason = "stop" if self._complete or self._filter.hit else "length"
        if self._calls.calls and (reason == "stop" or self._calls.full):
            reason = "tool_calls"
        self._out.put(Finished(reason, self.usage(), self._index, self._told.upto(self._length)))

    def _new_text(self, *, final: bool = False) -> str:
        """Text of the tokens since the last complete character.

        The tokens before are decoded along, because a tokenizer may drop the blank before the
        first word of what it decodes.
        """
        before = self._decode(self._tokens[self._context : self._shown])
        text = self._decode(self._tokens[self._context :])
        if text.endswith(_REPLACEMENT) and not final:
            return ""  # the token ends inside a character's bytes
        self._context, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _take(self, text: str) -> None:
        for part in self._calls.feed(text):
            self._send(part)

    def _send(self, part: str | ToolCall) -> None:
        if isinstance(part, ToolCall):
            self._out.put(ToolCalled(part, self.usage(), self._index))
        elif part:
            self._length += len(part)
            self._out.put(TextDelta(part, self.usage(), self._index))

    def usage(self) -> Usage:
        """Tokens of this answer up to here."""
        return Usage(self.prompt.shape[1], self._count)


def _eos_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer; never empty."""
    found: list[int] = []
    for value in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        for token in value if isinstance(value, list) else [value]:
            if token is not None and token not in found:
                found.append(int(token))
    if not found:
        raise EngineError("the model names no end-of-sequence token")
    return found
