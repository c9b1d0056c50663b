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
    TextDelta,
    Usage,
)
from api.engines.stop import StopFilter
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
        *deltas, last = self.stream(request)
        if not isinstance(last, Finished):
            raise TypeError("a stream ends with Finished")
        text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        return GenerationResult(text, last.finish_reason, last.usage)

    def stream(self, request: GenerationRequest) -> Iterator[TextDelta | Finished]:
        """See the port."""
        if request.model != self._model_id:
            raise UnknownModel("another model")
        self.seen.append(request)
        said = [message.content for message in request.messages] or [request.prompt or ""]
        prompt_tokens = sum(len(_tokens(text)) for text in said) + 2 * len(request.messages)
        room = self.context_length - prompt_tokens
        if room < 1 or (request.max_tokens > room and not request.fit):
            raise ContextTooLong(prompt_tokens, request.max_tokens, self.context_length)
        answer = _tokens(self._reply(said[-1]))
        return self._run(request, answer, prompt_tokens, min(request.max_tokens, room))

    def _run(
        self, request: GenerationRequest, answer: list[str], prompt_tokens: int, bound: int
    ) -> Iterator[TextDelta | Finished]:
        stop = StopFilter(request.stop)
        count = 0
        complete = False
        try:
            for token in answer[:bound]:
                count += 1
                for start in range(0, len(token), self._piece):
                    self.step(count)
                    text = stop.feed(token[start : start + self._piece])
                    if text:
                        yield TextDelta(text, Usage(prompt_tokens, count))
                if stop.hit:
                    break
            rest = stop.flush()
            if rest:
                yield TextDelta(rest, Usage(prompt_tokens, count))
            whole = stop.hit or len(answer) <= bound
            reason: FinishReason = "stop" if whole else "length"
            complete = True
            yield Finished(reason, Usage(prompt_tokens, max(count, 1)))
        finally:
            if not complete:
                self.closed.set()


def _tokens(text: str) -> list[str]:
    return list(itertools.chain(re.findall(r"\s+|\S+", text)))
