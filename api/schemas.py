"""What callers may send, field by field, as OpenAI names it.

Fields that OpenAI has and this service has not are declared too: their neutral value is accepted,
any other is refused by name, so no caller believes in an effect that there is none of.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_NEUTRAL = "Not supported: leave it out, or at one of these values, which change nothing."


class Only:
    """Annotation of an unsupported field: ``None`` and the ``neutral`` values pass."""

    def __init__(self, *neutral: Any) -> None:
        self._neutral = (None, *neutral)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"description": _NEUTRAL, "enum": list(self._neutral)}

    def _check(self, value: Any) -> Any:
        # In Python 0 equals False and 1 equals True; in JSON they differ.
        if not any(
            value == one and isinstance(value, bool) == isinstance(one, bool)
            for one in self._neutral
        ):
            raise PydanticCustomError("unsupported", "is not supported")
        return value


def _kind(tags: dict[type, str]) -> Callable[[Any], str | None]:
    """A discriminator by the JSON kind of the value."""
    return lambda value: next((tag for kind, tag in tags.items() if isinstance(value, kind)), None)


class Body(BaseModel):
    """Strict: nothing is converted, unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextPart(Body):
    """A part of a message's content. Images, audio and files are refused."""

    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("as-text")]
    | Annotated[list[TextPart], Tag("as-parts"), Field(min_length=1, max_length=256)],
    Discriminator(_kind({str: "as-text", list: "as-parts"})),
]


class MessageIn(Body):
    """One turn. ``developer`` is another word for ``system``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Annotated[Any, Only()] = None
    refusal: Annotated[Any, Only()] = None
    audio: Annotated[Any, Only()] = None
    annotations: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([])] = None
    tool_call_id: Annotated[Any, Only()] = None

    def text(self) -> str:
        """The content as one text; parts stand on lines of their own."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


StopString = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[
    Annotated[StopString, Tag("as-one")]
    | Annotated[list[StopString], Tag("as-several"), Field(max_length=4)],
    Discriminator(_kind({str: "as-one", list: "as-several"})),
]


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Only(False)] = None


class GenerationBody(Body):
    """What chat and plain completions share."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[
        str | None,
        Field(
            max_length=512, description="Accepted, then dropped: it is neither kept nor sent on."
        ),
    ] = None
    n: Annotated[Any, Only(1)] = None
    logit_bias: Annotated[Any, Only({})] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    frequency_penalty: Annotated[Any, Only(0)] = None

    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings; none where the field is left out."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = None
    logprobs: Annotated[Any, Only(False)] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, Only(True, False)] = None
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    modalities: Annotated[Any, Only(["text"])] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only()] = None
    verbosity: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None
    metadata: Annotated[Any, Only({})] = None
    store: Annotated[Any, Only(False)] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: Annotated[
        Annotated[str, Tag("as-one")]
        | Annotated[list[str], Tag("as-several"), Field(min_length=1, max_length=1)],
        Discriminator(_kind({str: "as-one", list: "as-several"})),
    ]
    suffix: Annotated[Any, Only("")] = None
    echo: Annotated[Any, Only(False)] = None
    best_of: Annotated[Any, Only(1)] = None
    logprobs: Annotated[Any, Only()] = None

    def text(self) -> str:
        """The one prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class RedactBody(Body):
    """``POST /v1/redact``: either ``text`` or ``messages``."""

    text: str | None = None
    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=1000)] | None = None
