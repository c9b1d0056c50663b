"""The official ``openai`` client against the service on a real socket."""

import logging
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest

from api.server import BackgroundServer, ServerFailed
from tests.api.echo import EchoEngine
from tests.api.service_kit import PROMPT, SECRETS, Factory, Service


@pytest.fixture
def server(service: Service) -> Iterator[BackgroundServer]:
    """The usual service on a free loopback port."""
    with BackgroundServer(service.app) as running:
        yield running


@pytest.fixture
def client(server: BackgroundServer, service: Service) -> Iterator[openai.OpenAI]:
    """The official client with a key of the role app."""
    with openai.OpenAI(
        base_url=f"{server.base_url}/v1", api_key=service.tokens["app"], max_retries=0
    ) as made:
        yield made


def test_chat(client: openai.OpenAI, service: Service) -> None:
    """A chat call works unchanged: redacted on the way in, restored on the way out."""
    answer = client.chat.completions.create(
        model="intramural", messages=[{"role": "user", "content": PROMPT}]
    )
    assert answer.choices[0].message.content == f"You said: {PROMPT}"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert not any(secret in repr(service.echo.seen) for secret in SECRETS)


def test_stream(client: openai.OpenAI) -> None:
    """A streamed chat call joins to the same answer, with usage in the last chunk."""
    chunks = list(
        client.chat.completions.create(
            model="intramural",
            messages=[{"role": "user", "content": PROMPT}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == f"You said: {PROMPT}"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 23


def test_completions_and_models(client: openai.OpenAI, service: Service) -> None:
    """Plain completions and the list of models work unchanged."""
    answer = client.completions.create(model="intramural", prompt=PROMPT, max_tokens=100)
    assert answer.choices[0].text == f"You said: {PROMPT}"
    assert [model.id for model in client.models.list()] == [service.release.id]
    assert client.models.retrieve("intramural").id == service.release.id


def test_errors_are_the_clients_own(client: openai.OpenAI, server: BackgroundServer) -> None:
    """The client raises its own exceptions with our code, parameter and request id."""
    messages: list[openai.types.chat.ChatCompletionUserMessageParam] = [
        {"role": "user", "content": "hi"}
    ]
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="intramural", messages=messages, temperature=3)
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_value")
    assert bad.value.request_id is not None
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=messages)
    stranger = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="im_x", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_client_that_leaves_stops_the_generation(
    make_service: Factory, published: object
) -> None:
    """When the connection goes away mid-stream, the engine stops and the record says ``aborted``."""
    engine = EchoEngine(published.id)  # type: ignore[attr-defined]
    left = threading.Event()

    def step(count: int) -> None:
        if count == 120:  # the first pieces are on their way by now
            left.wait(30)

    engine.step = step
    service = make_service(engine=engine)
    body = {
        "model": "intramural",
        "stream": True,
        "messages": [{"role": "user", "content": "word " * 90}],
    }
    headers = {"Authorization": f"Bearer {service.tokens['app']}"}
    with BackgroundServer(service.app) as server:
        with (
            httpx.Client(base_url=server.base_url, headers=headers) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            assert any("word" in line for line in lines)
        left.set()
        assert engine.closed.wait(30)
    # The server has stopped, so whatever was to be recorded is recorded.
    started, ended = service.entries()
    assert (started.data["phase"], ended.data["phase"]) == ("started", "ended")
    assert ended.data["outcome"] == "aborted"
    assert 0 < ended.data["completion_tokens"] < 183
    # The slot is free again: another call is answered.
    with BackgroundServer(service.app) as server, httpx.Client(headers=headers) as client:
        answer = client.post(
            f"{server.base_url}/v1/chat/completions",
            json={"model": "intramural", "messages": [{"role": "user", "content": "hi"}]},
        )
        assert answer.status_code == 200


def test_overload_is_told_at_once(make_service: Factory, published: object) -> None:
    """While the only slot is taken and nobody may wait, a second call gets 503 and ``Retry-After``."""
    engine = EchoEngine(published.id)  # type: ignore[attr-defined]
    running, go_on = threading.Event(), threading.Event()

    def step(count: int) -> None:
        running.set()
        go_on.wait(30)

    engine.step = step
    service = make_service(engine=engine, concurrent_generations=1, waiting_generations=0)
    body = {"model": "intramural", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {service.tokens['app']}"}
    results: list[int] = []
    with (
        BackgroundServer(service.app) as server,
        httpx.Client(base_url=server.base_url, headers=headers) as client,
    ):

        def first() -> None:
            results.append(client.post("/v1/chat/completions", json=body).status_code)

        thread = threading.Thread(target=first)
        thread.start()
        assert running.wait(30)
        busy = client.post("/v1/chat/completions", json=body)
        go_on.set()
        thread.join()
    assert busy.status_code == 503
    assert busy.json()["error"]["code"] == "overloaded"
    assert int(busy.headers["retry-after"]) >= 1
    assert results == [200]


def test_the_server_logs_no_query_and_no_text(
    client: openai.OpenAI, server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger at its finest, neither uvicorn nor the service writes what was sent."""
    caplog.set_level(logging.DEBUG)
    client.chat.completions.create(
        model="intramural", messages=[{"role": "user", "content": PROMPT}]
    )
    httpx.get(f"{server.base_url}/healthz?who={SECRETS[0]}")
    server.close()  # a line is written once its answer has left
    ours = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "openai"))
    ]
    assert any("GET /healthz 200" in line for line in ours)
    assert not any(secret in line for secret in SECRETS for line in ours)


def test_the_server_stops_and_frees_its_port(service: Service) -> None:
    """After the block nothing listens, and a taken port is an error with its number."""
    with BackgroundServer(service.app) as server:
        port = int(server.base_url.rsplit(":", 1)[1])
        with pytest.raises(ServerFailed, match=str(port)):
            BackgroundServer(service.app, port=port)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.base_url}/healthz")
