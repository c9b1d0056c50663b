"""Two replicas on one PostgreSQL and one Redis, behind a balancer: they act as one service.

Real processes all of them: two ``intramural serve`` over workspaces of their own that share keys and
secrets, a database server, a Redis, and a balancer that gives every connection to the next replica.
"""

import itertools
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from urllib.parse import urlsplit

import httpx
import pytest

from intramural.parts import open_keys
from intramural.stores import audit_place
from intramural.workspace import Workspace
from privacy.audit.log import read_log, verify_log
from privacy.signing import SigningKey, VerifyKey
from tests import redis_kit
from tests.api import service_kit
from tests.intramural import cli_kit
from tests.intramural.cli_kit import Cli
from tests.intramural.service_process import URL, ModelServer, ServiceProcess, chat, phases, until
from tests.postgres_kit import Cluster

PER_MINUTE = 30
POLICY = f"""
[roles.admin]
requests_per_minute = 100_000

[roles.app]
requests_per_minute = {PER_MINUTE}
"""


class Balancer:
    """Gives each connection to the next replica; one that refuses it is passed over."""

    def __init__(self, urls: list[str]) -> None:
        ports = [urlsplit(url).port for url in urls]
        self._next = itertools.cycle(ports)
        self._count = len(ports)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        for port in itertools.islice(self._next, self._count):
            with suppress(ConnectionRefusedError):
                replica = socket.create_connection(("127.0.0.1", port))
                break
        else:
            caller.close()
            return
        back = threading.Thread(target=_pour, args=(replica, caller), daemon=True)
        back.start()
        _pour(caller, replica)
        back.join()
        caller.close()
        replica.close()


def _pour(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@dataclass
class Pair:
    """Two replicas and the balancer before them; ``key`` is an administrator's."""

    replicas: tuple[ServiceProcess, ServiceProcess]
    workspaces: tuple[Workspace, Workspace]
    releases: tuple[str, str]
    url: str
    key: str

    def ask(self, key: str) -> httpx.Response:
        """One call through the balancer."""
        return _ask(self.url, key)

    def both(self, key: str, model: str = "intramural") -> list[httpx.Response]:
        """The same call of each replica."""
        return [_ask(replica.url, key, model) for replica in self.replicas]

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the one log, by the second replica's public key."""
        workspace = self.workspaces[1]
        key = VerifyKey.load(workspace.audit_public_key)
        return verify_log(audit_place(workspace), key).faults


def _ask(url: str, key: str, model: str = "intramural") -> httpx.Response:
    """A call over a connection of its own, so that replicas take turns."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        return client.post(URL, json={**chat("say 1"), "model": model})


@pytest.fixture(scope="module")
def pair(
    pristine: Workspace, tmp_path_factory: pytest.TempPathFactory, postgres: Cluster
) -> Iterator[Pair]:
    """Everything running, and two releases to choose from."""
    folder = tmp_path_factory.mktemp("replicas")
    first = cli_kit.copy(pristine, folder / "first")
    with (first.root / "policy.toml").open("a") as policy:
        policy.write(POLICY)
    known = next(first.releases.iterdir()).name
    other = service_kit.release(first.root, key=SigningKey.load(first.hub_key)).id
    with ExitStack() as stack:
        short = Path(tempfile.mkdtemp(prefix="im-"))  # a socket's path must be short
        stack.callback(shutil.rmtree, short)
        shared = {
            "database_url": postgres.database(),
            "redis_url": stack.enter_context(redis_kit.running(short)),
        }
        models = stack.enter_context(ModelServer())
        one = ServiceProcess(first, models, "--release", "latest", **shared)
        # Keys and secrets are files: a replica gets them with its workspace.
        second = cli_kit.copy(first, folder / "second")
        two = ServiceProcess(second, models, "--release", "latest", **shared)
        stack.enter_context(one)
        stack.enter_context(two)
        balancer = Balancer([one.url, two.url])
        stack.callback(balancer.close)
        found = Pair((one, two), (first, second), (known, other), balancer.url, one.key)
        until(lambda: [each.status_code for each in found.both(found.key)] == [200, 200])
        yield found


def new_key(pair: Pair, principal: str, role: str = "app") -> tuple[str, str]:
    """A key made over the first replica's workspace: its text and its id."""
    keys = open_keys(pair.workspaces[0])
    try:
        text, key = keys.create(principal, role)
    finally:
        keys.close()
    return text, key.id


def test_a_key_opens_both_and_revoking_it_closes_both(pair: Pair, cli: Cli) -> None:
    """A key made at one replica works at both at once; revoked at the other, it opens neither."""
    text, key_id = new_key(pair, "erp")
    assert [each.status_code for each in pair.both(text)] == [200, 200]
    done = cli("keys", "revoke", key_id, "--workspace", pair.workspaces[1].root, "--json")
    assert done.code == 0
    assert [each.status_code for each in pair.both(text)] == [401, 401]


def test_limits_hold_together(pair: Pair) -> None:
    """Twice the limit at once through the balancer: as many are let through as one service would."""
    text, _ = new_key(pair, "crowd")
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: pair.ask(text).status_code, range(2 * PER_MINUTE)))
    came_back = (time.monotonic() - begun) * PER_MINUTE / 60
    assert set(statuses) == {200, 429}
    assert PER_MINUTE <= statuses.count(200) <= PER_MINUTE + came_back + 1


