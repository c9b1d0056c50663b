"""The service's faults, each on a real process: what callers see, and that the log misses nothing.

The table is docs/operations.md, "Faults". In every case an answer has its audit entry, a stream has
two, and what was not recorded was not answered.
"""

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from intramural.stores import channels_place
from intramural.workspace import Workspace
from tests.e2e.federation.outage_kit import full_disk
from tests.intramural.cli_kit import Cli
from tests.intramural.service_process import (
    URL,
    ModelServer,
    ServiceProcess,
    chat,
    phases,
    until,
)


@pytest.fixture
def models() -> Iterator[ModelServer]:
    """A model server."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def service(workspace: Workspace, models: ModelServer) -> Iterator[ServiceProcess]:
    """A service before it."""
    with ServiceProcess(workspace, models) as running:
        yield running


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error code."""
    return answer.status_code, answer.json()["error"]["code"]


def lines_of(client: httpx.Client, said: str, each: Callable[[int], None]) -> list[Any]:
    """The data of a stream's events; ``each`` is told how many there are so far."""
    found: list[Any] = []
    with client.stream("POST", URL, json=chat(said, stream=True)) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
                each(len(found))
    return found


def verifies(cli: Cli, service: ServiceProcess, state: str) -> None:
    """The audit log is in this state and whole."""
    done = cli("audit", "verify", "--workspace", service.workspace.root, "--json")
    assert (done.code, done.json["verified"], done.json["state"]) == (0, True, state), done.err


def test_an_engine_that_is_killed_breaks_streams_off_and_comes_back(
    service: ServiceProcess, models: ModelServer, cli: Cli
) -> None:
    """SIGKILL inside a stream: an error event and no end; then 503, not ready, and well again."""

    def kill(count: int) -> None:
        if count == 12:
            models.kill()

    with service.client() as client:
        events = lines_of(client, "say 500", kill)
        assert events[-1]["error"]["code"] == "engine_unavailable"
        assert len(events) >= 12
        assert code_of(client.post(URL, json=chat("say 3")))[0] == 503
        until(lambda: client.get("/readyz").json()["checks"]["engine"] == "failed")
        models.start()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(URL, json=chat("say 3")).status_code == 200
    assert service.end() == 0
    found = phases(service.calls())
    assert found["started", "ok"] == found["ended", "engine_unavailable"] == 1
    assert found["answered", "ok"] == 1
    (broken,) = [entry.data for entry in service.calls() if entry.data["phase"] == "ended"]
    assert 8 <= broken["completion_tokens"] < 500
    verifies(cli, service, "closed")


def test_an_engine_that_hangs_ends_in_its_time_and_holds_nobody_up(
    service: ServiceProcess,
) -> None:
    """Silence before and inside an answer ends after ``read_seconds``; nothing is sent twice."""
    with service.client() as client, ThreadPoolExecutor() as pool:
        begin = time.monotonic()
        hanging = pool.submit(client.post, URL, json=chat("hang"))
        stalled = pool.submit(lines_of, client, "stall", lambda _: None)
        assert client.post(URL, json=chat("say 3")).status_code == 200
        assert time.monotonic() - begin < 1.0 or not hanging.done()
        assert code_of(hanging.result()) == (503, "engine_unavailable")
        events = stalled.result()
        assert events[-1]["error"]["code"] == "engine_unavailable"
        assert time.monotonic() - begin < 20
    assert service.end() == 0
    assert phases(service.calls()) == {
        ("answered", "ok"): 1,
        ("answered", "engine_unavailable"): 1,
        ("started", "ok"): 1,
        ("ended", "engine_unavailable"): 1,
    }


def test_a_locked_database_holds_up_what_writes_to_it_and_loses_nothing(
    service: ServiceProcess, cli: Cli
) -> None:
    """Keys and promotions are read past another's lock; an audit entry waits until it is let go."""
    read = (service.workspace.service / "keys.db", channels_place(service.workspace))
    with service.client() as client, ThreadPoolExecutor(8) as pool:

        def ask() -> list["Future[httpx.Response]"]:
            return [pool.submit(client.post, URL, json=chat("say 1")) for _ in range(8)]

        for path in read:
            with locked(path):
                assert [each.result().status_code for each in ask()] == [200] * 8
        with locked(service.workspace.audit):
            waiting = ask()
            time.sleep(1.0)  # several times what a call takes: that none is answered is the point
            assert not any(each.done() for each in waiting)
            assert client.get("/healthz").status_code == 200
        assert [each.result().status_code for each in waiting] == [200] * 8
    assert service.end() == 0
    assert phases(service.calls()) == {("answered", "ok"): 24}
    verifies(cli, service, "closed")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process's write lock, from here."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_full_disk_answers_nothing_and_a_restart_goes_on(
    service: ServiceProcess, models: ModelServer, cli: Cli
) -> None:
    """No entry, no answer: 503 for new calls, an error instead of an end for streams under way."""
    full = threading.Event()
    go_on = threading.Event()

    def fill(count: int) -> None:
        if count == 5:
            full.set()
            assert go_on.wait(30)

    with service.client() as client, ThreadPoolExecutor() as pool:
        answered = client.post(URL, json=chat("say 2"))
        under_way = pool.submit(lines_of, client, "say 100", fill)
        assert full.wait(30)
        with full_disk(service.pid):
            go_on.set()
            refused = client.post(URL, json=chat("say 2"))
            events = under_way.result()
            ready = client.get("/readyz")
        after = client.post(URL, json=chat("say 2"))
    assert answered.status_code == 200
    assert code_of(refused) == (503, "audit_unavailable")
    assert "word" not in refused.text
    assert events[-1]["error"]["code"] == "audit_unavailable"
    assert "[DONE]" not in events
    assert (ready.status_code, ready.json()["checks"]["audit"]) == (503, "failed")
    # Whether the file took what failed is not known, so this process writes it no more.
    assert code_of(after) == (503, "audit_unavailable")
    assert service.end() == 0
    verifies(cli, service, "crashed")
    assert phases(service.calls()) == {("answered", "ok"): 1, ("started", "ok"): 1}
    with ServiceProcess(service.workspace, models) as again, again.client() as client:
        assert client.post(URL, json=chat("say 2")).status_code == 200
        assert again.end() == 0
    verifies(cli, again, "closed")


