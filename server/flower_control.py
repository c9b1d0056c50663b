"""Flower's control API, as the hub itself uses it: nodes are registered, removed and listed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from privacy.closing import Closing
from server.errors import HubError

_GONE = "unregistered"


class ControlUnavailable(HubError):
    """The SuperLink does not answer, or refuses."""


@dataclass(frozen=True)
class FlowerNode:
    """A node as Flower sees it; ``public_key`` is PEM, ``last_seen`` UTC or None."""

    node_id: int
    public_key: bytes
    online: bool
    last_seen: str | None


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        context.request.headers["Authorization"] = f"Bearer {self._token}"
        return call_next(context)


class FlowerControl(Closing):
    """The SuperLink at ``address`` (host:port) under TLS by ``ca`` (PEM), with an account's token."""

    def __init__(self, address: str, ca: bytes, token: str) -> None:
        self.address = address
        self.client: Any = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI"), _Bearer(token)],
        )

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()

    def register(self, ssh_key: str, name: str) -> int:
        """Register a node's public key and return its node id; one that is registered keeps its own.

        Raises:
            ControlUnavailable: the SuperLink does not answer, or refuses the key.
        """
        pem = flower_pem(ssh_key)
        known = next((node.node_id for node in self.nodes() if node.public_key == pem), None)
        if known is not None:
            return known
        request = RegisterNodeRequest(public_key=pem, name=name)
        return int(self._call(self.client.RegisterNode, request).node_id)

    def unregister(self, node_id: int) -> None:
        """Remove a node; one that is not there is fine.

        Raises:
            ControlUnavailable: the SuperLink does not answer.
        """
        if any(node.node_id == node_id for node in self.nodes()):
            self._call(self.client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> list[FlowerNode]:
        """All nodes that are registered now.

        Raises:
            ControlUnavailable: the SuperLink does not answer.
        """
        answer = self._call(self.client.ListNodes, ListNodesRequest())
        return [_node(info, answer.now) for info in answer.nodes_info if info.status != _GONE]

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise ControlUnavailable(
                f"the SuperLink at {self.address} refused: HTTP {status}"
                + (
                    "; the account's token opens nothing"
                    if status == httpx.codes.UNAUTHORIZED
                    else ""
                )
            ) from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ControlUnavailable(
                f"the SuperLink at {self.address} does not answer ({type(error).__name__}); "
                "is `intramural hub start` running?"
            ) from None


def flower_pem(ssh_key: str) -> bytes:
    """A P-384 public key in OpenSSH's form as Flower stores it.

    Raises:
        ValueError: it is no such key.
    """
    try:
        key = load_ssh_public_key(ssh_key.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("the key is not on the curve P-384")  # noqa: TRY004 - it is a text's value
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _node(info: Any, now: str) -> FlowerNode:
    online = info.status == "online"
    seen = now if online else info.last_deactivated_at or info.last_activated_at or None
    when = None if not seen else datetime.fromisoformat(seen).astimezone(UTC)
    return FlowerNode(
        node_id=int(info.node_id),
        public_key=bytes(info.public_key),
        online=online,
        last_seen=None if when is None else when.isoformat(timespec="seconds"),
    )
