"""The clipped sum equals a loop over single units in float64, however the batch is arranged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from privacy.dp import adapter as adapters
from privacy.dp import trainer as trainer_module
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.clipping import clip_and_sum
from privacy.dp.encode import Example
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
    monkeypatch.setattr(trainer_module, "MICRO_BATCH_TOKENS", tokens)
    config = AdapterConfig(4, 8, TARGETS, last_layers, factors)  # type: ignore[arg-type]
    trainer = LoraTrainer(tiny_llama_dir, dtype=torch.float32)
    units = examples(9)
    adapter = moved(trainer.initial_adapter(config, seed=3))
    _, norms = oracle(tiny_llama_dir, config, adapter, units, 1.0)
    bound = float(np.median(norms))  # some units are clipped and some are not
    expected, _ = oracle(tiny_llama_dir, config, adapter, units, bound)

    with (
        trainer._attached(config, adapter) as model,
        trainer._entered(model, config) as losses,
        per_unit_gradients(model) as gradients,
    ):
        total = None
        for group, loss in losses(units):
            loss.sum().backward()
            per_unit = [g[: len(group.indices)] for g in gradients.take(group.rows)]
            part = clip_and_sum(per_unit, bound).total
            flat = torch.cat([p.flatten() for p in part])
            total = flat if total is None else total + flat
    assert total is not None
    error = np.linalg.norm(total.double().numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def unit_gradients(
    trainer: LoraTrainer, config: AdapterConfig, adapter: Adapter, units: Sequence[Example]
) -> dict[int, torch.Tensor]:
    """Flat per-unit gradients by the unit's index."""
    found = {}
    with (
        trainer._attached(config, adapter) as model,
        trainer._entered(model, config) as losses,
        per_unit_gradients(model) as gradients,
    ):
        for group, loss in losses(units):
            loss.sum().backward()
            flat = torch.cat([g.flatten(1) for g in gradients.take(group.rows)], dim=1)
            found |= dict(zip(group.indices, flat[: len(group.indices)], strict=True))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last_layers", [None, 1])
def test_a_units_gradient_depends_on_no_other_unit(
    tiny_llama_dir: Path, dtype: torch.dtype, last_layers: int | None
) -> None:
    """Alone, or among any others in any place: equal up to float32 rounding in either precision."""
    config = AdapterConfig(4, 8, TARGETS, last_layers)
    trainer = LoraTrainer(tiny_llama_dir, dtype=dtype)
    adapter = moved(trainer.initial_adapter(config, 0))
    units = examples(40)
    among = unit_gradients(trainer, config, adapter, units)
    trainer._prefixes.clear()
    backwards = unit_gradients(trainer, config, adapter, units[::-1])
    for index in (0, 7, 21):
        trainer._prefixes.clear()
        alone = unit_gradients(trainer, config, adapter, [units[index]])[0]
        for other in (among[index], backwards[len(units) - 1 - index]):
            assert float((alone - other).norm()) <= 1e-5 * float(alone.norm())


def test_the_frozen_prefix_changes_nothing_but_the_cost(
    tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses from cached hidden states equal those of a full pass, kept within a bound or not."""
    config = AdapterConfig(4, 8, TARGETS, last_layers=1)
    trainer = LoraTrainer(tiny_llama_dir, dtype=torch.float32)
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


def test_choosing_finds_the_likeliest_candidate(tiny_llama_dir: Path) -> None:
    """Sharing the prompt's cache gives the candidate that separate full passes give."""
    from privacy.dp.encode import encode_completion

    trainer = LoraTrainer(tiny_llama_dir, dtype=torch.float32)
    config = AdapterConfig(4, 8, TARGETS)
    adapter = moved(trainer.initial_adapter(config, 0), seed=5)
    prompts = ["Text: a\nLabel:", "Text: bb\nLabel:", "another, longer prompt:", "Text: cc\nLabel:"]
    candidates = [" x", " yes", " a longer one", " no"]
    chosen = trainer.choose(prompts, candidates, config, adapter, 128)
    for prompt, index in zip(prompts, chosen, strict=True):
        encoded = [encode_completion(trainer.tokenizer, prompt, c, 128) for c in candidates]
        assert index == int(np.argmin(trainer.losses(encoded, config, adapter)))
