"""Private fine-tuning of a LoRA adapter, and scoring with it, over one loaded base model.

The trainer knows tokens, tensors and a plan. It knows no department, ledger or network: the budget
must have been reserved before :meth:`LoraTrainer.train` is called.
"""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)

from privacy.base_model import HEADS, load_classifier, model_digest
from privacy.dp import adapter as adapters
from privacy.dp import attention
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.choice import choose
from privacy.dp.encode import AnyExample, Example, LabelledExample, Unit
from privacy.dp.errors import AdapterMismatch, DpError, TrainingFailed
from privacy.dp.loss import MicroBatch, Pooling, completion_loss, label_logits
from privacy.dp.plan import DpPlan, PublicPlan
from privacy.dp.prefix import FrozenPrefix, prefix_length
from privacy.dp.session import Session
from privacy.dp.state_cache import StateCache

MICRO_BATCH_TOKENS = 512
Progress = Callable[[int, int], None]
Quantisation = Literal["int8", "int4"]


class LoraTrainer:
    """One base model in memory, and what is done with adapters on it.

    ``base_model``: a local folder with configuration, safetensors and tokenizer (or a hub id).
    ``dtype``: precision of the base model; by default bfloat16 where the hardware multiplies it
    natively, else float32. Adapters, clipping, sums and noise are float32 in either case.
    ``labels``: a sequence classifier of so many labels instead of a language model.
    ``pooling``: what the head of an encoder reads, see :func:`~privacy.dp.loss.label_logits`. By
    default ``"mean"`` where that head is new and one linear layer, since nothing was trained to be
    read by it and a sentence encoder's own pooler often was not trained at all; else ``"model"``.
    ``gradient_checkpointing``: compute the blocks' activations twice instead of keeping them.
    ``quantisation``: keep the frozen base in 8 or 4 bits, where bitsandbytes serves the hardware.
    ``cache``: where hidden states below the first adapted block are kept.

    Calls from several threads take turns; the adapter is attached for one call.
    ``base_digest``: see :func:`privacy.base_model.model_digest`.
    """

    def __init__(
        self,
        base_model: Path | str,
        *,
        name: str | None = None,
        dtype: torch.dtype | None = None,
        labels: int | None = None,
        pooling: Pooling | None = None,
        gradient_checkpointing: bool = False,
        quantisation: Quantisation | None = None,
        cache: StateCache | None = None,
    ) -> None:
        source = str(base_model)
        self.name = name or Path(source).name
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
        self.task: type[AnyExample] = Example if labels is None else LabelledExample
        loaded, self._fresh = _load(source, labels)
        kept = {n: t for n, t in loaded.state_dict().items() if n not in self._fresh}
        self.base_digest = model_digest(kept)
        self._pooling = _pooling(loaded, self._fresh, pooling)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or _native_dtype(device)
        if quantisation is None:
            self._model: Any = loaded.to(device, dtype).eval()
        else:
            del loaded, kept
            self._model = _load(source, labels, _bits(quantisation, dtype), device)[0].eval()
        if self._pooling == "mean":
            # Nothing reads its own pooler, so an adapter on that would never be trained.
            for holder in (self._model, self._model.base_model):
                if hasattr(holder, "pooler"):
                    holder.pooler = None
        self._model.requires_grad_(False)
        _without_dropout(self._model)
        if device.type == "cpu" and self._model.dtype != torch.float32:
            attention.register()
            self._model.set_attn_implementation(attention.FLOAT32_ATTENTION)
        self._checkpointing = gradient_checkpointing
        self._cache = StateCache() if cache is None else cache
        self._cached_from = 0
        self._lock = threading.RLock()

    def initial_adapter(self, config: AdapterConfig, seed: int) -> Adapter:
        """See :func:`privacy.dp.adapter.initial_adapter`."""
        with self._lock:
            return adapters.initial_adapter(self._model, config, seed, self._fresh)

    def adapter_config_json(self, config: AdapterConfig) -> dict[str, Any]:
        """See :func:`privacy.dp.adapter.peft_config_json`."""
        with self._lock:
            return adapters.peft_config_json(self._model, config, self.name)

    def train(
        self,
        adapter: Adapter,
        units: Sequence[Unit],
        plan: DpPlan | PublicPlan,
        learning_rate: float,
        config: AdapterConfig,
        progress: Progress | None = None,
    ) -> Adapter:
        """Take ``plan.steps`` steps from ``adapter``; the trained tensors after them.

        Each step: Poisson batch of units, each unit's gradient clipped, summed, Gaussian noise,
        divided by the public expected batch size, optimiser (post-processing of the noised
        gradient). With a :class:`~privacy.dp.plan.DpPlan` the result is (epsilon, delta)-DP with
        respect to adding or removing one unit, at the cost of ``plan.event()``; it does not depend
        on the units in any other way. ``progress`` is called with (step, steps), both public.

        Raises :class:`~privacy.dp.errors.AdapterMismatch` before the first gradient, and
        :class:`~privacy.dp.errors.TrainingFailed` where the result is not finite, a trained tensor
        did not move or a frozen one did.
        """
        with self._attached(config, adapter) as model:
            session = self._session(model, config)
            with session.descent(units, plan, learning_rate) as descent:
                for step in range(plan.steps):
                    descent.step()
                    if progress is not None:
                        progress(step + 1, plan.steps)
            after = adapters.read_adapter(model)
        _check(adapter, after, config)
        return {name: tensor for name, tensor in after.items() if config.is_trained(name)}

    @contextmanager
    def session(self, config: AdapterConfig, adapter: Adapter | None) -> Iterator[Session]:
        """The model with an adapter, for passes and steps that the caller arranges."""
        with self._attached(config, adapter) as model:
            yield self._session(model, config)

    def losses(
        self, examples: Sequence[AnyExample], config: AdapterConfig, adapter: Adapter | None
    ) -> list[float]:
        """Loss of each example in nats, per completion token or of its label.

        ``adapter``: None scores the base model alone.
        """
        with self.session(config, adapter) as session:
            return session.losses(examples)

    def choose(
        self,
        prompts: Sequence[str],
        candidates: Sequence[str],
        config: AdapterConfig,
        adapter: Adapter | None,
        max_tokens: int,
    ) -> list[int]:
        """For each prompt the index of the candidate completion the model finds likeliest.

        See :func:`privacy.dp.choice.choose`.
        """
        with self._attached(config, adapter) as model, torch.inference_mode():
            return choose(model, self.tokenizer, prompts, candidates, max_tokens)

    def forget(self) -> None:
        """Drop the hidden states that were kept of records; at the end of a run."""
        with self._lock:
            self._cache.clear()

    @contextmanager
    def _attached(self, config: AdapterConfig, adapter: Adapter | None) -> Iterator[Any]:
        if self.task is LabelledExample and not set(config.trained_modules) & set(HEADS):
            raise AdapterMismatch(
                f"a classifier needs its head among trained_modules={list(config.trained_modules)}: "
                f"one of {', '.join(HEADS)}"
            )
        with self._lock, adapters.attached(self._model, config, adapter) as model:
            yield model

    def _session(self, model: Any, config: AdapterConfig) -> Session:
        """Past the frozen prefix, where there is one: nothing below it may be trained."""
        first = prefix_length(self._model, config.last_layers)
        prefix = None
        if first and set(config.trained_modules) <= set(HEADS):
            if first != self._cached_from:
                self._cache.clear()
                self._cached_from = first
            prefix = FrozenPrefix(self._model, first, MICRO_BATCH_TOKENS, self._run, self._cache)
        return Session(
            model, self.task, prefix, MICRO_BATCH_TOKENS, self._checkpointing, self._pooling
        )

    def _run(self, examples: Sequence[Any], shape: MicroBatch) -> object:
        if self.task is Example:
            return completion_loss(self._model, examples, shape)
        return label_logits(self._model, examples, shape, self._pooling)


