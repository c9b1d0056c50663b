"""``GET /v1/releases``: the verified releases, served now or not, with what they guarantee."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.access import operation
from api.errors import not_found
from api.release_facts import created, facts
from api.services import Services
from privacy.release import VerifiedRelease

router = APIRouter()


class ReleaseOut(BaseModel):
    """A release; ``served``: whether it answers now; ``aliases``: the names that lead to it."""

    id: str
    object: Literal["release"] = "release"
    created: int
    served: bool
    aliases: list[str]
    intramural: dict[str, Any]


class ChannelOut(BaseModel):
    """What a name stands for: a stable release, and a canary for ``percent`` of the principals."""

    name: str
    stable: str
    canary: str | None
    percent: int


class ReleasesOut(BaseModel):
    """All releases, newest first, and the names that were promoted."""

    object: Literal["list"] = "list"
    data: list[ReleaseOut]
    channels: list[ChannelOut]


@router.get("/v1/releases", dependencies=[operation("releases")])
async def releases(request: Request) -> ReleasesOut:
    """All verified releases."""
    services = Services.of(request)
    newest = sorted(
        services.releases.values(), key=lambda one: (created(one), one.id), reverse=True
    )
    channels = [
        ChannelOut(name=one.name, stable=one.stable, canary=one.canary or None, percent=one.percent)
        for one in services.releases.channels.values()
    ]
    return ReleasesOut(data=[_release(services, one) for one in newest], channels=channels)


@router.get("/v1/releases/{release}", dependencies=[operation("releases")])
async def release(release: str, request: Request) -> ReleaseOut:
    """One release, by id."""
    services = Services.of(request)
    found = services.releases.get(release)
    if found is None:
        raise not_found(
            "there is no such release; GET /v1/releases lists all", code="release_not_found"
        )
    return _release(services, found)


def _release(services: Services, release: VerifiedRelease) -> ReleaseOut:
    return ReleaseOut(
        id=release.id,
        created=created(release),
        served=release.id in services.served(),
        aliases=services.releases.names_of(release.id),
        intramural=facts(release),
    )
