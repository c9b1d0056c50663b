"""Sends traces to a collector by OTLP over HTTP, as the standard variables ``OTEL_…`` say.

Behind every call is only a queue of bounded length: a collector that is slow or gone costs spans,
never an answer. The log tells when the collector stops and when it begins to take them.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from api.settings import SettingsInvalid
from api.tracing import Tracing

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_END_SECONDS = 3.0


@contextmanager
def open_tracing(wanted: bool | None) -> Iterator[Tracing]:
    """Traces inside the block; at its end, what waits gets three seconds to be sent.

    The environment is that of the process: OpenTelemetry itself reads no other.

    Args:
        wanted: whether there are any; ``None``: where the environment names a collector.

    Raises:
        SettingsInvalid: a variable ``OTEL_…`` cannot be followed.
    """
    if not _on(wanted, os.environ):
        yield Tracing()
        return
    _check(os.environ)
    # Its own log quotes what it works on; ours tells what there is to know.
    logging.getLogger("opentelemetry").propagate = False
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    # What the environment says about the service is laid over what we say.
    ours = Resource.create({"service.name": "intramural"}).merge(OTELResourceDetector().detect())
    try:
        provider = TracerProvider(resource=ours, shutdown_on_exit=False)
        # Last, as it starts a thread.
        provider.add_span_processor(BatchSpanProcessor(_Watched(OTLPSpanExporter())))
    except ValueError:
        # Which of them: OpenTelemetry does not always say.
        fault = "OTEL_BSP_…, OTEL_EXPORTER_OTLP_… or OTEL_SPAN_…: a number or a batch size cannot be used"
        raise SettingsInvalid([fault]) from None
    try:
        yield Tracing(provider)
    finally:
        # A collector that does not answer must not keep the service from ending.
        ending = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(_END_SECONDS)


def _on(wanted: bool | None, told: Mapping[str, str]) -> bool:
    if told.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if told.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(told.get(name) for name in _ENDPOINTS) if wanted is None else wanted


def _check(told: Mapping[str, str]) -> None:
    """Raises SettingsInvalid for what would be silently ignored. No value is repeated."""
    faults = [
        f"{name}: must be like https://collector.example.org:4318"
        for name in _ENDPOINTS
        if told.get(name) and not _is_url(told[name])
    ]
    faults += [
        f"{name}: traces are sent as http/protobuf only; leave it out"
        for name in _PROTOCOLS
        if told.get(name, "http/protobuf") not in ("", "http/protobuf")
    ]
    if told.get("OTEL_TRACES_EXPORTER", "otlp") not in ("", "otlp"):
        faults.append("OTEL_TRACES_EXPORTER: must be otlp or none")
    if faults:
        raise SettingsInvalid(faults)


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address or a port that is none
        return False


class _Watched(SpanExporter):
    """Passes spans on, and tells once when that begins to fail and once when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        works = result is SpanExportResult.SUCCESS
        if works != self._works:
            self._works = works
            if works:
                _log.info("the collector takes traces again")
            else:
                _log.warning("the collector takes no traces: they are lost until it does")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
