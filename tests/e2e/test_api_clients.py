"""The official clients against the service with the real base model and a verified release."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openai
import pytest

from api.engines.base import Classes, GenerationRequest, GenerationResult, Item, Vectors
from api.engines.encoder_local import TransformersEncoder
from api.engines.together import Together
from api.engines.transformers_local import TransformersEngine
from api.server import BackgroundServer
from intramural.assets import asset_path
from intramural.parts import DEMO_MODEL
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from tests.api import service_kit
from tests.api.service_kit import PROMPT, SECRETS, Service
from tests.api.test_reading import make_encoder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

CONFIG = AdapterConfig(rank=4, alpha=8, targets=("q_proj", "v_proj"), last_layers=1)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "write_mail",
        "description": "Writes a mail.",
        "parameters": {
            "type": "object",
            "properties": {
                "subject": {"type": "string", "maxLength": 12},
                "urgent": {"type": "boolean"},
            },
            "required": ["subject", "urgent"],
            "additionalProperties": False,
        },
    },
}
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "mood",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "mood": {"enum": ["good", "bad"]},
                "score": {"type": "integer", "minimum": 1, "maximum": 5},
            },
            "required": ["mood", "score"],
            "additionalProperties": False,
        },
    },
}
REPEAT = f"Repeat exactly: {PROMPT}"
SLOW = "INTRAMURAL_E2E_SLOW"
READER = "reader"
CLIENTS = ("langchain-openai>=1,<2", "litellm>=1.90,<2")


class Recording:
    """Engines that remember everything that they are asked."""

    def __init__(self, engine: Together) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.seen: list[GenerationRequest] = []
        self.read: list[str] = []

    def models(self) -> list[str]:
        """See the port."""
        return self._engine.models()

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See the port."""
        self._note(request)
        return self._engine.generate(request)

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See the port."""
        self._note(request)
        return self._engine.stream(request)

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """See the port."""
        self.read += texts
        return self._engine.embed(model, texts)

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """See the port."""
        self.read += texts
        return self._engine.classify(model, texts)

    def everything(self) -> str:
        """All that was seen, in every field."""
        seen = [*(asdict(one) for one in self.seen), *self.read]
        return json.dumps(seen, ensure_ascii=False, default=str)

    def _note(self, request: GenerationRequest) -> None:
        with self._lock:
            self.seen.append(request)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Service, Recording]]:
    """Address, service and the engine that records, with a release of the real base model."""
    folder = tmp_path_factory.mktemp("clients")
    model = asset_path(DEMO_MODEL)
    trainer = LoraTrainer(model, name="base")
    release = service_kit.release(
        folder / "published",
        tensors=trainer.initial_adapter(CONFIG, 0),
        adapter_config=trainer.adapter_config_json(CONFIG),
        base_model_digest=trainer.base_digest,
    )
    reader = TransformersEncoder(make_encoder(folder / "reader", head=False), model_id=READER)
    engine = Recording(Together([TransformersEngine(model, release), reader]))
    service = service_kit.build(folder, release, engine=engine, serve_base_model=True)
    with BackgroundServer(service.app) as server:
        yield f"{server.base_url}/v1", service, engine
    service.keys.close()
    service.audit.close()


@pytest.fixture
def client(running: tuple[str, Service, Recording]) -> Iterator[openai.OpenAI]:
    """The official Python client."""
    url, service, _ = running
    with openai.OpenAI(base_url=url, api_key=service.tokens["app"], max_retries=0) as made:
        yield made


def check(text: str | None) -> None:
    """No stand-in of ours is left where a value belongs, and the model answered at all."""
    assert text
    assert "_ADDRESS_1" not in text
    assert "_CARD_1" not in text


def test_python_chat_and_stream(
    client: openai.OpenAI, running: tuple[str, Service, Recording]
) -> None:
    """A greedy answer is the same whole and streamed, restored, with usage in the last chunk."""
    _, service, engine = running
    given: Any = {
        "model": "intramural",
        "messages": [{"role": "user", "content": REPEAT}],
        "max_tokens": 60,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**given)
    chunks = list(
        client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    )
    text = whole.choices[0].message.content
    check(text)
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == text
    assert chunks[-1].usage == whole.usage
    assert whole.model == service.release.id
    assert not any(secret in engine.everything() for secret in SECRETS)


def test_python_tools_and_schema(
    client: openai.OpenAI, running: tuple[str, Service, Recording]
) -> None:
    """A required call and a strict schema hold whatever the model would rather say."""
    given: Any = {
        "model": "intramural",
        "messages": [{"role": "user", "content": REPEAT}],
        "max_tokens": 80,
    }
    for seed in range(3):
        called = client.chat.completions.create(
            **given, tools=[TOOL], tool_choice="required", seed=seed
        )
        (call,) = called.choices[0].message.tool_calls or []
        arguments = json.loads(call.function.arguments)  # type: ignore[union-attr]
        assert set(arguments) == {"subject", "urgent"}
        assert isinstance(arguments["urgent"], bool)
        made = client.chat.completions.create(**given, response_format=FORMAT, seed=seed)
        found = json.loads(made.choices[0].message.content or "")
        assert found["mood"] in ("good", "bad")
        assert 1 <= found["score"] <= 5
        assert made.choices[0].finish_reason == "stop"
    # Not the client's stream(): it takes an answer that ends with its length for an error.
    events = list(
        client.chat.completions.create(**given, tools=[TOOL], tool_choice="auto", stream=True)
    )
    ends = [e.choices[0].finish_reason for e in events if e.choices and e.choices[0].finish_reason]
    assert len(ends) == 1
    assert ends[0] in ("stop", "length", "tool_calls")
    assert not any(secret in running[2].everything() for secret in SECRETS)


def test_python_logprobs_and_several_answers(client: openai.OpenAI) -> None:
    """Tokens of the real tokenizer join to each of several restored answers."""
    answer = client.chat.completions.create(
        model="intramural",
        messages=[{"role": "user", "content": REPEAT}],
        max_tokens=30,
        n=2,
        logprobs=True,
        top_logprobs=2,
        seed=5,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.logprobs is not None
        tokens = choice.logprobs.content or []
        assert "".join(token.token for token in tokens) == choice.message.content
        assert all(token.logprob <= 1e-6 for token in tokens)


def test_python_responses_and_errors(client: openai.OpenAI) -> None:
    """The responses API answers, and faults are the client's own exceptions."""
    answer = client.responses.create(
        model="intramural", input=REPEAT, max_output_tokens=60, temperature=0
    )
    check(answer.output_text)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="intramural", input="x", temperature=9)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.BadRequestError, match="makes text"):
        client.embeddings.create(model="intramural", input="x")


