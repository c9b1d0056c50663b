"""The training steps that are compared: plain PEFT LoRA, other private trainers, and ours.

Every variant trains LoRA of the same rank on the same projections of the same model with the same
batch, takes the loss on the same completion tokens, and ends in an optimiser step. Private ones
clip each unit's gradient over all trained tensors together and add noise.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.encode import Example
from privacy.dp.plan import DpPlan, PublicPlan

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
CLIPPING_NORM, NOISE_MULTIPLIER, LEARNING_RATE = 0.5, 0.6, 1e-4
COMPLETION_SHARE = 4
"""The last quarter of a sequence is its completion."""

PLAIN = "plain"
PLAIN_VARIANTS = (PLAIN, "plain-B")
PEERS = ("opacus-hooks", "opacus-ghost", "fastdp", "opake")
OURS = ("ours-private", "ours-public", "ours-private-AB", "ours-last-quarter")
VARIANTS = (*PLAIN_VARIANTS, *PEERS, *OURS)


class PeerMissing(Exception):
    """A variant needs software that was not named; the message says how to name it."""


@dataclass(frozen=True)
class Configuration:
    """One setting of the comparison. ``units`` is the size of the data set, ``batch`` of a step.

    ``fastdp`` and ``peers``: folders that hold software which is not a dependency.
    """

    model: str
    sequence: int
    batch: int
    dtype: str
    threads: int = 1
    units: int = 0
    fastdp: str | None = None
    peers: str | None = None

    @property
    def name(self) -> str:
        """As it is written on the command line: ``<sequence>x<batch>:<dtype>``."""
        return f"{self.sequence}x{self.batch}:{self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """Precision of the base model."""
        return torch.bfloat16 if self.dtype == "bf16" else torch.float32

    @property
    def completion_start(self) -> int:
        """First token that the loss counts."""
        return self.sequence - max(1, self.sequence // COMPLETION_SHARE)


@dataclass
class Prepared:
    """A variant ready to step. ``check`` raises where its steps were not training steps."""

    step: Callable[[], None]
    check: Callable[[], None]
    note: str = ""


@contextmanager
def prepare(
    variant: str, configuration: Configuration, loaded: Callable[[], None]
) -> Iterator[Prepared]:
    """Load the model, call ``loaded``, set the variant up; it stands until the block ends.

    Raises :class:`PeerMissing` for a peer that cannot be imported.
    """
    if variant in OURS:
        with _ours(variant, configuration, loaded) as prepared:
            yield prepared
        return
    _require(variant, configuration)
    model = AutoModelForCausalLM.from_pretrained(
        configuration.model, dtype=configuration.torch_dtype
    )
    model = model.to(_device())
    for parameter in model.parameters():
        parameter.sum()  # weights may be mapped from their file: bring them in before `loaded`
    batch = _batch(configuration)
    loaded()
    # After the move to the device: an adapter that is moved later leaves Opacus' hooks behind.
    peft_model = _with_adapter(model, frozen_a=variant == "plain-B")
    build = {
        PLAIN: _plain,
        "plain-B": _plain,
        "opacus-hooks": _opacus_hooks,
        "opacus-ghost": _opacus_ghost,
        "fastdp": _fastdp,
        "opake": _opake,
    }[variant]
    step = build(peft_model, batch, configuration)
    yield Prepared(step, _movement_check(peft_model), note=_precision(variant, configuration))


def random_tokens(configuration: Configuration, rows: int) -> torch.Tensor:
    """Tokens ``(rows, sequence)``, the same for every variant."""
    size = AutoConfig.from_pretrained(configuration.model).vocab_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, size, (rows, configuration.sequence), generator=generator)


def _batch(configuration: Configuration) -> dict[str, torch.Tensor]:
    """No attention mask: no row is padded, and without one attention takes its fastest path."""
    tokens = random_tokens(configuration, configuration.batch).to(_device())
    labels = tokens.clone()
    labels[:, : configuration.completion_start] = -100
    return {"input_ids": tokens, "labels": labels}


def _with_adapter(model: Any, *, frozen_a: bool) -> Any:
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
    return torch.autocast(_device(), torch.bfloat16, enabled=configuration.dtype == "bf16")


def _precision(variant: str, configuration: Configuration) -> str:
    if configuration.dtype == "fp32":
        return "float32 throughout"
    if variant == "fastdp":
        return "bfloat16 throughout, adapter and clipping too: it fails under autocast"
    return "bfloat16 base, float32 adapter, under autocast"


def _plain(
    model: Any, batch: dict[str, torch.Tensor], configuration: Configuration
) -> Callable[[], None]:
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


def _opacus_hooks(
    model: Any, batch: dict[str, torch.Tensor], configuration: Configuration
) -> Callable[[], None]:
    optimiser, _ = _opacus(model, configuration, "hooks")

    def step() -> None:
        optimiser.zero_grad()
        with _autocast(configuration):
            logits = model(input_ids=batch["input_ids"]).logits
            loss = _unit_losses(logits, batch["labels"]).mean()
        loss.backward()
        optimiser.step()

    return step


def _opacus_ghost(
    model: Any, batch: dict[str, torch.Tensor], configuration: Configuration
) -> Callable[[], None]:
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


def _fastdp(
    model: Any, batch: dict[str, torch.Tensor], configuration: Configuration
) -> Callable[[], None]:
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


def _opake(
    model: Any, batch: dict[str, torch.Tensor], configuration: Configuration
) -> Callable[[], None]:
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


def _require(variant: str, configuration: Configuration) -> None:
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


def _movement_check(model: Any) -> Callable[[], None]:
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


@contextmanager
def _ours(
    variant: str, configuration: Configuration, loaded: Callable[[], None]
) -> Iterator[Prepared]:
    from privacy.dp.trainer import LoraTrainer

    trainer = LoraTrainer(configuration.model, dtype=configuration.torch_dtype)
    rows = max(configuration.units, configuration.batch)
    start = configuration.completion_start
    units = [(Example(tuple(row), start),) for row in random_tokens(configuration, rows).tolist()]
    loaded()
    layers = AutoConfig.from_pretrained(configuration.model).num_hidden_layers
    config = AdapterConfig(
        rank=RANK,
        alpha=ALPHA,
        targets=TARGETS,
        last_layers=-(-layers // 4) if variant == "ours-last-quarter" else None,
        factors="AB" if variant == "ours-private-AB" else "B",
    )
    adapter = _moved_from_zero(trainer.initial_adapter(config, seed=0))
    rate, batch = configuration.batch / rows, list(range(configuration.batch))
    # More steps than any measurement takes; a plan without bands does not depend on their number.
    plan: DpPlan | PublicPlan = DpPlan(
        rate, 1000, NOISE_MULTIPLIER, CLIPPING_NORM, configuration.batch
    )
    if variant == "ours-public":
        plan = PublicPlan(rate, 1000, configuration.batch)
    with (
        trainer.session(config, adapter) as session,
        session.descent(units, plan, LEARNING_RATE) as descent,
    ):
        note = _precision("", configuration).removesuffix(", under autocast")
        yield Prepared(lambda: descent.step(batch), lambda: None, note=note)


def _moved_from_zero(adapter: Adapter) -> Adapter:
    rng = np.random.default_rng(1)
    return {
        name: array
        if "lora_A" in name
        else (0.02 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in adapter.items()
    }


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
