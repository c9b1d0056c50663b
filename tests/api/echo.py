"""A fake engine: it repeats the last thing it was told and remembers all it saw.

It passes tests/contracts/test_engine.py like a real one. Words and blanks are its tokens.
"""

import itertools
import re
import threading
from collections.abc import Callable, Iterator

from api.engines.base import (
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationResult,
    Item,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCalled,
    Usage,
    whole,
)
from api.engines.guide import Told
from api.engines.stop import StopFilter
from api.engines.tool_calls import ToolCallReader
from api.errors import ContextTooLong, UnknownModel


class EchoEngine:
    """Args:
    model_id: the id it serves.
    reply: makes the answer from what was said last; the default repeats it.
    piece: characters per delta, so that placeholders are cut in the middle.
    """

    context_length = 512

    def __init__(
        self,
        model_id: str,
        *,
        reply: Callable[[str], str] = lambda said: f"You said: {said}",
        piece: int = 3,
    ) -> None:
        self._model_id = model_id
        self._reply = reply
        self._piece = piece
        self.seen: list[GenerationRequest] = []
        self.closed = threading.Event()  # set when a stream was left before its end
        self.step: Callable[[int], None] = lambda _: None  # called before each delta

    def models(self) -> list[str]:
        """The one id, or none where it is ``""``."""
        return [self._model_id] if self._model_id else []

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See the port."""
        return whole(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See the port."""
        if request.model != self._model_id:
            raise UnknownModel("another model")
        self.seen.append(request)
        said = [message.content for message in request.messages] or [request.prompt or ""]
        prompt_tokens = sum(len(_tokens(text)) for text in said) + 2 * len(request.messages)
        limit = min(self.context_length, request.max_context or self.context_length)
        room = limit - prompt_tokens
        if room < 1 or (request.max_tokens > room and not request.fit):
            raise ContextTooLong(prompt_tokens, request.max_tokens, limit)
        answer = _tokens(self._reply(said[-1]))
        return self._run(request, answer, prompt_tokens, min(request.max_tokens, room))

    def _run(
        self, request: GenerationRequest, answer: list[str], prompt_tokens: int, bound: int
    ) -> Iterator[Item]:
        spent = 0
        complete = False
        try:
            for index in range(request.n):
                for item in self._one(request, answer, Usage(prompt_tokens, spent), bound, index):
                    yield item
                    last = item.usage
                spent = last.completion_tokens
            complete = True
        finally:
            if not complete:
                self.closed.set()

    def _one(
        self, request: GenerationRequest, answer: list[str], before: Usage, bound: int, index: int
    ) -> Iterator[Item]:
        stop = StopFilter(request.stop)
        calls = ToolCallReader(request.callable_tools(), None if request.parallel_tool_calls else 1)
        told = Told()
        length = 0
        usage = before

        def made(parts: Iterator[str | ToolCall]) -> Iterator[Item]:
            nonlocal length
            for part in parts:
                if isinstance(part, ToolCall):
                    yield ToolCalled(part, usage, index)
                else:
                    length += len(part)
                    yield TextDelta(part, usage, index)

        for count, token in enumerate(answer[:bound], start=1):
            usage = Usage(before.prompt_tokens, before.completion_tokens + count)
            top = (("other", -1.5),) * (request.logprobs or 0)
            told.token(-0.5, top, token)
            for start in range(0, len(token), self._piece):
                self.step(count)
                yield from made(calls.feed(stop.feed(token[start : start + self._piece])))
            if stop.hit:
                break
        yield from made(calls.feed(stop.flush()))
        yield from made(calls.flush())
        reason: FinishReason = "stop" if stop.hit or len(answer) <= bound else "length"
        if calls.calls:
            reason = "tool_calls"
        logprobs: tuple[TokenLogprob, ...] = ()
        if request.logprobs is not None:
            logprobs = told.upto(length)
        least = max(usage.completion_tokens, before.completion_tokens + 1)
        yield Finished(reason, Usage(before.prompt_tokens, least), index, logprobs)


def _tokens(text: str) -> list[str]:
    return list(itertools.chain(re.findall(r"\s+|\S+", text)))
