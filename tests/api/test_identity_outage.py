"""An issuer of tokens that is gone or hangs: over real HTTP, seen from its callers and from others."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

import api.jwks
from api.server import BackgroundServer
from tests.api.service_kit import POLICY, Factory
from tests.api.test_tokens import RSA, SECTION, World


class Issuer:
    """A key set on loopback that can go away and come back."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Serve it, on the port from before."""
        keys = json.dumps({"keys": [RSA.as_dict(private=False)]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(keys)))
                self.end_headers()
                self.wfile.write(keys)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()


def policy_for(port: int, seconds: float = 1.0) -> str:
    """A policy that believes tokens by the keys at this port: for two seconds without a new look.

    ``seconds`` is the time for an answer from there.
    """
    section = SECTION.replace("https://login.example.org/keys", f"http://127.0.0.1:{port}/keys")
    bounds = f"refresh_seconds = 1\nmaximum_age_seconds = 2\ntimeout_seconds = {seconds}\n"
    return POLICY + section.replace(
        "[access.issuers.corp.roles]", f"{bounds}\n[access.issuers.corp.roles]"
    )


@pytest.fixture
def token() -> str:
    """A good one."""
    world = World()
    world.now = time.time()
    return world.token()


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Up, and asked again a tenth of a second after it failed."""
    monkeypatch.setattr(api.jwks, "_PAUSE_SECONDS", 0.1)
    made = Issuer()
    yield made
    made.stop()


def test_an_issuer_that_is_gone_shuts_out_its_callers_alone(
    make_service: Factory, issuer: Issuer, token: str
) -> None:
    """Known keys count until they are too old; then 503, recorded, while API keys go on; then back."""
    service = make_service(policy_text=policy_for(issuer.port))
    with (
        BackgroundServer(service.app) as server,
        httpx.Client(base_url=server.base_url, timeout=30) as client,
    ):

        def ask(bearer: str) -> httpx.Response:
            return client.get("/v1/models", headers={"Authorization": f"Bearer {bearer}"})

        def until(status: int) -> httpx.Response:
            end = time.monotonic() + 30
            while (answer := ask(token)).status_code != status:
                assert time.monotonic() < end
                time.sleep(0.05)
            return answer

        assert ask(token).status_code == 200
        issuer.stop()
        assert ask(token).status_code == 200
        refused = until(503)
        assert refused.json()["error"]["code"] == "identity_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        assert token not in refused.text
        assert ask(service.tokens["app"]).status_code == 200
        assert client.get("/readyz").status_code == 200
        issuer.start()
        until(200)
    outcomes = [entry.data["outcome"] for entry in service.entries()]
    assert "identity_unavailable" in outcomes
    assert all(
        entry.data["principal"] for entry in service.entries() if entry.data["outcome"] == "ok"
    )


def test_an_issuer_that_hangs_holds_up_nobody_else(make_service: Factory, token: str) -> None:
    """Of a dozen callers with tokens one waits, for as long as the policy says; others get 503 at once.

    The holder of an API key is answered meanwhile.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        service = make_service(policy_text=policy_for(silent.getsockname()[1], 5.0))
        waiting: list[httpx.Response] = []
        with (
            BackgroundServer(service.app) as server,
            httpx.Client(base_url=server.base_url, timeout=60) as client,
        ):

            def ask(bearer: str) -> httpx.Response:
                return client.get("/v1/models", headers={"Authorization": f"Bearer {bearer}"})

            threads = [
                threading.Thread(target=lambda: waiting.append(ask(token))) for _ in range(12)
            ]
            for thread in threads:
                thread.start()
            held, _ = silent.accept()  # it has been asked, and says nothing
            assert ask(service.tokens["app"]).status_code == 200
            assert len(waiting) < 12  # one still waits; the others need not
            for thread in threads:
                thread.join(60)
            held.close()
        assert [answer.status_code for answer in waiting] == [503] * 12
