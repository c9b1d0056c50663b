"""What callers of ``/v1/responses`` may send. See :mod:`api.schemas` for the rules."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from api.schemas import (
    Body,
    CallId,
    Dropped,
    ModelName,
    Only,
    ToolName,
    by_field,
    by_kind,
    no_media,
)


class InputPart(Body):
    """A part of an item's content. Images, audio and files are refused."""

    type: Annotated[Literal["input_text", "output_text", "text"], BeforeValidator(no_media)]
    text: str
    annotations: Annotated[Any, Only([])] = None
    logprobs: Annotated[Any, Only([])] = None


ItemContent = Annotated[
    Annotated[str, Tag("as-text")]
    | Annotated[list[InputPart], Tag("as-parts"), Field(min_length=1, max_length=256)],
    Discriminator(by_kind({str: "as-text", list: "as-parts"})),
]


class MessageItem(Body):
    """A turn."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: ItemContent
    id: CallId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: str
    id: CallId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class OutputItem(Body):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: str
    id: CallId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


ItemIn = Annotated[
    Annotated[MessageItem, Tag("as-message")]
    | Annotated[CallItem, Tag("as-call")]
    | Annotated[OutputItem, Tag("as-output")],
    Discriminator(
        by_field(
            "type", {"function_call": "as-call", "function_call_output": "as-output"}, "as-message"
        )
    ),
]


class FunctionTool(Body):
    """A function that the model may call; the only kind of tool."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChosen(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: ToolName


class TextFormat(Body):
    """Text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Body):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: Annotated[Any, Only()] = None


class ResponsesBody(Body):
    """``POST /v1/responses``. Nothing is kept: the whole conversation is sent each time."""

    model: ModelName
    input: Annotated[
        Annotated[str, Tag("as-one")]
        | Annotated[list[ItemIn], Tag("as-several"), Field(min_length=1, max_length=1000)],
        Discriminator(by_kind({str: "as-one", list: "as-several"})),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("as-text")]
            | Annotated[FunctionChosen, Tag("as-named")],
            Discriminator(by_kind({str: "as-text", dict: "as-named", FunctionChosen: "as-named"})),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    user: Dropped = None
    safety_identifier: Dropped = None
    prompt_cache_key: Dropped = None
    background: Annotated[Any, Only(False)] = None
    conversation: Annotated[Any, Only()] = None
    include: Annotated[Any, Only([])] = None
    max_tool_calls: Annotated[Any, Only()] = None
    metadata: Annotated[Any, Only({})] = None
    previous_response_id: Annotated[Any, Only()] = None
    prompt: Annotated[Any, Only()] = None
    reasoning: Annotated[Any, Only()] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    store: Annotated[Any, Only(False)] = None
    stream_options: Annotated[Any, Only({}, {"include_obfuscation": False})] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    truncation: Annotated[Any, Only("disabled")] = None
