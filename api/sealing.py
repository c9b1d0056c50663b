"""Tokens that carry the way back from stand-ins to values, so that the service need not keep it.

A token is the map of one redaction, compressed, then encrypted and authenticated with
ChaCha20-Poly1305 (RFC 8439) under a key of the service. It opens only before it expires, and only
for the principal that it was made for: both are part of what is authenticated.
"""

import base64
import binascii
import json
import secrets
import zlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from api.clock import seconds_now
from api.errors import ServiceError
from privacy.canonical import canonical_json

_PREFIX = "imr1."
_NONCE = 12
_LARGEST = 16 * 2**20


class SealBroken(ServiceError):
    """A token that opens nothing: changed, expired, or made for somebody else or elsewhere."""


class Sealer:
    """Seals and opens maps.

    Args:
        key: 32 bytes, the same on all replicas.
        clock: seconds since 1970.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = seconds_now) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._clock = clock

    def seal(self, content: dict[str, Any], principal: str, seconds: int) -> tuple[str, int]:
        """A token, and when it expires in seconds since 1970."""
        expires = int(self._clock()) + seconds
        nonce = secrets.token_bytes(_NONCE)
        source = json.dumps(content, separators=(",", ":")).encode()
        sealed = self._cipher.encrypt(nonce, zlib.compress(source), _bound(principal, expires))
        raw = nonce + expires.to_bytes(8, "big") + sealed
        return _PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), expires

    def open(self, token: str, principal: str) -> dict[str, Any]:
        """What was sealed for this principal.

        Raises:
            SealBroken: whatever is wrong with the token.
        """
        try:
            if not token.startswith(_PREFIX) or not token.isascii():
                raise SealBroken("no token of this service")
            text = token.removeprefix(_PREFIX)
            raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            nonce, stamp, sealed = raw[:_NONCE], raw[_NONCE : _NONCE + 8], raw[_NONCE + 8 :]
            expires = int.from_bytes(stamp, "big")
            source = self._cipher.decrypt(nonce, sealed, _bound(principal, expires))
            # Authenticated, so nobody but this service made it; still no bomb.
            inflate = zlib.decompressobj()
            content = inflate.decompress(source, _LARGEST)
            if inflate.unconsumed_tail:
                raise SealBroken("the token holds too much")
        except (InvalidTag, ValueError, binascii.Error, zlib.error):
            raise SealBroken("the token cannot be opened") from None
        if self._clock() >= expires:
            raise SealBroken("the token has expired")
        made: dict[str, Any] = json.loads(content)
        return made


def _bound(principal: str, expires: int) -> bytes:
    return canonical_json(["intramural/restore", principal, expires])
