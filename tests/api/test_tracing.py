"""Traces: each stage of a call, in the caller's trace, with nothing in them that anybody said."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import api.tracing_export
from api.settings import SettingsInvalid
from api.tracing_export import open_tracing
from privacy.release import VerifiedRelease
from tests.api.echo import EchoEngine
from tests.api.service_kit import PROMPT, SECRETS, Factory, Service
from tests.api.test_chat import URL, chat
from tests.api.test_fail_closed import BrokenEngine
from tests.api.upstream_kit import MockUpstream, upstream

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADERS = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": "vendor=ada.lovelace",
    "baggage": "patient=ada.lovelace",
}


class Collector:
    """An OTLP receiver on loopback: keeps the requests as they came, and the spans in them."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append(body)
                said = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        """All spans so far."""
        found: list[Span] = []
        for body in self.requests:
            asked = ExportTraceServiceRequest.FromString(body)
            for resource in asked.resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def calls(self) -> list[Span]:
        """The spans of whole calls."""
        return [span for span in self.spans() if span.kind == Span.SPAN_KIND_SERVER]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Runs until the end of the test."""
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


Traced = Callable[..., Any]


@pytest.fixture
def traced(make_service: Factory, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Traced:
    """A block in which a service traces its calls; at its end, all spans are with the collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    @contextmanager
    def run(**options: Any) -> Iterator[Service]:
        with open_tracing(None) as tracing:
            yield make_service(tracing=tracing, **options)

    return run


def values(span: Span) -> dict[str, Any]:
    """The attributes of a span, each of a plain kind."""
    found = {}
    for one in span.attributes:
        kind = one.value.WhichOneof("value")
        assert kind in ("string_value", "bool_value", "int_value"), one.key
        found[one.key] = getattr(one.value, kind)
    return found


def test_nothing_that_was_sent_or_answered_is_in_a_span(
    traced: Traced, collector: Collector, published: VerifiedRelease
) -> None:
    """Personal data in every place of good and of failing calls; no span has any, nor any other words.

    What the collector received is searched as bytes too, so that no field is forgotten.
    """
    broken = BrokenEngine(published.id)
    broken.error = RuntimeError(PROMPT)
    planted = [*SECRETS, "ada.lovelace", "Lovelace", "LOVELACE"]
    places = {"x-note": SECRETS[0], "user-agent": SECRETS[0], **HEADERS}
    for engine in (EchoEngine(published.id), broken):
        with traced(engine=engine) as service:
            planted += [key := service.tokens["app"], key[-20:]]
            client = service.client()
            client.headers.update(places)
            for body in (
                chat(PROMPT),
                chat(PROMPT, stream=True),
                chat(PROMPT, user=SECRETS[0], stop=[SECRETS[1]]),
                chat(PROMPT, temperature=9),
                chat(PROMPT, model=SECRETS[0]),
                chat("my address is 10.1.2.3"),
            ):
                client.post(URL, json=body)
            client.post(URL, content=PROMPT.encode())
            client.post("/v1/redact", json={"text": PROMPT})
            client.get(f"/v1/{SECRETS[0]}")
            client.get("/v1/usage", params={"principal": SECRETS[0]})
            client.request("LOVELACE", "/v1/models")
            client.get("/v1/models", headers={"Authorization": f"Bearer {SECRETS[0]}"})
    spans = collector.spans()
    assert len(collector.calls()) == 24
    for span in spans:
        for name, value in values(span).items():
            assert not any(one in f"{name}={value}" for one in planted), name
        assert not span.events
        assert not span.links
        assert not span.trace_state
        assert not span.status.message
    received = b"".join(collector.requests)
    assert not any(one.encode() in received for one in planted)
    outcomes = {values(span)["intramural.outcome"] for span in collector.calls()}
    assert {"ok", "internal_error", "entity_refused", "model_not_found"} <= outcomes


