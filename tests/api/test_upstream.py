"""The engine behind which other servers answer: what it sends, when it sends again, what it tells."""

import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from api.engines.base import EngineBusy, GenerationRequest, Message
from api.engines.replicas import Replicas
from api.engines.settings import UpstreamSettings, private
from api.engines.upstream import UpstreamEngine
from api.errors import EngineError, UnknownModel
from privacy.release import VerifiedRelease
from tests.api.echo import EchoEngine
from tests.api.service_kit import PROMPT, SECRETS, Factory
from tests.api.test_chat import URL, chat
from tests.api.upstream_kit import MockUpstream, upstream

MODEL = "r-0123456789abcdef0123"
REQUEST = GenerationRequest(MODEL, (Message("user", "Hello"),), max_tokens=20)


def _failing(
    *answers: httpx.Response | Exception,
) -> Callable[[httpx.Request], httpx.Response | None]:
    left = list(answers)

    def before(request: httpx.Request) -> httpx.Response | None:
        if not left:
            return None
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return before


@pytest.mark.parametrize("stream", [False, True])
def test_no_personal_data_goes_upstream(
    make_service: Factory, published: VerifiedRelease, stream: bool
) -> None:
    """In no field of anything that the server received is a value of the caller; answers have them."""
    server = MockUpstream(EchoEngine("their-model"))
    service = make_service(engine=upstream(published.id, server))
    client = service.client()
    body = chat(PROMPT, stream=stream, stop=[SECRETS[0]], user=SECRETS[1])
    answer = client.post(URL, json=body)
    assert answer.status_code == 200
    plain = client.post(URL, json=chat(PROMPT)).json()
    assert SECRETS[0] in plain["choices"][0]["message"]["content"]
    assert len(server.received) == 2
    for address, received in server.received:
        sent = address + json.dumps(json.loads(received), ensure_ascii=False)
        assert "<EMAIL_ADDRESS_1>" in sent
        assert not any(secret in sent for secret in SECRETS)
    assert server.open == 0


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.Response(429, headers={"retry-after": "0"}),
        httpx.Response(503, headers={"retry-after": "0"}),
    ],
    ids=["connect", "connect-timeout", "429", "503"],
)
def test_what_was_certainly_not_begun_is_sent_again(failure: httpx.Response | Exception) -> None:
    """A failed connection, a 429 and a 503 are tried again, and the answer is whole."""
    server = MockUpstream(EchoEngine("their-model"), _failing(failure))
    engine = upstream(MODEL, server)
    assert engine.generate(REQUEST).text == "You said: Hello"
    assert len(server.received) == 2


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("silent"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(500),
        httpx.Response(307, headers={"location": "http://169.254.169.254/"}),
    ],
    ids=["read-timeout", "gone", "500", "redirect"],
)
def test_what_may_have_begun_is_sent_once(failure: httpx.Response | Exception) -> None:
    """After anything else the request is not repeated, a redirect is not followed, nothing is quoted."""
    server = MockUpstream(EchoEngine("their-model"), _failing(failure))
    with pytest.raises(EngineError) as caught:
        upstream(MODEL, server).generate(REQUEST)
    assert len(server.received) == 1
    assert "Hello" not in str(caught.value)


def test_an_answer_that_breaks_off_is_an_error_and_not_repeated() -> None:
    """Half an answer is never passed off as a whole one."""
    half = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    server = MockUpstream(EchoEngine("their-model"), _failing(httpx.Response(200, content=half)))
    items = upstream(MODEL, server).stream(REQUEST)
    assert next(items).text == "Hel"  # type: ignore[union-attr]
    with pytest.raises(EngineError, match="broke off"):
        next(items)
    assert len(server.received) == 1


def test_errors_of_a_server_are_not_passed_on() -> None:
    """What a server says about a request may quote it; the error does not."""
    said = httpx.Response(400, json={"error": {"message": "cannot parse 'Hello secret'"}})
    with pytest.raises(EngineError) as caught:
        upstream(MODEL, MockUpstream(EchoEngine("their-model"), _failing(said))).generate(REQUEST)
    assert "secret" not in str(caught.value)


def test_a_broken_server_rests_and_is_tried_again() -> None:
    """After so many failures in a row a server gets nothing until its rest is over, then one request."""
    now = [0.0]
    replicas = Replicas(["a"], failures=2, rest=10.0, clock=lambda: now[0])
    for _ in range(2):
        replica = replicas.take("m")
        replicas.failed(replica)
        replicas.give_back(replica)
    assert not replicas.available("m")
    with pytest.raises(EngineBusy) as caught:
        replicas.take("m")
    assert caught.value.retry_after >= 10
    now[0] = 10.0
    trying = replicas.take("m")
    with pytest.raises(EngineBusy):
        replicas.take("m")
    replicas.worked(trying)
    replicas.give_back(trying)
    assert replicas.take("m") is replicas.take("m") is trying


