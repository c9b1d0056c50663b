"""Tools, JSON, several answers and log-probabilities, through the official client on a real socket."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import openai
import pytest

from api.server import BackgroundServer
from privacy.release import VerifiedRelease
from tests.api.echo import EchoEngine
from tests.api.service_kit import CARD, EMAIL, PHONE, PROMPT, SECRETS, Factory, Service

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "write_mail",
        "description": f"Writes a mail, for example to {EMAIL}",
        "parameters": {
            "type": "object",
            "properties": {
                "to": {"type": "string", "description": f"an address like {EMAIL}"},
                "text": {"type": "string", "enum": [f"call {PHONE}", "hello"]},
            },
            "required": ["to"],
        },
    },
}


def calling(said: str) -> str:
    """A call with everything that was said as an argument, as a model would write it."""
    call = {"name": "write_mail", "arguments": {"to": said, "text": 'say "hi"'}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


@contextmanager
def client_of(
    make_service: Factory, published: VerifiedRelease, reply: Callable[[str], str]
) -> Iterator[tuple[openai.OpenAI, Service]]:
    """The official client and a service whose engine answers by ``reply``."""
    service = make_service(engine=EchoEngine(published.id, reply=reply))
    with (
        BackgroundServer(service.app) as server,
        openai.OpenAI(
            base_url=f"{server.base_url}/v1", api_key=service.tokens["app"], max_retries=0
        ) as client,
    ):
        yield client, service


def seen(service: Service) -> str:
    """Everything that the engine received, in every field."""
    return json.dumps([asdict(one) for one in service.echo.seen], ensure_ascii=False, default=str)


CONVERSATION: Any = [
    {"role": "user", "name": "Ruth_Baker", "content": "Write to her."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "write_mail", "arguments": json.dumps({"to": EMAIL})},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"card": CARD})},
    {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
]


def test_no_field_of_a_request_carries_personal_data(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """Names, users, parts, arguments, results, definitions and schemas: the engine sees stand-ins."""
    with client_of(make_service, published, lambda said: said) as (client, service):
        answer = client.chat.completions.create(
            model="intramural",
            messages=CONVERSATION,
            tools=[TOOL],
            user=EMAIL,
            stop=[f"never {PHONE}"],
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "schema": {"type": "object", "description": f"about {CARD}"},
                },
            },
        )
    everything = seen(service)
    assert not any(secret in everything for secret in (*SECRETS, "Ruth", "Baker"))
    (request,) = service.echo.seen
    assert [turn.role for turn in request.messages] == ["user", "assistant", "tool", "user"]
    assert request.messages[1].tool_calls[0].arguments == '{"to": "<EMAIL_ADDRESS_1>"}'
    assert request.messages[2].tool_call_id == "call_1"
    assert request.tools[0].name == "write_mail"
    assert request.json is not None
    assert answer.choices[0].message.content == PROMPT


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_comes_back_with_the_values(
    make_service: Factory, published: VerifiedRelease, stream: bool
) -> None:
    """Arguments of a tool call are JSON with the original values, whole and streamed."""
    with client_of(make_service, published, calling) as (client, service):
        given: Any = {
            "model": "intramural",
            "messages": [{"role": "user", "content": f'"{EMAIL}" and {PHONE}'}],
            "tools": [TOOL],
        }
        if stream:
            with client.chat.completions.stream(**given) as events:
                choice = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**given).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls
    assert call.function.name == "write_mail"
    assert json.loads(call.function.arguments) == {
        "to": f'"{EMAIL}" and {PHONE}',
        "text": 'say "hi"',
    }
    assert not any(secret in seen(service) for secret in SECRETS)


def test_a_call_leaks_nothing_new(make_service: Factory, published: VerifiedRelease) -> None:
    """Personal data that only the model knew is taken out of arguments, numbers too; JSON stays JSON."""
    body = {"to": "grace.hopper@example.net", "text": 4242424242424242, "note": "ok"}

    def leaky(said: str) -> str:
        call = json.dumps({"name": "write_mail", "arguments": body})
        return f"<tool_call>{call}</tool_call>"

    with client_of(make_service, published, leaky) as (client, service):
        answer = client.chat.completions.create(
            model="intramural", messages=[{"role": "user", "content": "x"}], tools=[TOOL]
        )
    (call,) = answer.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {  # type: ignore[union-attr]
        "to": "<EMAIL_ADDRESS>",
        "text": "<CREDIT_CARD>",
        "note": "ok",
    }
    assert service.entries()[-1].data["answer_entities"] == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1}


@pytest.mark.parametrize("choice", ["none", None])
def test_without_tools_nothing_is_called(
    make_service: Factory, published: VerifiedRelease, choice: Any
) -> None:
    """What looks like a call is text where no tool may be called."""
    with client_of(make_service, published, calling) as (client, _):
        tools: Any = {"tools": [TOOL], "tool_choice": choice} if choice else {}
        answer = client.chat.completions.create(
            model="intramural", messages=[{"role": "user", "content": "x"}], **tools
        )
    assert answer.choices[0].message.tool_calls is None
    assert "<tool_call>" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("stream", [False, True])
def test_json_answers_stay_json(
    make_service: Factory, published: VerifiedRelease, stream: bool
) -> None:
    """In a JSON answer values are restored with JSON's escapes, and new ones taken out of strings."""
    name = 'mail "quoted\\" to'

    def reply(said: str) -> str:
        return json.dumps({"said": said, "new": "grace.hopper@example.net", "n": 5})

    with client_of(make_service, published, reply) as (client, _):
        given: Any = {
            "model": "intramural",
            "messages": [{"role": "user", "content": f"{name} {EMAIL}"}],
            "response_format": {"type": "json_object"},
        }
        if stream:
            chunks = client.chat.completions.create(**given, stream=True)
            text = "".join(one.choices[0].delta.content or "" for one in chunks)
        else:
            text = client.chat.completions.create(**given).choices[0].message.content or ""
    assert json.loads(text) == {"said": f"{name} {EMAIL}", "new": "<EMAIL_ADDRESS>", "n": 5}


