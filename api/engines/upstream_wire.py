"""OpenAI's protocol from the caller's side: requests of the port as JSON, server-sent events as items.

Knows no connection.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from api.engines.base import (
    Finished,
    FinishReason,
    GenerationRequest,
    Item,
    Message,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCalled,
    Usage,
)
from api.errors import EngineError

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_MOST_LINE = 1 << 22
_CHARACTERS_A_TOKEN = 4


def path_for(request: GenerationRequest) -> str:
    """The route that answers the request."""
    return "/v1/completions" if request.prompt is not None else "/v1/chat/completions"


def body_for(
    request: GenerationRequest, model: str, kind: Literal["openai", "vllm"]
) -> dict[str, Any]:
    """The request as JSON, always streamed: an answer that is left early is then stopped."""
    options: dict[str, Any] = {"include_usage": True}
    if kind == "vllm":
        options["continuous_usage_stats"] = True
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": options,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "n": request.n,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.user is not None:
        body["user"] = request.user
    if request.prompt is not None:
        body["prompt"] = request.prompt
        if request.logprobs is not None:
            body["logprobs"] = request.logprobs
        return body
    body["messages"] = [_turn(turn) for turn in request.messages]
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.tools:
        body |= {
            "tools": [_tool(tool) for tool in request.tools],
            "tool_choice": _choice(request),
            "parallel_tool_calls": request.parallel_tool_calls,
        }
    if request.json is not None:
        body["response_format"] = _format(request)
    return body


def items_of(lines: Iterable[str], request: GenerationRequest) -> Iterator[Item]:
    """The items that a stream of events tells.

    Tokens are as the server counts them. Where it tells them only at the end, a piece of text
    counts as one token until then, and four characters of the prompt as one.

    Raises:
        EngineError: the stream is none, says that it failed, or ends before the answer does.
    """
    reader = _Reader(request)
    for data in _events(lines):
        if data == "[DONE]":
            yield from reader.end()
            return
        try:
            chunk = json.loads(data)
            if not isinstance(chunk, dict) or chunk.get("error") is not None:
                raise EngineError("the model server failed inside an answer")
            yield from reader.read(chunk)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise EngineError("the model server's answer cannot be read") from None
    raise EngineError("the model server broke off inside an answer")


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class _Choice:
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None


class _Reader:
    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._choices = [_Choice() for _ in range(request.n)]
        characters = len(request.prompt or "") + sum(len(turn.content) for turn in request.messages)
        self._usage = Usage(max(1, characters // _CHARACTERS_A_TOKEN), 0)
        self._exact = False

    def read(self, chunk: dict[str, Any]) -> Iterator[Item]:
        told = chunk.get("usage")
        if told:
            self._exact = True
            self._usage = Usage(int(told["prompt_tokens"]), int(told.get("completion_tokens") or 0))
        for one in chunk.get("choices") or ():
            yield from self._choice(one)

    def end(self) -> Iterator[Item]:
        if any(choice.reason is None for choice in self._choices):
            raise EngineError("the model server ended before its answer did")
        for index, choice in enumerate(self._choices):
            for call in choice.calls.values():
                made = ToolCall(call.id, call.name, call.arguments)
                yield ToolCalled(made, self._usage, index)
            yield Finished(choice.reason or "stop", self._usage, index, tuple(choice.logprobs))

    def _choice(self, one: dict[str, Any]) -> Iterator[Item]:
        index = int(one.get("index", 0))
        if not 0 <= index < len(self._choices):
            raise EngineError("the model server sent an answer that was not asked for")
        choice = self._choices[index]
        delta = one.get("delta") or {}
        text = one["text"] if "text" in one else delta.get("content")
        if text is not None and not isinstance(text, str):
            raise TypeError
        self._logprobs(choice, one.get("logprobs"))
        for part in delta.get("tool_calls") or ():
            call = choice.calls.setdefault(int(part.get("index", len(choice.calls))), _Call())
            call.id = part.get("id") or call.id
            told = part.get("function") or {}
            call.name = told.get("name") or call.name
            call.arguments += told.get("arguments") or ""
            self._count()
        if text:
            self._count()
            yield TextDelta(text, self._usage, index)
        reason = one.get("finish_reason")
        if reason is not None:
            if reason == "content_filter":
                raise EngineError("the model server withheld the answer")
            choice.reason = _REASONS.get(reason, "stop")

    def _count(self) -> None:
        if not self._exact:
            self._usage = Usage(self._usage.prompt_tokens, self._usage.completion_tokens + 1)

    def _logprobs(self, choice: _Choice, told: Any) -> None:
        if not told or self._request.logprobs is None:
            return
        if "content" in told:
            for token in told["content"] or ():
                tops = tuple(
                    (str(top["token"]), float(top["logprob"]))
                    for top in token.get("top_logprobs") or ()
                )
                choice.logprobs.append(
                    TokenLogprob(str(token["token"]), float(token["logprob"]), tops)
                )
            return
        tops_of = told.get("top_logprobs") or [None] * len(told["tokens"])
        for token, value, top in zip(told["tokens"], told["token_logprobs"], tops_of, strict=True):
            alternatives = tuple((str(name), float(one)) for name, one in (top or {}).items())
            choice.logprobs.append(TokenLogprob(str(token), float(value), alternatives))


def _events(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if len(line) > _MOST_LINE:
            raise EngineError("the model server's answer cannot be read")
        if line.startswith("data:"):
            yield line[5:].strip()


def _turn(turn: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name is not None:
        body["name"] = turn.name
    if turn.tool_call_id is not None:
        body["tool_call_id"] = turn.tool_call_id
    if turn.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.tool_calls
        ]
    return body


def _tool(tool: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(request: GenerationRequest) -> Any:
    if request.forced_tool is None:
        return request.tool_choice
    return {"type": "function", "function": {"name": request.forced_tool}}


def _format(request: GenerationRequest) -> dict[str, Any]:
    asked = request.json
    if asked is None or asked.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {
        "name": asked.name,
        "schema": dict(asked.schema),
        "strict": asked.strict,
    }
    if asked.description:
        schema["description"] = asked.description
    return {"type": "json_schema", "json_schema": schema}
