"""Training steps that are not ours: plain PEFT LoRA and other private trainers.

All take LoRA from PEFT on the same projections, A and B trained, and end in a full optimiser step;
private ones clip each unit's gradient over all trained tensors together and add noise.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F

from benchmarks.configuration import (
    ALPHA,
    CLIPPING_NORM,
    LEARNING_RATE,
    NOISE_MULTIPLIER,
    RANK,
    TARGETS,
    Configuration,
    device,
    random_tokens,
)

Step = Callable[[], None]
Batch = dict[str, torch.Tensor]


class PeerMissing(Exception):
    """A variant needs software that was not named; the message says how to name it."""


def require(variant: str, configuration: Configuration) -> None:
    """Make an optional peer importable, or raise :class:`PeerMissing`."""
    option, folder, module = {
        "fastdp": ("--fastdp", configuration.fastdp, "fastDP"),
        "opake": ("--peers", configuration.peers, "opake.dpsgd"),
    }.get(variant, ("", None, ""))
    if not module:
        return
    if folder is None:
        raise PeerMissing(f"not measured: name its folder with {option} (benchmarks/README.md)")
    sys.path.append(str(Path(folder).resolve()))
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise PeerMissing(f"not measured: {module} in {folder} does not load ({error})") from error


def given_batch(configuration: Configuration) -> Batch:
    """Tokens and labels of every step.

    No attention mask: no row is padded, and without one attention takes its fastest path.
    """
    tokens = random_tokens(configuration, configuration.batch).to(device())
    labels = tokens.clone()
    labels[:, : configuration.completion_start] = -100
    return {"input_ids": tokens, "labels": labels}


def with_adapter(model: Any, *, frozen_a: bool) -> Any:
    """PEFT's model, in training mode; ``model`` must be on its device (Opacus issue 820)."""
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            # B at zero, as it starts in practice, would leave A without a gradient.
            scale = 0.02 if "lora_B" in name else parameter.shape[1] ** -0.5
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if "lora_A" in name and frozen_a:
            parameter.requires_grad_(False)
    peft_model.config.use_cache = False
    return peft_model.train()


def _trained(model: Any) -> list[Any]:
    return [p for p in model.parameters() if p.requires_grad]


def _adamw(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=LEARNING_RATE)


def _autocast(configuration: Configuration) -> Any:
    return torch.autocast(device(), torch.bfloat16, enabled=configuration.dtype == "bf16")


def precision(variant: str, configuration: Configuration) -> str:
    """In words, what is computed in which precision."""
    if configuration.dtype == "fp32":
        return "float32 throughout"
    if variant == "fastdp":
        return "bfloat16 throughout, adapter and clipping too: it fails under autocast"
    return "bfloat16 base, float32 adapter, under autocast"


def plain_step(model: Any, batch: Batch, configuration: Configuration) -> Step:
    """What everybody runs without privacy."""
    optimiser = _adamw(_trained(model))

    def step() -> None:
        optimiser.zero_grad()
        with _autocast(configuration):
            loss = model(**batch).loss
        loss.backward()
        optimiser.step()

    return step


def _unit_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over each unit's own completion tokens: ``(units,)``.

    ``model(labels=...).loss`` divides by the tokens of the whole batch and couples its units.
    """
    targets = labels[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), targets, ignore_index=-100, reduction="none"
    )
    return losses.sum(1) / (targets != -100).sum(1)


def opacus_hooks_step(model: Any, batch: Batch, configuration: Configuration) -> Step:
    """Opacus with every unit's gradient kept until the step."""
    optimiser, _ = _opacus(model, configuration, "hooks")

    def step() -> None:
        optimiser.zero_grad()
        with _autocast(configuration):
            logits = model(input_ids=batch["input_ids"]).logits
            loss = _unit_losses(logits, batch["labels"]).mean()
        loss.backward()
        optimiser.step()

    return step


def opacus_ghost_step(model: Any, batch: Batch, configuration: Configuration) -> Step:
    """Opacus with norms first and a second backward pass for the clipped sum."""
    optimiser, criterion = _opacus(model, configuration, "ghost")
    targets = batch["labels"][:, 1:]

    def step() -> None:
        optimiser.zero_grad()
        with _autocast(configuration):
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
            # Given the shape, the criterion takes each unit's own mean over its counted tokens.
            loss = criterion(
                logits.reshape(-1, logits.shape[-1]).float(),
                targets.reshape(-1),
                shape=targets.shape,
            )
        loss.backward()
        optimiser.step()

    return step


