"""OpenAI's answer objects: chat and plain completions, whole and in chunks."""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from api.conversation import Answers, Choice
from api.engines.base import TokenLogprob, ToolCall, Usage
from api.errors import HttpError
from api.streaming import DONE, event

_LEAST = -9999.0
"""JSON has no infinity; OpenAI writes this figure for what is all but impossible."""


class Writer(Protocol):
    """Writes one answer, whole or as the events of a stream."""

    def whole(self, answers: Answers) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def start(self) -> Iterator[bytes]:
        """Events before the first piece."""
        ...

    def piece(self, index: int, part: str | ToolCall) -> Iterator[bytes]:
        """Events of a piece of answer number ``index``."""
        ...

    def end(self, answers: Answers) -> Iterator[bytes]:
        """Events after the last piece of a stream that is complete."""
        ...

    def failed(self, error: HttpError) -> Iterator[bytes]:
        """Events that end a stream that is not."""
        ...


def usage_object(usage: Usage) -> dict[str, int]:
    """The ``usage`` object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def call_object(call: ToolCall) -> dict[str, Any]:
    """A call of a function."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


class _Chunked:
    """What both kinds of completions share: the frame, the finish, the usage."""

    prefix: str
    kind: str
    chunk: str

    def __init__(self, model: str, *, count: int = 1, with_usage: bool = False) -> None:
        self._count = count
        self._with_usage = with_usage
        self._frame = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Answers) -> dict[str, Any]:
        """See :class:`Writer`."""
        choices = [self._choice(i, answers.choice(i)) for i in range(self._count)]
        return self._object(self.kind, choices) | {"usage": usage_object(answers.usage)}

    def end(self, answers: Answers) -> Iterator[bytes]:
        """See :class:`Writer`."""
        for index in range(self._count):
            yield self._finish(index, answers.choice(index))
        if self._with_usage:
            last = self._object(self.chunk, []) | {"usage": usage_object(answers.usage)}
            yield event(last)
        yield DONE

    def failed(self, error: HttpError) -> Iterator[bytes]:
        """See :class:`Writer`."""
        yield event(error.body())

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def _finish(self, index: int, choice: Choice) -> bytes:
        raise NotImplementedError

    def _chunk(
        self, index: int, part: dict[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        extra: dict[str, Any] = {"usage": None} if self._with_usage else {}
        choice = _choice_object(index, part, reason, logprobs)
        return event(self._object(self.chunk, [choice]) | extra)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = self._frame
        return {
            "id": frame["id"],
            "object": kind,
            "created": frame["created"],
            "model": frame["model"],
            "choices": choices,
        }


class ChatWriter(_Chunked):
    """``chat.completion`` and ``chat.completion.chunk``."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk = "chat.completion.chunk"

    def start(self) -> Iterator[bytes]:
        """The role of each answer."""
        self._calls = [0] * self._count
        for index in range(self._count):
            yield self._chunk(
                index, {"delta": {"role": "assistant", "content": "", "refusal": None}}
            )

    def piece(self, index: int, part: str | ToolCall) -> Iterator[bytes]:
        """A delta."""
        if isinstance(part, str):
            yield self._chunk(index, {"delta": {"content": part}})
            return
        number = self._calls[index]
        self._calls[index] += 1
        yield self._chunk(
            index, {"delta": {"tool_calls": [{"index": number, **call_object(part)}]}}
        )

    def _finish(self, index: int, choice: Choice) -> bytes:
        return self._chunk(
            index, {"delta": {}}, choice.finish_reason or "stop", _chat_logprobs(choice.logprobs)
        )

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        content = choice.text or (None if choice.calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if choice.calls:
            message["tool_calls"] = [call_object(call) for call in choice.calls]
        return _choice_object(
            index,
            {"message": message},
            choice.finish_reason or "stop",
            _chat_logprobs(choice.logprobs),
        )


class CompletionWriter(_Chunked):
    """``text_completion``, for whole answers and chunks alike.

    Args:
        model: the release that answers.
        echo: the prompts, as they were sent, where they are to stand before their answers.
        count: answers of all prompts together.
        with_usage: whether a stream ends with a chunk that holds the usage.
    """

    prefix = "cmpl"
    kind = "text_completion"
    chunk = "text_completion"

    def __init__(
        self, model: str, echo: Sequence[str], *, count: int, with_usage: bool = False
    ) -> None:
        super().__init__(model, count=count, with_usage=with_usage)
        self._echo = echo

    def start(self) -> Iterator[bytes]:
        """The prompts, where they are to be repeated."""
        for index in range(self._count):
            if echoed := self._echoed(index):
                yield self._chunk(index, {"text": echoed})

    def piece(self, index: int, part: str | ToolCall) -> Iterator[bytes]:
        """A piece of the text."""
        if isinstance(part, str):
            yield self._chunk(index, {"text": part})

    def _finish(self, index: int, choice: Choice) -> bytes:
        logprobs = _plain_logprobs(choice.logprobs, len(self._echoed(index)))
        return self._chunk(index, {"text": ""}, choice.finish_reason or "stop", logprobs)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        echoed = self._echoed(index)
        return _choice_object(
            index,
            {"text": echoed + choice.text},
            choice.finish_reason or "stop",
            _plain_logprobs(choice.logprobs, len(echoed)),
        )

    def _echoed(self, index: int) -> str:
        return self._echo[index * len(self._echo) // self._count] if self._echo else ""


def _choice_object(
    index: int, part: dict[str, Any], reason: str | None, logprobs: Any
) -> dict[str, Any]:
    return {"index": index, **part, "logprobs": logprobs, "finish_reason": reason}


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not tokens:
        return None
    content = [
        {
            **_token(one.token, one.logprob),
            "top_logprobs": [_token(text, value) for text, value in one.top],
        }
        for one in tokens
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, _LEAST), "bytes": list(text.encode())}


def _plain_logprobs(tokens: Sequence[TokenLogprob], start: int) -> dict[str, Any] | None:
    if not tokens:
        return None
    offsets = [start]
    for one in tokens[:-1]:
        offsets.append(offsets[-1] + len(one.token))
    return {
        "tokens": [one.token for one in tokens],
        "token_logprobs": [max(one.logprob, _LEAST) for one in tokens],
        "top_logprobs": [
            {text: max(value, _LEAST) for text, value in one.top} or None for one in tokens
        ],
        "text_offset": offsets,
    }
