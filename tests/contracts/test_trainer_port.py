"""The agent's trainer port: one suite for the real trainer and for the one that needs no model."""

from pathlib import Path

import numpy as np
import pytest
from federation_kit import FakeTrainer, units

from client.agent import Trainer
from privacy.dp.adapter import AdapterConfig
from privacy.dp.errors import AdapterMismatch
from privacy.dp.plan import DpPlan

PLAN = DpPlan(
    sampling_rate=0.5, steps=2, noise_multiplier=1.0, clipping_norm=0.5, expected_batch_size=10.0
)
CONFIG = AdapterConfig(rank=2, alpha=4, targets=("q_proj",))


@pytest.fixture(params=["without a model", "tiny Llama"])
def trainer(request: pytest.FixtureRequest) -> Trainer:
    if request.param == "without a model":
        return FakeTrainer()
    from privacy.dp.trainer import LoraTrainer

    folder: Path = request.getfixturevalue("tiny_llama_dir")
    return LoraTrainer(folder)


def test_initial_adapter_is_public_and_repeatable(trainer: Trainer) -> None:
    """The same seed gives the same tensors, all finite float32, B zero."""
    first, second = (trainer.initial_adapter(CONFIG, 3) for _ in range(2))
    assert {n: a.tobytes() for n, a in first.items()} == {n: a.tobytes() for n, a in second.items()}
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in first.values())
    assert all(not a.any() for n, a in first.items() if "lora_B" in n)


@pytest.mark.parametrize("factors", ["B", "AB"])
def test_training_returns_exactly_the_trained_tensors_moved(trainer: Trainer, factors) -> None:
    """What comes back has the trained tensors' names and shapes, is finite, and moved."""
    config = AdapterConfig(rank=2, alpha=4, targets=("q_proj",), factors=factors)
    adapter = trainer.initial_adapter(config, 0)
    update = trainer.train(adapter, units(), PLAN, 0.01, config)
    assert set(update) == {name for name in adapter if config.is_trained(name)}
    for name, tensor in update.items():
        assert tensor.shape == adapter[name].shape
        assert np.isfinite(tensor).all()
        assert not np.array_equal(tensor, adapter[name])


def test_training_twice_gives_other_noise(trainer: Trainer) -> None:
    """Noise is never reused: the same question trained twice gives different bytes."""
    adapter = trainer.initial_adapter(CONFIG, 0)
    first, second = (trainer.train(adapter, units(), PLAN, 0.01, CONFIG) for _ in range(2))
    assert all(not np.array_equal(first[name], second[name]) for name in first)


def test_training_tells_its_public_progress(trainer: Trainer) -> None:
    """Progress is the step and the number of steps, both of the plan."""
    steps: list[tuple[int, int]] = []
    trainer.train(
        trainer.initial_adapter(CONFIG, 0),
        units(),
        PLAN,
        0.01,
        CONFIG,
        lambda step, of: steps.append((step, of)),
    )
    assert steps == [(1, 2), (2, 2)]


def test_adapter_of_another_form_is_refused(trainer: Trainer) -> None:
    """Tensors that do not belong to the configuration are refused."""
    adapter = dict(trainer.initial_adapter(CONFIG, 0))
    adapter.popitem()
    with pytest.raises(AdapterMismatch):
        trainer.train(adapter, units(), PLAN, 0.01, CONFIG)


def test_base_digest_is_a_digest(trainer: Trainer) -> None:
    """The base model is named by 64 hexadecimal digits, always the same."""
    assert len(trainer.base_digest) == 64
    assert trainer.base_digest == trainer.base_digest
