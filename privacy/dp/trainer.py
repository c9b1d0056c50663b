"""Private fine-tuning of a LoRA adapter, and scoring with it, over one loaded base model.

The trainer knows tokens, tensors and a plan. It knows no department, ledger or network: the budget
must have been reserved before :meth:`LoraTrainer.train` is called.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from privacy.base_model import model_digest
from privacy.dp import adapter as adapters
from privacy.dp import attention
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.choice import choose
from privacy.dp.clipping import clip_and_sum
from privacy.dp.encode import Example
from privacy.dp.errors import TrainingFailed
from privacy.dp.loss import MicroBatch, micro_batches, per_unit_loss
from privacy.dp.per_unit import per_unit_gradients
from privacy.dp.plan import DpPlan
from privacy.dp.prefix import FrozenPrefix, prefix_length
from privacy.dp.randomness import gaussian_noise, poisson_sample, secure_generator

MICRO_BATCH_TOKENS = 512
Progress = Callable[[int, int], None]
Losses = Callable[[Sequence[Example]], Iterator[tuple[MicroBatch, torch.Tensor]]]


class LoraTrainer:
    """One base model in memory, and what is done with adapters on it.

    ``base_model``: a local folder with configuration, safetensors and tokenizer (or a hub id).
    ``dtype``: precision of the base model; by default bfloat16 where the hardware multiplies it
    natively, else float32. Adapters, per-unit gradients, clipping, sums and noise are float32 in
    either case. Calls from several threads take turns; the adapter is attached for one call.

    ``base_digest``: see :func:`privacy.base_model.model_digest`.
    """

    def __init__(
        self,
        base_model: Path | str,
        *,
        name: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        source = str(base_model)
        self.name = name or Path(source).name
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        self.base_digest = model_digest(loaded)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = loaded.to(device, dtype or _native_dtype(device)).eval()  # type: ignore[arg-type]
        self._model.requires_grad_(False)
        if device.type == "cpu" and self._model.dtype != torch.float32:
            attention.register()
            self._model.set_attn_implementation(attention.FLOAT32_ATTENTION)
        self._lock = threading.RLock()
        self._prefixes: dict[int, FrozenPrefix] = {}

    def initial_adapter(self, config: AdapterConfig, seed: int) -> Adapter:
        """See :func:`privacy.dp.adapter.initial_adapter`."""
        with self._lock:
            return adapters.initial_adapter(self._model, config, seed)

    def adapter_config_json(self, config: AdapterConfig) -> dict[str, Any]:
        """See :func:`privacy.dp.adapter.peft_config_json`."""
        with self._lock:
            return adapters.peft_config_json(self._model, config, self.name)

    def train(
        self,
        adapter: Adapter,
        examples: Sequence[Example],
        plan: DpPlan,
        learning_rate: float,
        config: AdapterConfig,
        progress: Progress | None = None,
    ) -> Adapter:
        """Take ``plan.steps`` noised steps from ``adapter``; the trained tensors after them.

        Each step: Poisson batch, per-unit gradients clipped to C, summed, Gaussian noise, divided
        by the public expected batch size, Adam (post-processing of the noised gradient). The
        result is (epsilon, delta)-DP with respect to adding or removing one example, at the cost
        of ``plan.event()``; it does not depend on the examples in any other way. ``progress`` is
        called with (step, steps), both public.

        Raises :class:`~privacy.dp.errors.AdapterMismatch` before the first gradient, and
        :class:`~privacy.dp.errors.TrainingFailed` where the result is not finite, a trained tensor
        did not move or a frozen one did.
        """
        with self._attached(config, adapter) as model:
            with self._entered(model, config) as losses:
                _descend(model, losses, examples, plan, learning_rate, progress)
            after = adapters.read_adapter(model)
        _check(adapter, after, config)
        return {name: tensor for name, tensor in after.items() if config.is_trained(name)}

    def losses(
        self, examples: Sequence[Example], config: AdapterConfig, adapter: Adapter | None
    ) -> list[float]:
        """Mean completion loss of each example in nats per token; ``None``: the base model alone."""
        result = [0.0] * len(examples)
        with (
            self._attached(config, adapter) as model,
            self._entered(model, config) as losses,
            torch.no_grad(),
        ):
            for group, loss in losses(examples):
                for index, value in zip(group.indices, loss.tolist(), strict=True):
                    result[index] = value
        return result

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

    @contextmanager
    def _attached(self, config: AdapterConfig, adapter: Adapter | None) -> Iterator[Any]:
        with self._lock, adapters.attached(self._model, config, adapter) as model:
            yield model

    @contextmanager
    def _entered(self, model: Any, config: AdapterConfig) -> Iterator[Losses]:
        """The per-unit losses of ``model``, past the frozen prefix where there is one."""
        first = prefix_length(self._model, config.last_layers)
        if first == 0:
            yield partial(_losses, model)
            return
        if first not in self._prefixes:
            self._prefixes = {first: FrozenPrefix(self._model, first, MICRO_BATCH_TOKENS)}
        prefix = self._prefixes[first]

        def losses(examples: Sequence[Example]) -> Iterator[tuple[MicroBatch, torch.Tensor]]:
            states = prefix.states(examples)
            with prefix.skipped(model):
                yield from _losses(model, examples, states)

        yield losses


def _losses(
    model: Any, examples: Sequence[Example], states: Sequence[torch.Tensor] | None = None
) -> Iterator[tuple[MicroBatch, torch.Tensor]]:
    """Per-unit losses ``(units,)`` of one micro-batch after the other."""
    for group in micro_batches(range(len(examples)), examples, MICRO_BATCH_TOKENS):
        yield (
            group,
            per_unit_loss(
                model,
                [examples[i] for i in group.indices],
                group,
                None if states is None else [states[i] for i in group.indices],
            ),
        )


def _descend(
    model: Any,
    losses: Losses,
    examples: Sequence[Example],
    plan: DpPlan,
    learning_rate: float,
    progress: Progress | None,
) -> None:
    rng = secure_generator()
    with per_unit_gradients(model) as gradients:
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.98))
        for step in range(plan.steps):
            batch = poisson_sample(len(examples), plan.sampling_rate, rng)
            total = [torch.zeros_like(p) for p in trained]
            for group, loss in losses([examples[i] for i in batch]):
                loss.sum().backward()
                per_unit = [g[: len(group.indices)] for g in gradients.take(group.rows)]
                clipped = clip_and_sum(per_unit, plan.clipping_norm)
                for accumulated, part in zip(total, clipped.total, strict=True):
                    accumulated += part
            for parameter, summed in zip(trained, total, strict=True):
                parameter.grad = _noised_mean(summed, plan, rng)
            optimiser.step()
            optimiser.zero_grad()
            if progress is not None:
                progress(step + 1, plan.steps)


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if native else torch.float32


def _noised_mean(summed: torch.Tensor, plan: DpPlan, rng: np.random.Generator) -> torch.Tensor:
    noise = torch.from_numpy(gaussian_noise(summed.numel(), plan.noise_std, rng))
    noised = summed.cpu().double() + noise.view(summed.shape)
    return (noised / plan.expected_batch_size).to(summed.device, torch.float32)


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
