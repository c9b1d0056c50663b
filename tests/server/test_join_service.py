"""The join service over real TLS on loopback, and the node's side of it."""

import socket
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from join_kit import CODE, Hub, Node

from client.joining import HubLink, HubUnreachable, PinnedHub, fetch_ca, join
from intramural.deployment.certificates import SERVER_DAYS
from privacy.joining import (
    MAX_BODY,
    PATH,
    EnrolmentToken,
    HubBundle,
    JoinRefused,
    NodeReport,
    now_text,
    seal,
)
from privacy.signing import SigningKey
from server.join_service import JoinService


def serve(hub: Hub, host: str = "127.0.0.1") -> JoinService:
    """The hub's service at a free port."""
    return JoinService(
        hub.desk,
        host,
        0,
        ca=hub.folder / "ca.crt",
        certificate=hub.folder / "server.crt",
        key=hub.folder / "server.key",
    )


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub in a folder of its own."""
    folder = tmp_path / "hub"
    folder.mkdir()
    return Hub(folder)


@pytest.fixture
def service(hub: Hub) -> Iterator[JoinService]:
    """That hub's join service."""
    with serve(hub) as running:
        yield running


def url(service: JoinService) -> str:
    """Where a node would find the service."""
    return f"https://127.0.0.1:{service.port}"


def test_a_node_joins_and_pins_its_hub(hub: Hub, service: JoinService, tmp_path: Path) -> None:
    """CA, key and bundle are kept, verify, and a report later brings the newest bundle."""
    node, token = Node(), hub.invite()
    pinned = PinnedHub(tmp_path)
    pinned.pin(join(url(service), token, node.request(token), node.key))
    assert pinned.read().hub == "test"
    assert set(pinned.trusted()) == {"ada"}
    assert pinned.ca.read_bytes() == (hub.folder / "ca.crt").read_bytes()
    hub.accounts = ()
    report = NodeReport(department="hr", code_digest=CODE, policy_digest=None, clock=now_text())
    pinned.report(url(service), report, node.key)
    assert pinned.trusted() == {}


def test_an_impostor_is_found_out_before_anything_is_sent(
    hub: Hub, service: JoinService, tmp_path: Path
) -> None:
    """Whoever answers in the hub's place, with a CA of its own, sees neither token nor keys."""
    (tmp_path / "other").mkdir()
    token = Hub(tmp_path / "other").invite()
    with pytest.raises(JoinRefused, match="nothing was sent") as refused:
        join(url(service), token, Node().request(token), SigningKey.generate())
    assert refused.value.code == "certificate_invalid"
    assert hub.log.entries == []


def test_a_bundle_of_another_key_than_the_pinned_is_refused(
    hub: Hub, service: JoinService, tmp_path: Path
) -> None:
    """Whoever could replace the file on the node's disk cannot make it trust other accounts."""
    node, token = Node(), hub.invite()
    pinned = PinnedHub(tmp_path)
    joined = join(url(service), token, node.request(token), node.key)
    pinned.pin(joined)
    pinned.bundle.write_bytes(seal(joined.bundle, SigningKey.generate()))
    with pytest.raises(JoinRefused) as refused:
        pinned.trusted()
    assert refused.value.code == "signature_invalid"


def test_an_expired_certificate_is_told_as_such(tmp_path: Path) -> None:
    """The node says what has expired and who renews it."""
    hub = Hub(tmp_path, certificate_made=datetime.now(UTC) - timedelta(days=SERVER_DAYS + 2))
    token, node = hub.invite(), Node()
    with serve(hub) as service, pytest.raises(JoinRefused, match="--renew") as refused:
        join(url(service), token, node.request(token), node.key)
    assert refused.value.code == "certificate_expired"


