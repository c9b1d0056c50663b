"""Wires the service: nothing happens here but putting parts together."""

from collections.abc import Iterable, Mapping

from anyio import CapacityLimiter
from fastapi import FastAPI

from api.admission import Admission
from api.authentication import Authenticator
from api.draining import Drain
from api.engines.base import Engine
from api.gate import Gate
from api.guards import Guards
from api.handlers import ErrorOut, install
from api.jwks import Fetch
from api.keys import KeyStore
from api.limits import LocalRates, Rates, Slots
from api.metrics import Metrics
from api.metrics_shared import SharedFigures
from api.readiness import Check, Readiness, detector_works, disk_has
from api.recording import Recorder
from api.releases import Releases
from api.routes import ROUTERS
from api.sealing import Sealer
from api.services import Ledgers, Services
from api.settings import ServiceSettings
from api.tokens import TokenVerifier
from api.tracing import Tracing
from api.usage import UsageTable
from policies.model import Policy
from privacy.audit.log import AuditLog, read_log
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
    releases: Releases | Iterable[VerifiedRelease],
    ledgers: Ledgers,
    rates: Rates | None = None,
    fetch_keys: Fetch | None = None,
    drain: Drain | None = None,
    checks: Mapping[str, Check] | None = None,
    tracing: Tracing | None = None,
    figures: SharedFigures | None = None,
) -> FastAPI:
    """The application. It owns none of its parts: whoever opened them closes them.

    Args:
        settings: bounds and names.
        engine: answers; a model that is no release of ``releases`` needs ``serve_base_model``.
        detector: finds personal data.
        audit: open for writing.
        keys: who may call.
        policy: what they may do, and what happens to personal data.
        releases: those that the engine serves, verified; a :class:`Releases` may change later.
        ledgers: reads what the departments have spent.
        rates: where rate limits are kept; by default as the settings say.
        fetch_keys: gets the key sets of token issuers by their URL; by default over HTTPS.
        drain: begun by whoever ends the service.
        checks: what else must hold before an answer can be given, by name.
        tracing: gets the spans of calls; by default there are none.
        figures: of the other workers of this service, if there are any.

    Raises:
        GuardUnusable: a guard that the policy names cannot be had.
    """
    drain = drain or Drain()
    if not isinstance(releases, Releases):
        releases = Releases(releases, alias=settings.alias)
    tracing = tracing or Tracing()
    metrics = Metrics(tracing, figures)
    recorder = Recorder(audit, policy.digest, lambda: metrics.stage("audit"))
    services = Services(
        settings=settings,
        policy=policy,
        engine=engine,
        detector=detector,
        guards=Guards(policy.guards),
        recorder=recorder,
        releases=releases,
        ledgers=ledgers,
        slots=Slots(
            settings.concurrent_generations, settings.waiting_generations, settings.waiting_seconds
        ),
        metrics=metrics,
        sealer=Sealer(keys.derive("restore tokens")),
        usage=UsageTable(lambda: read_log(audit.place)),
        engine_threads=CapacityLimiter(settings.concurrent_generations),
        drain=drain,
        readiness=Readiness(
            {
                "engine": lambda: bool(engine.models()),
                "audit": lambda: recorder.available,
                "release": lambda: bool(services.served()),
                "detector": lambda: detector_works(detector),
                "disk": lambda: disk_has(audit.place, settings.min_free_disk_mib),
                "accepting": lambda: not drain.begun,
                **(checks or {}),
            }
        ),
    )
    slots = services.slots
    metrics.gauge("queue_waiting", "Requests that wait for a generation.", lambda: slots.waiting)
    metrics.gauge("queue_running", "Generations under way.", lambda: slots.taken)
    metrics.gauge("under_way", "Requests that are being answered.", lambda: drain.under_way)
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
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(
        Gate,
        settings=settings,
        policy=policy,
        authenticator=Authenticator(policy, keys, TokenVerifier(policy, fetch=fetch_keys)),
        admission=Admission(settings, policy, rates or _rates(settings)),
        recorder=services.recorder,
        metrics=services.metrics,
        tracing=tracing,
        under_way=drain.request,
    )
    return app


def _rates(settings: ServiceSettings) -> Rates:
    if settings.redis_url is None:
        return LocalRates()
    from api.limits_redis import RedisRates

    return RedisRates.connect(settings.redis_url.get_secret_value(), settings.redis_seconds)