def test_the_least_loaded_server_is_asked() -> None:
    """Requests go where fewest are under way, and only to servers that have the model."""
    replicas = Replicas(["a", "b", "c"], failures=2, rest=1.0)
    replicas.checked(replicas.all[2], frozenset({"other"}))
    taken = [replicas.take("m") for _ in range(6)]
    assert [replica.url for replica in taken] == ["a", "b"] * 3
    for replica in taken[1::2]:
        replicas.give_back(replica)
    assert [replicas.take("m").url for _ in range(3)] == ["b"] * 3
    assert replicas.take("other").url == "c"


def test_another_server_takes_over() -> None:
    """While one of two servers is down, every request is answered by the other."""

    def down(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "one.example.org":
            raise httpx.ConnectError("down")
        return None

    server = MockUpstream(EchoEngine("their-model"), down)
    urls = ["http://one.example.org", "http://two.example.org"]
    engine = upstream(MODEL, server, urls=urls, failures=3)
    assert {engine.generate(REQUEST).text for _ in range(20)} == {"You said: Hello"}
    assert len(server.received) == 20 + 3


def test_releases_are_loaded_and_unloaded_by_their_ids() -> None:
    """A release is asked for only where it was loaded; a restarted server gets it again."""
    loaded: set[str] = set()

    def vllm(request: httpx.Request) -> httpx.Response | None:
        path = request.url.path
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": name} for name in sorted(loaded)]})
        if path == "/v1/load_lora_adapter":
            loaded.add(json.loads(request.content)["lora_name"])
            return httpx.Response(200)
        if path == "/v1/unload_lora_adapter":
            loaded.discard(json.loads(request.content)["lora_name"])
            return httpx.Response(200)
        return None

    server = MockUpstream(EchoEngine(MODEL), vllm)
    engine = upstream("base", server, models={}, lora=True)
    with pytest.raises(UnknownModel):
        engine.generate(REQUEST)
    engine.load(MODEL, "/releases/x")
    assert engine.models() == [MODEL]
    assert engine.generate(REQUEST).text == "You said: Hello"
    loaded.clear()
    engine.check()
    assert loaded == {MODEL}
    engine.unload(MODEL)
    assert (engine.models(), loaded) == ([], set())


def test_a_release_that_no_server_takes_is_an_error() -> None:
    """A refused adapter is never served, nor silently replaced by the base model."""

    def vllm(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/v1/load_lora_adapter":
            return httpx.Response(400, json={"error": {"message": "no such rank"}})
        return None

    engine = upstream("base", MockUpstream(EchoEngine("base"), vllm), models={}, lora=True)
    with pytest.raises(EngineError, match="refused to load"):
        engine.load(MODEL, "/releases/x")
    assert engine.models() == []
    with pytest.raises(EngineError, match=r"engine\.upstream\.models"):
        upstream("base").load(MODEL, "/releases/x")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"],
)
def test_private_addresses_need_a_setting(address: str) -> None:
    """An address of no public host is refused where it is used, unless the settings allow it."""
    assert private(address)
    assert not private("93.184.216.34")


def test_a_private_server_is_not_connected_to() -> None:
    """Without ``allow_private`` no connection to loopback is made, not even a retried one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        told = {
            "urls": [f"http://127.0.0.1:{listener.getsockname()[1]}"],
            "models": {MODEL: "m"},
            "read_seconds": 0.2,
        }
        for attempts in (1, 2):
            settings = UpstreamSettings.model_validate(told | {"attempts": attempts})
            with pytest.raises(EngineBusy, match="ConnectError"):
                UpstreamEngine(settings).generate(REQUEST)
            with pytest.raises(BlockingIOError):
                listener.accept()
        allowed = UpstreamSettings.model_validate(told | {"allow_private": True})
        with pytest.raises(EngineError, match="ReadTimeout"):
            UpstreamEngine(allowed).generate(REQUEST)
        listener.accept()[0].close()


@pytest.mark.parametrize(
    "url", ["ftp://a.example", "http://user:word@a.example", "a.example", "http://a.example/?q=1"]
)
def test_base_urls_are_checked(url: str) -> None:
    """Only plain http and https URLs are base URLs."""
    with pytest.raises(ValueError, match="urls"):
        UpstreamSettings.model_validate({"urls": [url]})


def test_calls_of_tools_are_joined() -> None:
    """Pieces of a call become one call, whole, with its arguments."""
    chunks: list[dict[str, object]] = [
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]

    def events() -> Iterator[bytes]:
        for number, delta in enumerate(chunks):
            reason = "tool_calls" if number == len(chunks) - 1 else None
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            yield b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    answer = httpx.Response(200, content=b"".join(events()))
    result = upstream(MODEL, MockUpstream(EchoEngine("their-model"), _failing(answer))).generate(
        REQUEST
    )
    (call,) = result.tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "f", '{"a": 1}')
    assert result.finish_reason == "tool_calls"
