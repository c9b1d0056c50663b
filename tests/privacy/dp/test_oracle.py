"""The clipped sum equals a loop over single units in float64, however the batch is arranged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from privacy.dp import adapter as adapters
from privacy.dp import prefix as prefix_module
from privacy.dp import trainer as trainer_module
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.clipping import clip_and_sum
from privacy.dp.encode import Example
from privacy.dp.loss import micro_batches, per_unit_loss
from privacy.dp.per_unit import per_unit_gradients
from privacy.dp.trainer import LoraTrainer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def examples(count: int, seed: int = 0) -> list[Example]:
    """Random sequences of very different lengths, one of them twice."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count - 1):
        length = int(rng.integers(4, 40))
        made.append(
            Example(tuple(rng.integers(3, 250, length).tolist()), int(rng.integers(1, length)))
        )
    return [*made, made[0]]


def moved(adapter: Adapter, seed: int = 1) -> Adapter:
    """The adapter with a B that is not zero, so that gradients of A are not zero either."""
    rng = np.random.default_rng(seed)
    return {
        name: array + rng.normal(scale=0.1, size=array.shape).astype(np.float32)
        if "lora_B" in name
        else array
        for name, array in adapter.items()
    }


def oracle(
    base: Path, config: AdapterConfig, adapter: Adapter, units: Sequence[Example], bound: float
) -> tuple[np.ndarray, list[float]]:
    """Clipped sum and norms by one float64 backward pass per unit, without hooks or padding."""
    model = AutoModelForCausalLM.from_pretrained(base).requires_grad_(False)
    peft_model = adapters.inject(model, config)
    adapters.write_adapter(peft_model, adapter)
    peft_model.double()
    trained = [p for p in peft_model.parameters() if p.requires_grad]
    total, norms = None, []
    for unit in units:
        ids = torch.tensor([unit.input_ids])
        logits = peft_model(input_ids=ids).logits[0, unit.completion_start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, unit.completion_start :])
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
        norm = float(flat.norm())
        norms.append(norm)
        flat = flat * min(1.0, bound / norm)
        total = flat if total is None else total + flat
    assert total is not None
    return total.numpy(), norms


@pytest.mark.parametrize("factors", ["B", "AB"])
@pytest.mark.parametrize("last_layers", [None, 1])
@pytest.mark.parametrize("tokens", [40, 4096])
def test_clipped_sum_equals_the_single_unit_oracle(
    tiny_llama_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    factors: str,
    last_layers: int | None,
    tokens: int,
) -> None:
    """Padding, duplicates, accumulation and the frozen prefix leave the clipped sum unchanged."""
    monkeypatch.setattr(prefix_module, "_native_dtype", lambda _: torch.float32)
    config = AdapterConfig(4, 8, TARGETS, last_layers, factors)  # type: ignore[arg-type]
    trainer = LoraTrainer(tiny_llama_dir)
    units = examples(9)
    adapter = moved(trainer.initial_adapter(config, seed=3))
    _, norms = oracle(tiny_llama_dir, config, adapter, units, 1.0)
    bound = float(np.median(norms))  # some units are clipped and some are not
    expected, _ = oracle(tiny_llama_dir, config, adapter, units, bound)

    with (
        trainer._attached(config, adapter) as model,
        trainer._entered(model, config) as loss,
        per_unit_gradients(model) as gradients,
    ):
        total = None
        for group in micro_batches(range(len(units)), units, tokens):
            loss([units[i] for i in group]).sum().backward()
            part = clip_and_sum(gradients.take(len(group)), bound).total
            flat = torch.cat([p.flatten() for p in part])
            total = flat if total is None else total + flat
    assert total is not None
    error = np.linalg.norm(total.double().numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def test_a_neighbour_does_not_change_a_units_loss(tiny_llama_dir: Path) -> None:
    """A unit's loss is its own token mean: the same alone and beside a unit of any length."""
    trainer = LoraTrainer(tiny_llama_dir)
    config = AdapterConfig(2, 4, TARGETS)
    alone, short, long = examples(3)[0], Example((5, 6), 1), Example(tuple(range(3, 60)), 1)
    with trainer._attached(config, None) as model, torch.no_grad():
        values = [
            float(per_unit_loss(model, batch)[0])
            for batch in ([alone], [alone, short], [alone, long])
        ]
    assert max(values) - min(values) < 1e-5


def test_the_frozen_prefix_changes_nothing_but_the_cost(
    tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses from cached hidden states equal those of a full pass, kept within a bound or not."""
    monkeypatch.setattr(prefix_module, "_native_dtype", lambda _: torch.float32)
    config = AdapterConfig(4, 8, TARGETS, last_layers=1)
    trainer = LoraTrainer(tiny_llama_dir)
    adapter = moved(trainer.initial_adapter(config, 0))
    units = examples(12)
    cached = trainer.losses(units, config, adapter)
    again = trainer.losses(units, config, adapter)
    trainer._prefixes[1]._bound = 0
    trainer._prefixes[1]._states.clear()
    unkept = trainer.losses(units, config, adapter)
    assert not trainer._prefixes[1]._states
    monkeypatch.setattr(trainer_module, "prefix_length", lambda *_: 0)
    full = trainer.losses(units, config, adapter)
    for values in (cached, again, unkept):
        np.testing.assert_allclose(values, full, rtol=1e-5)


def test_a_records_states_depend_on_no_other_record(tiny_llama_dir: Path) -> None:
    """In bfloat16 too, the states of a record are bit-equal whatever was asked for with it."""
    trainer = LoraTrainer(tiny_llama_dir)
    units = examples(6)
    alone = prefix_module.FrozenPrefix(trainer._model, 1, dtype=torch.bfloat16).states(units[:1])
    among = prefix_module.FrozenPrefix(trainer._model, 1, dtype=torch.bfloat16).states(units)
    assert torch.equal(alone[0], among[0])
    exact = prefix_module.FrozenPrefix(trainer._model, 1, dtype=torch.float32).states(units)
    torch.testing.assert_close(among, exact, rtol=0.05, atol=0.05)


def test_choosing_finds_the_likeliest_candidate(tiny_llama_dir: Path) -> None:
    """Sharing the prompt's cache gives the candidate that separate full passes give."""
    from privacy.dp.encode import encode_completion

    trainer = LoraTrainer(tiny_llama_dir)
    config = AdapterConfig(4, 8, TARGETS)
    adapter = moved(trainer.initial_adapter(config, 0), seed=5)
    prompts = ["Text: a\nLabel:", "Text: bb\nLabel:", "another, longer prompt:", "Text: cc\nLabel:"]
    candidates = [" x", " yes", " a longer one", " no"]
    chosen = trainer.choose(prompts, candidates, config, adapter, 128)
    for prompt, index in zip(prompts, chosen, strict=True):
        encoded = [encode_completion(trainer.tokenizer, prompt, c, 128) for c in candidates]
        assert index == int(np.argmin(trainer.losses(encoded, config, adapter)))
