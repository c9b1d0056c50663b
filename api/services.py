"""What the routes work with, wired once by :func:`api.app.create_app`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anyio import CapacityLimiter
from fastapi import Request

from api.call import Call
from api.draining import Drain
from api.engines.base import Engine
from api.errors import (
    HttpError,
    invalid_request,
    not_found,
    permission_denied,
    unauthenticated,
    unavailable,
)
from api.guards import Guards
from api.limits import Slots
from api.metrics import Metrics
from api.readiness import Readiness
from api.recording import Recorder
from api.releases import Releases
from api.sealing import Sealer
from api.settings import ServiceSettings
from api.usage import UsageTable
from policies.decisions import Decision
from policies.grants import Caller, decide_caller
from policies.model import Policy
from privacy.ledger.history import Spend
from privacy.pii.detector import Detector
from privacy.release import personal_id

Ledgers = Callable[[], Sequence[Spend]]
"""Reads what the departments have spent, newest state at every call; raises when it cannot."""


@dataclass(frozen=True)
class Services:
    """Everything behind the routes."""

    settings: ServiceSettings
    policy: Policy
    engine: Engine
    detector: Detector
    guards: Guards
    recorder: Recorder
    releases: Releases
    ledgers: Ledgers
    slots: Slots
    metrics: Metrics
    sealer: Sealer
    usage: UsageTable
    engine_threads: CapacityLimiter
    drain: Drain
    readiness: Readiness

    @classmethod
    def of(cls, request: Request) -> "Services":
        """The services of the application that got this request."""
        services = request.app.state.services
        if not isinstance(services, cls):
            raise TypeError("the application was not made by create_app")
        return services

    def decide(
        self, call: Call, *, model: str | None = None, max_tokens: int | None = None
    ) -> None:
        """Ask the policy about this call.

        Raises:
            HttpError: 403, or 400 where the caller can mend the request.
        """
        release = model if model in self.releases else None
        decision = decide_caller(self.policy, _caller(call), call.operation, release, max_tokens)
        if not decision.allowed:
            raise _refusal(decision)

    def may_use(self, call: Call, model: str) -> bool:
        """Whether this caller may use a model; base models are not a matter of grants."""
        return (
            model not in self.releases
            or decide_caller(self.policy, _caller(call), call.operation, model).allowed
        )

    def model(self, name: str, call: Call) -> str:
        """The id of the model of this name or alias for this caller.

        Raises:
            HttpError: 404 ``model_not_found``, or 503 where it is known but cannot answer now.
        """
        served = self.served()
        chosen = self.releases.choose(
            name,
            principal=call.principal,
            department=call.department,
            usable=lambda release: release in served and self.may_use(call, release),
        )
        if chosen in served:
            return chosen
        if name in served:
            return name
        if chosen is None and name == self.settings.alias and served:
            return served[0]
        if chosen is not None:
            raise unavailable(
                "the model's engine cannot answer at present",
                code="engine_unavailable",
                retry_after=5,
            )
        raise not_found(
            "no such model is served; GET /v1/models lists those that are",
            code="model_not_found",
            param="model",
        )

    def answering(self, call: Call, model: str) -> str:
        """What the engine is asked for, once the policy has allowed the model to this caller.

        Where the caller's department has an adapter of its own for the release, the release with that
        on top; callers of no other department can reach it, as its id is no name that anybody can
        ask for.
        """
        release = self.releases.get(model)
        if release is None or call.department not in release.personal:
            return model
        call.personal = call.department
        return personal_id(model, call.department)

    def served(self) -> list[str]:
        """Ids of the models that may answer: verified releases, and base models if enabled."""
        return [
            name
            for name in self.engine.models()
            if name in self.releases or self.settings.serve_base_model
        ]


def _caller(call: Call) -> Caller:
    if call.caller is None:
        raise unauthenticated()
    return call.caller


def _refusal(decision: Decision) -> HttpError:
    if decision.code in ("too_many_tokens", "invalid_request"):
        return invalid_request(decision.reason, code=decision.code, param="max_tokens")
    return permission_denied(decision.reason, code=decision.code)
