"""The hub's own authority and certificates, and those that it is given."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from intramural.deployment.certificates import (
    SERVER_DAYS,
    CertificateUnusable,
    Issued,
    check_given,
    expires,
    expiry_warning,
    make_ca,
    make_server,
    names_of,
)


def files(folder: Path, ca: Issued, server: Issued) -> tuple[Path, Path, Path]:
    """Certificate, key and CA on the disk."""
    paths = (folder / "c.crt", folder / "c.key", folder / "ca.crt")
    for path, data in zip(paths, (server.certificate, server.key, ca.certificate), strict=True):
        path.write_bytes(data)
    return paths


def handshake(folder: Path, ca: Issued, server: Issued, name: str) -> str:
    """The TLS version that a client, who trusts only this CA, agrees on with a server called so."""
    certificate, key, authority = files(folder, ca, server)
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(certificate, key)
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            there.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with context.wrap_socket(ours, server_hostname=name) as connection:
            return str(connection.version())
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "hub.example.org", "10.1.2.3"])
def test_a_client_that_trusts_the_ca_accepts_the_server(tmp_path: Path, name: str) -> None:
    """By each name that it was made for; OpenSSL itself checks names and constraints."""
    ca = make_ca("hub", ["hub.example.org", "10.1.2.3"])
    server = make_server(ca, ["hub.example.org", "10.1.2.3"])
    assert handshake(tmp_path, ca, server, name).startswith("TLSv1.")


def test_a_client_refuses_every_other_name(tmp_path: Path) -> None:
    """A certificate of the hub is nobody else's."""
    ca = make_ca("hub", ["hub.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, ca, make_server(ca, ["hub.example.org"]), "mail.example.org")


def test_the_authority_can_sign_for_its_hub_alone(tmp_path: Path) -> None:
    """Not by the name constraints in its certificate, whatever its stolen key may sign."""
    narrow, wide = make_ca("hub", []), make_ca("hub", ["bank.example.org"])
    with pytest.raises(CertificateUnusable, match=r"bank\.example\.org"):
        make_server(narrow, ["bank.example.org"])
    # A thief signs with the narrow authority's key what only the wide one may.
    loaded = x509.load_pem_x509_certificate(narrow.certificate)
    assert loaded.extensions.get_extension_for_class(x509.NameConstraints).critical
    forged = Issued(wide.certificate, narrow.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, narrow, make_server(forged, ["bank.example.org"]), "bank.example.org")


def test_it_ends_after_825_days_and_warns_30_days_before(tmp_path: Path) -> None:
    """Nothing is said before; then the date, and how to renew it."""
    ca = make_ca("hub", [])
    certificate, _, _ = files(tmp_path, ca, make_server(ca, []))
    until = expires(certificate)
    left = until - datetime.now(UTC)
    assert timedelta(days=SERVER_DAYS - 1) < left <= timedelta(days=SERVER_DAYS)
    assert expiry_warning(until) is None
    soon, late = until - timedelta(days=29), until + timedelta(seconds=1)
    assert "in 29 days" in str(expiry_warning(until, soon))
    assert "expired at" in str(expiry_warning(until, late))


def test_given_certificates_are_checked_before_they_are_used(tmp_path: Path) -> None:
    """Key, issuer, names and date must fit; each fault says which file."""
    ca, other = make_ca("hub", []), make_ca("other", [])
    server = make_server(ca, [])
    good = files(tmp_path, ca, server)
    assert check_given(*good, "127.0.0.1") == (server, ca.certificate)
    assert set(names_of(good[0])) == {"localhost", "127.0.0.1"}
    folder = tmp_path / "more"
    folder.mkdir()
    cases = [
        (ca, Issued(server.certificate, other.key), "is not the key of"),
        (other, server, "was not issued by"),
        (
            ca,
            make_server(ca, [], datetime.now(UTC) - timedelta(days=SERVER_DAYS + 2)),
            "expired at",
        ),
        (ca, Issued(b"no PEM", server.key), "must be PEM"),
    ]
    for authority, issued, fault in cases:
        with pytest.raises(CertificateUnusable, match=fault):
            check_given(*files(folder, authority, issued), "127.0.0.1")
    with pytest.raises(CertificateUnusable, match=r"must be for 10\.0\.0\.1"):
        check_given(*good, "10.0.0.1")
    with pytest.raises(CertificateUnusable, match="No such file"):
        check_given(tmp_path / "none", good[1], good[2], "127.0.0.1")
