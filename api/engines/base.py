"""The port behind which models answer. Knows neither HTTP nor personal data.

What an engine receives is already redacted; what it returns still holds the placeholders.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from api.errors import EngineError

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
ToolChoice = Literal["auto", "none", "required"]


class Unsupported(EngineError):
    """The model or its engine has no such ability.

    Attributes:
        field: the field of OpenAI's request that asks for it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class EngineBusy(EngineError):
    """The engine has no room now.

    Attributes:
        retry_after: seconds after which a new attempt can succeed.
    """

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class ToolCall:
    """A function that the model calls; ``arguments`` is JSON source, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    ``parameters`` is a JSON schema; with ``strict``, arguments of a call must fit it.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True)
class JsonFormat:
    """The answer is JSON: any object, or what fits ``schema``."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str = ""
    strict: bool = False


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    ``tool_calls`` are an assistant's; ``tool_call_id`` says which of them a turn of role ``tool``
    answers.
    """

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """What the engine is asked for: either ``messages`` or ``prompt``.

    Attributes:
        model: an id of :meth:`Engine.models`.
        messages: a conversation, rendered with the model's chat template.
        prompt: plain text, continued as it is.
        max_tokens: the most tokens of each answer, at least 1.
        fit: shorten ``max_tokens`` to what the context leaves, rather than raise.
        temperature: 0 decodes greedily; above, the sampling temperature (0 to 2).
        top_p: nucleus mass in (0, 1].
        stop: an answer ends before the first of these strings.
        seed: equal requests with equal seeds get equal answers; ``None`` draws a fresh one.
        n: how many answers, at least 1.
        tools: functions that the model may call.
        tool_choice: whether it may, must not or must; ignored without tools.
        forced_tool: name of the one function that it must call.
        parallel_tool_calls: whether one answer may hold several calls.
        json: the answer is to be JSON.
        logprobs: alternatives to report for each token, 0 to 20; ``None`` reports nothing.
        user: who asks, redacted; for engines that pass it on.
        max_context: the most tokens of prompt and answer together; ``None``: the model's bound.

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
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    forced_tool: str | None = None
    parallel_tool_calls: bool = True
    json: JsonFormat | None = None
    logprobs: int | None = None
    user: str | None = None
    max_context: int | None = None

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise ValueError("a generation request has either messages or a prompt")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 1")
        if self.n < 1:
            raise ValueError(f"n={self.n} must be at least 1")
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature={self.temperature} must lie between 0 and 2")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p={self.top_p} must lie above 0 and at most at 1")
        if "" in self.stop:
            raise ValueError("a stop string must not be empty")
        if self.forced_tool is not None and self.forced_tool not in {t.name for t in self.tools}:
            raise ValueError("forced_tool must name one of the tools")

    def callable_tools(self) -> tuple[Tool, ...]:
        """The functions that the answer may call."""
        if self.tool_choice == "none":
            return ()
        if self.forced_tool is not None:
            return tuple(tool for tool in self.tools if tool.name == self.forced_tool)
        return self.tools


@dataclass(frozen=True)
class Usage:
    """Tokens as the model counted them; an end-of-sequence token that it produced is included.

    The prompt is counted once, whatever ``n`` is; completions are summed over all answers.
    """

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class TokenLogprob:
    """One token of an answer, or several that only together make whole characters.

    Attributes:
        token: its text.
        logprob: natural logarithm of its probability, before temperature and top_p.
        top: the likeliest tokens at its place, with theirs.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class GenerationResult:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class TextDelta:
    """The next, non-empty piece of answer number ``index``.

    ``usage`` counts the tokens up to here, so that an aborted stream is accounted for too.
    """

    text: str
    usage: Usage
    index: int = 0


@dataclass(frozen=True)
class ToolCalled:
    """Answer number ``index`` holds this call. A call is given whole, never in pieces."""

    call: ToolCall
    usage: Usage
    index: int = 0


@dataclass(frozen=True)
class Finished:
    """The last item of every complete answer.

    ``logprobs``, where they were asked for: the tokens of its text, which they join to.
    """

    finish_reason: FinishReason
    usage: Usage
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


Item = TextDelta | ToolCalled | Finished


class Engine(Protocol):
    """Answers generation requests; safe to call from several threads."""

    def models(self) -> list[str]:
        """The ids that it serves now; empty while it can serve none. Never raises."""
        ...

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """The whole answer to a request with ``n=1``; equals the joined :meth:`stream`.

        Raises:
            UnknownModel: ``request.model`` is not served.
            ContextTooLong: the prompt, or prompt and ``max_tokens``, exceed the context.
            Unsupported: it has no such ability; never ignores what was asked for.
            EngineError: anything else; the text of the error holds no prompt.
        """
        ...

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """The answers piece by piece: items of each, in any order, and one ``Finished`` of each.

        Raises what :meth:`generate` raises, before the first item wherever that is possible.
        Closing the iterator (``close()`` of a generator) stops the generation promptly and frees
        what it held.
        """
        ...


@dataclass(frozen=True)
class Vectors:
    """Embeddings, one per text, of equal length and unit norm, and what they cost."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Classes:
    """Probabilities of each text, in the order of ``labels``, and what they cost."""

    labels: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@runtime_checkable
class Encoder(Protocol):
    """Reads texts: an engine may be this beside, or instead of, an :class:`Engine`."""

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """Embeddings of texts.

        Raises:
            UnknownModel, ContextTooLong, EngineError: as :meth:`Engine.generate`.
            Unsupported: the model makes none.
        """
        ...

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """What the model's classification head says of texts. Raises as :meth:`embed`."""
        ...


def whole(items: Iterator[Item]) -> GenerationResult:
    """The result that the items of one answer join to.

    Raises:
        EngineError: they end without one, or are of several answers.
    """
    text: list[str] = []
    calls: list[ToolCall] = []
    for item in items:
        if item.index:
            raise EngineError("several answers: read them from the stream")
        if isinstance(item, Finished):
            joined = "".join(text)
            return GenerationResult(
                joined, item.finish_reason, item.usage, tuple(calls), item.logprobs
            )
        if isinstance(item, ToolCalled):
            calls.append(item.call)
        else:
            text.append(item.text)
    raise EngineError("the generation ended without a result")
