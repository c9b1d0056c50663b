"""``GET /v1/models``: what is served, and with which guarantee."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.call import Call
from api.release_facts import created, facts
from api.services import Services

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
    allowed = [name for name in services.served() if services.may_use(call, name)]
    return ModelsOut(data=[_model(services, call, name) for name in allowed])


@router.get("/v1/models/{model}", dependencies=[operation("models")])
async def model(model: str, request: Request) -> ModelOut:
    """One model, by id or alias."""
    call, services = Call.of(request), Services.of(request)
    name = services.model(model, call)
    services.decide(call, model=name)
    return _model(services, call, name)


def _model(services: Services, call: Call, name: str) -> ModelOut:
    aliases = services.releases.names_of(name)
    if not services.releases.channels and services.served()[:1] == [name]:
        aliases = [services.settings.alias]
    release = services.releases.get(name)
    if release is None:
        return ModelOut(
            id=name,
            created=0,
            owned_by=services.policy.organisation,
            intramural={"aliases": aliases, "release": None, "privacy": None},
        )
    return ModelOut(
        id=name,
        created=created(release),
        owned_by=services.policy.organisation,
        intramural={
            "aliases": aliases,
            "personal": call.department in release.personal,
            **facts(release),
        },
    )