def test_a_promotion_and_its_rollback_reach_both_within_a_second(pair: Pair, cli: Cli) -> None:
    """Promoted at one, served by both; rolled back at the other, by neither any more."""
    known, other = pair.releases
    roots = [workspace.root for workspace in pair.workspaces]

    def serve(release: str) -> bool:
        return [each.json().get("model") for each in pair.both(pair.key, "crm")] == [release] * 2

    assert cli("release", "promote", f"crm@{known}", "--workspace", roots[0]).code == 0
    until(lambda: serve(known))
    assert cli("release", "promote", f"crm@{other}", "--workspace", roots[1]).code == 0
    until(lambda: serve(other))  # it is loaded first
    assert cli("release", "rollback", "crm", "--workspace", roots[0]).code == 0
    begun = time.monotonic()
    until(lambda: serve(known))
    took = time.monotonic() - begun
    assert took < 1.0 + 2 * _slowness(pair), f"{took:.2f} s"


def _slowness(pair: Pair) -> float:
    """How long a call of both takes on this machine now, in seconds."""
    begun = time.monotonic()
    pair.both(pair.key)
    return time.monotonic() - begun


def test_the_log_is_one_and_misses_nothing(pair: Pair, cli: Cli) -> None:
    """Every call of both is there once, under one tree that verifies while they write."""
    key, _ = new_key(pair, "auditor", "admin")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: pair.ask(key), range(40)))
    assert [each.status_code for each in answers] == [200] * 40
    with read_log(audit_place(pair.workspaces[0])) as log:
        stored = list(log.entries())
    assert [each.index for each in stored] == list(range(len(stored)))
    mine = [each.entry for each in stored if each.entry.data.get("principal") == "auditor"]
    assert phases(mine) == {("answered", "ok"): 40}
    for workspace in pair.workspaces:
        done = cli("audit", "verify", "--workspace", workspace.root, "--json")
        assert (done.code, done.json["state"]) == (0, "served"), done.err
        assert "postgres" in json.dumps(done.json["file"])


def test_when_one_is_killed_the_other_goes_on(pair: Pair, cli: Cli) -> None:
    """SIGKILL under load: what was answered is in the log, and the balancer's callers are served."""
    key, _ = new_key(pair, "survivor", "admin")
    doomed, left = pair.replicas

    def ask(number: int) -> int:
        if number == 10:
            doomed.send(SIGKILL)
        try:
            return pair.ask(key).status_code
        except httpx.HTTPError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(60)))
    doomed.wait()
    assert set(statuses) <= {0, 200}  # what the dying one had accepted is cut off
    statuses += [ask(number) for number in range(100, 110)]
    assert statuses[-10:] == [200] * 10
    assert pair.faults() == ()
    with read_log(audit_place(pair.workspaces[1])) as log:
        mine = [s.entry for s in log.entries() if s.entry.data.get("principal") == "survivor"]
    assert phases(mine)["answered", "ok"] >= statuses.count(200)
    assert left.end() == 0
    assert pair.faults() == ()
