"""An OpenAI-compatible server without a network: it answers with an engine and records what it got."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from api.engines.base import Engine, Finished, GenerationRequest, Message, TextDelta
from api.engines.settings import UpstreamSettings
from api.engines.upstream import UpstreamEngine
from api.errors import ContextTooLong
from tests.api.echo import EchoEngine

URL = "http://one.example.org"


class MockUpstream(httpx.BaseTransport):
    """Args:
    engine: answers.
    before: looks at each request first, and may answer in the engine's place.
    """

    def __init__(
        self,
        engine: Engine,
        before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None,
    ) -> None:
        self.engine = engine
        self.before = before
        self.received: list[tuple[str, bytes]] = []
        self.open = 0
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        with self._lock:
            self.received.append((str(request.url), request.read()))
        special = self.before(request)
        if special is not None:
            return special
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": m} for m in self.engine.models()]})
        body = json.loads(request.content)
        if body.get("model") not in self.engine.models():
            return httpx.Response(404, json={"error": {"message": "no such model"}})
        try:
            items = self.engine.stream(_asked(body))
        except ContextTooLong as error:
            said = (
                f"'max_tokens' is too large: {error.max_tokens}. This model's maximum context length "
                f"is {error.limit} tokens and your request has {error.prompt_tokens} input tokens"
            )
            return httpx.Response(400, json={"error": {"message": said}})
        return httpx.Response(200, stream=_Events(self, items, chat="messages" in body))


class _Events(httpx.SyncByteStream):
    def __init__(self, server: MockUpstream, items: Iterator[Any], *, chat: bool) -> None:
        self._server = server
        self._items = items
        self._chat = chat
        server.open += 1

    def __iter__(self) -> Iterator[bytes]:
        for item in self._items:
            choice: dict[str, Any] = {"index": item.index, "finish_reason": None}
            if isinstance(item, TextDelta):
                choice |= {"delta": {"content": item.text}} if self._chat else {"text": item.text}
            elif isinstance(item, Finished):
                choice["finish_reason"] = item.finish_reason
                choice |= {"delta": {}} if self._chat else {"text": ""}
            usage = {
                "prompt_tokens": item.usage.prompt_tokens,
                "completion_tokens": item.usage.completion_tokens,
            }
            yield b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    def close(self) -> None:
        self._server.open -= 1
        self._items.close()  # type: ignore[attr-defined]


def _asked(body: dict[str, Any]) -> GenerationRequest:
    return GenerationRequest(
        body["model"],
        tuple(Message(turn["role"], turn["content"]) for turn in body.get("messages", ())),
        prompt=body.get("prompt"),
        max_tokens=body["max_tokens"],
        temperature=body["temperature"],
        stop=tuple(body.get("stop", ())),
        seed=body.get("seed"),
    )


def upstream(
    model: str, server: httpx.BaseTransport | None = None, **settings: Any
) -> UpstreamEngine:
    """An engine whose model stands on a mock server under another name."""
    told: dict[str, Any] = {"urls": [URL], "models": {model: "their-model"}, "kind": "vllm"}
    server = server or MockUpstream(EchoEngine("their-model"))
    return UpstreamEngine(UpstreamSettings.model_validate(told | settings), transport=server)
