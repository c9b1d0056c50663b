"""An engine in this process: a causal language model run by transformers.

A verified release's adapter is merged into the base model when the engine is built, so an answer
costs what the base model costs. One generation runs at a time, in a thread of its own; callers
wait at a lock. Knows neither HTTP nor personal data.
"""

import logging
import queue
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from api.engines.base import (
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationResult,
    TextDelta,
    Usage,
)
from api.engines.stop import StopFilter
from api.errors import ContextTooLong, EngineError, UnknownModel
from privacy.base_model import model_digest
from privacy.errors import ReleaseInvalid
from privacy.release import VerifiedRelease

_log = logging.getLogger(__name__)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TransformersEngine:
    """Serves one model under one id.

    Args:
        base_model: folder of the base model with its tokenizer; nothing is ever downloaded.
        release: the verified release whose adapter is merged; ``None`` serves the base model.
        model_id: the id it is served under; the release's by default.
        dtype: of the weights while serving; merging is done in float32.

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
    ) -> None:
        if model_id is None:
            if release is None:
                raise EngineError("the base model is served only under a name that is given to it")
            model_id = release.id
        self._model_id = model_id
        self._lock = threading.Lock()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                base_model, local_files_only=True, dtype=torch.float32
            )
            if release is not None:
                model = _merged(model, release)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ReleaseInvalid) as error:
            raise EngineError(f"{model_id} cannot be loaded: {error}") from error
        self._model = model.to(dtype).eval()
        self.context_length = int(self._model.config.max_position_embeddings)
        self._eos = _eos_tokens(self._model, self._tokenizer)

    def models(self) -> list[str]:
        """The one id that it serves."""
        return [self._model_id]

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See :meth:`api.engines.base.Engine.generate`."""
        pieces: list[str] = []
        for item in self.stream(request):
            if isinstance(item, Finished):
                return GenerationResult("".join(pieces), item.finish_reason, item.usage)
            pieces.append(item.text)
        raise EngineError("the generation ended without a result")

    def stream(self, request: GenerationRequest) -> Iterator[TextDelta | Finished]:
        """See :meth:`api.engines.base.Engine.stream`. Input is checked before this returns."""
        if request.model != self._model_id:
            raise UnknownModel(f"this engine serves {self._model_id} only")
        ids = self._encode(request)
        room = self.context_length - ids.shape[1]
        if room < 1 or (request.max_tokens > room and not request.fit):
            raise ContextTooLong(ids.shape[1], request.max_tokens, self.context_length)
        return self._run(request, ids, min(request.max_tokens, room))

    def _encode(self, request: GenerationRequest) -> torch.Tensor:
        """Token ids, shape (1, prompt tokens)."""
        if request.prompt is not None:
            encoded = self._tokenizer(request.prompt, return_tensors="pt")
        elif self._tokenizer.chat_template is None:
            raise EngineError(f"{self._model_id} has no chat template: use /v1/completions")
        else:
            turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
            encoded = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        ids: torch.Tensor = encoded["input_ids"]
        if ids.shape[1] == 0:
            start = self._tokenizer.bos_token_id
            ids = torch.tensor([[self._eos[0] if start is None else start]])
        return ids

    def _run(
        self, request: GenerationRequest, ids: torch.Tensor, max_tokens: int
    ) -> Iterator[TextDelta | Finished]:
        emitter = _Emitter(self._tokenizer, self._eos, ids.shape[1], request.stop)
        worker = threading.Thread(
            target=self._generate, args=(request, ids, max_tokens, emitter), daemon=True
        )
        worker.start()
        try:
            while True:
                item = emitter.out.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if isinstance(item, Finished):
                    return
        finally:
            emitter.cancelled.set()
            worker.join()

    def _generate(
        self, request: GenerationRequest, ids: torch.Tensor, max_tokens: int, emitter: "_Emitter"
    ) -> None:
        sampling = request.temperature > 0
        config = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=sampling,
            temperature=request.temperature if sampling else None,
            top_p=request.top_p if sampling else None,
            top_k=0 if sampling else None,
            eos_token_id=self._eos,
            pad_token_id=self._eos[0],
        )
        # torch's default generator starts every process alike: unseeded requests draw a seed.
        seed = secrets.randbits(63) if request.seed is None else request.seed
        try:
            with self._lock, torch.inference_mode(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                if not emitter.cancelled.is_set():
                    self._model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        generation_config=config,
                        stopping_criteria=StoppingCriteriaList([emitter]),
                    )
            emitter.finish()
        except Exception as error:
            # The text of a foreign exception may quote its input; its type may not.
            kind = type(error).__name__
            _log.error("generation failed: %s", kind)
            emitter.out.put(EngineError(f"the generation failed ({kind})"))


class _Emitter(StoppingCriteria):
    """Sees every token as it is made: decodes it, counts it, and says when to stop.

    Being asked inside the decoding loop, it stops exactly at the token that completed a stop
    string, so usage is the same for equal requests.
    """

    def __init__(
        self, tokenizer: Any, eos: list[int], prompt_tokens: int, stop: tuple[str, ...]
    ) -> None:
        self.out: queue.SimpleQueue[TextDelta | Finished | EngineError] = queue.SimpleQueue()
        self.cancelled = threading.Event()
        self._tokenizer = tokenizer
        self._eos = eos
        self._prompt_tokens = prompt_tokens
        self._filter = StopFilter(stop)
        self._tokens: list[int] = []
        self._context = 0  # start of the tokens that were passed on last
        self._shown = 0  # end of them
        self._count = 0
        self._ended = False

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        token = int(input_ids[0, -1])
        self._count += 1
        if token in self._eos:
            self._ended = True
        else:
            self._tokens.append(token)
            self._pass_on(self._new_text())
        done = self._ended or self._filter.hit or self.cancelled.is_set()
        return torch.full((1,), done, dtype=torch.bool, device=input_ids.device)

    def finish(self) -> None:
        """Send what is still held back, then the end."""
        if not self._filter.hit:
            self._pass_on(self._new_text(final=True))
            self._send(self._filter.flush())
        reason: FinishReason = "stop" if self._ended or self._filter.hit else "length"
        self.out.put(Finished(reason, self._usage()))

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

    def _pass_on(self, text: str) -> None:
        self._send(self._filter.feed(text))

    def _send(self, text: str) -> None:
        if text:
            self.out.put(TextDelta(text, self._usage()))

    def _usage(self) -> Usage:
        return Usage(self._prompt_tokens, self._count)


def _merged(model: Any, release: VerifiedRelease) -> Any:
    """``model`` with the release's adapter added to its weights.

    Everything comes from the bytes that were verified, not from the folder they were read from.
    """
    expected, found = release.run["base_model_digest"], model_digest(model.state_dict())
    if found != expected:
        raise EngineError(
            f"{release.id} was trained on base model {expected[:12]}..., this one is {found[:12]}..."
        )
    tensors = {name: torch.from_numpy(array) for name, array in release.tensors().items()}
    peft_model = get_peft_model(model, LoraConfig.from_peft_type(**release.adapter_config))
    loaded: Any = set_peft_model_state_dict(peft_model, tensors)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    if missing or loaded.unexpected_keys:
        raise EngineError(
            f"{release.id}: {len(missing)} tensors of the adapter are missing "
            f"and {len(loaded.unexpected_keys)} are unknown to the model"
        )
    return peft_model.merge_and_unload(safe_merge=True)


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
