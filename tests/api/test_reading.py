"""Embeddings and classes: an encoder in this process through the whole service."""

import base64
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch

from api.engines.base import GenerationRequest, Unsupported
from api.engines.encoder_local import TransformersEncoder
from api.engines.together import Together
from api.errors import EngineError, UnknownModel
from api.server import BackgroundServer
from privacy.dp.adapter import AdapterConfig
from privacy.dp.encode import LabelledExample
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.echo import EchoEngine
from tests.api.service_kit import EMAIL, PROMPT, SECRETS, Factory, Service


def make_encoder(path: Path, *, head: bool) -> Path:
    """A random BERT with a byte-level tokenizer, with or without a head of three classes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        PreTrainedTokenizerFast,
    )

    vocab = {"[PAD]": 0, "[UNK]": 1}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[token] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(path)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        id2label={0: "praise", 1: "question", 2: "complaint"},
        label2id={"praise": 0, "question": 1, "complaint": 2},
    )
    (BertForSequenceClassification if head else BertModel)(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a head."""
    return make_encoder(tmp_path_factory.mktemp("tiny-bert"), head=True)


class Watched(TransformersEncoder):
    """Remembers the texts."""

    seen: list[str]

    def _batches(self, texts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        self.seen += texts
        return super()._batches(texts)


@pytest.fixture
def encoder(encoder_dir: Path) -> Watched:
    """The encoder under the name ``reader``."""
    made = Watched(encoder_dir, model_id="reader")
    made.seen = []
    return made


@contextmanager
def client_of(service: Service) -> Iterator[openai.OpenAI]:
    """The official client."""
    with (
        BackgroundServer(service.app) as server,
        openai.OpenAI(
            base_url=f"{server.base_url}/v1", api_key=service.tokens["app"], max_retries=0
        ) as client,
    ):
        yield client


@pytest.fixture
def both(make_service: Factory, published: VerifiedRelease, encoder: Watched) -> Service:
    """A service of a release that writes and an encoder that reads."""
    return make_service(engine=Together([EchoEngine(published.id), encoder]), serve_base_model=True)


def test_embeddings(both: Service, encoder: Watched) -> None:
    """Vectors have unit norm, in both encodings alike; the model saw placeholders."""
    raw = both.client().post(
        "/v1/embeddings",
        json={"model": "reader", "input": "hello", "encoding_format": "base64"},
    )
    with client_of(both) as client:
        by_client = client.embeddings.create(model="reader", input=[PROMPT, "hello"])
        numbers = client.embeddings.create(
            model="reader", input=[PROMPT, "hello"], encoding_format="float"
        )
    for one, other in zip(by_client.data, numbers.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(x * x for x in other.embedding) == pytest.approx(1.0, abs=1e-5)
    packed = base64.b64decode(raw.json()["data"][0]["embedding"])
    assert struct.unpack("<32f", packed) == pytest.approx(numbers.data[1].embedding, abs=1e-6)
    assert numbers.usage.prompt_tokens == numbers.usage.total_tokens > len("hello")
    assert not any(secret in text for text in encoder.seen for secret in SECRETS)
    entry = both.entries()[1].data
    assert (entry["operation"], entry["release"]) == ("embeddings", "reader")
    assert entry["prompt_tokens"] == numbers.usage.prompt_tokens


def test_an_embedding_does_not_depend_on_its_neighbours(encoder: Watched) -> None:
    """Padding changes no vector: a text alone and beside longer ones gets the same."""
    alone = encoder.embed("reader", ("short",)).vectors[0]
    beside = encoder.embed("reader", ("short", "a much longer text " * 5)).vectors[0]
    assert alone == pytest.approx(beside, abs=1e-5)
    many = encoder.embed("reader", tuple(f"text {i}" for i in range(40))).vectors
    assert many[33] == pytest.approx(encoder.embed("reader", ("text 33",)).vectors[0], abs=1e-5)


def test_classes(both: Service, encoder: Watched) -> None:
    """Probabilities of all labels, the likeliest first to see; the model saw placeholders."""
    body = {"model": "reader", "input": [PROMPT, f"Mail {EMAIL}"]}
    answer = both.client().post("/v1/classify", json=body)
    assert answer.status_code == 200
    first, second = answer.json()["data"]
    for one in (first, second):
        assert set(one["scores"]) == {"praise", "question", "complaint"}
        assert sum(one["scores"].values()) == pytest.approx(1.0, abs=1e-5)
        assert one["scores"][one["label"]] == one["score"] == max(one["scores"].values())
    assert answer.headers["x-intramural-release"] == "reader"
    assert not any(secret in text for text in encoder.seen for secret in SECRETS)


def test_models_that_write_do_not_read(both: Service, published: VerifiedRelease) -> None:
    """Each ability is refused by name where the model has it not."""
    client = both.client()
    for path in ("/v1/embeddings", "/v1/classify"):
        answer = client.post(path, json={"model": published.id, "input": "x"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_feature"
    chat = client.post(
        "/v1/chat/completions",
        json={"model": "reader", "messages": [{"role": "user", "content": "x"}]},
    )
    assert (chat.status_code, chat.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"dimensions": 8}, "dimensions", "unsupported_field"),
        ({"input": [[1, 2, 3]]}, "input[0]", "invalid_value"),
        ({"input": [1, 2, 3]}, "input[0]", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "x" * 300}, None, "context_length_exceeded"),
        ({"input": "from 203.0.113.77"}, None, "entity_refused"),
    ],
)
def test_bad_requests_are_named(
    both: Service, change: dict[str, Any], param: str | None, code: str
) -> None:
    """A fault is a 400 with its field and code."""
    body = {"model": "reader", "input": "x"} | change
    error = both.client().post("/v1/embeddings", json=body).json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_an_encoder_keeps_its_port(encoder: Watched, tmp_path: Path, encoder_dir: Path) -> None:
    """Unknown models, missing folders, missing names and wishes for text are errors of the port."""
    assert encoder.models() == ["reader"]
    with pytest.raises(UnknownModel):
        encoder.embed("other", ("x",))
    with pytest.raises(Unsupported):
        encoder.generate(GenerationRequest("reader", prompt="x"))
    with pytest.raises(EngineError, match="cannot be loaded"):
        TransformersEncoder(tmp_path, model_id="reader")
    with pytest.raises(EngineError, match="under a name"):
        TransformersEncoder(encoder_dir)


