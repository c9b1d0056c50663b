"""The run keeper: a process of ``hub start`` that starts the hub's runs in Flower and resumes them.

A run of the hub outlives Flower's: where one of those has ended without the release, or its process
is gone, the keeper starts another for the same signed manifest, which goes on after the last
checkpoint. Nothing is kept in memory that a new keeper could not do without.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from client.bundle import RUN_SETTING, build_bundle
from intramural.deployment.hub_home import HubHome
from privacy.audit.entries import AuditEntry
from privacy.errors import AuditUnavailable, PrivacyError
from privacy.joining import now_text
from privacy.signing import VerifyKey
from server.audit_socket import RemoteAudit, Sink
from server.errors import CheckpointUnusable, HubError
from server.flower_control import ControlUnavailable
from server.flower_runs import FlowerRuns, Phase
from server.runs import OVER, Keeping, RunFolder, by_age, stored_runs, trusted_keys

ATTEMPTS: Final = 6
"""Attempts in a row without a completed round, after which a person has to look."""

SILENT: Final = 90.0
"""Seconds that a run may be alive in Flower without a process of ours: more than Flower's heartbeat."""

_TICK = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
_KEPT = 100


class Runs(Protocol):
    """What the keeper needs of :class:`server.flower_runs.FlowerRuns`."""

    def start(self, bundle: bytes, config: Mapping[str, str]) -> int:
        """Flower's id of the run that is started."""
        ...

    def phase(self, run_id: int) -> Phase:
        """Where it is."""
        ...

    def stop(self, run_id: int) -> None:
        """Stop it."""
        ...


@dataclass
class _Watch:
    """What one keeper knows of a run: when to try again, and since when no process works on it."""

    due: float = 0.0
    silent_since: float | None = None
    told: str = ""


