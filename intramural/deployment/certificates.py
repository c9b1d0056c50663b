"""The hub's own certificate authority, and the certificates that it is given instead.

The authority may only sign for the names and addresses of this hub (name constraints, RFC 5280,
section 4.2.1.10): whoever stole its key could impersonate the hub, and nobody else.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from intramural.errors import IntramuralError

SERVER_DAYS = 825
CA_DAYS = 3650
WARN_DAYS = 30
LOCAL = ("localhost", "127.0.0.1")
_BACKDATED = timedelta(days=1)
"""A node whose clock is behind is told of its clock, not of a certificate that is not valid yet."""


class CertificateUnusable(IntramuralError):
    """A certificate or its key cannot serve the hub."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_ca(hub: str, names: Sequence[str], now: datetime | None = None) -> Issued:
    """A self-signed authority (EC P-256) that may sign for ``names`` and this machine alone."""
    moment = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intramural"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{hub} CA"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _BACKDATED)
        .not_valid_after(moment + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.NameConstraints(_subtrees(names), None), critical=True)
        .sign(key, SHA256())
    )
    return _pem(certificate, key)


def make_server(ca: Issued, names: Sequence[str], now: datetime | None = None) -> Issued:
    """A server certificate for ``names`` (host names and addresses) and this machine, 825 days.

    Raises:
        CertificateUnusable: the authority may not sign for one of the names.
    """
    moment = now or datetime.now(UTC)
    authority = x509.load_pem_x509_certificate(ca.certificate)
    signer = load_pem_private_key(ca.key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise CertificateUnusable("the CA's key is no EC key; make the hub's CA anew")
    allowed = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    wanted = list(dict.fromkeys([*LOCAL, *names]))
    permitted = {_text(name) for name in allowed.permitted_subtrees or ()}
    beyond = [name for name in wanted if name not in permitted]
    if beyond:
        raise CertificateUnusable(
            f"the hub's CA may not sign for {', '.join(beyond)}, only for "
            f"{', '.join(sorted(permitted))}; a hub with other names needs a new home, which its "
            "nodes join anew"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[-1][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _BACKDATED)
        .not_valid_after(min(moment + timedelta(days=SERVER_DAYS), authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in wanted]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(builder.sign(signer, SHA256()), key)


def check_given(certificate: Path, key: Path, ca: Path, inside: str) -> tuple[Issued, bytes]:
    """A certificate from elsewhere with its key, and its CA; all PEM.

    ``inside``: the address by which the hub's own processes reach each other.

    Raises:
        CertificateUnusable: they do not belong together, are not readable, or have expired.
    """
    try:
        texts = [path.read_bytes() for path in (certificate, key, ca)]
        leaf = x509.load_pem_x509_certificates(texts[0])[0]
        private = load_pem_private_key(texts[1], password=None)
        authorities = x509.load_pem_x509_certificates(texts[2])
    except OSError as error:
        raise CertificateUnusable(f"{error.filename}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise CertificateUnusable(
            f"{certificate}, {key} and {ca} must be PEM, the key without a password: {error}"
        ) from None
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*public) != leaf.public_key().public_bytes(*public):
        raise CertificateUnusable(f"{key} is not the key of {certificate}")
    chain = [*x509.load_pem_x509_certificates(texts[0])[1:], *authorities]
    if not any(_issued_by(leaf, authority) for authority in chain):
        raise CertificateUnusable(f"{certificate} was not issued by {ca}")
    if inside not in names_of(certificate):
        raise CertificateUnusable(
            f"{certificate} must be for {inside} besides, by which the hub's own processes speak to "
            "each other; or leave the hub its own certificate, and put this one on a proxy"
        )
    until = leaf.not_valid_after_utc
    if until <= datetime.now(UTC):
        raise CertificateUnusable(f"{certificate} expired at {until:%Y-%m-%d %H:%M} UTC")
    return Issued(texts[0], texts[1]), texts[2]


def expires(certificate: Path) -> datetime:
    """When the certificate of a PEM file ends, UTC.

    Raises:
        CertificateUnusable: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise CertificateUnusable(f"{certificate} cannot be read: {error}") from None


def names_of(certificate: Path) -> list[str]:
    """The host names and addresses that the certificate of a PEM file is for.

    Raises:
        CertificateUnusable: it cannot be read or names none.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise CertificateUnusable(f"{certificate} cannot be read: {error}") from None
    return [_text(name) for name in found]


def expiry_warning(until: datetime, now: datetime | None = None) -> str | None:
    """What to tell the operator in the last days of a certificate."""
    left = until - (now or datetime.now(UTC))
    if left > timedelta(days=WARN_DAYS):
        return None
    when = f"{until:%Y-%m-%d %H:%M} UTC"
    renew = "renew it with `intramural hub init --renew` and start the hub again"
    if left <= timedelta(0):
        return f"the hub's certificate expired at {when}; {renew}"
    return f"the hub's certificate expires at {when}, in {left.days} days; {renew}"


def _issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _subtrees(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_tree(name) for name in dict.fromkeys([*LOCAL, *names])]


def _tree(name: str) -> x509.GeneralName:
    address = _address(name)
    if address is None:
        return x509.DNSName(name)
    return x509.IPAddress(ipaddress.ip_network(address))


def _name(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _text(name: x509.GeneralName) -> str:
    value = name.value
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value.network_address)
    return str(value)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
