"""``/v1/responses`` through the official client on a real socket."""

import json
from typing import Any

import openai
import pytest

from privacy.release import VerifiedRelease
from tests.api.service_kit import EMAIL, PHONE, PROMPT, SECRETS, Factory, Service
from tests.api.test_tools_and_formats import calling, client_of, seen

TOOL: Any = {
    "type": "function",
    "name": "write_mail",
    "description": f"Writes to {EMAIL}",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    "strict": False,
}


def test_text(make_service: Factory, published: VerifiedRelease) -> None:
    """Instructions and input are redacted, the answer is restored, usage has the client's names."""
    with client_of(make_service, published, lambda said: said) as (client, service):
        answer = client.responses.create(
            model="intramural", instructions=f"You write for {EMAIL}.", input=PROMPT, user=EMAIL
        )
    assert answer.output_text == PROMPT
    assert (answer.status, answer.model) == ("completed", published.id)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert not any(secret in seen(service) for secret in SECRETS)
    assert service.entries()[-1].data["operation"] == "chat"


def test_stream(make_service: Factory, published: VerifiedRelease) -> None:
    """Events come in OpenAI's order, numbered, and join to the whole answer."""
    with (
        client_of(make_service, published, lambda said: said) as (client, service),
        client.responses.stream(model="intramural", input=PROMPT) as stream,
    ):
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    numbers = [getattr(event, "sequence_number", None) for event in events]
    assert numbers == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == final.output_text == PROMPT
    assert [entry.data["phase"] for entry in service.entries()] == ["started", "ended"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(make_service: Factory, published: VerifiedRelease, stream: bool) -> None:
    """A call comes back restored; its result, sent with the call, is redacted."""
    with client_of(make_service, published, calling) as (client, service):
        given: Any = {"model": "intramural", "tools": [TOOL]}
        first: Any = [{"role": "user", "content": f"Write to {EMAIL}"}]
        if stream:
            with client.responses.stream(**given, input=first) as events:
                answer: Any = events.get_final_response()
        else:
            answer = client.responses.create(**given, input=first)
        (call,) = answer.output
        assert json.loads(call.arguments)["to"] == f"Write to {EMAIL}"
        result = {"type": "function_call_output", "call_id": call.call_id, "output": PHONE}
        again = [*first, call.model_dump(exclude_none=True), result]
        for one in again:
            one.pop("parsed_arguments", None)
        client.responses.create(**given, input=again)
    last = service.echo.seen[-1]
    assert [turn.role for turn in last.messages] == ["user", "assistant", "tool"]
    assert last.messages[1].tool_calls[0].id == last.messages[2].tool_call_id == call.call_id
    assert not any(secret in seen(service) for secret in SECRETS)


def test_json_schema(make_service: Factory, published: VerifiedRelease) -> None:
    """A schema reaches the engine, with what it says redacted."""
    schema = {"type": "object", "description": f"of {EMAIL}", "properties": {}}
    with client_of(make_service, published, lambda said: json.dumps({"a": said})) as (
        client,
        service,
    ):
        answer = client.responses.create(
            model="intramural",
            input=EMAIL,
            text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
        )
    assert json.loads(answer.output_text) == {"a": EMAIL}
    wanted = service.echo.seen[0].json
    assert wanted is not None
    assert wanted.schema is not None
    assert wanted.schema["description"] == "of <EMAIL_ADDRESS_1>"


def test_an_answer_that_was_cut_says_so(make_service: Factory, published: VerifiedRelease) -> None:
    """At the bound of tokens the response is incomplete and names the reason, whole and streamed."""
    with client_of(make_service, published, lambda said: said) as (client, _):
        answer = client.responses.create(
            model="intramural", input="a b c d e f", max_output_tokens=3
        )
        events = list(
            client.responses.create(
                model="intramural", input="a b c d e f", max_output_tokens=3, stream=True
            )
        )
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
    ],
)
def test_what_is_not_supported_is_named(
    service: Service, change: dict[str, Any], param: str
) -> None:
    """Fields, tools and parts that this service has not are refused by name."""
    body = {"model": "intramural", "input": "x"} | change
    answer = service.client().post("/v1/responses", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert param in (error["param"], error["message"].split()[0])
    assert error["code"] in ("unsupported_field", "unsupported_content", "invalid_value")


def test_a_failing_engine_ends_the_stream_with_an_error(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """A stream that cannot go on ends with an error event that the client shows, without a value."""

    def broken(count: int) -> None:
        if count > 3:
            raise ValueError(PROMPT)

    long = f"word {PROMPT} " * 5
    with client_of(make_service, published, lambda said: said) as (client, service):
        service.echo.step = broken
        events = list(client.responses.create(model="intramural", input=long, stream=True))
    last = events[-1]
    assert last.type == "error"
    assert last.code == "internal_error"
    assert not any(secret in last.message for secret in SECRETS)
    assert service.entries()[-1].data["outcome"] == "internal_error"


def test_a_failing_engine_is_an_error_of_the_client(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """An answer that cannot be made is an exception that quotes nothing."""

    def broken(said: str) -> str:
        raise ValueError(said)

    with (
        client_of(make_service, published, broken) as (client, _),
        pytest.raises(openai.APIError) as caught,
    ):
        client.responses.create(model="intramural", input=PROMPT)
    assert not any(secret in str(caught.value) for secret in SECRETS)
