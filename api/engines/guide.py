"""Keeps a local model within a grammar, and notes how likely its tokens were.

Transformers calls both through its logits processors, before temperature and nucleus are applied.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from api.engines.base import GenerationRequest, TokenLogprob, Unsupported
from api.engines.json_grammar import ANY_OBJECT, SchemaRefused, Symbol, Text, Walk
from api.engines.json_grammar import Choice as OneOf
from api.engines.json_schema import of_schema
from api.engines.tool_calls import CLOSE, OPEN
from api.errors import EngineError

_LIKELY = 64
"""Among so many of the likeliest tokens one that fits is looked for first."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def grammar_for(request: GenerationRequest) -> tuple[Symbol, ...] | None:
    """What the answer must fit, or None where it is free.

    Raises:
        Unsupported: a schema that cannot be followed.
    """
    tools = request.callable_tools()
    if tools and (request.tool_choice == "required" or request.forced_tool is not None):
        return (OneOf(tuple(_call(tool.name, _arguments(tool)) for tool in tools)),)
    if request.json is None:
        return None
    if request.json.schema is None:
        return ANY_OBJECT
    try:
        return of_schema(request.json.schema)
    except SchemaRefused as error:
        raise Unsupported("response_format", f"response_format: {error}") from None


def _arguments(tool: Any) -> tuple[Symbol, ...]:
    if not tool.parameters:
        return ANY_OBJECT
    try:
        return of_schema(tool.parameters)
    except SchemaRefused as error:
        if tool.strict:
            raise Unsupported("tools", f"tools: {error}, and strict is true") from None
        return ANY_OBJECT


def _call(name: str, arguments: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    before = f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": '
    return (Text(before), *arguments, Text(f"}}\n{CLOSE}"))


class Vocabulary:
    """What each token of a tokenizer adds to a text; ``None`` for special and for cut ones."""

    def __init__(self, tokenizer: Any) -> None:
        special = set(tokenizer.all_special_ids)
        size = len(tokenizer)
        # A tokenizer may drop the blank before the first word of what it decodes.
        (anchor,) = tokenizer.encode("a", add_special_tokens=False)[:1]
        head = len(tokenizer.decode([anchor]))
        texts = tokenizer.batch_decode(
            [[anchor, token] for token in range(size)], clean_up_tokenization_spaces=False
        )
        self.texts: list[str | None] = [
            None if token in special or _REPLACEMENT in text else text[head:]
            for token, text in enumerate(texts)
        ]


class Guide(LogitsProcessor):
    """Lets through only tokens after which the text can still become an instance of a grammar.

    Characters that the tokenizer splits into several tokens are left out; JSON can escape them.

    Args:
        grammar: what the text must fit.
        vocabulary: of the model.
        eos: tokens that end the answer, allowed where the text is complete.
        prompt_tokens: where the answer begins.
    """

    def __init__(
        self,
        grammar: Sequence[Symbol],
        vocabulary: Vocabulary,
        eos: Sequence[int],
        prompt_tokens: int,
    ) -> None:
        self._walk = Walk(grammar)
        self._texts = vocabulary.texts
        self._eos = list(eos)
        self._read = prompt_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores of shape (1, vocabulary), minus infinity for what does not fit."""
        for token in input_ids[0, self._read :].tolist():
            walk = self._walk.after(self._texts[token] or "")
            if walk is None:
                raise EngineError("the answer left its grammar")
            self._walk = walk
        self._read = input_ids.shape[1]
        masked = torch.full_like(scores, -torch.inf)
        fitting = self._fitting(scores[0])
        if not fitting:
            raise EngineError("no token of the model fits the schema")
        masked[0, fitting] = scores[0, fitting]
        return masked

    def _fitting(self, scores: Any) -> list[int]:
        ends = self._eos if self._walk.complete else []
        count = min(_LIKELY, scores.shape[0])
        likely = torch.topk(scores, count).indices.tolist()
        if found := [token for token in likely if self._fits(token)]:
            return found + ends
        if ends:
            return ends
        order = torch.argsort(scores, descending=True).tolist()
        return next(([token] for token in order[count:] if self._fits(token)), [])

    def _fits(self, token: int) -> bool:
        text = self._texts[token] if token < len(self._texts) else None
        return bool(text) and self._walk.after(text or "") is not None


class Likelihoods(LogitsProcessor):
    """Notes log-probabilities of the next token; stands before every other processor.

    Args:
        alternatives: how many of the likeliest tokens to report.
        tokenizer: decodes them.
    """

    def __init__(self, alternatives: int, tokenizer: Any) -> None:
        self._alternatives = alternatives
        self._tokenizer = tokenizer
        self._last: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores of shape (1, vocabulary), as they were."""
        self._last = torch.log_softmax(scores[0].float(), dim=-1)
        return scores

    def of(self, token: int) -> tuple[float, tuple[tuple[str, float], ...]]:
        """Log-probability of the token that was chosen, and the likeliest ones."""
        if not self._alternatives:
            return float(self._last[token]), ()
        values, tokens = torch.topk(self._last, min(self._alternatives, self._last.shape[0]))
        texts = self._tokenizer.batch_decode([[one] for one in tokens.tolist()])
        return float(self._last[token]), tuple(zip(texts, values.tolist(), strict=True))


class Told:
    """Log-probabilities of an answer's text, gathered token by token."""

    def __init__(self) -> None:
        self._tokens: list[TokenLogprob] = []
        self._open: list[tuple[float, tuple[tuple[str, float], ...]]] = []

    def token(self, logprob: float, top: tuple[tuple[str, float], ...], text: str) -> None:
        """Note a token; ``text`` is what it completed, ``""`` inside a character."""
        self._open.append((logprob, top))
        if text:
            # Tokens that only together make a character are told as one.
            joint = sum(value for value, _ in self._open)
            own = self._open[0][1] if len(self._open) == 1 else ()
            self._tokens.append(TokenLogprob(text, joint, own))
            self._open = []

    def upto(self, length: int) -> tuple[TokenLogprob, ...]:
        """The tokens of the first ``length`` characters; one that a stop string cut is cut too."""
        made: list[TokenLogprob] = []
        for one in self._tokens:
            if length <= 0:
                break
            made.append(
                one if len(one.token) <= length else TokenLogprob(one.token[:length], one.logprob)
            )
            length -= len(one.token)
        return tuple(made)
