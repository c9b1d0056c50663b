"""The engine in this process: a release's adapter over a base model, through the whole service."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from api.engines.base import GenerationRequest, Message, TextDelta
from api.engines.transformers_local import TransformersEngine
from api.errors import EngineError
from privacy.base_model import model_digest
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.service_kit import PROMPT, SECRETS, Factory
from tests.api.test_chat import URL, chat, events, streamed

HELLO = (Message("user", "Hello, who are you?"),)
CONFIG = AdapterConfig(rank=4, alpha=8, targets=("q_proj", "v_proj"), last_layers=1)


@pytest.fixture(scope="module")
def trainer(tiny_llama_dir: Path) -> LoraTrainer:
    """Knows how adapters and base models are named in releases."""
    return LoraTrainer(tiny_llama_dir, name="tiny")


@pytest.fixture(scope="module")
def adapter(trainer: LoraTrainer) -> dict[str, Any]:
    """An adapter that changes the model a lot."""
    rng = np.random.default_rng(5)
    return {
        name: rng.normal(scale=2.0, size=array.shape).astype(np.float32)
        for name, array in trainer.initial_adapter(CONFIG, 0).items()
    }


@pytest.fixture(scope="module")
def tuned(
    trainer: LoraTrainer, adapter: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> VerifiedRelease:
    """A release of that adapter for the tiny Llama."""
    return service_kit.release(
        tmp_path_factory.mktemp("tuned"),
        tensors=adapter,
        adapter_config=trainer.adapter_config_json(CONFIG),
        base_model_digest=trainer.base_digest,
    )


@pytest.fixture(scope="module")
def engine(tiny_llama_dir: Path, tuned: VerifiedRelease) -> TransformersEngine:
    """Serves the release."""
    return TransformersEngine(tiny_llama_dir, tuned)


def test_the_merged_model_is_base_plus_adapter(
    engine: TransformersEngine,
    tiny_llama_dir: Path,
    adapter: dict[str, Any],
    tuned: VerifiedRelease,
) -> None:
    """Served weights are W + (alpha / rank) B A where the release adapts, and W elsewhere."""
    base = TransformersEngine(tiny_llama_dir, model_id="base")._model.state_dict()
    merged = engine._model.state_dict()
    assert engine.models() == [tuned.id]
    assert base.keys() == merged.keys()
    adapted = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{stem}.lora_B.weight" in adapter:
            product = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
            expected = weight + (CONFIG.alpha / CONFIG.rank) * torch.from_numpy(product)
            adapted += 1
        torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-5)
    assert adapted == 2


def test_base_models_are_named_by_one_digest(trainer: LoraTrainer, tiny_llama_dir: Path) -> None:
    """The engine computes the digest that the trainer puts into releases."""
    engine = TransformersEngine(tiny_llama_dir, model_id="base")
    assert model_digest(engine._model.state_dict()) == trainer.base_digest


def test_a_release_of_another_base_model_is_refused(
    tiny_llama_dir: Path, trainer: LoraTrainer, adapter: dict[str, Any], tmp_path: Path
) -> None:
    """An adapter is merged only into the base model that it was trained on."""
    config = trainer.adapter_config_json(CONFIG)
    other = service_kit.release(tmp_path, tensors=adapter, adapter_config=config)
    with pytest.raises(EngineError, match="was trained on base model 000000000000"):
        TransformersEngine(tiny_llama_dir, other)


def test_an_adapter_that_does_not_fit_is_refused(
    tiny_llama_dir: Path, trainer: LoraTrainer, adapter: dict[str, Any], tmp_path: Path
) -> None:
    """Missing or unknown tensors are an error, never a model that is silently not adapted."""
    name, array = next(iter(adapter.items()))
    rest = {key: value for key, value in adapter.items() if key != name}
    for number, tensors in enumerate(
        (rest, adapter | {name.replace("layers.1", "layers.0"): array})
    ):
        release = service_kit.release(
            tmp_path / str(number),
            tensors=tensors,
            adapter_config=trainer.adapter_config_json(CONFIG),
            base_model_digest=trainer.base_digest,
        )
        with pytest.raises(EngineError, match="tensors of the adapter are missing"):
            TransformersEngine(tiny_llama_dir, release)


def test_a_folder_without_a_model_is_refused(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """No download is tried, and the bare base model needs a name on purpose."""
    with pytest.raises(EngineError, match="cannot be loaded"):
        TransformersEngine(tmp_path, model_id="base")
    with pytest.raises(EngineError, match="under a name"):
        TransformersEngine(tiny_llama_dir)


def test_text_is_never_cut_inside_a_character(engine: TransformersEngine) -> None:
    """Deltas of a byte-level model join to the decoding of the whole, characters complete."""
    for seed in range(5):
        request = GenerationRequest(engine.models()[0], HELLO, max_tokens=60, seed=seed)
        deltas = [item.text for item in engine.stream(request) if isinstance(item, TextDelta)]
        assert "".join(deltas) == engine.generate(request).text
        assert all(delta.encode() for delta in deltas)


def test_unseeded_requests_differ(engine: TransformersEngine) -> None:
    """Without a seed each answer is drawn anew, also in a process that has just started."""
    request = GenerationRequest(engine.models()[0], HELLO, max_tokens=40)
    state = torch.random.get_rng_state()
    texts = {engine.generate(request).text for _ in range(3)}
    assert len(texts) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_service_over_the_real_engine(
    make_service: Factory, engine: TransformersEngine, tuned: VerifiedRelease, monkeypatch: Any
) -> None:
    """Chat, plain and streamed, through redaction, model, scan and audit; the model saw no value."""
    prompts: list[str] = []
    encode = TransformersEngine._encode

    def watched(self: TransformersEngine, request: GenerationRequest) -> torch.Tensor:
        ids = encode(self, request)
        prompts.append(self._tokenizer.decode(ids[0]))
        return ids

    monkeypatch.setattr(TransformersEngine, "_encode", watched)
    service = make_service(published=tuned, engine=engine)
    body = chat(PROMPT, max_tokens=30, seed=4)
    client = service.client()
    whole = client.post(URL, json=body).json()
    stream = client.post(URL, json=body | {"stream": True})
    assert whole["model"] == tuned.id
    assert whole["choices"][0]["finish_reason"] in ("stop", "length")
    assert 1 <= whole["usage"]["completion_tokens"] <= 30
    assert streamed(events(stream.text)) == whole["choices"][0]["message"]["content"]
    assert "<EMAIL_ADDRESS_1>" in prompts[0]
    assert len(prompts) == 2
    assert not any(secret in prompt for prompt in prompts for secret in SECRETS)
    too_long = client.post(URL, json=chat("x" * 600))
    assert too_long.json()["error"]["code"] == "context_length_exceeded"
