"""Linear layers in 8 bits: close to the layers that they stand for, and blind to their neighbours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from api.engines.base import GenerationRequest, Message
from api.engines.int8 import Int8Linear
from api.engines.settings import LocalSettings
from api.engines.transformers_local import TransformersEngine


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_within_its_rounding(bias: bool) -> None:
    """Each product is off by at most half a step of either factor, also with rows of zeros."""
    torch.manual_seed(0)
    linear = nn.Linear(48, 20, bias=bias)
    with torch.no_grad():
        linear.weight[3] = 0
    states = torch.randn(2, 5, 48) * torch.logspace(-3, 3, 5)[:, None]
    states[1, 2] = 0
    with torch.inference_mode():
        found, exact = Int8Linear(linear)(states), linear(states)
    one, other = states.abs().amax(-1, keepdim=True), linear.weight.abs().amax(1)
    bound = 48 * one * other * (1 / 127 + 1 / 254**2) + 1e-5
    assert found.shape == exact.shape
    assert bool(((found - exact).abs() <= bound).all())
    assert float((found - exact).detach().norm() / exact.detach().norm()) < 0.02


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    """Bit for bit the same beside any others: integers have no order of summation."""
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 64))
    token, others = torch.randn(1, 64), 1000 * torch.randn(7, 64)
    with torch.inference_mode():
        assert torch.equal(layer(token), layer(torch.cat([others, token]))[-1:])


def test_an_engine_in_eight_bits(tiny_llama_dir: Path) -> None:
    """It answers, close to the whole model, with a fraction of the bytes in its linear layers."""
    request = GenerationRequest(
        "base", (Message("user", "Hello"),), max_tokens=1, temperature=0, logprobs=5
    )
    found: dict[torch.dtype, Any] = {}
    for dtype in (torch.float32, torch.int8):
        engine = TransformersEngine(tiny_llama_dir, model_id="base", dtype=dtype)
        found[dtype] = engine.generate(request).logprobs[0]
    layers = [m for m in engine._model.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 2 * 7 + 1
    assert not any(type(m) is nn.Linear for m in engine._model.modules())
    assert found[torch.int8].logprob == pytest.approx(found[torch.float32].logprob, abs=0.05)


def test_eight_bits_are_for_cpus() -> None:
    """Elsewhere the setting is refused, with what to set instead."""
    assert LocalSettings(dtype="int8").device == "cpu"
    with pytest.raises(ValidationError, match="not cuda: set bfloat16"):
        LocalSettings(dtype="int8", device="cuda")
