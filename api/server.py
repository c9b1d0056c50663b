"""Runs an application with uvicorn, in a thread beside other work."""

import asyncio
import logging
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from api.connection import bounded
from api.draining import Drain
from api.errors import ServiceError
from api.settings import ServiceSettings, TlsSettings

_GRACE_SECONDS = 5
"""For what is left once the answers under way had their time: to record how they ended."""
_FLUSH_SECONDS = 1
"""For answers that were just made to be sent, before what is left is cancelled."""


class ServerFailed(ServiceError):
    """The server did not start or did not stop in time."""


def check_tls(tls: TlsSettings) -> None:
    """Load the certificates as the server would.

    Raises:
        ServerFailed: one of them cannot be used.
    """
    if tls.certificate is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A key with a passphrase would ask for it at a terminal that nobody watches.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unusable"
        raise ServerFailed(f"tls: certificate, key or client_ca cannot be used: {reason}") from None


class BackgroundServer:
    """``with BackgroundServer(app) as server``: serves on a free loopback port inside the block.

    Args:
        app: what answers.
        host, port: where to listen; port 0 takes a free one.
        settings: of the service that the application was made with.
        listener: a socket from :func:`listen` in place of port, shared by several processes.

    Attributes:
        base_url: such as ``http://127.0.0.1:40123``; accepts requests once the block is entered.
    """

    def __init__(
        self,
        app: FastAPI,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: ServiceSettings | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._listener = listener or listen(host, port)
        self.base_url = _url(self._listener, host, settings)
        self._server = _Announcing(_config(app, settings))
        services = getattr(app.state, "services", None)
        self._drain = services.drain if services is not None else Drain()
        self._drain_seconds = (settings or ServiceSettings()).drain_seconds
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="intramural-api", daemon=True
        )

    def __enter__(self) -> Self:
        self._drain.reopen()
        self._thread.start()
        self._server.ready.wait()
        if not self._server.started:
            self.close()
            raise ServerFailed("the service did not start; its log says why")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Begin nothing new, let answers under way end, and free the port.

        New requests get 503 with ``Retry-After`` meanwhile. What has not ended after
        ``drain_seconds`` breaks off, and is recorded as such.

        Raises:
            ServerFailed: the server did not stop.
        """
        if self._thread.is_alive() and not self._server.should_exit:
            self._drain.begin()
            self._drain.wait(self._drain_seconds)
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(4 * _GRACE_SECONDS)
        self._listener.close()
        if self._thread.is_alive():
            raise ServerFailed("the service did not stop in time")


class _Announcing(uvicorn.Server):
    """Sets ``ready`` once it accepts requests, or has failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # What was cancelled records how it ended; ending the loop would cancel it once more.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE_SECONDS)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.ready.set()


def _config(app: FastAPI, settings: ServiceSettings | None) -> uvicorn.Config:
    settings = settings or ServiceSettings()
    tls = settings.tls
    check_tls(tls)
    required = ssl.CERT_REQUIRED if tls.client_certificate_required else ssl.CERT_OPTIONAL
    # uvicorn's access log writes paths with their queries; the gate writes one without. Switching
    # it off by `access_log` leaves it on for whoever attaches a handler to it by name.
    logging.getLogger("uvicorn.access").disabled = True
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
        ws="none",
        http=bounded(settings),
        # By default uvicorn would believe whatever comes over the loopback interface.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        ssl_ca_certs=None if tls.client_ca is None else str(tls.client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if tls.client_ca is None else required,
    )


def _url(listener: socket.socket, host: str, settings: ServiceSettings | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings is not None and settings.tls.certificate else "http"
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that may be served on; 0 takes a free port.

    Raises:
        ServerFailed: somebody else listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerFailed(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener
