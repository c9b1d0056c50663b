"""``POST /v1/embeddings`` and ``POST /v1/classify``: models that read.

Texts are redacted like prompts. Placeholders are numbered within one request, so the vector of a
text does not depend on who is named in it.
"""

import base64
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Literal, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.conversation import Conversation
from api.engines.base import Classes, Encoder, Vectors
from api.engines.together import encoder
from api.generation import translated
from api.schemas import ClassifyBody, EmbeddingsBody, ReadingBody
from api.services import Services

router = APIRouter()
Read = TypeVar("Read", Vectors, Classes)


class ReadingUsage(BaseModel):
    """Tokens as the model counted them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingOut(BaseModel):
    """A vector of unit norm: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsOut(BaseModel):
    """One vector for each text, in order."""

    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: ReadingUsage


class ClassOut(BaseModel):
    """The likeliest label of a text, and the probability of each."""

    object: Literal["classification"] = "classification"
    index: int
    label: str
    score: float
    scores: dict[str, float]


class ClassesOut(BaseModel):
    """One classification for each text, in order."""

    object: Literal["list"] = "list"
    data: list[ClassOut]
    model: str
    usage: ReadingUsage


@router.post("/v1/embeddings", dependencies=[operation("embeddings")])
async def embeddings(body: EmbeddingsBody, request: Request) -> EmbeddingsOut:
    """Vectors of texts, from a model that makes some."""

    def embed(engine: Encoder, model: str, texts: tuple[str, ...]) -> Vectors:
        return engine.embed(model, texts)

    model, found = await _read(request, body, "embeddings", embed)
    as_base64 = body.encoding_format == "base64"
    data = [
        EmbeddingOut(index=i, embedding=_base64(vector) if as_base64 else list(vector))
        for i, vector in enumerate(found.vectors)
    ]
    return EmbeddingsOut(data=data, model=model, usage=_usage(found.prompt_tokens))


@router.post("/v1/classify", dependencies=[operation("classify")])
async def classify(body: ClassifyBody, request: Request) -> ClassesOut:
    """Classes of texts, from a release with a classification head."""

    def classes(engine: Encoder, model: str, texts: tuple[str, ...]) -> Classes:
        return engine.classify(model, texts)

    model, found = await _read(request, body, "classes", classes)
    data = []
    for i, row in enumerate(found.scores):
        best = max(range(len(row)), key=row.__getitem__)
        scores = dict(zip(found.labels, row, strict=True))
        data.append(ClassOut(index=i, label=found.labels[best], score=row[best], scores=scores))
    return ClassesOut(data=data, model=model, usage=_usage(found.prompt_tokens))


async def _read(
    request: Request,
    body: ReadingBody,
    what: str,
    read: Callable[[Encoder, str, tuple[str, ...]], Read],
) -> tuple[str, Read]:
    call, services = Call.of(request), Services.of(request)
    model = services.model(body.model, call)
    call.release = model
    services.decide(call, model=model)
    answering = services.answering(call, model)
    conversation = Conversation(services.detector, services.policy, call.role, model)
    texts = await to_thread.run_sync(partial(_redacted, services, call, conversation, body.texts()))

    def answer() -> Any:
        try:
            return read(encoder(services.engine, what), answering, texts)
        except Exception as error:
            raise translated(error) from None

    async with AsyncExitStack() as stack:
        with services.metrics.stage("queue"):
            await stack.enter_async_context(services.slots.one())
        with services.metrics.stage("engine"):
            found: Read = await to_thread.run_sync(answer, limiter=services.engine_threads)
    call.prompt_tokens = found.prompt_tokens
    return model, found


def _redacted(
    services: Services, call: Call, conversation: Conversation, texts: list[str]
) -> tuple[str, ...]:
    call.digests["prompt_sent"] = services.recorder.digest(texts)
    try:
        with services.metrics.stage("redact"):
            redacted = conversation.redact(texts)
    finally:
        call.entities = conversation.counts()
    call.digests["prompt_seen"] = services.recorder.digest(redacted)
    return tuple(redacted)


def _base64(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _usage(tokens: int) -> ReadingUsage:
    return ReadingUsage(prompt_tokens=tokens, total_tokens=tokens)
