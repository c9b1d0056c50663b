"""What an operator sees and does: readiness, metrics, logs, and an end without a broken answer."""

import json
import logging
import threading
from pathlib import Path

import httpx
import pytest

from api.draining import Drain
from api.errors import HttpError
from api.logs import JsonFormatter
from api.readiness import Readiness, disk_has
from api.server import BackgroundServer
from api.settings import ServiceSettings
from privacy.audit.entries import AuditEntry
from privacy.audit.log import Appended, AuditLog
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.patterns import PatternDetector
from privacy.release import VerifiedRelease
from tests.api.echo import EchoEngine
from tests.api.service_kit import PROMPT, SECRETS, Factory, Service
from tests.api.test_chat import URL, chat


class _Broken(PatternDetector):
    def detect(self, text: str) -> tuple[object, ...]:  # type: ignore[override]
        raise RedactionUnavailable("gone")


def test_readiness_means_it(make_service: Factory) -> None:
    """A detector that fails, a log that takes nothing and a full disk each make it not ready."""
    healthy = make_service()
    assert healthy.client(None).get("/readyz").status_code == 200
    for service, part in (
        (make_service(detector=_Broken()), "detector"),
        (make_service(min_free_disk_mib=1_000_000), "disk"),
    ):
        answer = service.client(None).get("/readyz")
        assert (answer.status_code, answer.json()["checks"][part]) == (503, "failed")
        assert service.client(None).get("/healthz").status_code == 200


def test_asking_often_costs_nothing() -> None:
    """Within its time a finding is told again without looking; after it, it is looked up anew."""
    now, looked = [0.0], [0]

    def check() -> bool:
        looked[0] += 1
        if looked[0] > 1:
            raise OSError
        return True

    readiness = Readiness({"part": check}, keep=1.0, clock=lambda: now[0])
    assert [readiness()["part"] for _ in range(50)] == [True] * 50
    now[0] = 1.0
    assert (readiness()["part"], looked[0]) == (False, 2)


def test_free_space_is_compared(tmp_path: Path) -> None:
    """A mebibyte is free here, a million tebibytes are not."""
    assert disk_has(tmp_path, 1)
    assert not disk_has(tmp_path, 10**12)


def test_draining_refuses_the_new_and_waits_for_the_old() -> None:
    """Once begun nothing new starts, whoever watches may look on, and the wait ends with the last."""
    drain = Drain()
    old = drain.request("/v1/models")
    old.__enter__()
    drain.begin()
    with pytest.raises(HttpError) as caught, drain.request("/v1/models"):
        pass
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
    with drain.request("/readyz"):
        pass
    assert not drain.wait(0.0)
    threading.Thread(target=old.__exit__, args=(None, None, None)).start()
    assert drain.wait(30.0)


def test_a_stream_ends_whole_while_the_server_stops(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """Stopping lets a stream under way end, answers new calls 503, and records both."""
    running, go_on = threading.Event(), threading.Event()
    engine = EchoEngine(published.id)

    def step(count: int) -> None:
        if count > 3:
            running.set()
            go_on.wait(30)

    engine.step = step
    service = make_service(engine=engine)
    headers = {"Authorization": f"Bearer {service.tokens['app']}"}
    server = BackgroundServer(service.app, settings=ServiceSettings(drain_seconds=30))
    lines: list[str] = []
    with server:
        drain = service.app.state.services.drain
        with httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as client:

            def stream() -> None:
                with client.stream("POST", URL, json=chat(PROMPT, stream=True)) as answer:
                    lines.extend(answer.iter_lines())

            reader = threading.Thread(target=stream)
            reader.start()
            assert running.wait(30)
            stopper = threading.Thread(target=server.close)
            stopper.start()
            while not drain.begun:
                threading.Event().wait(0.01)
            late = client.post(URL, json=chat(PROMPT))
            ready = client.get("/readyz")
            go_on.set()
            reader.join(60)
            stopper.join(60)
    assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
    assert int(late.headers["retry-after"]) >= 1
    assert ready.status_code == 503
    assert "data: [DONE]" in lines
    outcomes = {(entry.data["phase"], entry.data["outcome"]) for entry in service.entries()}
    assert {("ended", "ok"), ("answered", "shutting_down")} <= outcomes


def test_a_stream_cut_off_while_its_end_is_recorded_has_one_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service ends while the append waits for the log: it is not asked for again, and it comes."""
    waiting, go_on, recorded = threading.Event(), threading.Event(), threading.Event()
    append = AuditLog.append
    asked: list[object] = []

    def slow(self: AuditLog, entry: AuditEntry) -> Appended:
        asked.append(entry.data["phase"])
        if entry.data["phase"] != "ended":
            return append(self, entry)
        waiting.set()
        go_on.wait(30)
        appended = append(self, entry)
        recorded.set()
        return appended

    monkeypatch.setattr(AuditLog, "append", slow)
    headers = {"Authorization": f"Bearer {service.tokens['app']}"}
    server = BackgroundServer(service.app, settings=ServiceSettings(drain_seconds=0.1))
    with server, httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as client:

        def stream() -> None:
            client.post(URL, json=chat(PROMPT, stream=True))

        reader = threading.Thread(target=stream)
        reader.start()
        assert waiting.wait(30)
        server.close()
        assert asked == ["started", "ended"]
        go_on.set()
        assert recorded.wait(30)
        reader.join(60)
    assert [entry.data["phase"] for entry in service.entries()] == ["started", "ended"]


def test_metrics_tell_stages_queue_and_refusals(service: Service) -> None:
    """Each stage of an answer is timed, refusals are counted by code, and nobody is named."""
    client = service.client()
    client.post(URL, json=chat(PROMPT))
    client.post(URL, json=chat("reach me at 10.1.2.3"))
    text = service.client("compliance").get("/metrics").text
    for stage in ("redact", "queue", "engine", "audit"):
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f'intramural_stage_seconds_count{{stage="{stage}"}}')
        ]
        assert float(line.rpartition(" ")[2]) >= 1
    assert 'intramural_refusals_total{code="' in text
    assert "intramural_queue_waiting 0.0" in text
    assert not any(secret in text for secret in SECRETS)


def test_json_logs_are_lines_without_content() -> None:
    """One object a line, whatever the message holds; of an exception only its type."""
    error = (ValueError, ValueError(PROMPT), None)
    record = logging.LogRecord(
        "api.access", logging.ERROR, __file__, 1, "%s failed\nbadly", ("req_1",), error
    )
    (line,) = JsonFormatter().format(record).splitlines()
    told = json.loads(line)
    assert (told["level"], told["message"], told["error"]) == (
        "error",
        "req_1 failed\nbadly",
        "ValueError",
    )
    assert not any(secret in line for secret in SECRETS)
