"""From a redacted body in OpenAI's form to what the engine is asked for.

Bodies come here as plain JSON after they were validated and redacted; what they hold is not looked
at again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from api.engines.base import (
    GenerationRequest,
    JsonFormat,
    Message,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
)
from api.errors import HttpError, invalid_request

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Bounds:
    """What the service decides: the model, and the length of an answer and of all."""

    model: str
    max_tokens: int
    fit: bool
    max_context: int | None = None


def chat(body: Body, bounds: Bounds) -> list[GenerationRequest]:
    """The one request that a body of chat completions asks for."""
    logprobs = body.get("top_logprobs") or 0
    return [
        GenerationRequest(
            messages=tuple(_turn(turn) for turn in body["messages"]),
            tools=tuple(_tool(one["function"]) for one in body.get("tools") or ()),
            json=_format(body.get("response_format")),
            logprobs=logprobs if body.get("logprobs") else None,
            **_tool_choice(body.get("tool_choice")),
            **_common(body, bounds),
        )
    ]


def completions(body: Body, bounds: Bounds) -> list[GenerationRequest]:
    """One request for each prompt."""
    given = body["prompt"]
    prompts = [given] if isinstance(given, str) else given
    return [
        GenerationRequest(prompt=text, logprobs=body.get("logprobs"), **_common(body, bounds))
        for text in prompts
    ]


def responses(body: Body, bounds: Bounds) -> list[GenerationRequest]:
    """The one request that a body of responses asks for."""
    turns: list[Message] = []
    if body.get("instructions"):
        turns.append(Message("system", body["instructions"]))
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            last = turns[-1] if turns else None
            if last is not None and last.role == "assistant":
                turns[-1] = Message("assistant", last.content, tool_calls=(*last.tool_calls, call))
            else:
                turns.append(Message("assistant", "", tool_calls=(call,)))
        elif kind == "function_call_output":
            turns.append(Message("tool", item["output"], tool_call_id=item["call_id"]))
        else:
            turns.append(_turn(item))
    return [
        GenerationRequest(
            messages=tuple(turns),
            tools=tuple(_tool(one) for one in body.get("tools") or ()),
            json=_format((body.get("text") or {}).get("format")),
            **_tool_choice(body.get("tool_choice")),
            **_common(body, bounds),
        )
    ]


def said(body: Body) -> list[str]:
    """The texts of a body in order, for its digest; what is no text, as canonical JSON."""
    found = [
        one if isinstance(one, str) else _texts(one)
        for key in ("messages", "prompt", "instructions", "input")
        for one in _each(body.get(key))
    ]
    rest = {key: body[key] for key in ("tools", "response_format", "text") if body.get(key)}
    return [*found, _canonical(rest)] if rest else found


def heard(body: Body) -> list[str]:
    """The texts of a body that others than the application may have written.

    All that :func:`said` has, but for system and developer turns, instructions and definitions.
    """
    return [
        one if isinstance(one, str) else _texts(one)
        for key in ("messages", "prompt", "input")
        for one in _each(body.get(key))
        if isinstance(one, str) or one.get("role") not in ("system", "developer")
    ]


def check(body: Body) -> None:
    """Refuse fields that do not go together: of tools, log-probabilities and formats.

    Raises:
        HttpError: 400.
    """
    names = [_function_of(one)["name"] for one in body.get("tools") or ()]
    choice = body.get("tool_choice")
    if len(set(names)) != len(names):
        raise _invalid("tools names one function twice: names must differ", "tools")
    if choice == "required" and not names:
        raise _invalid("tool_choice is required, but tools is empty", "tool_choice")
    if isinstance(choice, Mapping) and _function_of(choice)["name"] not in names:
        raise _invalid("tool_choice names a function that tools does not define", "tool_choice")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise _invalid("top_logprobs is allowed only with logprobs: true", "top_logprobs")
    wanted = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    schema = wanted.get("json_schema") or wanted
    if wanted.get("type") == "json_schema" and not schema.get("schema"):
        raise _invalid("a format json_schema needs a schema", "response_format")


def _invalid(message: str, param: str) -> HttpError:
    return invalid_request(message, code="invalid_value", param=param)


def _function_of(given: Body) -> Body:
    """A function of chat completions, or of responses, which name it without a frame around it."""
    found: Body = given.get("function") or given
    return found


def _common(body: Body, bounds: Bounds) -> dict[str, Any]:
    stop = body.get("stop")
    return {
        "model": bounds.model,
        "max_tokens": bounds.max_tokens,
        "fit": bounds.fit,
        "max_context": bounds.max_context,
        "temperature": 1.0 if body.get("temperature") is None else float(body["temperature"]),
        "top_p": 1.0 if body.get("top_p") is None else float(body["top_p"]),
        "stop": () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        "seed": body.get("seed"),
        "n": body.get("n") or 1,
        "user": body.get("user"),
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
    }


def _turn(turn: Body) -> Message:
    role = "system" if turn["role"] == "developer" else turn["role"]
    calls = tuple(
        ToolCall(one["id"], one["function"]["name"], one["function"]["arguments"])
        for one in turn.get("tool_calls") or ()
    )
    return Message(
        cast("Role", role),
        text_of(turn.get("content")),
        turn.get("name"),
        calls,
        turn.get("tool_call_id"),
    )


def text_of(content: Any) -> str:
    """Content as one text; parts stand on lines of their own."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["text"] for part in content)


def _tool(given: Body) -> Tool:
    return Tool(
        given["name"],
        given.get("description") or "",
        given.get("parameters") or {},
        bool(given.get("strict")),
    )


def _tool_choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, Mapping):
        forced = _function_of(choice)["name"]
        return {"tool_choice": "required", "forced_tool": forced}
    return {"tool_choice": cast("ToolChoice", choice or "auto")}


def _format(given: Any) -> JsonFormat | None:
    if not given or given["type"] == "text":
        return None
    if given["type"] == "json_object":
        return JsonFormat()
    schema = given.get("json_schema") or given
    return JsonFormat(
        schema["schema"],
        schema["name"] or "answer",
        schema.get("description") or "",
        bool(schema.get("strict")),
    )


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(turn: Body) -> str:
    content = text_of(turn.get("content", turn.get("output")))
    calls = turn.get("tool_calls") or turn.get("arguments")
    return content + (_canonical(calls) if calls else "")


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