def _load(
    source: str, labels: int | None, bits: Any = None, device: torch.device | None = None
) -> tuple[Any, frozenset[str]]:
    """The model in float32 or, with ``bits``, quantised; and what of it has no pretrained value."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if bits is not None:
        options = {
            "dtype": bits.bnb_4bit_compute_dtype,
            "quantization_config": bits,
            "device_map": device,
        }
    if labels is not None:
        return load_classifier(source, labels, **options)
    with torch.random.fork_rng():
        # What is not pretrained must be the same on every node.
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_pretrained(source, **options), frozenset()


def _pooling(model: Any, fresh: frozenset[str], asked: Pooling | None) -> Pooling:
    """What an encoder's head is to read.

    Raises :class:`~privacy.dp.errors.DpError` where the mean is asked for and the head is not one
    linear layer of an encoder.
    """
    head = getattr(model, "classifier", None)
    if asked is None:
        new = "classifier.weight" in fresh
        return "mean" if new and type(head) is nn.Linear else "model"
    if asked == "mean" and type(head) is not nn.Linear:
        raise DpError(
            f"pooling='mean' needs a head 'classifier' of one linear layer, which "
            f"{type(model).__name__} has not: use pooling='model'"
        )
    return asked


def _bits(quantisation: Quantisation, dtype: torch.dtype) -> Any:
    """How bitsandbytes is to keep the frozen matrices.

    Raises :class:`~privacy.dp.errors.DpError` where it is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DpError(
            f"quantisation={quantisation!r} needs the package bitsandbytes: install the extra "
            "'quantised', or leave the base model unquantised"
        )
    if quantisation == "int4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    # The usual treatment of outliers picks columns by looking at the whole batch, so that one
    # unit's gradient would depend on its neighbours. A threshold of 0 turns it off.
    return BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_threshold=0.0, bnb_4bit_compute_dtype=dtype
    )


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if native else torch.float32


def _check(before: Adapter, after: Adapter, config: AdapterConfig) -> None:
    for name, tensor in after.items():
        if not np.isfinite(tensor).all():
            raise TrainingFailed(
                f"{name} is not finite after training; lower the learning rate of the run"
            )
        moved = not np.array_equal(tensor, before[name])
        if moved != config.is_trained(name):
            state = "moved although it is frozen" if moved else "did not move"
            raise TrainingFailed(f"{name} {state}")