class Keeper:
    """Brings every run under ``folder`` to where it is wanted; :meth:`step` does what is due now.

    ``hub`` identifies the hub's present start: processes of an earlier one are dead.
    """

    def __init__(
        self,
        folder: Path,
        runs: Runs,
        trusted: Callable[[], Mapping[str, VerifyKey]],
        audit: Sink,
        say: Callable[[str], None],
        *,
        hub: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._runs = runs
        self._trusted = trusted
        self._audit = audit
        self._say = say
        self._hub = hub
        self._clock = clock
        self._watched: dict[str, _Watch] = {}

    def step(self) -> None:
        """Look at every run once.

        Raises:
            ControlUnavailable, AuditUnavailable: now is no time to do anything.
        """
        for run in by_age(filter(_goes_on, stored_runs(self._folder))):
            watch = self._watched.setdefault(run.run_id, _Watch())
            try:
                self._look(run, run.keeping(), watch)
            except (ControlUnavailable, AuditUnavailable):
                raise
            except (HubError, PrivacyError) as error:
                # A damaged folder must not keep the other runs from going on.
                if watch.told != str(error):
                    self._say(f"{run.run_id}: {error}")
                watch.told = str(error)

    def _look(self, run: RunFolder, kept: Keeping, watch: _Watch) -> None:
        if kept.release is not None:
            self._set(run, "run_finished", standing="finished", reason="")
        elif kept.wanted == "stop":
            if kept.flower_run is not None:
                self._runs.stop(kept.flower_run)
            self._set(run, "run_cancelled", standing="cancelled", reason="it was cancelled")
        elif kept.flower_run is not None:
            self._follow(run, kept, kept.flower_run, watch)
        elif self._clock() >= watch.due:
            self._submit(run, watch)

    def _follow(self, run: RunFolder, kept: Keeping, flower_run: int, watch: _Watch) -> None:
        phase = self._runs.phase(flower_run)
        if phase == "alive":
            if run.in_work:
                watch.silent_since = None
                return
            if watch.silent_since is None:
                watch.silent_since = self._clock()
            silent = self._clock() - watch.silent_since
            if kept.hub == self._hub and silent < SILENT:
                return
            # Flower would notice after a minute; whoever ran it died with the hub before this one.
            self._runs.stop(flower_run)
        if run.in_work:
            return  # its last words are still being written
        self._ended(run, run.keeping(), watch)

    def _ended(self, run: RunFolder, kept: Keeping, watch: _Watch) -> None:
        """An attempt ended: with the release, for good, or to be tried again."""
        if kept.release is not None:
            self._set(run, "run_finished", standing="finished", reason="")
            return
        try:
            state = run.state()
        except CheckpointUnusable as error:
            self._set(run, "run_failed", standing="failed", reason=str(error))
            return
        done = 0 if state is None else state.round
        attempts = 0 if done > kept.round else kept.attempts + 1
        if kept.hub != self._hub:
            attempts = 0
        reason = kept.reason or self._guess(kept)
        interruption = {"at": now_text(), "round": done + 1, "reason": reason}
        changes: dict[str, Any] = {
            "reason": reason,
            "flower_run": None,
            "attempts": attempts,
            "interruptions": [*kept.interruptions, interruption][-_KEPT:],
        }
        # Codes alone: a reason may quote what a node wrote.
        told = run.progress().get("declined", []) if kept.reason else []
        facts = {"round": done + 1, "declined": {d["department"]: d["code"] for d in told}}
        if kept.hopeless or attempts >= ATTEMPTS:
            self._set(run, "run_failed", facts, standing="failed", **changes)
            return
        watch.silent_since = None
        watch.due = self._clock() + (
            0.0 if not attempts else min(_FIRST_PAUSE * 2**attempts, _LONGEST_PAUSE)
        )
        self._set(run, "run_interrupted", facts, standing="retrying", **changes)

    def _guess(self, kept: Keeping) -> str:
        if kept.hub != self._hub:
            return "the hub was stopped or killed, and started again"
        return "the process at the hub that ran it ended, or lost the SuperLink for too long"

    def _submit(self, run: RunFolder, watch: _Watch) -> None:
        try:
            manifest = run.manifest(self._trusted())
            manifest.check_time(datetime.now(UTC))
            state = run.state()
        except (PrivacyError, HubError) as error:
            self._set(run, "run_failed", standing="failed", reason=str(error))
            return
        done = 0 if state is None else state.round
        # On record before it happens. A crash in between leaves an entry without an attempt.
        self._note(run, "run_submitted", rounds_done=done, account=manifest.account)
        flower_run = self._runs.start(build_bundle(), {RUN_SETTING: run.run_id})
        # A crash before the next write leaves an attempt that nobody follows; it holds the run's
        # folder, so that the next one fails, is tried again, and finds what the first has done.
        with run.keep() as kept:
            kept.update(
                standing="running", flower_run=flower_run, round=done, hub=self._hub,
                reason="", hopeless=False,
            )  # fmt: skip
        watch.silent_since = None
        self._say(f"{run.run_id}: round {done + 1} of {manifest.terms.rounds} is next")

    def _set(
        self, run: RunFolder, step: str, facts: Mapping[str, Any] | None = None, **changes: Any
    ) -> None:
        self._note(run, step, **(facts or {}))
        with run.keep() as kept:
            kept.update(changes)
        reason = str(changes.get("reason", "")).partition("\n")[0]
        self._say(f"{run.run_id}: {changes['standing']}{': ' if reason else ''}{reason}")

    def _note(self, run: RunFolder, step: str, **facts: Any) -> None:
        entry = {"step": step, "run_id": run.run_id, **facts}
        self._audit.append(AuditEntry.now("run_step", "hub", entry))


def _goes_on(run: RunFolder) -> bool:
    """Whether there is anything to do; a damaged run is looked at, and told of."""
    try:
        return run.keeping().standing not in OVER
    except HubError:
        return True


def keep_runs(home: HubHome, ending: threading.Event) -> None:
    """Keep the hub's runs until ``ending`` is set."""
    with FlowerRuns(
        home.local_address(), home.ca.read_bytes(), home.internal_token.read_text().strip()
    ) as runs:
        keeper = Keeper(
            home.runs,
            runs,
            lambda: trusted_keys(home.accounts),
            RemoteAudit.from_environment(),
            _say,
            hub=os.getppid(),
        )
        told = ""
        while not ending.wait(_TICK):
            try:
                keeper.step()
                told = ""
            except (ControlUnavailable, PrivacyError) as error:
                if str(error) != told:
                    _say(str(error))
                told = str(error)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Keep runs until SIGTERM; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # The HTTP client tells every request at level INFO, and Flower every call.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ending = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ending.set()

    signal.signal(signal.SIGTERM, end)
    with suppress(KeyboardInterrupt):
        keep_runs(HubHome(Path(os.environ["INTRAMURAL_HUB"])), ending)
    return 0


if __name__ == "__main__":
    sys.exit(main())