def _opacus(model: Any, configuration: Configuration, mode: str) -> tuple[Any, Any]:
    """Opacus' optimiser, and in mode "ghost" its criterion. Batches are given, not sampled."""
    from opacus import PrivacyEngine

    data = torch.utils.data.TensorDataset(torch.zeros(100 * configuration.batch))
    made = PrivacyEngine().make_private(
        module=model,
        optimizer=_adamw(_trained(model)),
        criterion=torch.nn.CrossEntropyLoss(ignore_index=-100),
        data_loader=torch.utils.data.DataLoader(data, batch_size=configuration.batch),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIPPING_NORM,
        grad_sample_mode=mode,
        poisson_sampling=False,
        wrap_model=False,
    )
    return made[1], made[2]


def fastdp_step(model: Any, batch: Batch, configuration: Configuration) -> Step:
    """Book-keeping with ghost differentiation (Bu et al. 2022, arXiv 2210.00038), its fastest mode.

    Its origin parameters are the first that the forward pass meets. The query projection of the
    first block alone would not do: keys and values of that block do not depend on it.
    """
    from fastDP import PrivacyEngine

    model.to(configuration.torch_dtype)
    optimiser = _adamw(_trained(model))
    engine = PrivacyEngine(
        model,
        batch_size=configuration.batch,
        sample_size=100 * configuration.batch,
        epochs=1,
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIPPING_NORM,
        clipping_fn="Abadi",
        clipping_mode="MixOpt",
        clipping_style="all-layer",
        origin_params=[f"layers.0.self_attn.{p}.lora_A" for p in TARGETS[:3]],
    )
    engine.attach(optimiser)

    def step() -> None:
        optimiser.zero_grad()
        logits = model(input_ids=batch["input_ids"]).logits
        _unit_losses(logits, batch["labels"]).mean().backward()
        optimiser.step()

    return step


def opake_step(model: Any, batch: Batch, configuration: Configuration) -> Step:
    """Per-unit gradients by vmap over the functional model, after Opake's patches for both."""
    from opake.dpsgd.clipping import clipped_grad
    from opake.dpsgd.noise import gaussian_noise
    from opake.functional import make_functional
    from opake.patches import apply_model_patches
    from opake.random import key

    apply_model_patches(model)
    functional, trained, frozen = make_functional(model, partition_trainable=True)
    optimiser = _adamw(list(trained.values()))

    def loss(parameters: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # vmap shows one unit at a time, so the mean over a batch's tokens is that of the unit.
        result = functional({**frozen, **parameters}, input_ids=tokens[None], labels=labels[None])
        own: torch.Tensor = result.loss
        return own

    gradient, clip_state = clipped_grad(
        loss,
        batch_argnums=(1, 2),
        clipping_norm=CLIPPING_NORM,
        normalize_by=configuration.batch,
    )
    noise, noise_state = gaussian_noise(noise_multiplier=NOISE_MULTIPLIER, key=key(0))

    def step() -> None:
        nonlocal clip_state, noise_state
        with _autocast(configuration):
            clipped, clip_state = gradient(
                trained, batch["input_ids"], batch["labels"], state=clip_state
            )
        noised, noise_state = noise(clipped, noise_state)
        for name, parameter in trained.items():
            parameter.grad = noised.pytree[name].to(parameter.dtype)
        optimiser.step()

    return step


def movement_check(model: Any) -> Step:
    """Raise where a LoRA tensor that ought to be trained stood still or is not finite."""
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}
    frozen_a = not any("lora_A" in n and p.requires_grad for n, p in model.named_parameters())

    def check() -> None:
        for name, parameter in model.named_parameters():
            if name not in before:
                continue
            moved = not torch.equal(before[name], parameter)
            if moved == (frozen_a and "lora_A" in name) or not parameter.isfinite().all():
                raise RuntimeError(f"{name}: these were not steps of training")

    return check
