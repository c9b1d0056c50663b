"""Ed25519 keys (RFC 8032): create, store, sign, verify.

One key signs several kinds of statement. They cannot be mistaken for each other, because every
signed JSON text names its ``type`` inside the signed bytes, and a checkpoint is no JSON text.
"""

import base64
import binascii
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from privacy.errors import KeyUnusable, SignatureInvalid
from privacy.files import create_exclusive, write_atomic

_PREFIX = "ed25519:"
_RAW_LENGTH = 32
SIGNATURE_LENGTH = 64


@dataclass(frozen=True)
class VerifyKey:
    """A public key: ``raw`` is its 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _RAW_LENGTH:
            raise KeyUnusable(f"an Ed25519 public key has 32 bytes, this one has {len(self.raw)}")

    @property
    def key_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the raw key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return when ``signature`` is this key's over ``data``.

        Raises:
            SignatureInvalid: in every other case.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            raise SignatureInvalid(
                f"the signature was not made by key {self.key_id} over these bytes"
            ) from None

    def public_text(self) -> str:
        """``ed25519:<base64>``, one line, to hand to others."""
        return _PREFIX + base64.b64encode(self.raw).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`public_text` wrote; surrounding white space is ignored.

        Raises:
            KeyUnusable: any other text.
        """
        text = text.strip()
        if not text.startswith(_PREFIX):
            raise KeyUnusable(f"a public key begins with {_PREFIX!r}, this text does not")
        return cls(decode_base64(text.removeprefix(_PREFIX), KeyUnusable, "public key"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a public key file.

        Raises:
            KeyUnusable: missing or malformed.
        """
        try:
            return cls.parse(Path(path).read_text(encoding="ascii"))
        except FileNotFoundError:
            raise KeyUnusable(f"no public key at {path}") from None
        except KeyUnusable as error:
            raise KeyUnusable(f"public key file {path}: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnusable(f"public key {path} cannot be read: {error}") from None

    def save(self, path: Path) -> None:
        """Write the public key file atomically."""
        write_atomic(path, self.public_text().encode() + b"\n")


class SigningKey:
    """A private key. Its bytes leave the object only into a file of mode 0600."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verify_key = VerifyKey(
            private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        )

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """The public key's id."""
        return self.verify_key.key_id

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over ``data`` (deterministic)."""
        return self._private.sign(data)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte secret for ``purpose`` (HKDF-SHA-256, RFC 5869): same key, same secret."""
        info = b"intramural " + purpose.encode()
        return HKDF(SHA256(), 32, salt=None, info=info).derive(self._private.private_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file (PKCS #8, PEM).

        Raises:
            KeyUnusable: missing, malformed, of another kind, or readable by group or others.
        """
        path = Path(path)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = path.read_bytes()
        except FileNotFoundError:
            raise KeyUnusable(f"no signing key at {path}") from None
        except OSError as error:
            raise KeyUnusable(f"signing key {path} cannot be read: {error.strerror}") from None
        if mode & 0o077:
            raise KeyUnusable(
                f"signing key {path} has mode {mode:04o}; others may have read it. "
                f"Replace it, or run `chmod 600 {path}` if you know that nobody did"
            )
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise KeyUnusable(f"{path} holds no unencrypted PEM private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyUnusable(f"{path} holds a key of another kind than Ed25519")
        return cls(private)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the key at ``path``, or create one there with mode 0600.

        Callers that race end with the same key. A crash leaves no key or a complete one.

        Raises:
            KeyUnusable: the existing file is unusable (it is never replaced).
        """
        path = Path(path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            create_exclusive(path, pem, mode=0o600)
        return cls.load(path)


def decode_base64(text: str, error: type[Exception], what: str) -> bytes:
    """Standard base64 in its one canonical spelling.

    Raises:
        error: ``text`` is not base64, or another spelling of the same bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise error(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise error(f"{what} is not in the canonical spelling of base64")
    return data
