"""OpenAI's answer objects: chat and plain completions, whole and in chunks."""

import secrets
import time
from typing import Any, Protocol

from api.engines.base import Usage


def usage_object(usage: Usage) -> dict[str, int]:
    """The ``usage`` object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class Shape(Protocol):
    """How one kind of answer is written."""

    prefix: str
    whole: str
    chunk: str

    def answer(self, text: str) -> dict[str, Any]:
        """The part of the choice that holds a whole answer."""
        ...

    def opening(self) -> dict[str, Any] | None:
        """The part of the choice in a stream's first chunk, where there is one."""
        ...

    def piece(self, text: str) -> dict[str, Any]:
        """The part of the choice that holds a piece; ``""`` in the chunk that finishes."""
        ...


class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk``."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def answer(self, text: str) -> dict[str, Any]:
        """A message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any]:
        """The role."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def piece(self, text: str) -> dict[str, Any]:
        """A delta."""
        return {"delta": {"content": text} if text else {}}


class CompletionShape:
    """``text_completion``, for whole answers and chunks alike."""

    prefix = "cmpl"
    whole = "text_completion"
    chunk = "text_completion"

    def answer(self, text: str) -> dict[str, Any]:
        """The text."""
        return {"text": text}

    def opening(self) -> None:
        """None: the first chunk is the first piece."""
        return

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the text."""
        return {"text": text}


class Writer:
    """Writes one answer; its chunks share id and time."""

    def __init__(self, shape: Shape, model: str) -> None:
        self._shape = shape
        self._frame = {
            "id": f"{shape.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish_reason: str, usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choice = self._choice(self._shape.answer(text), finish_reason)
        return self._object(self._shape.whole, [choice]) | {"usage": usage_object(usage)}

    def opening(self, extra: dict[str, Any]) -> dict[str, Any] | None:
        """The first chunk, where this shape has one."""
        part = self._shape.opening()
        return None if part is None else self._chunk(part, None, extra)

    def piece(self, text: str, extra: dict[str, Any]) -> dict[str, Any]:
        """A chunk with text."""
        return self._chunk(self._shape.piece(text), None, extra)

    def finish(self, finish_reason: str, extra: dict[str, Any]) -> dict[str, Any]:
        """The chunk that says why the answer ended."""
        return self._chunk(self._shape.piece(""), finish_reason, extra)

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The chunk with the usage and no choice."""
        return self._object(self._shape.chunk, []) | {"usage": usage_object(usage)}

    def _chunk(
        self, part: dict[str, Any], reason: str | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        return self._object(self._shape.chunk, [self._choice(part, reason)]) | extra

    def _choice(self, part: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, **part, "logprobs": None, "finish_reason": reason}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = self._frame
        return {
            "id": frame["id"],
            "object": kind,
            "created": frame["created"],
            "model": frame["model"],
            "choices": choices,
        }
