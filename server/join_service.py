"""The join service: a small HTTPS endpoint on a port of its own, from the standard library.

It answers ``GET <PATH>/ca`` (the CA, which a token's digest authenticates) and ``POST <PATH>/join``
and ``POST <PATH>/report`` (sealed statements). A connection that sends nothing, too much or
something else is closed, and nobody else waits for it: each handshake runs in its own thread.
"""

import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final

from privacy.closing import Closing
from privacy.errors import PrivacyError
from privacy.joining import MAX_BODY, PATH, JoinRefused
from server.errors import HubError
from server.joining import JoinDesk

_log = logging.getLogger(__name__)
_PATIENCE = 15.0
_AT_ONCE = 64
STATUS: Final = {
    "malformed": 400,
    "signature_invalid": 403,
    "clock_skew": 403,
    "token_unknown": 403,
    "token_used": 403,
    "token_expired": 403,
    "department_taken": 409,
    "key_taken": 409,
    "unknown_department": 403,
    "certificate_expired": 503,
    "certificate_invalid": 503,
    "not_enrolled": 403,
    "too_many_attempts": 429,
    "unavailable": 503,
}
"""HTTP status of each code."""


class JoinService(Closing):
    """Serves ``desk`` at ``host``:``port`` under TLS from background threads; a context manager.

    ``port`` 0 takes a free one, which :attr:`port` tells.

    Raises:
        HubError: the address or the certificate cannot be used.
    """

    def __init__(
        self, desk: JoinDesk, host: str, port: int, *, ca: Path, certificate: Path, key: Path
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key)
            self._server = _Server((host, port), context, desk, ca.read_bytes())
        except OSError as error:
            raise HubError(
                f"the join service cannot listen at {host} port {port}: {error.strerror or error}"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, desk: JoinDesk, ca: bytes
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.context = context
        self.desk = desk
        self.ca = ca
        self.slots = threading.Semaphore(_AT_ONCE)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of the own name that the standard library would make."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """The connection, its handshake still to come: that happens in the thread that serves it."""
        connection, address = super().get_request()
        connection.settimeout(_PATIENCE)
        return (
            self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False),
            address,
        )

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection where there is a slot; close it where there is none."""
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that is no TLS client of ours, or went away; its bytes are never logged."""
        _log.debug("a connection to the join service ended early")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "intramural"
    sys_version = ""

    def setup(self) -> None:
        self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        if self.path == f"{PATH}/ca":
            self._answer(200, self.server.ca, "application/x-pem-file")
        else:
            self._refuse(404, "malformed", "there is nothing at this path")

    def do_POST(self) -> None:
        desk = self.server.desk
        steps: dict[str, Callable[[bytes, str], bytes]] = {
            f"{PATH}/join": desk.join,
            f"{PATH}/report": desk.report,
        }
        step = steps.get(self.path)
        length = self.headers.get("Content-Length", "")
        if step is None:
            self._refuse(404, "malformed", "there is nothing at this path")
        elif not length.isdecimal() or int(length) > MAX_BODY:
            self._refuse(413, "malformed", f"a body has a length of at most {MAX_BODY} bytes")
        else:
            self._step(step, self.rfile.read(int(length)))

    def _step(self, step: Callable[[bytes, str], bytes], body: bytes) -> None:
        try:
            self._answer(200, step(body, self.client_address[0]), "application/json")
        except JoinRefused as error:
            self._refuse(STATUS[error.code], error.code, str(error), error.retry_after)
        except (HubError, PrivacyError) as error:
            _log.error("joining failed: %s", error)
            self._refuse(503, "unavailable", "the hub cannot answer now; its own log says why")

    def _refuse(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        # What is left unread would be taken for the next request.
        self.close_connection = True
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        self._answer(status, body, "application/json", retry_after)

    def _answer(self, status: int, body: bytes, kind: str, retry_after: int | None = None) -> None:
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Nothing: the audit log says more, and no foreign text goes to ours."""