class Load:
    """Many streams at once against a service, each as far as it came."""

    def __init__(self, service: ServiceProcess, streams: int, said: str) -> None:
        self.running = threading.Semaphore(0)
        self.ends: list[str] = []
        self._client = service.client()
        self._lock = threading.Lock()
        self._streams = streams
        self._threads = [threading.Thread(target=self._one, args=(said,)) for _ in range(streams)]
        for thread in self._threads:
            thread.start()

    def all_run(self) -> None:
        """Every stream has begun to say something."""
        for _ in range(self._streams):
            assert self.running.acquire(timeout=60)

    def wait(self) -> list[str]:
        """How each ended: ``[DONE]``, the code of an error, or ``cut``."""
        for thread in self._threads:
            thread.join(60)
        self._client.close()
        return self.ends

    def _one(self, said: str) -> None:
        end = "cut"
        try:
            events = lines_of(self._client, said, self._count)
            last = events[-1]
            end = last if isinstance(last, str) else last.get("error", {}).get("code", "cut")
        except httpx.HTTPError:
            pass
        with self._lock:
            self.ends.append(end)

    def _count(self, count: int) -> None:
        if count == 3:
            self.running.release()


def test_sigterm_under_load_ends_every_stream_whole(
    workspace: Workspace, models: ModelServer, cli: Cli
) -> None:
    """What has begun ends with ``[DONE]``, what is new gets 503, and the log closes complete."""
    options = {"drain_seconds": 30.0, "concurrent_generations": 24}
    with ServiceProcess(workspace, models, **options) as service:
        load = Load(service, 24, "say 100")
        load.all_run()
        with service.client() as client:
            assert client.get("/readyz").status_code == 200  # a connection from before
            service.send(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503)
            assert code_of(client.post(URL, json=chat("say 1"))) == (503, "shutting_down")
        assert load.wait() == ["[DONE]"] * 24
        assert service.wait() == 0
    assert phases(service.calls()) == {
        ("started", "ok"): 24,
        ("ended", "ok"): 24,
        ("answered", "shutting_down"): 1,
    }
    verifies(cli, service, "closed")


def test_a_drain_that_is_too_short_cuts_off_and_records_that(
    workspace: Workspace, models: ModelServer, cli: Cli
) -> None:
    """Whole answers and streams are told so, and recorded with what they used until then."""
    options = {"drain_seconds": 0.2, "concurrent_generations": 12}
    with ServiceProcess(workspace, models, **options) as service, service.client() as client:
        with ThreadPoolExecutor(4) as pool:
            whole = [pool.submit(client.post, URL, json=chat("say 2000")) for _ in range(4)]
            load = Load(service, 8, "say 2000")
            load.all_run()
            assert service.end(signal.SIGTERM) == 0
        assert [code_of(each.result()) for each in whole] == [(503, "shutting_down")] * 4
        assert load.wait() == ["shutting_down"] * 8
    assert phases(service.calls()) == {
        ("answered", "aborted"): 4,
        ("started", "ok"): 8,
        ("ended", "aborted"): 8,
    }
    ends = [entry.data for entry in service.calls() if entry.data["outcome"] == "aborted"]
    assert all(data["completion_tokens"] > 0 for data in ends)
    verifies(cli, service, "closed")


def test_a_service_that_is_killed_has_recorded_all_that_it_answered(
    workspace: Workspace, models: ModelServer, cli: Cli
) -> None:
    """SIGKILL under load: each answer and each begun stream is in the log, and a restart goes on."""
    answered: list[int] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not stop.is_set():
            try:
                answer = client.post(URL, json=chat("say 1"))
            except httpx.HTTPError:
                return
            answered.append(int(answer.headers["x-intramural-audit-index"]))

    with ServiceProcess(workspace, models, concurrent_generations=16) as service:
        load = Load(service, 4, "say 2000")
        load.all_run()
        with service.client() as client:
            askers = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
            for asker in askers:
                asker.start()
            until(lambda: len(answered) >= 12)
            assert service.end(signal.SIGKILL) == -signal.SIGKILL
            stop.set()
            for asker in askers:
                asker.join(60)
        assert load.wait() == ["cut"] * 4
    verifies(cli, service, "crashed")
    found = phases(service.calls())
    assert found["started", "ok"] == 4
    assert found["answered", "ok"] >= len(answered)
    with ServiceProcess(workspace, models) as again, again.client() as client:
        index = int(client.post(URL, json=chat("say 1")).headers["x-intramural-audit-index"])
        assert index > max(answered)
        assert again.end() == 0
    verifies(cli, again, "closed")


def test_the_log_of_a_failing_service_has_no_text(
    service: ServiceProcess, models: ModelServer
) -> None:
    """Whatever fails, neither a prompt nor an answer is in what the process writes."""
    secret = "Ottoline"
    with service.client() as client:
        client.post(URL, json=chat("hang", user=secret))
        models.kill()
        client.post(URL, json=chat(f"say 3 {secret}"))
        with full_disk(service.pid):
            client.post(URL, json=chat(f"say 3 {secret}"))
    assert service.end() == 0
    assert "POST /v1/chat/completions 503" in service.log
    assert secret not in service.log
    assert "Traceback" not in service.log
