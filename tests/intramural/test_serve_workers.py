"""``intramural serve --workers``: several processes on one port, watched by one."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from intramural.workspace import Workspace
from tests.intramural.cli_kit import Cli, flip
from tests.intramural.service_process import URL, ModelServer, ServiceProcess, chat, phases, until


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    """A model server."""
    with ModelServer() as server:
        yield server


def two_workers(workspace: Workspace, models: ModelServer) -> ServiceProcess:
    """A service of two processes that count limits each for itself."""
    with (workspace.root / "policy.toml").open("a") as policy:
        policy.write("\n[roles.admin]\nrequests_per_minute = 100_000\n")
    return ServiceProcess(workspace, models, "--workers", "2", separate_limits=True)


def children(pid: int) -> list[int]:
    """The processes that this one started and that are alive."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def scraped(client: httpx.Client, name: str, **labels: str) -> dict[str, float]:
    """A figure by worker, as one scrape has it."""
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def answered_by(client: httpx.Client) -> dict[str, float]:
    """Chat calls by worker."""
    return scraped(client, "intramural_requests_total", operation="chat")


def both_run(service: ServiceProcess) -> None:
    """Wait until the second worker accepts requests too."""
    with service.client() as client:
        until(lambda: set(scraped(client, "process_start_time_seconds")) == {"0", "1"})


def test_workers_answer_on_one_port_and_into_one_log(
    workspace: Workspace, models: ModelServer, cli: Cli
) -> None:
    """Both answer; every call is in the one log; a scrape of either tells the figures of both."""
    with two_workers(workspace, models) as service:
        both_run(service)
        with ThreadPoolExecutor(8) as pool:

            def ask(_: int) -> int:
                with service.client() as client:  # a connection of its own
                    return client.post(URL, json=chat("say 2")).status_code

            asked = 0
            with service.client() as client:
                while set(answered_by(client)) != {"0", "1"}:
                    assert list(pool.map(ask, range(16))) == [200] * 16
                    asked += 16
                until(lambda: sum(answered_by(client).values()) == asked)
        assert service.end() == 0
    assert phases(service.calls())["answered", "ok"] >= asked
    chats = [each for each in service.calls() if each.data["operation"] == "chat"]
    assert len(chats) == asked
    done = cli("audit", "verify", "--workspace", workspace.root, "--json")
    assert (done.json["verified"], done.json["state"]) == (True, "closed")


def test_a_worker_that_dies_is_replaced(workspace: Workspace, models: ModelServer) -> None:
    """After SIGKILL of one the other answers, and a new one takes its place."""
    with two_workers(workspace, models) as service:
        both_run(service)
        victim, other = children(service.pid)
        os.kill(victim, signal.SIGKILL)
        with service.client() as client:
            until(lambda: client.get("/readyz").status_code == 200)
            assert client.post(URL, json=chat("say 2")).status_code == 200
        until(lambda: len(children(service.pid)) == 2)
        assert other in children(service.pid)
        assert victim not in children(service.pid)
        assert service.end() == 0
    assert "ended with code -9" in service.log


def test_sigterm_drains_every_worker(workspace: Workspace, models: ModelServer) -> None:
    """Streams under way end as they should; then all processes are gone and the code is 0."""
    with two_workers(workspace, models) as service, ThreadPoolExecutor(4) as pool:
        both_run(service)
        running = children(service.pid)
        begun = threading.Barrier(5)

        def stream(_: int) -> str:
            last = ""
            with (
                service.client() as client,
                client.stream("POST", URL, json=chat("say 40", stream=True)) as answer,
            ):
                for number, line in enumerate(each for each in answer.iter_lines() if each):
                    if number == 0:
                        begun.wait(60)
                    last = line
            return last

        streams = [pool.submit(stream, number) for number in range(4)]
        begun.wait(60)
        assert service.end() == 0
        assert [each.result() for each in streams] == ["data: [DONE]"] * 4
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    assert phases(service.calls())["ended", "ok"] == 4


def test_workers_end_with_a_parent_that_is_killed(
    workspace: Workspace, models: ModelServer
) -> None:
    """Nobody is left on the port."""
    with two_workers(workspace, models) as service:
        both_run(service)
        running = children(service.pid)
        service.send(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))
        service.wait()


def test_separate_limits_must_be_meant(cli: Cli, workspace: Workspace) -> None:
    """Without shared limits several workers are refused, at the start and by ``--check``."""
    options = ("--workspace", workspace.root, "--workers", "2")
    for more in ((), ("--check",)):
        done = cli("serve", *options, *more)
        assert done.code == 1
        assert "redis_url" in done.err
        assert "separate_limits" in done.err
    (workspace.root / "service.toml").write_text("separate_limits = true\n")
    assert cli("serve", *options, "--check", "--json").json["valid"]


def test_what_is_wrong_is_said_once(workspace: Workspace, models: ModelServer) -> None:
    """The first worker finds it; the service ends with its code and the others never start."""
    service = two_workers(workspace, models)
    flip(workspace.audit)
    with pytest.raises(AssertionError, match="did not start"), service:
        pass
    assert service.log.count("audit.db was changed") == 1


def test_a_database_without_shared_limits_is_refused(cli: Cli, workspace: Workspace) -> None:
    """A database lets replicas run; what they would not share must be meant. No password is told."""
    url = "postgresql://crm:hidden-word@127.0.0.1/x"
    (workspace.root / "service.toml").write_text(f"database_url = {json.dumps(url)}\n")
    done = cli("serve", "--workspace", workspace.root, "--check")
    assert done.code == 1
    assert "database_url: lets several replicas run" in done.err
    assert "hidden-word" not in done.err
