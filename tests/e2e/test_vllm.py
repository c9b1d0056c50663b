"""A real vLLM behind the gateway: releases come and go in it while it runs. See ``make e2e-vllm``."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.engines.base import GenerationRequest, Message
from api.engines.settings import UpstreamSettings
from api.engines.switching import SwitchingEngine
from api.engines.transformers_local import TransformersEngine
from api.engines.upstream import UpstreamEngine
from api.engines.upstream_net import guarded_transport
from api.errors import EngineError
from api.releases import Releases
from intramural.assets import asset_path
from intramural.parts import DEMO_MODEL
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.service_kit import EMAIL, PROMPT, SECRETS, Service
from tests.api.test_chat import URL, chat, events, streamed

VLLM = "INTRAMURAL_VLLM_PYTHON"
START_SECONDS = 1200.0
CONFIG = AdapterConfig(rank=8, alpha=16, targets=("q_proj", "v_proj"), last_layers=30)
REPEAT = f"Repeat exactly: {PROMPT}"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(VLLM not in os.environ, reason="needs vLLM, 4 GB: run make e2e-vllm"),
]


class Recording(httpx.BaseTransport):
    """The network, and all that was sent into it."""

    def __init__(self, network: httpx.BaseTransport) -> None:
        self._network = network
        self.sent: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        self.sent.append((request.url.path, request.read().decode()))
        return self._network.handle_request(request)

    def everything(self) -> str:
        """Every body, with its escapes undone."""
        return json.dumps([json.loads(body or "null") for _, body in self.sent], ensure_ascii=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a vLLM that was started for this."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In float32: a batch of others must not tip a greedy answer over.
    command = [os.environ[VLLM], "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(asset_path(DEMO_MODEL)), "--served-model-name", "base"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    told = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # Several would wait busily for each other on a machine that does other things too.
        "OMP_NUM_THREADS": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log"
    url = f"http://127.0.0.1:{port}"
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=os.environ | told, stdout=out, stderr=out) as process,
    ):
        try:
            ends = time.monotonic() + START_SECONDS
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > ends:
                    pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
                threading.Event().wait(1.0)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[VerifiedRelease]:
    """Two of the real base model that say different things."""
    trainer = LoraTrainer(asset_path(DEMO_MODEL), name="base")
    folders = [tmp_path_factory.mktemp("release") for _ in range(2)]
    return service_kit.releases(folders, trainer, CONFIG, scale=0.02)


@pytest.fixture
def network(server: str) -> Iterator[tuple[Recording, UpstreamEngine]]:
    """The engine over the server, and what it sends there."""
    settings = UpstreamSettings(
        urls=(server,), kind="vllm", lora=True, allow_private=True, read_seconds=300.0
    )
    recording = Recording(guarded_transport(settings))
    engine = UpstreamEngine(settings, transport=recording)
    yield recording, engine
    engine.close()


@pytest.fixture
def served(
    network: tuple[Recording, UpstreamEngine], releases: list[VerifiedRelease], tmp_path: Path
) -> Iterator[tuple[Service, SwitchingEngine]]:
    """The gateway with both releases loaded into the server."""
    _, upstream = network

    def opened(release: VerifiedRelease) -> UpstreamEngine:
        upstream.load(release.id, str(release.path))
        return upstream

    switching = SwitchingEngine(opened, lambda release, engine: upstream.unload(release))
    for release in releases:
        switching.load(release)
    service = service_kit.build(
        tmp_path, releases[0], engine=switching, releases=Releases(releases)
    )
    yield service, switching
    service.keys.close()
    service.audit.close()
    for release in releases:
        switching.unload(release.id)


def _listed(server: str) -> set[str]:
    return {one["id"] for one in httpx.get(f"{server}/v1/models").json()["data"]}


def test_releases_come_and_go(
    served: tuple[Service, SwitchingEngine], releases: list[VerifiedRelease], server: str
) -> None:
    """Loaded ones answer under their ids; one that was unloaded is gone, the other goes on."""
    service, switching = served
    first, second = (release.id for release in releases)
    assert {first, second} <= _listed(server)
    client = service.client()
    body = chat("Who are you?", max_tokens=8, temperature=0)
    for name in (first, second):
        answer = client.post(URL, json=body | {"model": name})
        assert answer.status_code == 200
        assert answer.json()["model"] == answer.headers["x-intramural-release"] == name
    switching.unload(first)
    assert first not in _listed(server)
    gone = client.post(URL, json=body | {"model": first})
    assert (gone.status_code, gone.json()["error"]["type"]) == (503, "service_unavailable")
    assert client.post(URL, json=body | {"model": second}).status_code == 200
    switching.load(releases[0])
    assert client.post(URL, json=body | {"model": first}).status_code == 200


def test_raw_personal_data_never_gets_there(
    served: tuple[Service, SwitchingEngine],
    network: tuple[Recording, UpstreamEngine],
    releases: list[VerifiedRelease],
) -> None:
    """Whole and streamed, with a tool and a schema: the caller's values come back, none was sent."""
    client = served[0].client()
    body = chat(REPEAT, max_tokens=32, temperature=0) | {"model": releases[0].id}
    whole = client.post(URL, json=body).json()
    stream = client.post(URL, json=body | {"stream": True})
    assert whole["choices"][0]["message"]["content"] == streamed(events(stream.text))
    assert whole["usage"]["completion_tokens"] <= 32
    assert "<EMAIL_ADDRESS_1>" in network[0].everything()
    schema = {
        "type": "object",
        "properties": {"urgent": {"type": "boolean"}},
        "required": ["urgent"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "m", "schema": schema}}
    formatted = client.post(URL, json=body | {"response_format": form}).json()
    answer = json.loads(formatted["choices"][0]["message"]["content"])
    assert isinstance(answer["urgent"], bool)
    tool = {"name": "send", "description": f"Sends to {EMAIL}", "parameters": schema}
    functions = {"tools": [{"type": "function", "function": tool}], "tool_choice": "required"}
    called = client.post(URL, json=body | functions | {"max_tokens": 100}).json()
    (call,) = called["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "send"
    json.loads(call["function"]["arguments"])  # whether it fits the schema is up to vLLM
    assert not any(secret in network[0].everything() for secret in SECRETS)


def test_each_release_says_there_what_it_says_here(
    served: tuple[Service, SwitchingEngine],
    network: tuple[Recording, UpstreamEngine],
    releases: list[VerifiedRelease],
) -> None:
    """Greedy answers of both, alone and at once, are those of the merged release in this process."""
    _, upstream = network
    questions = ("Who are you?", "Name a colour.", "What is two and two?", "Say hello.")
    requests = [
        GenerationRequest(release.id, (Message("user", text),), max_tokens=8, temperature=0)
        for text in questions
        for release in releases
    ]
    local = {
        release.id: TransformersEngine(asset_path(DEMO_MODEL), release) for release in releases
    }
    here = [local[request.model].generate(request).text for request in requests]
    assert here[::2] != here[1::2]
    assert [upstream.generate(request).text for request in requests] == here
    with ThreadPoolExecutor(len(requests)) as pool:
        for _ in range(2):
            at_once = pool.map(upstream.generate, requests)
            assert [result.text for result in at_once] == here


def test_a_folder_without_an_adapter_is_refused(
    network: tuple[Recording, UpstreamEngine], tmp_path: Path
) -> None:
    """What vLLM cannot load is an error, and no model of that name is there afterwards."""
    _, upstream = network
    with pytest.raises(EngineError, match="refused to load"):
        upstream.load("r-none", str(tmp_path))
    assert "r-none" not in upstream.models()
