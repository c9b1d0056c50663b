"""The port behind which language models answer. Knows neither HTTP nor personal data.

What an engine receives is already redacted; what it returns still holds the placeholders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """What the engine is asked for: either ``messages`` or ``prompt``.

    Attributes:
        model: an id of :meth:`Engine.models`.
        messages: a conversation, rendered with the model's chat template.
        prompt: plain text, continued as it is.
        max_tokens: the most tokens of the answer, at least 1.
        fit: shorten ``max_tokens`` to what the context leaves, rather than raise.
        temperature: 0 decodes greedily; above, the sampling temperature (0 to 2).
        top_p: nucleus mass in (0, 1].
        stop: the answer ends before the first of these strings.
        seed: equal requests with equal seeds get equal answers; ``None`` draws a fresh one.

    Raises:
        ValueError: both or neither of ``messages`` and ``prompt``, or a value out of bounds.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int = 256
    fit: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise ValueError("a generation request has either messages or a prompt")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 1")
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature={self.temperature} must lie between 0 and 2")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p={self.top_p} must lie above 0 and at most at 1")
        if "" in self.stop:
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True)
class Usage:
    """Tokens as the model counted them; an end-of-sequence token that it produced is included."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class GenerationResult:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True)
class TextDelta:
    """The next, non-empty piece of an answer.

    ``usage`` counts the tokens up to here, so that an aborted stream is accounted for too.
    """

    text: str
    usage: Usage


@dataclass(frozen=True)
class Finished:
    """The last item of every complete stream."""

    finish_reason: FinishReason
    usage: Usage


class Engine(Protocol):
    """Answers generation requests; safe to call from several threads."""

    def models(self) -> list[str]:
        """The ids that it serves now; empty while it can serve none. Never raises."""
        ...

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """The whole answer; the same text as the joined deltas of :meth:`stream`.

        Raises:
            UnknownModel: ``request.model`` is not served.
            ContextTooLong: the prompt, or prompt and ``max_tokens``, exceed the context.
            EngineError: anything else; the text of the error holds no prompt.
        """
        ...

    def stream(self, request: GenerationRequest) -> Iterator[TextDelta | Finished]:
        """The answer piece by piece: any number of deltas, then exactly one ``Finished``.

        Raises what :meth:`generate` raises, before the first delta wherever that is possible.
        Closing the iterator (``close()`` of a generator) stops the generation promptly and frees
        what it held.
        """
        ...
