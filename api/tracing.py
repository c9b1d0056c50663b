"""Traces of calls for OpenTelemetry: when each stage of an answer began and ended. Never a text.

A span says what is listed in :func:`describe`, and that is ours: names, numbers and codes. What a
caller sent is not in it, but for the ids of the trace that it belongs to (W3C Trace Context): no
path, no query, no header, no principal, no words of an error. ``tracestate`` and ``baggage`` may
hold anything, so they are neither read nor sent on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from api.call import Call

_HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of one application.

    Args:
        provider: gets them; without one there are none.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = None if provider is None else provider.get_tracer("intramural")

    @contextmanager
    def call(self, scope: Scope) -> Iterator[trace.Span | None]:
        """Stands around one request; continues the caller's trace if there is one.

        Gives the span, for :func:`describe`; ``None`` where there are no traces.
        """
        if self._tracer is None:
            yield None
            return
        parent = _W3C.extract({_HEADER: _traceparent(scope)})
        span = self._tracer.start_span("call", parent, trace.SpanKind.SERVER)
        try:
            # What an exception says may quote a prompt: its outcome is in the call.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        finally:
            span.end()

    def began(self, stage: str) -> Callable[[], None]:
        """A stage of the call that is answered here begins; call what this gives when it ends."""
        if self._tracer is None or not trace.get_current_span().is_recording():
            return _nothing
        return self._tracer.start_span(stage).end


def describe(span: trace.Span | None, call: Call, method: str, route: str, status: int) -> None:
    """Say in a span what came of the call.

    Args:
        span: of the call, if there is one.
        call: as it ended.
        method: one of HTTP, or ``-`` for any other word.
        route: the template of the route, ``-`` where there was none.
        status: of HTTP; 0 where the client left before an answer.
    """
    if span is None:
        return
    known = "_OTHER" if method == "-" else method
    span.update_name(f"{known} {route}" if route != "-" else known)
    span.set_attributes(
        {
            "http.request.method": known,
            "http.route": route,
            "http.response.status_code": status,
            "intramural.request": call.request_id,
            "intramural.operation": call.operation,
            "intramural.outcome": call.outcome,
            "intramural.release": call.release,
            "intramural.stream": call.stream,
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": call.completion_tokens,
        }
    )
    if status >= 500 or (status < 400 and call.outcome != "ok"):
        span.set_status(trace.StatusCode.ERROR)


def sent_on() -> dict[str, str]:
    """The headers that carry the trace to a model server: ``traceparent``, or none."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return {name: value for name, value in carrier.items() if name == _HEADER}


def _traceparent(scope: Scope) -> str:
    """The caller's header; of two, nobody can say which is meant."""
    values = [value for name, value in scope["headers"] if name == _HEADER.encode()]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _nothing() -> None:
    return None
