"""Signed tree heads in the formats of C2SP: tlog-checkpoint inside a signed-note.

Sources: c2sp.org/tlog-checkpoint, c2sp.org/signed-note. A note is::

    <origin>
    <size, decimal>
    <root hash, base64>
    <empty line>
    — <key name> <base64 of 4-byte key hash and Ed25519 signature>

The key name is the origin.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Self

from privacy.errors import AuditError, SignatureInvalid
from privacy.signing import SIGNATURE_LENGTH, SigningKey, VerifyKey, decode_base64

_ALGORITHM = b"\x01"  # Ed25519 in signed-note's table
_HASH_LENGTH = 4
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]{0,199}")


def key_hash(name: str, key: VerifyKey) -> bytes:
    """The 4 bytes by which a note names a key: SHA-256(name, newline, 0x01, public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + _ALGORITHM + key.raw).digest()[:_HASH_LENGTH]


def verifier_text(name: str, key: VerifyKey) -> str:
    """The key in signed-note's own encoding, ``<name>+<hash>+<base64>``, for other tools."""
    encoded = base64.b64encode(_ALGORITHM + key.raw).decode()
    return f"{name}+{key_hash(name, key).hex()}+{encoded}"


def sign_note(text: str, name: str, key: SigningKey) -> str:
    """A signed note over ``text``, which must end with a newline."""
    signature = base64.b64encode(key_hash(name, key.verify_key) + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {signature}\n"


def open_note(note: str, name: str, key: VerifyKey) -> str:
    """The text of a note that holds exactly one signature: ``key``'s, under ``name``.

    Raises:
        AuditError: malformed, of another key, or changed.
    """
    text, separator, tail = note.rpartition("\n\n")
    prefix = f"\u2014 {name} "
    if not separator or not tail.startswith(prefix) or not tail.endswith("\n"):
        raise AuditError(f"the checkpoint carries no signature line of {name!r}")
    raw = decode_base64(tail[len(prefix) : -1], AuditError, "the checkpoint's signature")
    if len(raw) != _HASH_LENGTH + SIGNATURE_LENGTH or raw[:_HASH_LENGTH] != key_hash(name, key):
        raise AuditError(f"the checkpoint was signed by another key than {key.key_id}")
    text += "\n"
    try:
        key.verify(raw[_HASH_LENGTH:], text.encode())
    except SignatureInvalid as error:
        raise AuditError(f"checkpoint: {error}") from None
    return text


@dataclass(frozen=True)
class Checkpoint:
    """A tree head: the log's origin, its size in leaves, its root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.origin):
            raise AuditError(
                f"origin={self.origin!r} must be like 'example.org/log': letters, digits, './_-'"
            )

    def sign(self, key: SigningKey) -> str:
        """The signed note."""
        encoded = base64.b64encode(self.root).decode()
        return sign_note(f"{self.origin}\n{self.size}\n{encoded}\n", self.origin, key)

    @classmethod
    def open(cls, note: str, origin: str, key: VerifyKey) -> Self:
        """Verify a signed checkpoint of the log ``origin``.

        Raises:
            AuditError: malformed, of another log or key, or changed.
        """
        lines = open_note(note, origin, key).split("\n")
        if len(lines) != 4 or lines[0] != origin or lines[3]:
            raise AuditError(f"this is no checkpoint of the log {origin!r}")
        size = lines[1]
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
            raise AuditError("the checkpoint's size is no decimal number")
        root = decode_base64(lines[2], AuditError, "the checkpoint's root")
        if len(root) != hashlib.sha256().digest_size:
            raise AuditError("the checkpoint's root has not 32 bytes")
        return cls(origin, int(size), root)
