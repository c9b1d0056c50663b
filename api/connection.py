"""One connection, bounded: slow, large and malformed heads of requests end here.

uvicorn waits for ever for a request line and takes headers of any length. This protocol gives the
head of a request a time and a size, counts connections, answers malformed HTTP in OpenAI's error
shape, and tells the application whose client certificate TLS has verified.
"""

import asyncio
import json
from typing import Any, ClassVar

from cryptography import x509
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import HttpError, invalid_request, unavailable
from api.settings import ServiceSettings

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def bounded(settings: ServiceSettings) -> type[HttpToolsProtocol]:
    """The protocol with the bounds of these settings, as uvicorn wants it: a class."""

    class Bounded(_Connection):
        bounds = settings

    return Bounded


class _Connection(HttpToolsProtocol):
    bounds: ClassVar[ServiceSettings]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        names = certificate_names(transport.get_extra_info("ssl_object"))
        self.app_state = {**self.app_state, "cut": transport.abort, "certificate_names": names}
        most = self.bounds.connections
        if len(self.connections) > most:
            self._refuse(
                unavailable(
                    f"the service is busy: {most} connections are open",
                    code="overloaded",
                    retry_after=1,
                )
            )
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and not self._refused:
            if self._head_bytes > self.bounds.max_header_bytes:
                self._too_large()
            elif self._timer is None:
                self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._stop_waiting()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.bounds.max_header_bytes:
            self._too_large()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid_request("this is no valid HTTP request", code="invalid_request"))

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(self.bounds.header_seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_for_head()  # it is our turn, not the client's
            return
        self._refuse(
            HttpError(
                408,
                f"the request did not arrive within {self.bounds.header_seconds:g} s",
                kind="invalid_request_error",
                code="header_timeout",
            )
        )

    def _too_large(self) -> None:
        self._refuse(
            HttpError(
                431,
                f"the request line and headers exceed {self.bounds.max_header_bytes} bytes",
                kind="invalid_request_error",
                code="headers_too_large",
            )
        )

    def _refuse(self, error: HttpError) -> None:
        """Answer and hang up; what else comes on this connection is not looked at."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_waiting()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # bytes of another answer are on the wire
            return
        body = json.dumps(error.body()).encode()
        head = [
            f"HTTP/1.1 {error.status} {_REASONS[error.status]}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name.lower()}: {value}" for name, value in error.headers.items()),
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def certificate_names(tls: Any) -> tuple[str, ...]:
    """The names in a verified client certificate: ``URI:…``, ``DNS:…``, and the subject (RFC 4514).

    Args:
        tls: the connection's TLS, or None.
    """
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if not der:
        return ()
    certificate = x509.load_der_x509_certificate(der)
    names = []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        names += [f"URI:{uri}" for uri in found.get_values_for_type(x509.UniformResourceIdentifier)]
        names += [f"DNS:{name}" for name in found.get_values_for_type(x509.DNSName)]
    subject = certificate.subject.rfc4514_string()
    return (*names, subject) if subject else tuple(names)
