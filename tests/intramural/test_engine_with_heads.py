"""Releases with a classification head, opened as the service opens them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from api.engines.base import Encoder, GenerationRequest, Unsupported
from intramural.service import open_engine
from privacy.dp.adapter import AdapterConfig
from privacy.dp.encode import LabelledExample
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.test_reading import make_encoder

LABELS = 3
TEXTS = ("hello", "a longer text of several words", "Thanks!")


@pytest.fixture(params=["encoder", "encoder-without-pooler", "causal"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder of a base model without a head."""
    if request.param == "causal":
        path: Path = request.getfixturevalue("tiny_llama_dir")
        return path
    path = make_encoder(tmp_path / "base", head=False)
    if request.param == "encoder-without-pooler":
        BertForMaskedLM(BertConfig.from_pretrained(path)).save_pretrained(path)
    return path


def trained(base: Path, folder: Path) -> tuple[VerifiedRelease, np.ndarray]:
    """A release with a head of its own, and the trainer's probabilities ``(text, label)``."""
    causal = "llama" in base.name
    trainer = LoraTrainer(base, name="base", labels=LABELS, dtype=torch.float32)
    config = AdapterConfig(
        rank=2,
        alpha=4,
        targets=("q_proj", "v_proj") if causal else ("query", "value"),
        last_layers=1,
        trained_modules=("score",) if causal else ("classifier",),
    )
    rng = np.random.default_rng(3)
    adapter = {
        name: array + rng.normal(scale=0.5, size=array.shape).astype(np.float32)
        for name, array in trainer.initial_adapter(config, 0).items()
    }
    release = service_kit.release(
        folder,
        tensors=adapter,
        adapter_config=trainer.adapter_config_json(config),
        base_model_digest=trainer.base_digest,
    )
    ids = [tuple(trainer.tokenizer(text)["input_ids"]) for text in TEXTS]
    losses = [
        trainer.losses([LabelledExample(row, label) for row in ids], config, adapter)
        for label in range(LABELS)
    ]
    return release, np.exp(-np.array(losses)).T


def test_a_head_answers_as_it_was_trained(base: Path, tmp_path: Path) -> None:
    """Through ``open_engine``, encoder or causal model: the trainer's probability of each label."""
    release, expected = trained(base, tmp_path / "published")
    engine = open_engine(release, base)
    assert isinstance(engine, Encoder)
    assert engine.models() == [release.id]
    found = engine.classify(release.id, TEXTS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # else any text's answer would do for all
    alone = engine.classify(release.id, TEXTS[:1])
    np.testing.assert_allclose(alone.scores, found.scores[:1], atol=1e-5)
    (vector,) = engine.embed(release.id, ("hello",)).vectors
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(Unsupported):
        engine.generate(GenerationRequest(release.id, prompt="x"))


def test_a_head_behind_the_service(tmp_path: Path) -> None:
    """``/v1/classify`` by alias answers with the release's labels, and says which release."""
    base = make_encoder(tmp_path / "base", head=False)
    release, expected = trained(base, tmp_path / "published")
    service = service_kit.build(tmp_path, release, engine=open_engine(release, base))
    try:
        answer = service.client().post(
            "/v1/classify", json={"model": "intramural", "input": list(TEXTS)}
        )
    finally:
        service.keys.close()
        service.audit.close()
    assert answer.status_code == 200
    assert answer.json()["model"] == answer.headers["x-intramural-release"] == release.id
    scores = [list(one["scores"].values()) for one in answer.json()["data"]]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