def test_a_release_with_a_head_answers_as_it_was_trained(tmp_path: Path) -> None:
    """A release's own head, on a base model without one, gives the trainer's logits of each text."""
    base = make_encoder(tmp_path / "base", head=False)
    trainer = LoraTrainer(base, name="base", labels=4, dtype=torch.float32)
    config = AdapterConfig(
        rank=2, alpha=4, targets=("query", "value"), last_layers=1, trained_modules=("classifier",)
    )
    rng = np.random.default_rng(3)
    adapter = {
        name: array + rng.normal(scale=0.5, size=array.shape).astype(np.float32)
        for name, array in trainer.initial_adapter(config, 0).items()
    }
    release = service_kit.release(
        tmp_path / "published",
        tensors=adapter,
        adapter_config=trainer.adapter_config_json(config),
        base_model_digest=trainer.base_digest,
    )
    engine = TransformersEncoder(base, release)
    texts = ("hello", "a longer text of several words")
    found = engine.classify(release.id, texts)
    for label in range(4):
        examples = [
            LabelledExample(tuple(engine._tokenizer(text)["input_ids"]), label) for text in texts
        ]
        losses = trainer.losses(examples, config, adapter)
        for row, loss in zip(found.scores, losses, strict=True):
            assert -math.log(row[label]) == pytest.approx(float(loss), abs=1e-4)
