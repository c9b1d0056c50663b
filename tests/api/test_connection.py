"""Real sockets: slow, cut, oversized and malformed requests, TLS and client certificates."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.server import BackgroundServer
from tests.api.service_kit import POLICY, Factory, Service

CHAT = {"model": "intramural", "messages": [{"role": "user", "content": "hi"}]}


@contextmanager
def serving(service: Service) -> Iterator[BackgroundServer]:
    """The service behind a real socket."""
    with BackgroundServer(service.app, settings=service.app.state.services.settings) as server:
        yield server


@contextmanager
def connection(server: BackgroundServer) -> Iterator[socket.socket]:
    """A raw connection."""
    url = httpx.URL(server.base_url)
    with socket.create_connection((url.host, url.port), timeout=20) as raw:
        yield raw


def answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """What comes until the other side hangs up: status, headers and body."""
    data = b""
    while chunk := raw.recv(65_536):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), headers, body


def head(service: Service, method: str = "POST", path: str = "/v1/chat/completions") -> str:
    """The beginning of a good request."""
    return (
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: Bearer {service.tokens['app']}\r\ncontent-type: application/json\r\n"
    )


@pytest.mark.parametrize(
    "start", ["", "POST /v1/chat", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "]
)
def test_a_head_that_does_not_arrive_ends_with_408(make_service: Factory, start: str) -> None:
    """A client that sends nothing, or half of a head, is answered and cut off in time."""
    service = make_service(header_seconds=0.2)
    with serving(service) as server, connection(server) as raw:
        began = time.monotonic()
        raw.sendall(start.encode())
        status, headers, body = answer(raw)
        assert status == 408
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["code"] == "header_timeout"
        assert time.monotonic() - began < 10


def test_trickled_heads_get_no_more_time(make_service: Factory) -> None:
    """One byte now and then does not keep a connection open (slowloris)."""
    service = make_service(header_seconds=0.3)
    with serving(service) as server, connection(server) as raw:
        raw.settimeout(0.05)
        began = time.monotonic()
        raw.sendall(b"GET /healthz HTTP/1.1\r\n")
        while True:
            try:
                if raw.recv(1):
                    break
            except TimeoutError:
                raw.sendall(b"x: y\r\n")
            assert time.monotonic() - began < 10


def test_a_body_that_does_not_arrive_ends_with_408(make_service: Factory) -> None:
    """So does a body that was announced and never sent; the call is recorded."""
    service = make_service(body_seconds=0.2)
    with serving(service) as server, connection(server) as raw:
        raw.sendall((head(service) + "content-length: 50\r\n\r\n{").encode())
        status, _, body = answer(raw)
    assert status == 408
    assert json.loads(body)["error"]["code"] == "body_timeout"
    assert service.entries()[-1].data["outcome"] == "body_timeout"


def test_chunks_are_counted(make_service: Factory) -> None:
    """A chunked body is refused once it passes the bound, not when it ends."""
    service = make_service(max_body_bytes=4096)
    with serving(service) as server, connection(server) as raw:
        raw.sendall((head(service) + "transfer-encoding: chunked\r\n\r\n").encode())
        for _ in range(5):
            raw.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        status, _, body = answer(raw)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "body_too_large"
    assert service.echo.seen == []


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "endless"])
def test_large_heads_are_refused(make_service: Factory, whole: bool) -> None:
    """Headers beyond their bound get 431, whether or not they ever end."""
    service = make_service(max_header_bytes=2048)
    with serving(service) as server, connection(server) as raw:
        end = "\r\n\r\n" if whole else ""
        raw.sendall(f"GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {'y' * 3000}{end}".encode())
        status, _, body = answer(raw)
    assert status == 431
    assert json.loads(body)["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/redact HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /v1/redact HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        (
            b"POST /v1/redact HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
    ],
)
def test_what_is_no_http_is_an_error_body(service: Service, text: bytes) -> None:
    """Malformed HTTP and smuggling attempts get 400 in OpenAI's shape, and the service goes on."""
    with serving(service) as server:
        with connection(server) as raw:
            raw.sendall(text)
            status, headers, body = answer(raw)
        assert status == 400
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
        assert httpx.get(f"{server.base_url}/healthz").status_code == 200


def test_connections_have_a_bound(make_service: Factory) -> None:
    """One connection too many gets 503 with Retry-After; a closed one makes room."""
    service = make_service(connections=2)
    with serving(service) as server:
        with connection(server) as first, connection(server) as second:
            for raw in (first, second):
                raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert raw.recv(65_536).startswith(b"HTTP/1.1 200")
            with connection(server) as third:
                status, headers, body = answer(third)
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body)["error"]["code"] == "overloaded"
        deadline = time.monotonic() + 20
        while httpx.get(f"{server.base_url}/healthz").status_code != 200:
            assert time.monotonic() < deadline


