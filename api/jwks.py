"""Key sets of issuers (RFC 7517), from a URL or a file: cached, refreshed, never trusted for ever.

Nobody but the policy says where keys are fetched; a URL in a token is not looked at and redirects
are not followed, so a caller cannot make the service send requests. Threads may share a key set.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, RSAKey

from api.errors import ServiceError
from policies.access import IssuerPolicy

_log = logging.getLogger(__name__)
_MOST_BYTES = 1024 * 1024
_MOST_KEYS = 100
_PAUSE_SECONDS = 5.0

Fetch = Callable[[str, float], bytes]
"""The bytes at a URL, within so many seconds; raises what it likes."""


class KeysUnavailable(ServiceError):
    """The keys of an issuer cannot be fetched, and those that are known are too old or none."""


class Jwks:
    """The keys of one issuer.

    Args:
        name: of the issuer, for messages.
        issuer: where its keys are and how long they count.
        fetch: gets a URL.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        issuer: IssuerPolicy,
        *,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._issuer = issuer
        self._fetch = fetch or fetch_url
        self._clock = clock
        self._keys: dict[str | None, Key] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = threading.Lock()

    def find(self, kid: str | None) -> Key | None:
        """The key of this id; None where the issuer has none. Without an id: its only key.

        Raises:
            KeysUnavailable: nobody can say. Nothing may be believed.
        """
        now = self._clock()
        age = None if self._fetched is None else now - self._fetched
        known = self._pick(kid)
        stale = age is None or age >= self._issuer.refresh_seconds
        if (stale or known is None) and self._may_try(now):
            # While keys are good, nobody waits for another's refresh.
            usable = known is not None and not self._expired(now)
            if self._lock.acquire(blocking=not usable):
                try:
                    if self._may_try(self._clock()):
                        self._refresh()
                finally:
                    self._lock.release()
        if self._expired(self._clock()):
            raise KeysUnavailable(
                f"the keys of access.issuers.{self._name} cannot be fetched and are not known "
                f"from the last {self._issuer.maximum_age_seconds} s"
            )
        return self._pick(kid)

    def _pick(self, kid: str | None) -> Key | None:
        keys = self._keys
        if kid is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(kid)

    def _expired(self, now: float) -> bool:
        return self._fetched is None or now - self._fetched > self._issuer.maximum_age_seconds

    def _may_try(self, now: float) -> bool:
        """Unknown key ids are free to make up: they must not become requests to the issuer."""
        return self._tried is None or now - self._tried >= _PAUSE_SECONDS

    def _refresh(self) -> None:
        self._tried = self._clock()
        try:
            source = self._issuer.jwks
            if source.startswith("/"):
                content = read_file(Path(source))
            else:
                content = self._fetch(source, self._issuer.timeout_seconds)
            keys = parse_keys(content)
        except Exception as error:
            _log.warning("no keys of issuer %s: %s", self._name, type(error).__name__)
            return
        self._keys, self._fetched = keys, self._clock()


def parse_keys(content: bytes) -> dict[str | None, Key]:
    """The public signature keys of a key set, by id.

    Shared secrets are left out, and so are keys that are for encryption or that cannot be read.

    Raises:
        ValueError: it is no key set, or none of its keys can be used.
    """
    try:
        entries = json.loads(content)["keys"]
    except (KeyError, TypeError, RecursionError):
        raise ValueError("holds no key set (RFC 7517): an object with a list `keys`") from None
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ValueError(f"must hold a list of at most {_MOST_KEYS} keys")
    found: dict[str | None, Key] = {}
    for entry in entries:
        key = _public_key(entry)
        if key is not None:
            found[entry.get("kid", key.thumbprint())] = key
    if not found:
        raise ValueError("holds no public key for signatures")
    return found


def _public_key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    try:
        key = KeySet.import_key_set({"keys": [entry]}).keys[0]
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    # RFC 7518, section 3.3: RSA keys have 2048 bits or more.
    return None if isinstance(key, RSAKey) and key.public_key.key_size < 2048 else key


def fetch_url(url: str, seconds: float) -> bytes:
    """The body of a 200 answer of at most 1 MiB. TLS is verified, redirects are refused.

    Raises:
        OSError, ValueError, httpx.HTTPError: there is none.
    """
    deadline = time.monotonic() + seconds
    with (
        httpx.Client(timeout=seconds, follow_redirects=False) as client,
        client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code} instead of 200")
        content = b""
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"took longer than {seconds:g} s")
    return content


def read_file(path: Path) -> bytes:
    """The content of a file of at most 1 MiB.

    Raises:
        OSError, ValueError: there is none.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    return content
