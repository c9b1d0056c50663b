"""OpenAI's response object and the events of its stream, in their documented order."""

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from api.conversation import Answers
from api.engines.base import ToolCall
from api.errors import HttpError
from api.streaming import event


class ResponsesWriter:
    """``response``, whole or as events. See :class:`api.shapes.Writer`.

    Args:
        model: the release that answers.
        body: what the caller sent; its settings are part of the answer.
    """

    def __init__(self, model: str, body: Mapping[str, Any]) -> None:
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._frame: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": body.get("temperature", 1.0),
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
        }

    def whole(self, answers: Answers) -> dict[str, Any]:
        """See :class:`api.shapes.Writer`."""
        choice = answers.choice(0)
        output = [_function_call(call) for call in choice.calls]
        if choice.text or not output:
            status = "incomplete" if choice.finish_reason == "length" else "completed"
            output.insert(0, _message(choice.text, status))
        self._output = output
        return self._ended(answers)

    def start(self) -> Iterator[bytes]:
        """See :class:`api.shapes.Writer`."""
        yield self._event("response.created", response=self._frame)
        yield self._event("response.in_progress", response=self._frame)

    def piece(self, index: int, part: str | ToolCall) -> Iterator[bytes]:
        """See :class:`api.shapes.Writer`."""
        if isinstance(part, ToolCall):
            yield from self._close("completed")
            yield from self._call(part)
            return
        if self._open is None:
            yield from self._begin()
        item = self._open or {}
        item["content"][0]["text"] += part
        yield self._event("response.output_text.delta", **self._place(), delta=part, logprobs=[])

    def end(self, answers: Answers) -> Iterator[bytes]:
        """See :class:`api.shapes.Writer`."""
        cut = answers.choice(0).finish_reason == "length"
        if self._open is None and not self._output:
            yield from self._begin()
        yield from self._close("incomplete" if cut else "completed")
        kind = "response.incomplete" if cut else "response.completed"
        yield self._event(kind, response=self._ended(answers))

    def failed(self, error: HttpError) -> Iterator[bytes]:
        """See :class:`api.shapes.Writer`."""
        yield self._event("error", code=error.code, message=error.message, param=error.param)

    def _ended(self, answers: Answers) -> dict[str, Any]:
        usage = answers.usage
        cut = answers.choice(0).finish_reason == "length"
        return {
            **self._frame,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }

    def _begin(self) -> Iterator[bytes]:
        self._open = _message("", "in_progress")
        shown = {**self._open, "content": []}
        yield self._event("response.output_item.added", output_index=len(self._output), item=shown)
        yield self._event("response.content_part.added", **self._place(), part=_part(""))

    def _close(self, status: str) -> Iterator[bytes]:
        item = self._open
        if item is None:
            return
        part = item["content"][0]
        place = self._place()
        yield self._event("response.output_text.done", **place, text=part["text"], logprobs=[])
        yield self._event("response.content_part.done", **place, part=part)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._open = None

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        item = _function_call(call)
        number = len(self._output)
        begun = {**item, "status": "in_progress", "arguments": ""}
        place = {"item_id": item["id"], "output_index": number}
        yield self._event("response.output_item.added", output_index=number, item=begun)
        yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        yield self._event(
            "response.function_call_arguments.done",
            **place,
            name=call.name,
            arguments=call.arguments,
        )
        yield self._event("response.output_item.done", output_index=number, item=item)
        self._output.append(item)

    def _place(self) -> dict[str, Any]:
        item = self._open or {}
        return {"item_id": item["id"], "output_index": len(self._output), "content_index": 0}

    def _event(self, kind: str, **data: Any) -> bytes:
        made = event({"type": kind, "sequence_number": self._sequence, **data}, kind=kind)
        self._sequence += 1
        return made


def _message(text: str, status: str) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(24)}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [_part(text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{secrets.token_hex(24)}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
