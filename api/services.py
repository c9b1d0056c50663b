"""What the routes work with, wired once by :func:`api.app.create_app`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request

from api.call import Call
from api.engines.base import Engine
from api.errors import HttpError, invalid_request, not_found, permission_denied
from api.limits import Slots
from api.metrics import Metrics
from api.recording import Recorder
from api.settings import ServiceSettings
from policies.decisions import Decision, decide_call
from policies.model import Policy
from privacy.ledger.history import Spend
from privacy.pii.detector import Detector
from privacy.release import VerifiedRelease

Ledgers = Callable[[], Sequence[Spend]]
"""Reads what the departments have spent, newest state at every call; raises when it cannot."""


@dataclass(frozen=True)
class Services:
    """Everything behind the routes."""

    settings: ServiceSettings
    policy: Policy
    engine: Engine
    detector: Detector
    recorder: Recorder
    releases: Mapping[str, VerifiedRelease]
    ledgers: Ledgers
    slots: Slots
    metrics: Metrics

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
        decision = decide_call(self.policy, call.role, call.operation, release, max_tokens)
        if not decision.allowed:
            raise _refusal(decision)

    def model(self, name: str) -> str:
        """The id of the model of this name or alias.

        Raises:
            HttpError: 404 ``model_not_found``.
        """
        served = self.served()
        if name in served:
            return name
        if name == self.settings.alias and served:
            return served[0]
        raise not_found(
            "no such model is served; GET /v1/models lists those that are",
            code="model_not_found",
            param="model",
        )

    def served(self) -> list[str]:
        """Ids of the models that may answer: verified releases, and base models if enabled."""
        return [
            name
            for name in self.engine.models()
            if name in self.releases or self.settings.serve_base_model
        ]

    def readiness(self) -> dict[str, bool]:
        """Whether the parts that an answer needs are there, by name.

        ``release``: the engine has a model that may answer.
        """
        return {
            "engine": bool(self.engine.models()),
            "audit": self.recorder.available,
            "release": bool(self.served()),
        }


def _refusal(decision: Decision) -> HttpError:
    if decision.code in ("too_many_tokens", "invalid_request"):
        return invalid_request(decision.reason, code=decision.code, param="max_tokens")
    return permission_denied(decision.reason, code=decision.code)