def test_a_call_continues_its_trace_stage_by_stage(
    traced: Traced, collector: Collector, published: VerifiedRelease
) -> None:
    """The caller's trace goes on through the service to the model server; only its ids do."""
    seen: list[httpx.Headers] = []

    def before(request: httpx.Request) -> None:
        seen.append(request.headers)

    server = MockUpstream(EchoEngine("their-model"), before)
    with traced(engine=upstream(published.id, server)) as service:
        answer = service.client().post(URL, json=chat(PROMPT, stream=True), headers=HEADERS)
        service.client(None).get("/readyz")
    (call,) = collector.calls()
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    stages = [span for span in collector.spans() if span != call]
    assert sorted(span.name for span in stages) == ["audit", "audit", "engine", "queue", "redact"]
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (call.trace_id, call.span_id)
        assert call.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano
    told = values(call)
    assert call.name == f"POST {URL}"
    assert told["http.response.status_code"] == answer.status_code == 200
    assert told["intramural.request"] == answer.headers["x-request-id"]
    assert told["intramural.release"] == published.id
    assert told["gen_ai.usage.output_tokens"] == service.entries()[-1].data["completion_tokens"] > 0
    (headers,) = seen
    assert headers["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert not {"tracestate", "baggage"} & set(headers)


def test_failures_are_marked_by_their_code(
    traced: Traced, collector: Collector, published: VerifiedRelease
) -> None:
    """A 5xx and a stream that broke off are errors; what the caller did wrong is none."""
    with traced(engine=BrokenEngine(published.id)) as service:
        service.client().post(URL, json=chat(PROMPT))
        service.client().post(URL, json=chat(PROMPT, stream=True))
        service.client().post(URL, json=chat(PROMPT, temperature=9))
    told = [
        (values(span)["http.response.status_code"], span.status.code) for span in collector.calls()
    ]
    assert sorted(told) == [(200, 2), (400, 0), (503, 2)]


def test_without_a_collector_there_are_no_traces(
    make_service: Factory, published: VerifiedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default nothing is traced, and a caller's trace ids go nowhere."""
    seen: list[httpx.Headers] = []

    def before(request: httpx.Request) -> None:
        seen.append(request.headers)

    server = MockUpstream(EchoEngine("their-model"), before)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with open_tracing(None) as tracing:
        service = make_service(tracing=tracing, engine=upstream(published.id, server))
        assert service.client().post(URL, json=chat(PROMPT), headers=HEADERS).status_code == 200
    assert [headers.get("traceparent") for headers in seen] == [None]


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_is_gone_costs_spans_and_nothing_else(
    make_service: Factory, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """Refused or never answered: calls beyond the queue's length stay as fast, and the end is bounded.

    A call that waited for the collector would wait for its time-out of ten seconds.
    """
    monkeypatch.setattr(api.tracing_export, "_END_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen(64)
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        done = threading.Event()

        def calls() -> None:
            with open_tracing(True) as tracing:
                client = make_service(tracing=tracing).client()
                for _ in range(20):
                    assert client.post(URL, json=chat("Hello")).status_code == 200
            done.set()

        thread = threading.Thread(target=calls, daemon=True)
        thread.start()
        assert done.wait(9.0)
        thread.join()


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318x"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "OTEL_SPAN"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1000000"}, "OTEL_BSP"),
    ],
)
def test_what_cannot_be_followed_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], word: str
) -> None:
    """Variables that OpenTelemetry would ignore, or fail on later, are refused by their name."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=word) as caught, open_tracing(True):
        pass
    assert not any(value in json.dumps(caught.value.faults) for value in environment.values())


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_the_environment_can_switch_traces_off(
    make_service: Factory,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    """OpenTelemetry's own switches count, whatever the settings say."""
    for name, value in (environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}).items():
        monkeypatch.setenv(name, value)
    with open_tracing(True) as tracing:
        make_service(tracing=tracing).client().post(URL, json=chat(PROMPT))
    assert collector.requests == []
