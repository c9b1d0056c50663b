"""What hub and node say to each other when a department joins: the token and the signed statements.

The enrolment token carries the digest of the hub's CA, so that already the first connection is
authenticated: nothing is trusted on first use. Every statement names its type inside the signed
bytes. The module knows neither sockets nor files.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import CanonicalError, KeyUnusable, PrivacyError, SignatureInvalid
from privacy.signing import SigningKey, VerifyKey, decode_base64

Code = Literal[
    "malformed",
    "signature_invalid",
    "clock_skew",
    "token_unknown",
    "token_used",
    "token_expired",
    "department_taken",
    "key_taken",
    "unknown_department",
    "certificate_expired",
    "certificate_invalid",
    "not_enrolled",
    "too_many_attempts",
    "unavailable",
]
Name = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z")]
Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]

PATH = "/v1/fleet/enrolment"
"""Where the hub's join service answers, below its address."""

MAX_SKEW = 300.0
"""Seconds that the clocks of hub and node may differ; Flower signs with the time as well."""

MAX_BODY = 1 << 20
_PREFIX = "imj_"
_SECRET = 16
_DIGEST = 32


class JoinRefused(PrivacyError):
    """A step of joining was refused.

    Attributes:
        code: for programs, one of :data:`Code`.
        retry_after: seconds after which another attempt makes sense, where that is known.
    """

    def __init__(self, code: Code, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.retry_after = retry_after


@dataclass(frozen=True)
class EnrolmentToken:
    """A secret of 128 bits, good for one department once, and the SHA-256 of the hub's CA."""

    secret: bytes
    ca: bytes

    @classmethod
    def draw(cls, ca: bytes) -> Self:
        """A new token from the operating system's random source; ``ca``: 32 bytes."""
        return cls(secrets.token_bytes(_SECRET), ca)

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, hexadecimal: all that the hub keeps of it."""
        return hashlib.sha256(self.secret).hexdigest()

    def text(self) -> str:
        """The token as it is handed over."""
        return _PREFIX + base64.urlsafe_b64encode(self.secret + self.ca).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`text` wrote.

        Raises:
            JoinRefused: code ``token_unknown`` for any other text.
        """
        try:
            raw = base64.urlsafe_b64decode(text.strip().removeprefix(_PREFIX))
        except ValueError:
            raw = b""
        if not text.strip().startswith(_PREFIX) or len(raw) != _SECRET + _DIGEST:
            raise JoinRefused(
                "token_unknown",
                f"this is no enrolment token: one begins with {_PREFIX} and has "
                f"{len(_PREFIX) + 4 * (_SECRET + _DIGEST) // 3} characters. Copy it again, or ask "
                "the hub's operator for a new one with `intramural hub invite`",
            )
        return cls(raw[:_SECRET], raw[_SECRET:])


def ca_fingerprint(pem: bytes) -> bytes:
    """SHA-256 over the DER form of the certificates of a PEM file, in their order; 32 bytes.

    Raises:
        JoinRefused: code ``certificate_invalid``; the text holds no certificate.
    """
    try:
        certificates = load_pem_x509_certificates(pem)
    except ValueError:
        raise JoinRefused("certificate_invalid", "the hub sent no CA certificate in PEM") from None
    return hashlib.sha256(
        b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    ).digest()


class _Statement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: ClassVar[str]


class JoinRequest(_Statement):
    """A node asks to be enrolled; signed with its receipt key.

    Attributes:
        department, token: for whom the token was issued, and the token.
        flower_key: the node's public P-384 key for Flower, in OpenSSH's form.
        code_digest, policy_digest: what the node runs and follows.
        clock: the node's UTC time, RFC 3339.
    """

    kind: ClassVar[str] = "intramural/join"

    department: Name
    token: str = Field(max_length=200)
    flower_key: str = Field(max_length=1000)
    code_digest: Digest
    policy_digest: Digest | None
    clock: str = Field(max_length=40)


class NodeReport(_Statement):
    """An enrolled node says that it is there and what it runs; signed with its receipt key.

    ``leaving``: it asks to be removed from the hub's list.
    """

    kind: ClassVar[str] = "intramural/node-report"

    department: Name
    code_digest: Digest
    policy_digest: Digest | None
    clock: str = Field(max_length=40)
    leaving: bool = False


class RunAccount(_Statement):
    """Somebody who may sign run manifests: name and public Ed25519 key."""

    kind: ClassVar[str] = "intramural/run-account"

    name: Name
    key: str = Field(max_length=100)


class HubBundle(_Statement):
    """What a node must know of its hub; signed with the hub's key.

    Attributes:
        hub, department, node_id: who speaks to whom; the node id of Flower, decimal.
        superlink: ``host:port`` that the node's SuperNode connects to.
        accounts: whose run manifests the hub accepts. The node may trust fewer.
        policy_digest: SHA-256 of the policy file that the hub plans under.
        policy, policy_suffix: that file and the ending of its name; only in the answer to joining.
        online: whether Flower sees the node connected, None where that is not known.
        certificate_expires, issued: UTC times, RFC 3339.
    """

    kind: ClassVar[str] = "intramural/hub"

    hub: Name
    department: Name
    node_id: str = Field(pattern=r"\A[0-9]{1,20}\z")
    superlink: str = Field(max_length=300)
    accounts: Annotated[tuple[RunAccount, ...], Field(max_length=1000, strict=False)]
    policy_digest: Digest | None
    policy: str | None = None
    policy_suffix: Literal[".toml", ".yaml", ".yml"] | None = None
    online: bool | None = None
    certificate_expires: str = Field(max_length=40)
    issued: str = Field(max_length=40)

    def trusted(self) -> dict[str, VerifyKey]:
        """The accounts' keys by name.

        Raises:
            KeyUnusable: one is malformed.
        """
        return {account.name: VerifyKey.parse(account.key) for account in self.accounts}


S = TypeVar("S", bound=_Statement)


def seal(statement: _Statement, key: SigningKey) -> bytes:
    """The statement with ``key``'s signature, as :func:`unseal` reads it."""
    body = _body(statement, key.verify_key)
    signature = base64.b64encode(key.sign(canonical_json(body))).decode()
    return canonical_json(body | {"signature": signature})


def unseal(kind: type[S], data: bytes, key: VerifyKey | None = None) -> tuple[S, VerifyKey]:
    """A statement of this kind and the key that signed it; ``key``: the only one accepted.

    Raises:
        JoinRefused: ``malformed`` names the faulty fields, never their values;
            ``signature_invalid`` where the signature or the signer is another.
    """
    try:
        value = parse_canonical(data)
        if not isinstance(value, dict) or set(value) != {"type", "statement", "key", "signature"}:
            raise JoinRefused("malformed", "a statement has a type, a key and a signature")
        if value["type"] != kind.kind:
            raise JoinRefused("malformed", f"the statement is no {kind.kind}")
        signer = VerifyKey.parse(str(value["key"]))
        statement = kind.model_validate_json(canonical_json(value["statement"]))
        signature = decode_base64(str(value.pop("signature")), SignatureInvalid, "signature")
        signer.verify(signature, canonical_json(value))
    except ValidationError as error:
        faults = ", ".join(
            sorted({".".join(map(str, fault["loc"])) or "statement" for fault in error.errors()})
        )
        raise JoinRefused("malformed", f"{kind.kind}: unusable fields: {faults}") from None
    except (CanonicalError, KeyUnusable) as error:
        raise JoinRefused("malformed", f"{kind.kind}: {error}") from None
    except SignatureInvalid as error:
        raise JoinRefused("signature_invalid", f"{kind.kind}: {error}") from None
    if key is not None and signer != key:
        raise JoinRefused(
            "signature_invalid",
            f"{kind.kind} was signed by key {signer.key_id}, not by {key.key_id}",
        )
    return statement, signer


def now_text() -> str:
    """The UTC time as statements carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_clock(clock: str, now: datetime) -> None:
    """Return when a node's clock agrees with the hub's to :data:`MAX_SKEW`.

    Raises:
        JoinRefused: ``clock_skew`` with the difference, ``malformed`` for no time at all.
    """
    try:
        apart = (datetime.fromisoformat(clock) - now).total_seconds()
    except (ValueError, TypeError):
        raise JoinRefused("malformed", "the statement's clock is no UTC time") from None
    if abs(apart) > MAX_SKEW:
        raise JoinRefused(
            "clock_skew",
            f"the node's clock is {_span(abs(apart))} {'ahead of' if apart > 0 else 'behind'} the "
            f"hub's; at most {MAX_SKEW / 60:g} minutes are allowed. Set the clock, best by NTP, "
            "and try again",
        )


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def _body(statement: _Statement, key: VerifyKey) -> dict[str, object]:
    return {
        "type": statement.kind,
        "statement": statement.model_dump(mode="json"),
        "key": key.public_text(),
    }
