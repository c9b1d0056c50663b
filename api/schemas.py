"""What callers may send, field by field, as OpenAI names it.

Fields that OpenAI has and this service has not are declared too: their neutral value is accepted,
any other is refused by name, so no caller believes in an effect that there is none of.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_NEUTRAL = "Not supported: leave it out, or at one of these values, which change nothing."
_DROPPED = "Accepted, then dropped: it is neither kept nor sent on."
_OPAQUE = frozenset(
    [
        "audio",
        "document",
        "file",
        "image",
        "image_file",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "input_video",
        "refusal",
        "video",
        "video_url",
    ]
)


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


def by_kind(tags: dict[type, str]) -> Callable[[Any], str | None]:
    """A discriminator by the JSON kind of the value."""
    return lambda value: next((tag for kind, tag in tags.items() if isinstance(value, kind)), None)


def by_field(field: str, tags: dict[str, str], other: str) -> Callable[[Any], str]:
    """A discriminator by a field of an object."""

    def tag(value: Any) -> str:
        named = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return tags.get(named, other) if isinstance(named, str) else other

    return tag


def no_media(value: Any) -> Any:
    """Names what OpenAI has and this service cannot look into."""
    if isinstance(value, str) and value in _OPAQUE:
        raise PydanticCustomError("unsupported_part", "{part}", {"part": value})
    return value


class Body(BaseModel):
    """Strict: nothing is converted, unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


ModelName = Annotated[str, Field(min_length=1, max_length=128)]
Dropped = Annotated[str | None, Field(max_length=512, description=_DROPPED)]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]


class TextPart(Body):
    """A part of a message's content. Images, audio and files are refused."""

    type: Annotated[Literal["text"], BeforeValidator(no_media)]
    text: str


Content = Annotated[
    Annotated[str, Tag("as-text")]
    | Annotated[list[TextPart], Tag("as-parts"), Field(min_length=1, max_length=256)],
    Discriminator(by_kind({str: "as-text", list: "as-parts"})),
]


class TurnFields(Body):
    """What all turns share: neutral values that a client may echo from an answer."""

    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    refusal: Annotated[Any, Only()] = None
    audio: Annotated[Any, Only()] = None
    annotations: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only()] = None


class Turn(TurnFields):
    """A turn of system, developer or user. ``developer`` is another word for ``system``."""

    # Those of assistant and tool are classes of their own; a role that is none gets all names.
    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        WithJsonSchema({"type": "string", "enum": ["system", "developer", "user"]}),
    ]
    content: Content
    tool_calls: Annotated[Any, Only([])] = None
    tool_call_id: Annotated[Any, Only()] = None


class FunctionCalled(Body):
    """The function that was called, with JSON source of its arguments."""

    name: ToolName
    arguments: str


class ToolCallIn(Body):
    """One call of an assistant."""

    id: CallId
    type: Literal["function"]
    function: FunctionCalled
    # Streams number their calls, and clients send back what they gathered.
    index: int | None = None


class AssistantTurn(TurnFields):
    """A turn of the assistant: text, calls of tools, or both."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_call_id: Annotated[Any, Only()] = None
    tool_calls: Annotated[list[ToolCallIn], Field(max_length=128)] | None = None


class ToolTurn(TurnFields):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: CallId
    tool_calls: Annotated[Any, Only([])] = None


MessageIn = Annotated[
    Annotated[Turn, Tag("as-turn")]
    | Annotated[AssistantTurn, Tag("as-assistant")]
    | Annotated[ToolTurn, Tag("as-tool")],
    Discriminator(by_field("role", {"assistant": "as-assistant", "tool": "as-tool"}, "as-turn")),
]
Messages = Annotated[list[MessageIn], Field(min_length=1, max_length=1000)]

StopString = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[
    Annotated[StopString, Tag("as-one")]
    | Annotated[list[StopString], Tag("as-several"), Field(max_length=4)],
    Discriminator(by_kind({str: "as-one", list: "as-several"})),
]


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Only(False)] = None


class FunctionIn(Body):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolIn(Body):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionIn


class FunctionNamed(Body):
    """Which function."""

    name: ToolName


class ToolNamed(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionNamed


ToolChoiceIn = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("as-text")]
    | Annotated[ToolNamed, Tag("as-named")],
    Discriminator(by_kind({str: "as-text", dict: "as-named", ToolNamed: "as-named"})),
]


class SchemaIn(Body):
    """A JSON schema that the answer must fit."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class FormatIn(Body):
    """Text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaIn | None = None


class GenerationBody(Body):
    """What chat and plain completions share."""

    model: ModelName
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Dropped = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    logit_bias: Annotated[Any, Only({})] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    frequency_penalty: Annotated[Any, Only(0)] = None

    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolIn], Field(max_length=128)] | None = None
    tool_choice: ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    response_format: FormatIn | None = None
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    modalities: Annotated[Any, Only(["text"])] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only()] = None
    verbosity: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None
    metadata: Annotated[Any, Only({})] = None
    store: Annotated[Any, Only(False)] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    safety_identifier: Dropped = None
    prompt_cache_key: Dropped = None


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: Annotated[
        Annotated[str, Tag("as-one")]
        | Annotated[list[str], Tag("as-several"), Field(min_length=1, max_length=64)],
        Discriminator(by_kind({str: "as-one", list: "as-several"})),
    ]
    suffix: Annotated[Any, Only("")] = None
    echo: bool | None = None
    best_of: Annotated[Any, Only(1)] = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    def prompts(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


Input = Annotated[
    Annotated[str, Tag("as-one")]
    | Annotated[list[str], Tag("as-several"), Field(min_length=1, max_length=2048)],
    Discriminator(by_kind({str: "as-one", list: "as-several"})),
]


class ReadingBody(Body):
    """What embeddings and classes share."""

    model: ModelName
    input: Input
    user: Dropped = None

    def texts(self) -> list[str]:
        """The texts."""
        return [self.input] if isinstance(self.input, str) else list(self.input)


class EmbeddingsBody(ReadingBody):
    """``POST /v1/embeddings``."""

    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Any, Only()] = None


class ClassifyBody(ReadingBody):
    """``POST /v1/classify``."""


Texts = Annotated[list[str], Field(min_length=1, max_length=1000)]


class RedactBody(Body):
    """``POST /v1/redact``: one of ``text``, ``texts`` and ``messages``.

    With ``restorable`` the answer holds a sealed token, with which ``POST /v1/restore`` puts the
    values back for ``expires_in`` seconds, by default and at most as long as the role allows.
    """

    text: str | None = None
    texts: Texts | None = None
    messages: Messages | None = None
    restorable: bool | None = None
    expires_in: Annotated[int, Field(ge=1, le=31_536_000)] | None = None


class RestoreBody(Body):
    """``POST /v1/restore``: a token of ``/v1/redact``, and ``text`` or ``texts``.

    ``json``: the texts are JSON source, so values are escaped for it.
    """

    token: Annotated[str, Field(min_length=1, max_length=4_000_000)]
    text: str | None = None
    texts: Texts | None = None
    json_: Annotated[bool | None, Field(alias="json")] = None
