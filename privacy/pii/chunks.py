"""Restoring the chunk objects of a streamed answer in OpenAI's form."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from privacy.pii.bodies import restored
from privacy.pii.restoring import Originals, StreamRestorer


class ChunkRestorer:
    """Restores chunk after chunk of one streamed answer.

    Each text of each choice, and the arguments of each tool call, is a stream of its own. What is
    held back leaves with the chunk that finishes its choice.

    Args:
        text: the way back for texts.
        source: the way back for JSON source.
        json_answers: the request asked for an answer that is JSON.
    """

    def __init__(self, text: Originals, source: Originals, *, json_answers: bool = False) -> None:
        self._sources = ("arguments", "content", "text") if json_answers else ("arguments",)
        self._text = text
        self._source = source
        self._streams: dict[tuple[Any, ...], StreamRestorer] = {}

    def feed(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk with what is certain by now; log-probabilities become ``None``.

        Raises:
            LimitExceeded: it nests deeper than the limit allows.
        """
        choices = chunk.get("choices")
        bare = {key: value for key, value in chunk.items() if key != "choices"}
        made = restored(bare, self._text.restore, self._source.restore)
        if not isinstance(choices, list):
            return made
        made["choices"] = [self._choice(choice) for choice in choices]
        # Fields keep their order.
        return {key: made[key] for key in chunk}

    def _choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        index = choice.get("index", 0)
        made = {key: None if key == "logprobs" else value for key, value in choice.items()}
        for part in ("delta", "text"):
            if part in made:
                made[part] = self._part(made[part], (index, part), part)
        if choice.get("finish_reason") is not None:
            self._finish(made, index)
        return made

    def _part(self, value: Any, path: tuple[Any, ...], key: str) -> Any:
        if isinstance(value, str):
            if key in ("role", "type", "id", "name"):
                return value
            return self._stream(path, key).feed(value)
        if isinstance(value, Mapping):
            return {name: self._part(inner, (*path, name), name) for name, inner in value.items()}
        if isinstance(value, list):
            return [
                self._part(
                    inner, (*path, inner.get("index", i) if isinstance(inner, Mapping) else i), key
                )
                for i, inner in enumerate(value)
            ]
        return value

    def _stream(self, path: tuple[Any, ...], key: str) -> StreamRestorer:
        originals = self._source if key in self._sources else self._text
        return self._streams.setdefault(path, StreamRestorer(originals))

    def _finish(self, choice: dict[str, Any], index: Any) -> None:
        """Put what was held back of every text of the choice into its last chunk."""
        for path, stream in self._streams.items():
            if path[0] != index or not (rest := stream.flush()):
                continue
            node: Any = choice
            for step, following in pairwise(path[1:]):
                node = _child(node, step, listed=isinstance(following, int))
            node[path[-1]] = (node.get(path[-1]) or "") + rest


def _child(node: Any, step: Any, *, listed: bool) -> Any:
    """The part of a chunk at one step of a path, made where it is missing."""
    if isinstance(node, list):
        for one in node:
            if one.get("index") == step:
                return one
        node.append({"index": step})
        return node[-1]
    if node.get(step) is None:
        node[step] = [] if listed else {}
    return node[step]
