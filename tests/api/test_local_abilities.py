"""What the engine in this process adds to a model: calls, JSON, log-probabilities, several answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.engines.base import (
    Finished,
    GenerationRequest,
    JsonFormat,
    Message,
    TextDelta,
    Tool,
    ToolCall,
    ToolCalled,
    Unsupported,
)
from api.engines.tool_calls import ToolCallReader, told
from api.engines.transformers_local import TransformersEngine

MODEL = "r-0123456789abcdef0123"
HELLO = (Message("user", "Hello, who are you?"),)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "note": {"type": "string", "maxLength": 5},
    },
    "required": ["kind", "count", "note"],
    "additionalProperties": False,
}
SMALL = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
LOOK_UP = Tool("look_up", "", SMALL, strict=True)


@pytest.fixture(scope="module")
def engine(tiny_llama_dir: Path) -> TransformersEngine:
    """A random model, which by itself never writes JSON."""
    return TransformersEngine(tiny_llama_dir, model_id=MODEL)


def fits(found: Any) -> bool:
    """Whether it is an instance of ``SCHEMA``."""
    return (
        set(found) == {"kind", "count", "note"}
        and found["kind"] in ("a", "b")
        and found["count"] in range(10)
        and isinstance(found["note"], str)
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_fits_its_schema(engine: TransformersEngine, temperature: float) -> None:
    """Whatever the model would say, the answer is an instance of the schema, and says ``stop``."""
    for seed in range(3):
        result = engine.generate(
            GenerationRequest(
                MODEL,
                HELLO,
                max_tokens=120,
                temperature=temperature,
                seed=seed,
                json=JsonFormat(SCHEMA),
            )
        )
        assert fits(json.loads(result.text))
        assert result.finish_reason == "stop"


def test_a_call_that_is_required_is_made(engine: TransformersEngine) -> None:
    """With ``required`` the answer is one call of a tool with arguments of its schema."""
    other = Tool("other", parameters={"type": "object", "properties": {}})
    for forced in (None, "look_up"):
        request = GenerationRequest(
            MODEL,
            HELLO,
            max_tokens=90,
            seed=1,
            tools=(LOOK_UP,) if forced is None else (other, LOOK_UP),
            tool_choice="required",
            forced_tool=forced,
        )
        *items, last = engine.stream(request)
        (called,) = items
        assert isinstance(called, ToolCalled)
        assert called.call.name == "look_up"
        assert json.loads(called.call.arguments)["n"] in (1, 2)
        assert isinstance(last, Finished)
        assert last.finish_reason == "tool_calls"


def test_a_schema_that_cannot_be_followed_is_refused_at_once(engine: TransformersEngine) -> None:
    """Before anything is generated, by the field and the keyword."""
    pattern = {"type": "string", "pattern": "a+"}
    with pytest.raises(Unsupported, match="'pattern'") as caught:
        engine.stream(GenerationRequest(MODEL, HELLO, json=JsonFormat(pattern)))
    assert caught.value.field == "response_format"
    strict = Tool("f", parameters=pattern, strict=True)
    with pytest.raises(Unsupported, match="strict is true"):
        engine.stream(GenerationRequest(MODEL, HELLO, tools=(strict,), tool_choice="required"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_join_to_the_text(engine: TransformersEngine, temperature: float) -> None:
    """Tokens join to the text; greedily, each is the likeliest of its place."""
    request = GenerationRequest(
        MODEL, HELLO, max_tokens=20, temperature=temperature, seed=2, logprobs=3
    )
    result = engine.generate(request)
    assert "".join(token.token for token in result.logprobs) == result.text
    for token in result.logprobs:
        assert token.logprob <= 0
        figures = [value for _, value in token.top]
        assert figures == sorted(figures, reverse=True)
        if temperature == 0 and token.top:
            assert token.logprob == pytest.approx(figures[0])
    stopped = engine.generate(
        GenerationRequest(
            MODEL, HELLO, max_tokens=20, temperature=0, logprobs=0, stop=(result.text[3:5],)
        )
    )
    assert "".join(token.token for token in stopped.logprobs) == stopped.text


def test_several_answers_have_their_own_seeds(engine: TransformersEngine) -> None:
    """``n`` answers are those of ``n`` seeds in a row, numbered, with their tokens summed."""
    request = GenerationRequest(MODEL, HELLO, max_tokens=10, seed=7, n=3)
    texts = ["", "", ""]
    ends = []
    for item in engine.stream(request):
        if isinstance(item, TextDelta):
            texts[item.index] += item.text
        if isinstance(item, Finished):
            ends.append(item)
    single = [
        engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=10, seed=7 + i))
        for i in range(3)
    ]
    assert texts == [one.text for one in single]
    assert sorted(end.index for end in ends) == [0, 1, 2]
    total = sum(one.usage.completion_tokens for one in single)
    assert max(end.usage.completion_tokens for end in ends) == total


TEXT = 'Well. <tool_call>\n{"name": "look_up", "arguments": {"kind": "a"}}\n</tool_call>\n'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 200])
def test_calls_are_read_however_the_text_is_cut(size: int) -> None:
    """Pieces of any length give the same text and calls; several calls, or one where one is asked."""
    for most, calls in ((None, 2), (1, 1)):
        reader = ToolCallReader((LOOK_UP,), most)
        source = TEXT * 2
        parts = [
            part
            for start in range(0, len(source), size)
            for part in reader.feed(source[start : start + size])
        ]
        parts += reader.flush()
        found = [part for part in parts if isinstance(part, ToolCall)]
        assert [(one.name, one.arguments) for one in found] == [
            ("look_up", '{"kind": "a"}')
        ] * calls
        text = "".join(part for part in parts if isinstance(part, str))
        assert text.startswith("Well. ")
        assert "tool_call" not in text


@pytest.mark.parametrize(
    "text",
    [
        "a <tool_call> b",
        "<tool_call>not json</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        "<tool_",
        "<tool_call>{}</tool_call>",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    """Nothing of an answer is lost because it looked like a call."""
    reader = ToolCallReader((LOOK_UP,))
    parts = [part for char in text for part in reader.feed(char)] + list(reader.flush())
    assert "".join(part for part in parts if isinstance(part, str)) == text


def test_a_template_without_tools_is_told_of_them() -> None:
    """Tools go into one system turn, calls and results into tags, and roles stay the usual three."""
    call = ToolCall("call_1", "look_up", '{"kind": "a"}')
    turns = told(
        (
            Message("system", "Be brief."),
            Message("user", "Find it."),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "found", tool_call_id="call_1"),
        ),
        (LOOK_UP,),
    )
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert '"look_up"' in turns[0]["content"]
    assert turns[0]["content"].endswith("Be brief.")
    assert turns[2]["content"].startswith("<tool_call>")
    assert turns[3]["content"] == "<tool_response>\nfound\n</tool_response>"
