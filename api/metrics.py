"""Figures for Prometheus. Labels are ours: operations, statuses, entity types; no caller's data.

Counts by entity type and by operation still tell how the service is used, so ``/metrics`` needs a
key whose role has the operation ``metrics``.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from api.call import Call

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The figures of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "intramural_requests",
            "Requests answered, by operation of the policy and HTTP status.",
            ["operation", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "intramural_request_seconds",
            "Time to the end of the answer, streams included.",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "intramural_tokens",
            "Tokens as the model counted them, aborted streams included.",
            ["kind"],
            registry=self._registry,
        )
        self._entities = Counter(
            "intramural_entities",
            "Personal data found, by entity type and by where it was found.",
            ["entity", "where"],
            registry=self._registry,
        )

    def answered(self, call: Call, status: int, seconds: float) -> None:
        """Count one request; ``status`` 0 means that the client left before an answer."""
        self._requests.labels(call.operation, str(status)).inc()
        self._seconds.labels(call.operation).observe(seconds)
        self._tokens.labels("prompt").inc(call.prompt_tokens)
        self._tokens.labels("completion").inc(call.completion_tokens)
        for where, counts in (("request", call.entities), ("answer", call.answer_entities)):
            for entity, count in counts.items():
                self._entities.labels(entity, where).inc(count)

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self._registry)
