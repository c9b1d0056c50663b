"""Chat and plain completions: what the model sees, what the application gets, what is recorded."""

import json
import logging
from typing import Any

import pytest

from tests.api.echo import EchoEngine
from tests.api.service_kit import (
    CARD,
    EMAIL,
    PHONE,
    POLICY,
    PROMPT,
    SECRETS,
    Factory,
    Service,
)

URL = "/v1/chat/completions"


def chat(*contents: str, **fields: Any) -> dict[str, Any]:
    """A body with turns of user and assistant."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"model": "intramural", "messages": turns, **fields}


def events(text: str) -> list[Any]:
    """The data of server-sent events; the last one must be ``[DONE]``."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed(chunks: list[Any]) -> str:
    """The text of a chat stream."""
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


def test_the_engine_sees_placeholders_and_the_caller_gets_values_back(service: Service) -> None:
    """No raw value reaches the engine; the answer comes back with the values restored."""
    answer = service.client().post(URL, json=chat(PROMPT))
    assert answer.status_code == 200
    seen = service.echo.seen[0].messages[0].content
    assert (
        seen
        == "Write to <EMAIL_ADDRESS_1> or call <PHONE_NUMBER_1> about the card <CREDIT_CARD_1>."
    )
    assert answer.json()["choices"][0]["message"]["content"] == f"You said: {PROMPT}"


