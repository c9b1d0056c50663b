"""The folder of one run at the hub: its signed manifest, policy, checkpoint, and how it is doing.

::

    runs/<run id>/
      manifest.json            the signed manifest; its digest is the run's id
      policy.toml | .yaml      the policy file as it was when the run was started
      local.json               where the hub has the base model
      public.json              public records to evaluate on, if any
      metrics.json             what they gave, before the release is published
      checkpoint/              resumable state, replaced after each round
      progress.json            the round under way, written by the process that runs it
      keeper.json              what is wanted of the run, and what became of it

Everybody who reads the manifest verifies it first, so that a changed folder starts nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from policies.load import load_policy
from policies.model import Policy
from privacy.errors import PrivacyError
from privacy.files import write_atomic
from privacy.joining import now_text
from privacy.manifest import RunManifest, SignedManifest
from privacy.signing import VerifyKey
from privacy.store.lock import FileLock
from server.accounts import AccountBook
from server.errors import EvaluationInvalid, HubError
from server.evaluate import PublicSet
from server.events import (
    Event,
    NodeDeclined,
    NodeReplied,
    OnEvent,
    RoundFinished,
    RoundStarted,
    RunBegan,
)
from server.rounds import RunState, RunStore
from server.state_file import StateFile

_SUFFIXES = (".toml", ".yaml", ".yml")

Wanted = Literal["run", "stop"]
Standing = Literal["waiting", "running", "retrying", "finished", "failed", "cancelled"]
OVER: Final[tuple[Standing, ...]] = ("finished", "failed", "cancelled")
"""Where the keeper does nothing more of itself."""


class RunInUse(HubError):
    """Another process works on this run."""


class RunUnknown(HubError):
    """There is no run of this id."""


@dataclass(frozen=True)
class Keeping:
    """What is wanted of a run and what became of it (``keeper.json``).

    Attributes:
        wanted: "run", or "stop" after it was cancelled.
        standing: where it is; "failed" and "cancelled" go on with `train resume` alone.
        flower_run: Flower's own id of the latest attempt.
        attempts: attempts that ended without completing a round.
        round: completed rounds when the latest attempt began.
        hub: process id of the hub that made this attempt.
        reason: why it is not running, in the hub's words.
        hopeless: another attempt would end the same way.
        interruptions: every attempt that ended early: at, round, reason.
        release: id of the release, once there is one.
    """

    wanted: Wanted = "run"
    standing: Standing = "waiting"
    flower_run: int | None = None
    attempts: int = 0
    round: int = 0
    hub: int = 0
    reason: str = ""
    hopeless: bool = False
    interruptions: Sequence[Mapping[str, Any]] = ()
    release: str | None = None


class RunFolder:
    """One run's files under ``root``, whose name is the run's id."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.run_id = self.root.name
        self.store = RunStore(self.root / "checkpoint")
        self._manifest = self.root / "manifest.json"
        self._local = self.root / "local.json"
        self._progress = self.root / "progress.json"
        self._public = self.root / "public.json"
        self._metrics = self.root / "metrics.json"
        self._lock = self.root / "run.lock"
        self._keeper = StateFile(self.root / "keeper.json")

    @classmethod
    def create(
        cls,
        runs: Path,
        signed: SignedManifest,
        policy: Path,
        base_model: Path,
        public: PublicSet | None = None,
    ) -> "RunFolder":
        """Store a new run under ``runs``; the keeper finds it once ``keeper.json`` is there.

        ``public``: what its adapter is to be evaluated on.

        Raises:
            PolicyError: the policy file cannot be used.
        """
        run = cls(runs / signed.manifest.run_id)
        run.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = run.root / f"policy{policy.suffix.lower()}"
        write_atomic(kept, policy.read_bytes(), mode=0o600)
        local = json.dumps({"base_model": str(base_model)}).encode()
        write_atomic(run._local, local, mode=0o600)
        if public is not None:
            write_atomic(run._public, json.dumps(public.to_json()).encode(), mode=0o600)
        write_atomic(run._manifest, signed.to_json().encode(), mode=0o600)
        return run

    def signed(self) -> SignedManifest:
        """The stored manifest, which has this folder's run id; its signature is not verified.

        Raises:
            RunUnknown: there is none.
            ManifestInvalid: it is malformed.
        """
        try:
            signed = SignedManifest.from_json(self._manifest.read_bytes())
        except OSError:
            raise RunUnknown(
                f"there is no run {self.run_id!r}; see `intramural train status`"
            ) from None
        if signed.manifest.run_id != self.run_id:
            raise RunUnknown(
                f"the manifest in {self.root} is of {signed.manifest.run_id}: it was changed; "
                "start a new run"
            )
        return signed

    def manifest(self, trusted: Mapping[str, VerifyKey]) -> RunManifest:
        """The verified manifest; raises as :meth:`signed`, and ManifestInvalid for its signature."""
        return self.signed().verify(trusted)

    def policy(self) -> Policy:
        """The policy that the run was planned under.

        Raises:
            PolicyError: it is missing or damaged.
        """
        paths = [self.root / f"policy{suffix}" for suffix in _SUFFIXES]
        return load_policy(next((path for path in paths if path.exists()), paths[0]))

    def base_model(self) -> Path:
        """Where the hub has the base model."""
        try:
            return Path(json.loads(self._local.read_bytes())["base_model"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RunUnknown(f"{self._local} is missing or damaged; start a new run") from None

    def public(self) -> PublicSet | None:
        """What the run's adapter is to be evaluated on, if anything.

        Raises:
            EvaluationInvalid: the file is damaged.
        """
        try:
            return PublicSet.from_json(json.loads(self._public.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EvaluationInvalid(f"{self._public} is damaged: {error}") from None

    def metrics(self) -> dict[str, Any] | None:
        """What the evaluation gave; None before it, or where there is none."""
        try:
            value = json.loads(self._metrics.read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def keep_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Store what the evaluation gave: durable once this returns."""
        write_atomic(self._metrics, json.dumps(metrics).encode(), mode=0o600)

    @property
    def exists(self) -> bool:
        """Whether a run was stored completely."""
        return self._keeper.path.exists()

    def keeping(self) -> Keeping:
        """What is wanted of the run.

        Raises:
            StateUnusable: the file is damaged.
        """
        return Keeping(**self._keeper.read())

    @contextmanager
    def keep(self) -> Iterator[dict[str, Any]]:
        """The fields of :class:`Keeping` to change; durable at the end."""
        with self._keeper.edit() as value:
            yield value

    def progress(self) -> dict[str, Any]:
        """The round under way as its process last told; empty before the first."""
        try:
            value = json.loads(self._progress.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the run while a process works on it; the system lets go at any death.

        Raises:
            RunInUse: another process does.
        """
        if not self._manifest.exists():
            self.signed()
        with FileLock(self._lock, mode=0o600) as lock:
            if not lock.try_exclusive():
                raise RunInUse(f"another process works on run {self.run_id}; stop it")
            yield

    @property
    def in_work(self) -> bool:
        """Whether a process works on the run now."""
        try:
            with self.working():
                return False
        except RunInUse:
            return True

    def state(self) -> RunState | None:
        """The checkpoint; None before round 1 was sent.

        Raises:
            CheckpointUnusable: it is damaged.
        """
        return self.store.load()

    def telling(self, on_event: OnEvent) -> OnEvent:
        """An ``OnEvent`` that notes the round under way before it passes an event on."""
        told: dict[str, Any] = {"round": 0, "asked": [], "contributed": [], "declined": []}

        def handle(event: Event) -> None:
            match event:
                case RunBegan(round=number):
                    told.update(round=number)
                case RoundStarted(round=number, departments=names):
                    told.update(round=number, asked=list(names), contributed=[], declined=[])
                case NodeReplied(department=name):
                    told["contributed"].append(name)
                case NodeDeclined():
                    told["declined"].append(event.to_json())
                case RoundFinished():
                    told["asked"] = []
            self.tell(told)
            on_event(event)

        return handle

    def tell(self, told: Mapping[str, Any]) -> None:
        """Replace ``progress.json``."""
        data = json.dumps({**told, "at": now_text()}).encode()
        write_atomic(self._progress, data, mode=0o600)


def trusted_keys(accounts: AccountBook) -> dict[str, VerifyKey]:
    """The keys of the active run accounts, by name.

    Raises:
        StateUnusable, AccountInvalid, KeyUnusable: the accounts are damaged.
    """
    return {account.name: VerifyKey.parse(account.key) for account in accounts.trusted()}


def stored_runs(runs: Path) -> list[RunFolder]:
    """Every run, in any order; no manifest is read."""
    found = [RunFolder(path) for path in Path(runs).glob("run-*") if path.is_dir()]
    return [run for run in found if run.exists]


def by_age(runs: Iterable[RunFolder]) -> list[RunFolder]:
    """The oldest first; damaged ones before all others."""

    def age(run: RunFolder) -> tuple[str, str]:
        try:
            return run.signed().manifest.created, run.run_id
        except (HubError, PrivacyError):
            return "", run.run_id

    return sorted(runs, key=age)


def run_folders(runs: Path) -> list[RunFolder]:
    """Every run, :func:`by_age`."""
    return by_age(stored_runs(runs))


def find_run(runs: Path, named: str | None) -> RunFolder:
    """The run whose id begins with ``named``; the latest where none is named.

    Raises:
        RunUnknown: there is none, or several.
    """
    every = run_folders(runs)
    matching = [run for run in every if named is None or run.run_id.startswith(named)]
    if named is None:
        matching = matching[-1:]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        what = "there is no run yet" if named is None else f"there is no run {named!r}"
        raise RunUnknown(f"{what}; see `intramural train status`, or start one")
    raise RunUnknown(f"{named!r} begins {len(matching)} run ids; give more of it")