def test_node(running: tuple[str, Service, Recording], tmp_path: Path) -> None:
    """The official Node client gets through chat, stream, tools, schema, responses and errors."""
    url, service, engine = running
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    shutil.copy(Path(__file__).parent / "clients" / "openai_client.mjs", tmp_path)
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "openai@6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    if installed.returncode != 0:
        pytest.skip("the registry of Node packages cannot be reached")
    done = subprocess.run(
        [
            node,
            "openai_client.mjs",
            url,
            service.tokens["app"],
            REPEAT,
            json.dumps(TOOL),
            json.dumps(FORMAT),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout)
    check(got["text"])
    assert got["streamed"] == got["text"] == got["response"]
    assert got["usage"]["completion_tokens"] > 0
    assert got["call"]["name"] == "write_mail"
    assert set(json.loads(got["call"]["arguments"])) == {"subject", "urgent"}
    assert json.loads(got["formatted"])["mood"] in ("good", "bad")
    assert got["events"][0] == "response.created"
    assert got["events"][-1] in ("response.completed", "response.incomplete")
    assert got["error"]["name"] == "BadRequestError"
    assert (got["error"]["status"], got["error"]["param"]) == (400, "temperature")
    assert got["error"]["requestID"].startswith("req_")
    assert got["models"] == [service.release.id, READER]
    assert not any(secret in engine.everything() for secret in SECRETS)


@pytest.fixture(scope="module")
def others_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with LangChain's and LiteLLM's clients, and nothing of ours."""
    if not os.environ.get(SLOW):
        pytest.skip(f"installs two clients; set {SLOW}=1, or run: make e2e-api")
    folder = tmp_path_factory.mktemp("others")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *CLIENTS],
        capture_output=True,
        check=False,
        timeout=900,
    )
    if installed.returncode != 0:
        pytest.skip("the registry of Python packages cannot be reached")
    return python


@pytest.mark.parametrize("script", ["langchain_client.py", "litellm_client.py"])
def test_clients_of_others(
    script: str, others_python: Path, running: tuple[str, Service, Recording], tmp_path: Path
) -> None:
    """LangChain's and LiteLLM's clients, unchanged: chat, stream, tools, schema, vectors, errors."""
    url, service, engine = running
    engine.seen.clear()
    engine.read.clear()
    path = Path(__file__).parent / "clients" / script
    given = [url, service.tokens["app"], REPEAT, json.dumps(TOOL), json.dumps(FORMAT), READER]
    done = subprocess.run(
        [others_python, "-I", path, *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout.splitlines()[-1])
    check(got["text"])
    assert [got["streamed"], *got["others"], got["response"]] == [got["text"]] * (
        2 + len(got["others"])
    )
    assert got["usage"] == got["streamed_usage"]
    assert got["release"] == service.release.id
    assert len(got["two"]) == 2
    for call in got["calls"]:
        assert set(call) == {"subject", "urgent"}
        assert isinstance(call["urgent"], bool)
    for formatted in got["formatted"]:
        assert formatted["mood"] in ("good", "bad")
        assert 1 <= formatted["score"] <= 5
    check(got["after"])
    check(got["plain"])
    assert got["vectors"] == [32, 32]
    assert got["error"]["status"] == 400
    assert "temperature" in str(got["error"])
    assert engine.seen
    assert engine.read
    assert not any(secret in engine.everything() for secret in SECRETS)
