"""The door over HTTP: rates with OpenAI's headers, tokens, places, deadlines."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import fakeredis
import httpx
import pytest

from api.engines.base import Finished, GenerationRequest, TextDelta
from api.limits_redis import RedisRates
from api.server import BackgroundServer
from tests.api.echo import EchoEngine
from tests.api.service_kit import POLICY, Factory, Service

URL = "/v1/chat/completions"


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A request body."""
    return {"model": "intramural", "messages": [{"role": "user", "content": text}], **more}


def limited(**limits: object) -> str:
    """The usual policy with limits of the role ``app``."""
    lines = "".join(f"\n{name} = {value}" for name, value in limits.items())
    return POLICY.replace("\nrequests_per_minute = 1000", lines)


def test_every_answer_says_how_the_rates_stand(make_service: Factory) -> None:
    """OpenAI's headers, on answers and on refusals; waiting as told is enough."""
    service = make_service(policy_text=limited(requests_per_minute=2, tokens_per_minute=1000))
    client = service.client()
    first = client.get("/v1/models")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert first.headers["x-ratelimit-remaining-tokens"] == "1000"
    client.get("/v1/models")
    refused = client.get("/v1/models")
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_as_the_audit_log_has_them(make_service: Factory, stream: bool) -> None:
    """What an answer used is charged exactly; the debt refuses the next request, streams too."""
    service = make_service(policy_text=limited(tokens_per_minute=10))
    client = service.client()
    assert client.post(URL, json=chat("one two three four", stream=stream)).status_code == 200
    data = service.entries()[-1].data
    used = data["prompt_tokens"] + data["completion_tokens"]
    assert used > 10
    refused = client.post(URL, json=chat())
    assert refused.status_code == 429
    assert "tokens per minute" in refused.json()["error"]["message"]
    owed = float(refused.headers["x-ratelimit-reset-tokens"].removesuffix("s"))
    assert owed == pytest.approx(used * 6, abs=5)
    assert len(service.echo.seen) == 1


def test_a_principal_is_limited_over_all_its_keys(make_service: Factory) -> None:
    """Several keys of one principal share its limits; other principals are not affected."""
    service = make_service(policy_text=POLICY + "\n[principals.crm]\nrequests_per_minute = 3\n")
    tokens = [service.keys.create("crm", "app")[0] for _ in range(2)]
    client = service.client(None)
    statuses = [
        client.get(
            "/v1/models", headers={"Authorization": f"Bearer {tokens[number % 2]}"}
        ).status_code
        for number in range(4)
    ]
    assert statuses == [200, 200, 200, 429]
    assert service.client().get("/v1/models").status_code == 200


def test_replicas_share_their_rates(make_service: Factory) -> None:
    """Two services over one Redis count together; a lost Redis lets nobody in."""
    server = fakeredis.FakeServer()
    replicas = [
        make_service(
            policy_text=POLICY + "\n[principals.crm]\nrequests_per_minute = 3\n",
            rates=RedisRates(fakeredis.FakeAsyncRedis(server=server)),
        )
        for _ in range(2)
    ]
    clients = []
    for replica in replicas:
        token, _ = replica.keys.create("crm", "app")
        client = replica.client(None)
        client.headers["Authorization"] = f"Bearer {token}"
        clients.append(client)
    statuses = [clients[number % 2].get("/v1/models").status_code for number in range(4)]
    assert statuses == [200, 200, 200, 429]
    server.connected = False
    lost = clients[0].get("/v1/models")
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "limits_unavailable")


class Held(EchoEngine):
    """An engine that says a little, then waits until it is let go."""

    def __init__(self, model_id: str) -> None:
        super().__init__(model_id)
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def stream(self, request: GenerationRequest) -> Iterator[Any]:
        """See the port."""
        items = super().stream(request)

        def held() -> Iterator[TextDelta | Finished]:
            self.begun.release()
            self.go.wait(60)
            yield from items

        return held()


@pytest.fixture
def held(make_service: Factory, published: Any) -> Iterator[tuple[Factory, Held]]:
    """Makes services on an engine that holds; it is let go in the end."""
    engine = Held(published.id)
    yield make_service, engine
    engine.go.set()


def ask(server: BackgroundServer, service: Service, role: str, **more: Any) -> httpx.Response:
    """One chat request over a socket."""
    headers = {"Authorization": f"Bearer {service.tokens[role]}"}
    return httpx.post(server.base_url + URL, json=chat(**more), headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"policy_text": limited(concurrent_requests=1)}, 429, "concurrency_limit_exceeded"),
        ({"concurrent_requests": 1}, 503, "overloaded"),
        ({"concurrent_generations": 1, "waiting_generations": 0}, 503, "overloaded"),
    ],
    ids=["role", "service", "engine"],
)
def test_what_is_too_much_at_once_is_refused_at_once(
    held: tuple[Factory, Held], options: dict[str, Any], status: int, code: str
) -> None:
    """Overload is 429 or 503 with Retry-After and an audit entry, never a wait without end."""
    make, engine = held
    service = make(engine=engine, **options)
    with BackgroundServer(service.app) as server:
        results: list[int] = []
        first = threading.Thread(
            target=lambda: results.append(ask(server, service, "app").status_code)
        )
        first.start()
        assert engine.begun.acquire(timeout=60)
        refused = ask(server, service, "app")
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
        assert int(refused.headers["retry-after"]) >= 1
        assert service.entries()[-1].data["outcome"] == code
        engine.go.set()
        first.join(60)
        assert results == [200]
        assert ask(server, service, "app").status_code == 200


def test_a_late_answer_is_an_error_in_time(held: tuple[Factory, Held]) -> None:
    """An engine that hangs ends in 504, recorded; its place is free only when it has let go."""
    make, engine = held
    service = make(engine=engine, request_seconds=0.3, policy_text=limited(concurrent_requests=1))
    with BackgroundServer(service.app) as server:
        late = ask(server, service, "app")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert service.entries()[-1].data["outcome"] == "deadline_exceeded"
        assert ask(server, service, "app").json()["error"]["code"] == "concurrency_limit_exceeded"
        engine.go.set()


def test_a_late_stream_ends_with_an_error(held: tuple[Factory, Held]) -> None:
    """A stream beyond its time gets an error event instead of [DONE], and is recorded."""
    make, engine = held
    service = make(engine=engine, request_seconds=0.3, stream_seconds=0.3)
    with BackgroundServer(service.app) as server:
        late = ask(server, service, "app", stream=True)
        engine.go.set()
        assert "[DONE]" not in late.text
        last = late.text.strip().split("\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert [entry.data["phase"] for entry in service.entries()] == ["started", "ended"]
    assert service.entries()[-1].data["outcome"] == "deadline_exceeded"


def test_counts_alone_are_kept_where_the_policy_says_so(make_service: Factory) -> None:
    """retention = "counts" leaves no digest of any text in the audit log."""
    service = make_service(policy_text=limited(retention='"counts"'))
    assert service.client().post(URL, json=chat("Write to ada@example.org")).status_code == 200
    assert service.client("admin").post(URL, json=chat()).status_code == 200
    kept, usual = (entry.data for entry in service.entries())
    assert kept["digests"] == {}
    assert kept["entities"] == {"EMAIL_ADDRESS": 1}
    assert usual["digests"]
