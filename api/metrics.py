"""Figures for Prometheus. Labels are ours: operations, statuses, entity types; no caller's data.

Counts by entity type and by operation still tell how the service is used, so ``/metrics`` needs a
key whose role has the operation ``metrics``.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from api.call import Call
from api.metrics_shared import SharedFigures
from api.tracing import Tracing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Stage = Literal["redact", "queue", "engine", "audit"]
"""Where time goes: finding and replacing personal data, waiting for a slot, the engine until its
last item, and until an audit entry is durable (the lag of the log)."""


class Metrics:
    """The figures of one application, in a registry of its own; its stages are traced as well."""

    def __init__(self, tracing: Tracing | None = None, shared: SharedFigures | None = None) -> None:
        self._tracing = tracing or Tracing()
        self._shared = shared
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
        self._guards = Counter(
            "intramural_guards",
            "Prompts in which a guard found something, by guard.",
            ["guard"],
            registry=self._registry,
        )
        self._refusals = Counter(
            "intramural_refusals",
            "Requests that were not answered as asked, by operation and code of the error.",
            ["operation", "code"],
            registry=self._registry,
        )
        self._stages = Histogram(
            "intramural_stage_seconds",
            "Time in a stage of an answer: redact, queue, engine, audit.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Tell a value that is asked for at each scrape, as ``intramural_<name>``."""
        Gauge(f"intramural_{name}", text, registry=self._registry).set_function(value)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Measure what is inside the block, also where it fails."""
        ended = self.began(name)
        try:
            yield
        finally:
            ended()

    def began(self, name: Stage) -> Callable[[], None]:
        """A stage begins; call what this gives when it ends."""
        at = time.monotonic()
        traced = self._tracing.began(name)

        def ended() -> None:
            self._stages.labels(name).observe(time.monotonic() - at)
            traced()

        return ended

    def answered(self, call: Call, status: int, seconds: float) -> None:
        """Count one request; ``status`` 0 means that the client left before an answer."""
        self._requests.labels(call.operation, str(status)).inc()
        self._seconds.labels(call.operation).observe(seconds)
        if call.outcome != "ok":
            self._refusals.labels(call.operation, call.outcome).inc()
        self._tokens.labels("prompt").inc(call.prompt_tokens)
        self._tokens.labels("completion").inc(call.completion_tokens)
        for guard in call.guards:
            self._guards.labels(guard).inc()
        for where, counts in (("request", call.entities), ("answer", call.answer_entities)):
            for entity, count in counts.items():
                self._entities.labels(entity, where).inc(count)

    def collect(self) -> Iterable[Metric]:
        """The figures of this process."""
        return self._registry.collect()

    def text(self) -> bytes:
        """The exposition format of Prometheus; of all workers where there are several."""
        if self._shared is None:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        merged.register(_Given(list(self._shared.merged(self.collect()))))
        return generate_latest(merged)


class _Given(Collector):
    """Families as they are."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