def test_a_client_that_does_not_read_is_cut_off(make_service: Factory) -> None:
    """A stream whose reader stalls ends in time, and is recorded with what it used."""
    service = make_service(
        write_seconds=0.3, policy_text=POLICY.replace("max_tokens = 200", "max_tokens = 100000")
    )
    service.echo._reply = lambda said: "word " * 30_000
    service.echo._piece = 600
    service.echo.context_length = 1_000_000
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 90_000})
    with serving(service) as server:
        server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with connection(server) as raw:
            raw.sendall((head(service) + f"content-length: {len(body)}\r\n\r\n{body}").encode())
            deadline = time.monotonic() + 60
            while len(service.entries()) < 2:
                assert time.monotonic() < deadline
    last = service.entries()[-1].data
    assert (last["phase"], last["outcome"]) == ("ended", "client_stalled")
    assert 0 < last["completion_tokens"] < 60_000


def test_a_cut_connection_is_recorded_with_what_was_used(service: Service) -> None:
    """A caller who leaves in the middle of a stream still has an end entry with its tokens."""
    body = json.dumps(
        {
            "model": "intramural",
            "stream": True,
            "messages": [{"role": "user", "content": "w " * 90}],
        }
    )
    with serving(service) as server, connection(server) as raw:
        raw.sendall((head(service) + f"content-length: {len(body)}\r\n\r\n{body}").encode())
        assert raw.recv(200).startswith(b"HTTP/1.1 200")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    phases = [entry.data["phase"] for entry in service.entries()]
    assert phases == ["started", "ended"]
    assert service.entries()[-1].data["prompt_tokens"] > 0


@pytest.mark.parametrize("trusted", [False, True])
def test_forwarded_addresses_count_only_from_trusted_proxies(
    make_service: Factory, trusted: bool
) -> None:
    """X-Forwarded-For moves nobody into a network unless the proxy is named in the settings."""
    from api.keys_scope import Scope

    service = make_service(trusted_proxies=("127.0.0.0/8",) if trusted else ())
    token, _ = service.keys.create("near", "app", scope=Scope.of(networks=["10.2.0.0/16"]))
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "10.2.3.4"}
    with serving(service) as server:
        status = httpx.get(f"{server.base_url}/v1/models", headers=headers).status_code
    assert status == (200 if trusted else 401)
    if not trusted:
        assert service.entries()[-1].data["outcome"] == "key_origin"


# --- client certificates --------------------------------------------------------------------------


class Authority:
    """Issues certificates for tests."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._self = self._signed(self._name, self._key.public_key(), (), ca=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._self.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *alternatives: x509.GeneralName) -> tuple[Path, Path]:
        """Certificate and key files of a subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        certificate = self._signed(subject, key.public_key(), alternatives, ca=False)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _signed(self, subject: x509.Name, public: Any, alternatives: Any, *, ca: bool) -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        if not ca:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        return builder.sign(self._key, hashes.SHA256())


CERTIFIED = (
    POLICY
    + """
[principals.crm]
role = "app"
certificates = ["URI:spiffe://example.org/crm"]
[principals.erp]
role = "node"
certificates = ["CN=erp,O=Example"]
"""
)


def test_a_client_certificate_is_a_principal(make_service: Factory, tmp_path: Path) -> None:
    """Verified by TLS, mapped by the policy; another authority's or a foreign name opens nothing."""
    import ipaddress

    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    server_files = ours.issue("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    spiffe = x509.UniformResourceIdentifier("spiffe://example.org/crm")
    clients = {
        "crm": ours.issue("crm", spiffe),
        "erp": ours.issue("erp"),
        "stranger": ours.issue("stranger"),
        "forged": others.issue("crm2", spiffe),
    }
    service = make_service(
        policy_text=CERTIFIED,
        tls={
            "certificate": str(server_files[0]),
            "key": str(server_files[1]),
            "client_ca": str(ours.file),
        },
    )

    def ask(server: BackgroundServer, who: str | None, path: str, key: str = "") -> httpx.Response:
        context = ssl.create_default_context(cafile=str(ours.file))
        if who is not None:
            context.load_cert_chain(*clients[who])
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(verify=context) as client:
            return client.get(f"{server.base_url}{path}", headers=headers)

    with serving(service) as server:
        assert server.base_url.startswith("https://")
        good = ask(server, "crm", "/v1/models")
        assert good.status_code == 200
        assert "max-age" in good.headers["strict-transport-security"]
        assert service.entries()[-1].data["principal"] == "crm"
        assert ask(server, "crm", "/v1/budgets").status_code == 403
        assert ask(server, "erp", "/v1/models").status_code == 200
        assert service.entries()[-1].data["role"] == "node"
        assert ask(server, "stranger", "/v1/models").status_code == 401
        assert ask(server, None, "/v1/models").status_code == 401
        assert ask(server, None, "/v1/models", service.tokens["app"]).status_code == 200
        assert ask(server, "stranger", "/v1/models", service.tokens["app"]).status_code == 200
        mixed = ask(server, "crm", "/v1/models", service.tokens["app"])
        assert mixed.status_code == 401
        assert service.entries()[-1].data["outcome"] == "certificate_mismatch"
        with pytest.raises(httpx.HTTPError):
            ask(server, "forged", "/v1/models")
