"""Which release answers under a name: what was promoted, and what that replaced. Knows no table.

A name is what callers write as ``model``; it has a stable release and at most one canary, which
answers a share of the principals. Everything follows from the events, so an earlier state is never
lost and a rollback needs no memory of its own.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from api.errors import ServiceError

Kind = Literal["stable", "canary", "rollback"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
RELEASE = re.compile(r"r-[0-9a-f]{20}")


class PromotionRefused(ServiceError):
    """A release cannot be promoted or rolled back as asked."""


@dataclass(frozen=True)
class ChannelEvent:
    """``stable`` and ``canary`` promote ``release``; ``rollback`` names none.

    ``percent`` is a canary's share of the principals; ``at`` is ``YYYY-MM-DDTHH:MM:SSZ``.
    """

    kind: str
    name: str
    release: str = ""
    percent: int = 0
    at: str = ""


@dataclass(frozen=True)
class Channel:
    """What a name stands for now.

    Attributes:
        name: as callers write it.
        stable: release that answers.
        canary: release that answers ``percent`` of the principals, or ``""``.
        earlier: stable releases before this one, the latest last.
    """

    name: str
    stable: str
    canary: str = ""
    percent: int = 0
    earlier: tuple[str, ...] = ()

    def wanted(self) -> list[str]:
        """Releases to hold ready; the one before stands by for a rollback."""
        found = [self.stable, self.canary, *self.earlier[-1:]]
        return [release for release in dict.fromkeys(found) if release]

    def pick(self, principal: str) -> list[str]:
        """Releases for a principal, the preferred one first.

        The same principal gets the same one as long as nothing is promoted; each canary draws its
        share anew.
        """
        if self.canary and _share(self.name, self.canary, principal) < self.percent:
            return [self.canary, self.stable]
        return [self.stable]


def applied(channels: Mapping[str, Channel], event: ChannelEvent) -> dict[str, Channel]:
    """The channels after an event.

    Raises:
        PromotionRefused: there is nothing to roll back to, or no stable release beside a canary.
    """
    before = channels.get(event.name)
    return {**channels, event.name: _after(before, event)}


def replayed(events: Iterable[ChannelEvent]) -> dict[str, Channel]:
    """The channels after all events."""
    channels: dict[str, Channel] = {}
    for event in events:
        channels = applied(channels, event)
    return channels


def _after(before: Channel | None, event: ChannelEvent) -> Channel:
    if event.kind == "rollback":
        return _rolled_back(before, event.name)
    if not RELEASE.fullmatch(event.release):
        raise PromotionRefused("a release id is r- and 20 hexadecimal digits")
    if not NAME.fullmatch(event.name) or RELEASE.fullmatch(event.name):
        raise PromotionRefused(
            "a name has at most 64 letters, digits and . _ : -, and is no release id"
        )
    if event.kind == "canary":
        if before is None:
            raise PromotionRefused(
                f"{event.name} has no stable release yet; promote one with --channel stable first"
            )
        if not 0 <= event.percent <= 100:
            raise PromotionRefused(f"percent={event.percent} must lie between 0 and 100")
        if event.release == before.stable:
            raise PromotionRefused(f"{event.release} is the stable release of {event.name} already")
        return replace(before, canary=event.release, percent=event.percent)
    if before is None:
        return Channel(event.name, event.release)
    if event.release == before.stable:
        return replace(before, canary="", percent=0)
    return Channel(event.name, event.release, earlier=(*before.earlier, before.stable))


def _rolled_back(before: Channel | None, name: str) -> Channel:
    if before is None:
        raise PromotionRefused(f"nothing was promoted under {name}")
    if before.canary:
        return replace(before, canary="", percent=0)
    if not before.earlier:
        raise PromotionRefused(
            f"{before.stable} is the first release of {name}: there is none to go back to"
        )
    return Channel(name, before.earlier[-1], earlier=before.earlier[:-1])


def _share(name: str, canary: str, principal: str) -> float:
    """Where a principal stands among all, in [0, 100)."""
    digest = hashlib.sha256("\0".join((name, canary, principal)).encode()).digest()
    return 100 * int.from_bytes(digest[:6], "big") / 2**48
