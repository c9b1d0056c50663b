"""Follows what is promoted, and serves it: loads, switches, and lets go of what nobody asks any more.

Two threads, so that a rollback is not kept waiting by a release that is still loading: one reads
the store several times a second and switches to what is ready, the other loads.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from api.channels import Channel
from api.engines.switching import SwitchingEngine
from api.errors import EngineError
from api.releases import Releases
from privacy.errors import PrivacyError
from privacy.release import VerifiedRelease

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
LINGER_SECONDS = 120.0
"""A release that was chosen for a request may wait for a slot: so long it is still there."""
_AGAIN_SECONDS = 30.0
_STALE_SECONDS = 10.0


class Promotions(Protocol):
    """Where promotions are kept; see :class:`api.channels_table.ChannelStore`."""

    def version(self) -> int:
        """Grows with every change."""
        ...

    def channels(self) -> Mapping[str, Channel]:
        """What every name stands for."""
        ...


class Rollout:
    """Args:
    promotions: what is to be served.
    find: verifies and reads a release by its id; raises what is wrong with it.
    engine: loads and unloads.
    releases: told what is served.
    always: releases that are served whatever is promoted.
    default: what names stand for of which nothing was promoted.
    told: called with the channels before each switch, which does not happen if it raises.
    linger: seconds that a release stays after the last channel left it.
    """

    def __init__(
        self,
        promotions: Promotions,
        find: Callable[[str], VerifiedRelease],
        engine: SwitchingEngine,
        releases: Releases,
        *,
        always: Mapping[str, VerifiedRelease] | None = None,
        default: Mapping[str, Channel] | None = None,
        told: Callable[[Mapping[str, Channel]], None] = lambda channels: None,
        linger: float = LINGER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._promotions = promotions
        self._find = find
        self._engine = engine
        self._releases = releases
        self._default = dict(default or {})
        self._told = told
        self._linger = linger
        self._clock = clock
        self._ready: dict[str, VerifiedRelease] = dict(always or {})
        self._always = frozenset(self._ready)
        self._failed: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._wanted: Mapping[str, Channel] = {}
        self._version = -1
        self._read_at = clock()
        self._lock = threading.RLock()
        self._work = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Load what stands for the names now, then follow changes until :meth:`close`.

        Raises:
            Exception: the stable release of a name cannot be verified or loaded.
        """
        for release in self._always:
            self._engine.load(self._ready[release])
        self._read()
        for channel in self._wanted.values():
            self._load(channel.stable)
        self._switch()
        for target, name in ((self._follow, "rollout"), (self._loads, "rollout-load")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.set()

    def close(self) -> None:
        """Follow no more; what is served stays."""
        self._stop.set()
        self._work.set()
        for thread in self._threads:
            thread.join(5)

    @property
    def current(self) -> bool:
        """Whether the store was read in the last seconds."""
        return self._clock() - self._read_at < _STALE_SECONDS

    def refresh(self) -> None:
        """Read the store, and switch to what is ready."""
        if self._read():
            self._work.set()
        self._switch()

    def load_next(self) -> bool:
        """Load one release that is wanted and missing; whether there was one."""
        with self._lock:
            missing = self._missing()
        if not missing:
            return False
        try:
            self._load(missing[0])
        except Exception as error:
            _log.error("%s is not served: %s", missing[0], _words(error))
            with self._lock:
                self._failed[missing[0]] = self._clock()
        self._switch()
        return True

    def _follow(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.refresh()
            except Exception as error:
                # What is served stays; readiness tells when this goes on.
                _log.error("promotions cannot be read: %s", type(error).__name__)

    def _loads(self) -> None:
        while not self._stop.is_set():
            self._work.wait(_AGAIN_SECONDS)
            self._work.clear()
            while not self._stop.is_set() and self.load_next():
                pass

    def _read(self) -> bool:
        version = self._promotions.version()
        self._read_at = self._clock()
        if version == self._version:
            return False
        channels = {**self._default, **self._promotions.channels()}
        with self._lock:
            self._wanted, self._version = channels, version
            self._failed.clear()
        return True

    def _load(self, release: str) -> None:
        if release not in self._ready:
            found = self._find(release)
            self._engine.load(found)
            with self._lock:
                self._ready[release] = found

    def _missing(self) -> list[str]:
        now = self._clock()
        found = [name for each in self._wanted.values() for name in each.wanted()]
        return [
            name
            for name in dict.fromkeys(found)
            if name not in self._ready and now - self._failed.get(name, -1e9) > _AGAIN_SECONDS
        ]

    def _switch(self) -> None:
        with self._lock:
            before = dict(self._releases.channels)
            channels = {
                name: served
                for name, wanted in self._wanted.items()
                if (served := self._served(wanted, before.get(name))) is not None
            }
            if channels != before:
                # Recorded first: what nobody could record is not served.
                self._told(channels)
            gone = self._gone(channels)
            for release in gone:
                self._ready.pop(release)
            if channels != before or set(self._releases) != set(self._ready):
                self._releases.replace(self._ready.values(), channels.values())
        for release in gone:
            self._engine.unload(release)

    def _served(self, wanted: Channel, before: Channel | None) -> Channel | None:
        """As much of what is wanted as is ready; what is not leaves things as they were."""
        if wanted.stable not in self._ready:
            return before
        if wanted.canary and wanted.canary not in self._ready:
            return replace(wanted, canary="", percent=0)
        return wanted

    def _gone(self, channels: Mapping[str, Channel]) -> list[str]:
        now = self._clock()
        used = {
            name for each in (*channels.values(), *self._wanted.values()) for name in each.wanted()
        }
        for release in self._ready:
            if release in used or release in self._always:
                self._left.pop(release, None)
            else:
                self._left.setdefault(release, now)
        gone = [release for release, since in self._left.items() if now - since >= self._linger]
        for release in gone:
            del self._left[release]
        return gone


def _words(error: Exception) -> str:
    """Errors of ours say what is wrong; a foreign one may quote anything."""
    return str(error) if isinstance(error, (EngineError, PrivacyError)) else type(error).__name__
