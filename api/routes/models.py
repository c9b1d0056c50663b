"""``GET /v1/models``: what is served, and with which guarantee."""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.services import Services
from policies.decisions import decide_call

router = APIRouter()


class ModelOut(BaseModel):
    """OpenAI's model object; ``intramural`` holds what the release is known to guarantee."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    intramural: dict[str, Any]


class ModelsOut(BaseModel):
    """All models that the caller's role may use."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


@router.get("/v1/models", dependencies=[operation("models")])
async def models(request: Request) -> ModelsOut:
    """The models that this key may use."""
    call, services = Call.of(request), Services.of(request)
    allowed = [
        name
        for name in services.served()
        if name not in services.releases
        or decide_call(services.policy, call.role, "models", name).allowed
    ]
    return ModelsOut(data=[_model(services, name) for name in allowed])


@router.get("/v1/models/{model}", dependencies=[operation("models")])
async def model(model: str, request: Request) -> ModelOut:
    """One model, by id or alias."""
    call, services = Call.of(request), Services.of(request)
    name = services.model(model)
    services.decide(call, model=name)
    return _model(services, name)


def _model(services: Services, name: str) -> ModelOut:
    aliases = [services.settings.alias] if services.served()[:1] == [name] else []
    release = services.releases.get(name)
    if release is None:
        facts: dict[str, Any] = {"aliases": aliases, "release": None, "privacy": None}
        return ModelOut(id=name, created=0, owned_by=services.policy.organisation, intramural=facts)
    privacy = release.privacy
    return ModelOut(
        id=name,
        created=int(datetime.fromisoformat(release.run["created"]).timestamp()),
        owned_by=services.policy.organisation,
        intramural={
            "aliases": aliases,
            "release": name,
            "base_model": release.run["base_model"],
            "policy": release.run["policy_digest"],
            "signed_by": release.key_id,
            "privacy": {
                "unit": privacy["unit"],
                "adjacency": privacy["adjacency"],
                "mechanism": privacy["mechanism"],
                "departments": {
                    department: {"epsilon": part["epsilon"], "delta": part["delta"]}
                    for department, part in privacy["departments"].items()
                },
                "largest_epsilon": privacy["largest_epsilon"],
                "sum_epsilon": privacy["sum_epsilon"],
            },
            "metrics": release.metrics,
        },
    )
