"""How models write that they call a function, for the families that write JSON between tags.

``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` is the form of Hermes, Qwen and SmolLM.
Where a model's chat template knows no tools, they are told to it in the same form.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from api.engines.base import Message, Tool, ToolCall
from api.engines.stop import overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_PREAMBLE = (
    "Functions that you can call, one a line, each with the JSON schema of its arguments:\n{tools}\n"
    'To call one, write only <tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>. '
    "Its result comes between <tool_response> tags."
)


class ToolCallReader:
    """Takes the calls out of a text that arrives in pieces.

    What may still become a call is held back; what turns out to be none is passed on as text.

    Args:
        tools: those that may be called; without any, all is text.
        most: the most calls to take; further ones are dropped.
    """

    def __init__(self, tools: Sequence[Tool], most: int | None = None) -> None:
        self._names = {tool.name for tool in tools}
        self._most = most
        self._held = ""
        self.calls = 0

    @property
    def full(self) -> bool:
        """Whether all calls that it may take were taken."""
        return self._most is not None and self.calls >= self._most

    def feed(self, piece: str) -> Iterator[str | ToolCall]:
        """Texts that may leave, and calls that are complete."""
        self._held += piece
        yield from self._parts(final=False)

    def flush(self) -> Iterator[str | ToolCall]:
        """The rest, now that no more text comes."""
        yield from self._parts(final=True)

    def _parts(self, *, final: bool) -> Iterator[str | ToolCall]:
        while self._held:
            at = self._held.find(OPEN) if self._names else -1
            if at < 0:
                keep = 0 if final or not self._names else overlap(self._held, OPEN)
                text, self._held = (
                    self._held[: len(self._held) - keep],
                    self._held[len(self._held) - keep :],
                )
                yield from self._text(text)
                return
            end = self._held.find(CLOSE, at)
            if end < 0 and not final:
                text, self._held = self._held[:at], self._held[at:]
                yield from self._text(text)
                return
            text, body = self._held[:at], self._held[at + len(OPEN) : end if end >= 0 else None]
            yield from self._text(text)
            call = self._read(body)
            if call is None:
                # No call after all: the model only wrote the tag.
                yield OPEN
                self._held = self._held[at + len(OPEN) :]
                continue
            self._held = self._held[end + len(CLOSE) :] if end >= 0 else ""
            if not self.full:
                self.calls += 1
                yield call

    def _text(self, text: str) -> Iterator[str]:
        # Between and after calls models write line breaks that nobody wants.
        if text and (not self.calls or text.strip()):
            yield text

    def _read(self, body: str) -> ToolCall | None:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("name") not in self._names:
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        source = (
            arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        )
        return ToolCall(f"call_{secrets.token_hex(12)}", found["name"], source)


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns as chat templates that know tools read them."""
    turns: list[dict[str, Any]] = []
    for turn in messages:
        made: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.name is not None:
            made["name"] = turn.name
        if turn.tool_call_id is not None:
            made["tool_call_id"] = turn.tool_call_id
        if turn.tool_calls:
            made["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _parsed(call.arguments)},
                }
                for call in turn.tool_calls
            ]
        turns.append(made)
    return turns


def described(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates read it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def told(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Turns of roles system, user and assistant alone that tell the tools, calls and results."""
    turns: list[dict[str, Any]] = []
    if tools:
        lines = "\n".join(
            json.dumps(described(tool)["function"], ensure_ascii=False) for tool in tools
        )
        turns.append({"role": "system", "content": _PREAMBLE.format(tools=lines)})
    for turn in messages:
        role, content = turn.role, turn.content
        if turn.role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        for call in turn.tool_calls:
            written = {"name": call.name, "arguments": _parsed(call.arguments)}
            block = f"{OPEN}\n{json.dumps(written, ensure_ascii=False)}\n{CLOSE}"
            content = f"{content}\n{block}" if content else block
        if role == "system" and turns and turns[0]["role"] == "system":
            turns[0]["content"] += f"\n\n{content}"
            continue
        turns.append({"role": role, "content": content})
    return turns


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