def test_every_place_of_a_request_is_redacted(service: Service) -> None:
    """All roles, text parts, several turns and stop strings share one set of placeholders."""
    body = {
        "model": "intramural",
        "messages": [
            {"role": "developer", "content": f"The customer is {EMAIL}."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Card:"}, {"type": "text", "text": CARD}],
            },
            {"role": "assistant", "content": f"Noted {EMAIL.upper()}."},
            {"role": "user", "content": f"Say {EMAIL} and {PHONE}."},
        ],
        "stop": [PHONE],
    }
    answer = service.client().post(URL, json=body)
    request = service.echo.seen[0]
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    everything = repr(request).casefold()
    assert not any(secret.casefold() in everything for secret in SECRETS)
    assert "<EMAIL_ADDRESS_1>" in request.messages[0].content
    assert "<EMAIL_ADDRESS_1>" in request.messages[3].content
    assert request.stop == ("<PHONE_NUMBER_1>",)
    assert answer.json()["choices"][0]["message"]["content"] == f"You said: Say {EMAIL} and "
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_input_that_looks_like_a_placeholder_comes_back_unchanged(
    service: Service, stream: bool
) -> None:
    """A caller who writes ``<EMAIL_ADDRESS_1>`` gets that text, not somebody's address."""
    prompt = f"Is <EMAIL_ADDRESS_1> the same as {EMAIL}?"
    answer = service.client().post(URL, json=chat(prompt, stream=stream))
    text = (
        streamed(events(answer.text))
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert text == f"You said: {prompt}"


def test_the_body_is_openais(service: Service) -> None:
    """Object, choice and exact usage have OpenAI's names; the model is the release."""
    answer = service.client().post(URL, json=chat("one two three", max_tokens=4))
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == service.release.id
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["role"] == "assistant"
    # Words and blanks are the echo's tokens: 5 and 2 for the frame; "You", " ", "said:", " ".
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert answer.headers["x-intramural-release"] == service.release.id
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-intramural-audit-index"] == "0"
    assert answer.headers["cache-control"] == "no-store"


def test_a_stream_is_openais(service: Service) -> None:
    """Role first, then text, then the finish chunk, then the usage, then ``[DONE]``."""
    body = chat(PROMPT, stream=True, stream_options={"include_usage": True})
    answer = service.client().post(URL, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert streamed(chunks) == f"You said: {PROMPT}"
    assert chunks[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    whole = service.client().post(URL, json=chat(PROMPT)).json()
    assert chunks[-1]["usage"] == whole["usage"]


def test_a_stream_without_the_option_has_no_usage(service: Service) -> None:
    """Usage is sent only where it was asked for."""
    chunks = events(service.client().post(URL, json=chat("hello", stream=True)).text)
    assert all("usage" not in chunk for chunk in chunks)


def test_a_long_stream_leaves_in_pieces(service: Service) -> None:
    """A stream does not wait for the end of the answer."""
    chunks = events(service.client().post(URL, json=chat("word " * 80, stream=True)).text)
    assert len([chunk for chunk in chunks if chunk["choices"][0]["delta"].get("content")]) > 3
    assert streamed(chunks) == "You said: " + "word " * 80


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_that_only_the_model_knew_does_not_leave(
    make_service: Factory, published: Any, stream: bool
) -> None:
    """An address that the prompt did not bring is redacted; one that it brought is restored."""
    leaky = EchoEngine(
        published.id,
        reply=lambda said: f"{said} Also ask grace.hopper@example.net. " + "Bye. " * 40,
    )
    service = make_service(engine=leaky)
    answer = service.client().post(URL, json=chat(f"Ask {EMAIL}.", stream=stream))
    text = (
        streamed(events(answer.text))
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert text == f"Ask {EMAIL}. Also ask <EMAIL_ADDRESS>. " + "Bye. " * 40
    assert service.entries()[-1].data["answer_entities"] == {"EMAIL_ADDRESS": 1}


def test_actions_of_the_policy(service: Service) -> None:
    """``redact`` is for good, ``block`` names the type and never the value."""
    client = service.client()
    iban = "GB82 WEST 1234 5698 7654 32"
    answer = client.post(URL, json=chat(f"Pay to {iban} now"))
    assert answer.json()["choices"][0]["message"]["content"] == "You said: Pay to <IBAN_CODE> now"
    refused = client.post(URL, json=chat("Log in to 203.0.113.77 please"))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "entity_refused"
    assert "IP_ADDRESS" in refused.json()["error"]["message"]
    assert "203.0.113.77" not in refused.text
    assert len(service.echo.seen) == 1


LEAK = "Ask grace.hopper@example.net or pay with 4242 4242 4242 4242."


@pytest.mark.parametrize("stream", [False, True])
def test_actions_for_answers(make_service: Factory, published: Any, stream: bool) -> None:
    """New personal data in an answer is treated as the policy says for answers, and counted."""
    rules = "[pii.answer.entities]\nEMAIL_ADDRESS = 'allow'\nCREDIT_CARD = 'mask'\n"
    leaky = EchoEngine(published.id, reply=lambda said: LEAK)
    service = make_service(engine=leaky, policy_text=POLICY + rules)
    answer = service.client().post(URL, json=chat("Whom?", stream=stream))
    text = (
        streamed(events(answer.text))
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert text == "Ask grace.hopper@example.net or pay with **** **** **** 4242."
    assert service.entries()[-1].data["answer_entities"] == {"CREDIT_CARD": 1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_answer_is_withheld_and_counted(
    make_service: Factory, published: Any, stream: bool
) -> None:
    """What the policy blocks in answers ends the answer with an error that names the kind alone."""
    leaky = EchoEngine(published.id, reply=lambda said: LEAK)
    service = make_service(
        engine=leaky, policy_text=POLICY + "[pii.answer.entities]\nCREDIT_CARD = 'block'\n"
    )
    answer = service.client().post(URL, json=chat("Whom?", stream=stream))
    assert answer.status_code == (200 if stream else 403)
    assert "answer_blocked" in answer.text
    assert "CREDIT_CARD" in answer.text
    assert "4242" not in answer.text
    assert "[DONE]" not in answer.text
    entry = service.entries()[-1].data
    assert entry["outcome"] == "answer_blocked"
    assert entry["answer_entities"]["CREDIT_CARD"] == 1


def test_actions_for_roles(make_service: Factory) -> None:
    """The same prompt is treated by the rules of the role that sends it."""
    service = make_service(
        policy_text=POLICY
        + "[roles.app.pii.prompt.entities]\nEMAIL_ADDRESS = 'mask'\n"
        + "[roles.admin.pii]\ndefault_action = 'hash'\n"
    )
    for role in ("app", "admin"):
        service.client(role).post(URL, json=chat(f"Mail {EMAIL}"))
    masked, hashed = (request.messages[0].content for request in service.echo.seen)
    assert masked == "Mail ***.********@*******.***"
    assert hashed.startswith("Mail <EMAIL_ADDRESS_HASH:")


@pytest.mark.parametrize("action", ["hash", "pseudonym", "encrypt", "replace"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_reversible_action_is_restored(
    make_service: Factory, action: str, stream: bool
) -> None:
    """Whatever stood for a value before the model, the caller gets the value back."""
    service = make_service(policy_text=POLICY + f"[pii.prompt]\ndefault_action = '{action}'\n")
    answer = service.client().post(URL, json=chat(PROMPT, stream=stream))
    text = (
        streamed(events(answer.text))
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert text == f"You said: {PROMPT}"
    assert not any(secret in repr(service.echo.seen) for secret in SECRETS)


def test_plain_completions(service: Service) -> None:
    """``/v1/completions`` redacts, restores and streams alike."""
    client = service.client()
    body = {"model": service.release.id, "prompt": PROMPT}
    answer = client.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == f"You said: {PROMPT}"
    assert service.echo.seen[0].messages == ()
    assert not any(secret in repr(service.echo.seen) for secret in SECRETS)
    chunks = events(client.post("/v1/completions", json={**body, "stream": True}).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == f"You said: {PROMPT}"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_parameters_reach_the_engine(service: Service) -> None:
    """Sampling parameters are passed on as they were sent; absent ones get OpenAI's defaults."""
    body = chat("x", max_completion_tokens=9, temperature=0, top_p=0.5, seed=3, stop="z")
    service.client().post(URL, json=body)
    service.client().post(URL, json=chat("x"))
    first, second = service.echo.seen
    assert (first.max_tokens, first.temperature, first.top_p) == (9, 0.0, 0.5)
    assert (first.seed, first.stop, first.fit) == (3, ("z",), False)
    assert (second.temperature, second.top_p, second.seed) == (1.0, 1.0, None)
    # No bound was sent: the role's applies, shortened to what the context leaves.
    assert (second.max_tokens, second.fit) == (200, True)


def test_unknown_models_are_not_found(service: Service) -> None:
    """Another model is 404 ``model_not_found``, as OpenAI says it."""
    answer = service.client().post(URL, json=chat("x") | {"model": "gpt-4"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


def test_a_context_that_is_exceeded_names_the_figures(service: Service) -> None:
    """Too long a conversation is 400 ``context_length_exceeded``."""
    for stream in (False, True):
        answer = service.client().post(URL, json=chat("a " * 400, stream=stream))
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert "512" in answer.json()["error"]["message"]


def test_the_roles_context_is_a_bound(make_service: Factory) -> None:
    """Prompt and answer together keep to the role's bound, in chat and in a batch of prompts."""
    text = POLICY.replace("max_tokens = 200", "max_tokens = 200\nmax_context = 12")
    client = make_service(policy_text=text).client()
    assert client.post(URL, json=chat("one two", max_tokens=6)).status_code == 200
    for answer in (
        client.post(URL, json=chat("one two", max_tokens=8)),
        client.post(URL, json=chat("a " * 8)),
        client.post("/v1/completions", json={"model": "intramural", "prompt": ["a", "a " * 8]}),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert "12" in answer.json()["error"]["message"]


def test_a_bound_above_the_roles_is_refused(service: Service) -> None:
    """The policy's bound on tokens is named."""
    answer = service.client().post(URL, json=chat("x", max_tokens=201))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert "200" in answer.json()["error"]["message"]


def test_a_base_model_answers_only_if_enabled(make_service: Factory) -> None:
    """Without a verified release there is no model, unless the settings allow the base model."""
    closed = make_service(engine=EchoEngine("base"), releases=[])
    assert closed.client().post(URL, json=chat("x")).status_code == 404
    assert closed.client(None).get("/readyz").status_code == 503
    opened = make_service(engine=EchoEngine("base"), releases=[], serve_base_model=True)
    answer = opened.client().post(URL, json=chat("x"))
    assert answer.status_code == 200
    assert answer.json()["model"] == "base"
    assert opened.client(None).get("/readyz").status_code == 200


def test_the_audit_entry_holds_digests_and_counts(service: Service) -> None:
    """An entry says who, what, which release and policy, how much; digests are keyed."""
    service.client().post(URL, json=chat(PROMPT))
    (entry,) = service.entries()
    data = entry.data
    key = next(key for key in service.keys.list() if key.role == "app")
    assert (entry.kind, entry.actor) == ("call", key.id)
    assert (data["operation"], data["outcome"], data["phase"]) == ("chat", "ok", "answered")
    assert (data["principal"], data["role"], data["status"]) == ("test-app", "app", 200)
    assert (data["release"], data["policy"]) == (service.release.id, service.policy.digest)
    assert data["entities"] == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1, "PHONE_NUMBER": 1}
    sent = service.audit.text_digest(json.dumps([PROMPT], ensure_ascii=False))
    assert data["digests"]["prompt_sent"] == sent
    assert data["digests"]["prompt_seen"] != sent
    assert data["digests"]["answer"]
    assert not any(secret in repr(entry) for secret in SECRETS)


def test_a_stream_is_recorded_before_and_after(service: Service) -> None:
    """One entry stands before the first byte; a second one has outcome and usage."""
    answer = service.client().post(URL, json=chat(PROMPT, stream=True))
    started, ended = service.entries()
    assert answer.headers["x-intramural-audit-index"] == "0"
    assert (started.data["phase"], ended.data["phase"]) == ("started", "ended")
    assert started.data["request"] == ended.data["request"] == answer.headers["x-request-id"]
    assert ended.data["started_at"] == 0
    assert ended.data["outcome"] == "ok"
    assert ended.data["completion_tokens"] == 23
    assert ended.data["digests"]["answer"]


def test_no_log_holds_prompt_answer_or_key(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs of everything at the finest level hold no raw value and no secret."""
    caplog.set_level(logging.DEBUG)
    client = service.client()
    client.post(f"{URL}?note={EMAIL}", json=chat(PROMPT))
    client.post(URL, json=chat(PROMPT, stream=True))
    client.post(URL, json=chat(PROMPT, temperature=9, user=EMAIL))
    client.post("/v1/redact", json={"text": PROMPT})
    client.get(f"/v1/{EMAIL}")
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    written = "\n".join(f"{record.getMessage()} {record.exc_text} {record.args}" for record in ours)
    assert "POST /v1/chat/completions 200" in written
    assert not any(secret in written for secret in (*SECRETS, service.tokens["app"], "Write to"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_release_meets_nothing_above_its_maximum(
    make_service: Factory, published: Any, stream: bool
) -> None:
    """Prompts are refused and answers withheld, although the policy would redact or allow it."""
    leaky = EchoEngine(published.id, reply=lambda said: LEAK)
    levels = (
        f"[pii.answer.entities]\nCREDIT_CARD = 'allow'\n"
        f"[sensitivity.releases]\n'{published.id}' = 'internal'\n"
        "[sensitivity.entities]\nEMAIL_ADDRESS = 'internal'\n"
    )
    service = make_service(engine=leaky, policy_text=POLICY + levels)
    refused = service.client().post(URL, json=chat("Pay 4242 4242 4242 4242", stream=stream))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "entity_refused")
    assert "CREDIT_CARD" in refused.text
    assert not leaky.seen
    answer = service.client().post(URL, json=chat(f"Ask {EMAIL}", stream=stream))
    assert "answer_blocked" in answer.text
    assert "4242" not in answer.text