def test_a_certificate_of_the_future_is_told_as_a_clock(tmp_path: Path) -> None:
    """A clock that is days behind is what to look at, not the certificate."""
    hub = Hub(tmp_path, certificate_made=datetime.now(UTC) + timedelta(days=3))
    token, node = hub.invite(), Node()
    with serve(hub) as service, pytest.raises(JoinRefused, match="clock is behind") as refused:
        join(url(service), token, node.request(token), node.key)
    assert refused.value.code == "clock_skew"


def test_another_name_than_the_certificates_is_refused(hub: Hub) -> None:
    """An address that the certificate is not for is not talked to."""
    with serve(hub, "127.0.0.2") as service:
        link = HubLink(f"https://127.0.0.2:{service.port}", (hub.folder / "ca.crt").read_bytes())
        with pytest.raises(JoinRefused, match="another name") as refused:
            link.get("/ca")
    assert refused.value.code == "certificate_invalid"


def test_the_hubs_refusal_reaches_the_node_with_code_and_words(
    hub: Hub, service: JoinService
) -> None:
    """What the hub's desk says is what the administrator reads."""
    token = EnrolmentToken.draw(hub.fingerprint)
    with pytest.raises(JoinRefused, match="intramural hub invite hr") as refused:
        join(url(service), token, Node().request(token), SigningKey.generate())
    assert refused.value.code == "token_unknown"


def test_a_silent_connection_holds_up_nobody(hub: Hub, service: JoinService) -> None:
    """Peers that say nothing, or speak no TLS, do not keep a node from joining."""
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(30)]
    try:
        silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert fetch_ca(url(service), hub.invite()) == (hub.folder / "ca.crt").read_bytes()
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("POST /join", f"Content-Length: {MAX_BODY + 1}", 413),
        ("POST /join", "Content-Length: many", 413),
        ("POST /join", "Content-Length: 2", 400),
        ("POST /other", "Content-Length: 2", 404),
        ("GET /nothing", "", 404),
        ("GET /../../etc/passwd", "", 404),
    ],
)
def test_other_requests_are_refused_without_being_read(
    hub: Hub, service: JoinService, request_line: str, headers: str, status: int
) -> None:
    """Too long, no statement, another path: a status of its own, and no traceback."""
    method, path = request_line.split()
    context = ssl.create_default_context(cafile=str(hub.folder / "ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", service.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(f"{method} {PATH}{path} HTTP/1.1\r\n{headers}\r\n\r\n{{}}".encode())
        assert connection.recv(1000).split()[1] == str(status).encode()


def test_nobody_there_is_told_as_such() -> None:
    """A wrong port or a hub that does not run is no traceback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(HubUnreachable, match="hub start"):
        fetch_ca(f"https://127.0.0.1:{port}", EnrolmentToken.draw(bytes(32)))
    for wrong in ("http://127.0.0.1:1", "127.0.0.1:1", "https://hub/path"):
        with pytest.raises(HubUnreachable, match="must be like"):
            HubLink(wrong, None)


def test_no_name_is_looked_up(hub: Hub) -> None:
    """Starting the service and joining it asks no name server."""
    asked: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in (
            "socket.getaddrinfo",
            "socket.gethostbyname",
            "socket.gethostbyaddr",
        ):
            asked.append(str(arguments[0]))

    sys.addaudithook(watch)
    node, token = Node(), hub.invite()
    try:
        with serve(hub) as service:
            join(url(service), token, node.request(token), node.key)
    finally:
        watching = False
    assert set(asked) <= {"127.0.0.1"}


def test_a_bundle_survives_its_own_form(hub: Hub) -> None:
    """The largest node id of Flower is carried exactly."""
    bundle = HubBundle(
        hub="test",
        department="hr",
        node_id=str(2**64 - 1),
        superlink="127.0.0.1:1",
        accounts=hub.accounts,
        policy_digest=None,
        certificate_expires=now_text(),
        issued=now_text(),
    )
    assert HubBundle.model_validate_json(bundle.model_dump_json()) == bundle
