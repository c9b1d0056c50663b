"""Runs an application with uvicorn: in the foreground, or in a thread beside other work."""

import logging
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from api.errors import ServiceError

_GRACE_SECONDS = 10


class ServerFailed(ServiceError):
    """The server did not start or did not stop in time."""


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; answers under way get ten seconds to end.

    Raises:
        ServerFailed: the address cannot be used.
    """
    listener = _listen(host, port)
    with listener:
        uvicorn.Server(_config(app)).run(sockets=[listener])


class BackgroundServer:
    """``with BackgroundServer(app) as server``: serves on a free loopback port inside the block.

    Attributes:
        base_url: such as ``http://127.0.0.1:40123``; accepts requests once the block is entered.
    """

    def __init__(self, app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.base_url = f"http://{shown}:{self._listener.getsockname()[1]}"
        self._server = _Announcing(_config(app))
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="intramural-api", daemon=True
        )

    def __enter__(self) -> Self:
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
        """Stop accepting, let answers under way end, and free the port.

        Raises:
            ServerFailed: the server did not stop within twice the time that answers get.
        """
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * _GRACE_SECONDS)
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

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.ready.set()


def _config(app: FastAPI) -> uvicorn.Config:
    # uvicorn's access log writes paths with their queries; the gate writes one without. Switching
    # it off by `access_log` leaves it on for whoever attaches a handler to it by name.
    logging.getLogger("uvicorn.access").disabled = True
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerFailed(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener
