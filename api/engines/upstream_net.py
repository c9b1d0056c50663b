"""Connections to model servers: only to addresses that the settings allow.

The address is checked where it is used, after the name was resolved, so a name that changes its
address between a check and the connection gains nothing.
"""

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from api.engines.settings import UpstreamSettings, private


class AddressRefused(httpcore.ConnectError):
    """The name leads to an address of no public host, and ``allow_private`` is off."""


class _Guarded(httpcore.NetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._plain = httpcore.SyncBackend()
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if self._allow_private:
            return self._plain.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        addresses = [str(entry[4][0]) for entry in found]
        if any(private(address) for address in addresses):
            raise AddressRefused(
                "a model server's name leads to a private address; engine.upstream.allow_private "
                "allows that"
            )
        return self._plain.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise AddressRefused("model servers are reached by TCP")


class _Transport(httpx.HTTPTransport):
    def __init__(self, settings: UpstreamSettings) -> None:
        limits = httpx.Limits(
            max_connections=settings.connections,
            max_keepalive_connections=settings.connections,
            keepalive_expiry=30.0,
        )
        super().__init__(limits=limits, trust_env=False)
        # httpx has no argument for it; the pool reads it at each new connection.
        self._pool._network_backend = _Guarded(allow_private=settings.allow_private)


def guarded_transport(settings: UpstreamSettings) -> httpx.BaseTransport:
    """The network, as far as the settings allow."""
    return _Transport(settings)
