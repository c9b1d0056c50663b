"""The variants by name, each ready to step: plain PEFT LoRA, other private trainers, and ours.

Every variant trains LoRA of the same rank on the same projections of the same model with the same
batch, takes the loss on the same completion tokens, and ends in an optimiser step.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import peers
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
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.encode import Example
from privacy.dp.plan import DpPlan, PublicPlan
from privacy.dp.trainer import LoraTrainer

PLAIN = "plain"
PLAIN_VARIANTS = (PLAIN, "plain-B")
PEERS = ("opacus-hooks", "opacus-ghost", "fastdp", "opake")
OURS = ("ours-private", "ours-public", "ours-private-AB", "ours-last-quarter")
VARIANTS = (*PLAIN_VARIANTS, *PEERS, *OURS)


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

    Raises :class:`~benchmarks.peers.PeerMissing` for a peer that cannot be imported.
    """
    if variant in OURS:
        with _ours(variant, configuration, loaded) as prepared:
            yield prepared
        return
    peers.require(variant, configuration)
    model = AutoModelForCausalLM.from_pretrained(
        configuration.model, dtype=configuration.torch_dtype
    )
    model = model.to(device())
    for parameter in model.parameters():
        parameter.sum()  # weights may be mapped from their file: bring them in before `loaded`
    batch = peers.given_batch(configuration)
    loaded()
    # After the move to the device: an adapter that is moved later leaves Opacus' hooks behind.
    peft_model = peers.with_adapter(model, frozen_a=variant == "plain-B")
    build = {
        PLAIN: peers.plain_step,
        "plain-B": peers.plain_step,
        "opacus-hooks": peers.opacus_hooks_step,
        "opacus-ghost": peers.opacus_ghost_step,
        "fastdp": peers.fastdp_step,
        "opake": peers.opake_step,
    }[variant]
    step = build(peft_model, batch, configuration)
    check = peers.movement_check(peft_model)
    yield Prepared(step, check, peers.precision(variant, configuration))


@contextmanager
def _ours(
    variant: str, configuration: Configuration, loaded: Callable[[], None]
) -> Iterator[Prepared]:
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
        note = peers.precision("", configuration).removesuffix(", under autocast")
        before = session.losses([units[0][0]])

        def check() -> None:
            after = session.losses([units[0][0]])
            if after == before or not math.isfinite(after[0]):
                raise RuntimeError("the loss stayed as it was: these were not steps of training")

        yield Prepared(lambda: descent.step(batch), check, note)


def _moved_from_zero(adapter: Adapter) -> Adapter:
    rng = np.random.default_rng(1)
    return {
        name: array
        if "lora_A" in name
        else (0.02 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in adapter.items()
    }
