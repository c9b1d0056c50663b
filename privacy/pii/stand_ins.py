"""What is put in the place of a finding, by action; one value at a time, without memory.

``mask`` and ``redact`` tell nothing apart. ``hash``, ``pseudonym`` and ``encrypt`` follow from the
value and a key: the same value has the same stand-in in every text, process and run under that key,
and without the key none can be computed from a guess. Only ``encrypt`` can be undone, by the key.
"""

import base64
import binascii
import hmac
from typing import Any, Final

import regex
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from privacy.pii.entities import ENTITIES
from privacy.pii.finishing import normalise
from privacy.pii.surrogates import Surrogates

LEAST_KEY: Final = 16
"""Bytes of the shortest key."""

_DIGEST: Final = 16
_SHOWN: Final = 4
_TAIL: Final = frozenset(
    {
        "BANK_ACCOUNT",
        "CREDIT_CARD",
        "DRIVER_LICENSE",
        "IBAN_CODE",
        "ID_NUMBER",
        "NATIONAL_ID",
        "PASSPORT",
        "PHONE_NUMBER",
    }
)
_NAMES: Final = "|".join(sorted(ENTITIES, key=len, reverse=True))
_TOKEN: Final = regex.compile(rf"<({_NAMES})_ENC:([A-Za-z0-9_-]{{20,}})(?:\.[0-9]+)?>")


def mask(value: str, entity: str) -> str:
    """Stars for letters and digits; the last four of long numbers stay, and so does punctuation."""
    places = [i for i, character in enumerate(value) if character.isalnum()]
    shown = set(places[-_SHOWN:]) if entity in _TAIL and len(places) >= 2 * _SHOWN else set()
    return "".join(
        "*" if character.isalnum() and i not in shown else character
        for i, character in enumerate(value)
    )


class StandIns:
    """Stand-ins under one key.

    Args:
        key: at least 16 bytes; each use has a key of its own derived from it.

    Raises:
        ValueError: the key is shorter.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < LEAST_KEY:
            raise ValueError(f"the key has {len(key)} bytes, at least {LEAST_KEY} are needed")
        self._hash = hmac.digest(key, b"hash", "sha256")
        self._cipher = AESSIV(hmac.digest(key, b"encrypt", "sha512"))
        self._surrogates = Surrogates(hmac.digest(key, b"pseudonym", "sha256"))

    def digest(self, value: str, entity: str) -> str:
        """``<ENTITY_HASH:…>`` with 64 bits of a keyed digest; spelling does not matter."""
        data = f"{entity}\0{normalise(value, entity)}".encode("utf-8", "surrogatepass")
        return f"<{entity}_HASH:{hmac.digest(self._hash, data, 'sha256').hex()[:_DIGEST]}>"

    def pseudonym(self, value: str, entity: str, attempt: int = 0) -> str:
        """A realistic value of the same kind; further attempts give others."""
        return self._surrogates.make(value, entity, attempt)

    def encrypt(self, value: str, entity: str) -> str:
        """``<ENTITY_ENC:…>``: AES-SIV (RFC 5297), deterministic, bound to the kind.

        The token tells the length of the value, and which values are equal.
        """
        data = value.encode("utf-8", "surrogatepass")
        sealed = self._cipher.encrypt(data, [entity.encode()])
        return f"<{entity}_ENC:{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}>"

    def decrypt(self, text: str) -> str:
        """``text`` with the value of every token that this key made; other tokens stay."""
        return str(_TOKEN.sub(self._opened, text))

    def _opened(self, match: Any) -> str:
        token: str = match[2]
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            opened = self._cipher.decrypt(sealed, [match[1].encode()])
            return opened.decode("utf-8", "surrogatepass")
        except (InvalidTag, binascii.Error, ValueError):
            return str(match.group())
