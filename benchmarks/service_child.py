"""The process under load: the whole service over an engine, and beside it the engine alone.

The engine is a mock, or the local one where a model's folder and a precision are given.

Prints where both listen, and stops when its input ends.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from api.app import create_app
from api.engines.base import (
    Engine,
    Finished,
    GenerationRequest,
    GenerationResult,
    Item,
    Message,
    TextDelta,
    Usage,
    whole,
)
from api.keys import KeyStore
from api.server import BackgroundServer
from api.settings import ServiceSettings
from policies.load import parse_policy
from privacy.audit.log import AuditLog
from privacy.pii.detector import Detector
from privacy.signing import SigningKey

POLICY = """
version = 1
organisation = "Benchmark"
[departments.hr]
[roles.app]
requests_per_minute = 1000000
concurrent_requests = 10000
tokens_per_minute = 100000000
max_tokens = 1000
"""
FAST, PACED = "mock-fast", "mock-paced"
LOCAL = "local"


class MockEngine:
    """Answers with ``max_tokens`` words; the paced model takes ``pace`` seconds for each."""

    def __init__(self, pace: float) -> None:
        self._pace = pace

    def models(self) -> list[str]:
        """Both."""
        return [FAST, PACED]

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See the port."""
        return whole(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See the port."""
        prompt_tokens = sum(len(turn.content.split()) for turn in request.messages)
        for count in range(1, request.max_tokens + 1):
            if request.model == PACED:
                time.sleep(self._pace)
            yield TextDelta("word ", Usage(prompt_tokens, count))
        yield Finished("length", Usage(prompt_tokens, request.max_tokens))


def bare(engine: Engine) -> FastAPI:
    """The engine behind HTTP and nothing else."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> Any:
        turns = tuple(Message(turn["role"], turn["content"]) for turn in body["messages"])
        asked = GenerationRequest(body["model"], turns, max_tokens=body["max_tokens"])
        if not body.get("stream"):
            text = engine.generate(asked).text
            return {"choices": [{"message": {"role": "assistant", "content": text}}]}
        return StreamingResponse(
            (
                f"data: {json.dumps({'choices': [{'delta': {'content': item.text}}]})}\n\n"
                for item in engine.stream(asked)
                if isinstance(item, TextDelta)
            ),
            media_type="text/event-stream",
        )

    return app


def detector_of(kind: str) -> Detector:
    """``models``: as a service has it by default; ``patterns``: no model at all."""
    if kind == "patterns":
        from privacy.pii.patterns import PatternDetector

        return PatternDetector()
    from intramural.parts import detector_for

    declared = parse_policy(POLICY.encode(), "toml")
    return detector_for(declared.pii, declared.entities_named())


def local_engine(model: Path, dtype: str, slots: int) -> Engine:
    """The engine in this process over a model's folder."""
    import torch

    from api.engines.transformers_local import TransformersEngine

    return TransformersEngine(model, model_id=LOCAL, dtype=getattr(torch, dtype), batch=slots)


def main(folder: Path, kind: str, engine: Engine, slots: int) -> None:
    """Serve until standard input ends; then say what the audit log holds."""
    key = SigningKey.generate()
    settings = ServiceSettings(
        serve_base_model=True, concurrent_generations=slots, waiting_generations=64
    )
    with ExitStack() as stack:
        audit = stack.enter_context(AuditLog(folder / "audit.db", key, "benchmark/audit"))
        keys = KeyStore(folder / "keys.db", signing_key=key, secret=folder / "keys.secret")
        stack.callback(keys.close)
        app = create_app(
            settings,
            engine=engine,
            detector=detector_of(kind),
            audit=audit,
            keys=keys,
            policy=parse_policy(POLICY.encode(), "toml"),
            releases=[],
            ledgers=list,
        )
        token, _ = keys.create("benchmark", "app")
        gateway = stack.enter_context(BackgroundServer(app, settings=settings))
        alone = stack.enter_context(BackgroundServer(bare(engine)))
        print(json.dumps({"gateway": gateway.base_url, "bare": alone.base_url, "key": token}))
        sys.stdout.flush()
        sys.stdin.read()
    print(json.dumps(_audited(folder / "audit.db")))


def _audited(path: Path) -> dict[str, int]:
    from privacy.audit.log import read_log

    found = {"started": 0, "ended": 0, "answered": 0, "tokens_of_whole": 0, "aborted": 0}
    with read_log(path) as log:
        for stored in log.entries():
            data = stored.entry.data
            if stored.entry.kind != "call":
                continue
            found[data["phase"]] += 1
            if data["phase"] != "started" and data["outcome"] == "ok":
                found["tokens_of_whole"] += data["completion_tokens"]
            found["aborted"] += data["outcome"] == "aborted"
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        detector, pace, places, *local = sys.argv[1:]
        slots = int(places)
        chosen = local_engine(Path(local[0]), local[1], slots) if local else MockEngine(float(pace))
        main(Path(scratch), detector, chosen, slots)