def test_several_answers(make_service: Factory, published: VerifiedRelease) -> None:
    """``n`` answers have their own numbers, and their tokens are summed."""
    with client_of(make_service, published, lambda said: said) as (client, _):
        given: Any = {
            "model": "intramural",
            "messages": [{"role": "user", "content": PROMPT}],
        }
        one = client.chat.completions.create(**given)
        three = client.chat.completions.create(**given, n=3)
        chunks = list(client.chat.completions.create(**given, n=3, stream=True))
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert {choice.message.content for choice in three.choices} == {PROMPT}
    assert one.usage is not None
    assert three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
    for index in range(3):
        own = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(c.delta.content or "" for c in own) == PROMPT
        assert [c.finish_reason for c in own if c.finish_reason] == ["stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_join_to_the_answer(
    make_service: Factory, published: VerifiedRelease, stream: bool
) -> None:
    """Tokens join to the restored answer; a restored value is one token with the joint figure."""
    leak = "New: grace.hopper@example.net!"
    with client_of(make_service, published, lambda said: f"{said} {leak}") as (client, _):
        given: Any = {
            "model": "intramural",
            "messages": [{"role": "user", "content": PROMPT}],
            "logprobs": True,
            "top_logprobs": 1,
        }
        if stream:
            with client.chat.completions.stream(**given) as events:
                choice = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**given).choices[0]
    text = f"{PROMPT} New: <EMAIL_ADDRESS>!"
    assert choice.message.content == text
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == text
    assert all(bytes(token.bytes).decode() == token.token for token in tokens)
    by_token = {token.token: token for token in tokens}
    assert by_token["Write"].top_logprobs[0].token == "other"
    assert by_token["Write"].logprob == -0.5
    restored = next(token for token in tokens if EMAIL in token.token)
    assert restored.top_logprobs == []
    assert not any("grace" in token.token for token in tokens)


def test_completions_batch_echo_and_logprobs(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """Several prompts, several answers each, with the prompt before them; suffix refused by name."""
    with client_of(make_service, published, lambda said: f"[{said}]") as (client, service):
        answer = client.completions.create(
            model="intramural", prompt=[EMAIL, "two"], n=2, echo=True, max_tokens=50
        )
        scored = client.completions.create(model="intramural", prompt=f"a {EMAIL}", logprobs=1)
        with pytest.raises(openai.BadRequestError, match="suffix is not supported"):
            client.completions.create(model="intramural", prompt="a", suffix="b")
        with pytest.raises(openai.BadRequestError, match="echo is not supported together"):
            client.completions.create(model="intramural", prompt="a", echo=True, logprobs=1)
        streamed = client.completions.create(model="intramural", prompt=["one", EMAIL], stream=True)
        texts = ["", ""]
        for chunk in streamed:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert [choice.text for choice in answer.choices] == [
        *[f"{EMAIL}[{EMAIL}]"] * 2,
        *["two[two]"] * 2,
    ]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert texts == ["[one]", f"[{EMAIL}]"]
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == scored.choices[0].text == f"[a {EMAIL}]"
    assert logprobs.text_offset == [0, 2, 3]
    assert not any(secret in seen(service) for secret in SECRETS)


def test_what_langchain_and_litellm_send_is_answered(service: Service) -> None:
    """Bodies in the exact shape of both clients' requests, with the fields that they add."""
    langchain = {
        "messages": [
            {"content": "Be brief.", "role": "system"},
            {"content": PROMPT, "role": "user"},
        ],
        "model": "intramural",
        "n": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "tools": [TOOL],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
    }
    litellm = {
        "model": "intramural",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_completion_tokens": 40,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "logit_bias": {},
        "user": "u-1",
        "response_format": {"type": "text"},
        "seed": 3,
    }
    client = service.client()
    streamed = client.post("/v1/chat/completions", json=langchain)
    assert streamed.status_code == 200
    assert streamed.text.rstrip().endswith("[DONE]")
    answer = client.post("/v1/chat/completions", json=litellm)
    assert answer.json()["choices"][0]["message"]["content"] == f"You said: {PROMPT}"
