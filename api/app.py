"""Wires the service: nothing happens here but putting parts together."""

from collections.abc import Iterable

from fastapi import FastAPI

from api.engines.base import Engine
from api.gate import Gate
from api.handlers import ErrorOut, install
from api.keys import KeyStore
from api.limits import Slots
from api.metrics import Metrics
from api.recording import Recorder
from api.routes import budgets, chat, completions, docs, health, metrics, models, redact
from api.services import Ledgers, Services
from api.settings import ServiceSettings
from policies.model import Policy
from privacy.audit.log import AuditLog
from privacy.pii.detector import Detector
from privacy.release import VerifiedRelease

_DESCRIPTION = (
    "An OpenAI-compatible service that shows its models placeholders instead of personal data, "
    "restores them in the answer, and records every call in a tamper-evident audit log."
)


def create_app(
    settings: ServiceSettings,
    *,
    engine: Engine,
    detector: Detector,
    audit: AuditLog,
    keys: KeyStore,
    policy: Policy,
    releases: Iterable[VerifiedRelease],
    ledgers: Ledgers,
) -> FastAPI:
    """The application. It owns none of its parts: whoever opened them closes them.

    Args:
        settings: bounds and names.
        engine: answers; a model that is no release of ``releases`` needs ``serve_base_model``.
        detector: finds personal data.
        audit: open for writing.
        keys: who may call.
        policy: what they may do, and what happens to personal data.
        releases: those that the engine serves, verified.
        ledgers: reads what the departments have spent.
    """
    services = Services(
        settings=settings,
        policy=policy,
        engine=engine,
        detector=detector,
        recorder=Recorder(audit, policy.digest),
        releases={release.id: release for release in releases},
        ledgers=ledgers,
        slots=Slots(
            settings.concurrent_generations, settings.waiting_generations, settings.waiting_seconds
        ),
        metrics=Metrics(),
    )
    app = FastAPI(
        title="Intramural",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorOut}, "5XX": {"model": ErrorOut}},
    )
    app.state.services = services
    install(app)
    for room in (chat, completions, models, redact, budgets, health, metrics, docs):
        app.include_router(room.router)
    app.add_middleware(
        Gate,
        settings=settings,
        policy=policy,
        keys=keys,
        recorder=services.recorder,
        metrics=services.metrics,
    )
    return app
