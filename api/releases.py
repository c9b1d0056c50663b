"""The releases that answer now, and which of them answers whom. Changes while the service runs.

Readers see one state or the next, never a part of each: a state is immutable and replaced whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from api.channels import Channel
from privacy.release import VerifiedRelease


@dataclass(frozen=True)
class _State:
    releases: Mapping[str, VerifiedRelease] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)


class Releases(Mapping[str, VerifiedRelease]):
    """Verified releases by id.

    Args:
        releases: those that the engine serves.
        alias: name that, with ``.`` and a department after it, may stand for that department's own.
        channels: what names stand for; their releases are among ``releases``.
    """

    def __init__(
        self,
        releases: Iterable[VerifiedRelease] = (),
        *,
        alias: str = "intramural",
        channels: Iterable[Channel] = (),
    ) -> None:
        self._alias = alias
        self._state = _State()
        self.replace(releases, channels)

    def replace(
        self, releases: Iterable[VerifiedRelease], channels: Iterable[Channel] = ()
    ) -> None:
        """Serve these from the next request on."""
        self._state = _State(
            {release.id: release for release in releases},
            {channel.name: channel for channel in channels},
        )

    def __getitem__(self, release: str) -> VerifiedRelease:
        return self._state.releases[release]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.releases)

    def __len__(self) -> int:
        return len(self._state.releases)

    @property
    def channels(self) -> Mapping[str, Channel]:
        """What names stand for now."""
        return self._state.channels

    def names_of(self, release: str) -> list[str]:
        """The names whose stable release or canary this is."""
        return [
            channel.name
            for channel in self._state.channels.values()
            if release in (channel.stable, channel.canary)
        ]

    def choose(
        self,
        name: str,
        *,
        principal: str,
        department: str = "",
        usable: Callable[[str], bool] = lambda release: True,
    ) -> str | None:
        """The release that answers a caller who asks for ``name``; ``None``: the name is unknown.

        An id is itself. A name is its stable release, for some principals its canary; the alias is
        first of all what was promoted for the caller's own department. One that is not ``usable``
        (not granted, not loaded) gives way to the next; if none is, the last one is told.
        """
        state = self._state
        if name in state.releases:
            return name
        names = [f"{name}.{department}", name] if department and name == self._alias else [name]
        picked = [
            release
            for each in names
            if each in state.channels
            for release in state.channels[each].pick(principal)
        ]
        last = picked[-1] if picked else None
        return next((release for release in picked if usable(release)), last)
