"""Joining at the node: its side of the conversation, and what it has pinned of its hub.

The first connection is made without trust: it fetches the CA and compares it with the digest in the
enrolment token. Everything after that is under this CA.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from client.errors import ClientError
from privacy.errors import KeyUnusable
from privacy.files import write_atomic
from privacy.joining import (
    PATH,
    Code,
    EnrolmentToken,
    HubBundle,
    JoinRefused,
    JoinRequest,
    NodeReport,
    ca_fingerprint,
    seal,
    unseal,
)
from privacy.signing import SigningKey, VerifyKey

_PATIENCE = 20.0
_LARGEST = 4 << 20
_EXPIRED, _NOT_YET = 10, 9
_WRONG_NAME = (62, 64)


class HubUnreachable(ClientError):
    """The hub does not answer at its address."""


class HubLink:
    """HTTPS to the hub's join service; ``ca`` (PEM) is the only authority that is trusted."""

    def __init__(self, url: str, ca: bytes | None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise HubUnreachable(
                f"the hub's address {url!r} must be like https://hub.example.org:9093"
            )
        self.url = f"https://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port or 443
        if ca is None:
            # Nothing but the CA is read over this connection, and its digest is compared.
            self._context = ssl._create_unverified_context()  # noqa: S323
        else:
            self._context = ssl.create_default_context(cadata=ca.decode("ascii"))
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def get(self, path: str) -> bytes:
        """The answer to a question without a body.

        Raises:
            HubUnreachable: nobody answers.
            JoinRefused: the answer is a refusal, or the certificate is not accepted.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, body: bytes) -> bytes:
        """The answer to a statement; raises as :meth:`get`."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_PATIENCE, context=self._context
        )
        try:
            connection.request(method, PATH + path, body, {"Connection": "close"})
            response = connection.getresponse()
            answer = response.read(_LARGEST + 1)
        except ssl.SSLCertVerificationError as error:
            raise _certificate_refused(self.url, error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise HubUnreachable(
                f"the hub does not answer at {self.url} ({reason}); is the address right, and is "
                "`intramural hub start` running there?"
            ) from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise _refusal(self.url, response.status, answer)
        if len(answer) > _LARGEST:
            raise HubUnreachable(f"the answer of {self.url} is longer than {_LARGEST} bytes")
        return answer


def fetch_ca(url: str, token: EnrolmentToken) -> bytes:
    """The hub's CA in PEM, compared with the token's digest of it.

    Raises:
        HubUnreachable: nobody answers.
        JoinRefused: ``certificate_invalid``; whoever answers is not the hub that issued the token.
    """
    pem = HubLink(url, None).get("/ca")
    if ca_fingerprint(pem) != token.ca:
        raise JoinRefused(
            "certificate_invalid",
            f"whoever answers at {url} is not the hub that issued this token: its CA certificate is "
            "another one. Check the address and the token; nothing was sent",
        )
    return pem


def join(url: str, token: EnrolmentToken, request: JoinRequest, key: SigningKey) -> "Joined":
    """Ask the hub at ``url`` to enrol this node.

    Raises:
        HubUnreachable: nobody answers.
        JoinRefused: with the hub's code and words.
    """
    ca = fetch_ca(url, token)
    answer = HubLink(url, ca).post("/join", seal(request, key))
    # The connection is authenticated by the token's digest of the CA, so this key may be pinned.
    bundle, hub_key = unseal(HubBundle, answer)
    if bundle.department != request.department:
        raise JoinRefused("malformed", "the hub answered for another department")
    return Joined(ca, answer, bundle, hub_key)


@dataclass(frozen=True)
class Joined:
    """What joining brought: CA, sealed bundle, the bundle, and the hub's key to pin."""

    ca: bytes
    sealed: bytes
    bundle: HubBundle
    key: VerifyKey


class PinnedHub:
    """The files ``hub-ca.crt``, ``hub.pub`` and ``hub.json`` in a node's folder."""

    def __init__(self, folder: Path) -> None:
        self.ca = folder / "hub-ca.crt"
        self.key = folder / "hub.pub"
        self.bundle = folder / "hub.json"

    @property
    def joined(self) -> bool:
        """Whether the node has joined a hub."""
        return self.bundle.exists()

    def pin(self, joined: Joined) -> None:
        """Keep what joining brought; the bundle last, which makes the node a member.

        A crash before the bundle: joining again with the same token gives the same answer.
        """
        write_atomic(self.ca, joined.ca, mode=0o600)
        write_atomic(self.key, joined.key.public_text().encode() + b"\n", mode=0o600)
        write_atomic(self.bundle, joined.sealed, mode=0o600)

    def forget(self) -> None:
        """Undo :meth:`pin`."""
        for path in (self.bundle, self.key, self.ca):
            path.unlink(missing_ok=True)

    def read(self) -> HubBundle:
        """The newest bundle, verified by the pinned key.

        Raises:
            JoinRefused: ``not_enrolled`` where the node has not joined, else what is wrong with it.
            KeyUnusable: the pinned key is damaged.
        """
        try:
            sealed = self.bundle.read_bytes()
        except FileNotFoundError:
            raise JoinRefused(
                "not_enrolled",
                f"{self.bundle.parent} has not joined a hub; run `intramural node join` there first",
            ) from None
        return unseal(HubBundle, sealed, VerifyKey.load(self.key))[0]

    def trusted(self) -> Mapping[str, VerifyKey]:
        """The run accounts that the hub names, by name; raises as :meth:`read`."""
        return self.read().trusted()

    def report(self, url: str, report: NodeReport, key: SigningKey) -> HubBundle:
        """Tell the hub what this node runs and take its newest bundle, signed by the pinned key.

        Raises:
            HubUnreachable: nobody answers.
            JoinRefused: the hub has removed this node, or the answer is not the pinned hub's.
        """
        try:
            link = HubLink(url, self.ca.read_bytes())
        except OSError as error:
            raise KeyUnusable(f"the hub's CA {self.ca} cannot be read: {error}") from None
        sealed = link.post("/report", seal(report, key))
        bundle, _ = unseal(HubBundle, sealed, VerifyKey.load(self.key))
        if bundle.department != report.department:
            raise JoinRefused("malformed", "the hub answered for another department")
        if not report.leaving:
            write_atomic(self.bundle, sealed, mode=0o600)
        return bundle


def _refusal(url: str, status: int, answer: bytes) -> ClientError | JoinRefused:
    try:
        error: Any = json.loads(answer)["error"]
        code: Any = error["code"]
        message = str(error["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return HubUnreachable(
            f"{url} answered with HTTP {status} and is no join service; is the port right?"
        )
    known: Code = code if code in get_args(Code) else "malformed"
    return JoinRefused(known, "".join(c if c.isprintable() else " " for c in message))


def _certificate_refused(url: str, error: ssl.SSLCertVerificationError) -> JoinRefused:
    if error.verify_code == _EXPIRED:
        return JoinRefused(
            "certificate_expired",
            f"the certificate of {url} has expired, or this machine's clock is ahead; the hub's "
            "operator renews it with `intramural hub init --renew`",
        )
    if error.verify_code == _NOT_YET:
        return JoinRefused(
            "clock_skew",
            f"the certificate of {url} is not valid yet: this machine's clock is behind. Set it, "
            "best by NTP, and try again",
        )
    if error.verify_code in _WRONG_NAME:
        return JoinRefused(
            "certificate_invalid",
            f"the certificate of {url} is for another name; use the address that the hub's "
            "operator gave",
        )
    return JoinRefused(
        "certificate_invalid",
        f"the certificate of {url} was not issued by the hub's CA ({error.verify_message})",
    )
