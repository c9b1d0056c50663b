"""The main job, once through: department files, scrubbing, private federated training, a signed
release, and the service that redacts. Everything is real but the people.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

from api.engines.base import Engine, GenerationRequest, GenerationResult, Item
from api.server import BackgroundServer
from client.records import DataSource
from intramural.assets import asset_path
from intramural.demo.policy import FULL, QUICK, policy_text
from intramural.demo.records import write_demo_data
from intramural.errors import WorkspaceInUse
from intramural.parts import DEMO_MODEL
from intramural.service import open_service
from intramural.simulation import Display, SimulationOptions, SimulationResult, simulate
from intramural.stores import audit_place
from intramural.workspace import Workspace
from privacy.audit.reader import AuditReport, verify_log
from privacy.files import write_atomic
from privacy.signing import VerifyKey

SEED = 2026
MARKER = "demo.json"
CALLER = "Nadia Brandt, phone +44 20 7946 0958, card 4111 1111 1111 1111."
CONVERSATION: tuple[ChatCompletionMessageParam, ...] = (
    {"role": "user", "content": f"Repeat: {CALLER}"},
    {"role": "assistant", "content": CALLER},
    {"role": "user", "content": f"Repeat: {CALLER}"},
)
"""A task that a model of 135 million parameters can do, so that there is something to restore."""


@dataclass(frozen=True)
class DemoOptions:
    """``model``: another base model's folder. ``rounds``: instead of the scale's own."""

    workdir: Path
    rounds: int | None = None
    model: Path | None = None
    quick: bool = False


@dataclass(frozen=True)
class Redaction:
    """One chat, three views: the application's prompt, the model's, and the answer restored."""

    sent: str
    seen_by_model: str
    returned: str


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration showed; :meth:`to_json` is what ``--json`` prints."""

    simulation: SimulationResult
    redaction: Redaction
    audit: AuditReport

    def to_json(self) -> dict[str, Any]:
        """``release``, ``departments``, ``metric``, ``redaction``, ``audit`` and where files lie."""
        run = self.simulation
        evaluation = run.evaluation.to_json() if run.evaluation is not None else {}
        return {
            "release": run.release.id,
            "departments": [asdict(part) for part in run.departments],
            "metric": metric(run),
            "evaluation": evaluation,
            "declines": [decline.to_json() for decline in run.declines],
            "redaction": asdict(self.redaction),
            "audit": {"entries": self.audit.entries, "verified": self.audit.ok},
            "workspace": str(run.workspace.root),
        }


def metric(run: SimulationResult) -> dict[str, Any]:
    """The headline metric with its 95 % intervals."""
    if run.evaluation is None or run.evaluation.accuracy is None:
        raise ValueError("the run was not evaluated on labelled records")
    accuracy = run.evaluation.accuracy
    return {
        "name": "accuracy on held-out public records",
        "before": accuracy.before.value,
        "after": accuracy.after.value,
        "before_interval": [accuracy.before.low, accuracy.before.high],
        "after_interval": [accuracy.after.low, accuracy.after.high],
        "confidence": 0.95,
        "items": accuracy.items,
        "p_value": accuracy.p_value,
    }


def run_demo(options: DemoOptions, display: Display) -> DemoResult:
    """Run all of it; an interrupted demonstration in the same folder goes on where it stopped.

    Raises :class:`~intramural.errors.WorkspaceInUse` for a folder that is not the demonstration's,
    :class:`~intramural.assets.AssetMissing`, and the errors of the rooms.
    """
    scale = QUICK if options.quick else FULL
    model = options.model or asset_path(DEMO_MODEL)
    name = options.model.name if options.model else DEMO_MODEL
    workspace = Workspace(options.workdir)
    policy = policy_text(scale, options.rounds)
    with _claimed(workspace, {"policy": policy, "model": str(model)}, display.stage) as finish:
        display.stage("writing the policy and the records of three departments")
        files = write_demo_data(workspace.root / "data", scale.records, scale.held_out, SEED)
        policy_file = workspace.root / "policy.toml"
        write_atomic(policy_file, policy.encode())
        simulation = simulate(
            SimulationOptions(
                policy=policy_file,
                data={d: DataSource(path, d) for d, path in files.records.items()},
                model=model,
                model_name=name,
                out=workspace.root,
                evaluation=DataSource(files.held_out),
            ),
            display,
        )
        display.stage("starting the service and asking it through the openai client")
        redaction = ask(workspace, model, simulation.release.id)
        display.stage("verifying the audit log")
        audit = verify_log(audit_place(workspace), VerifyKey.load(workspace.audit_public_key))
        finish()
    return DemoResult(simulation, redaction, audit)


def ask(workspace: Workspace, model: Path, release_id: str) -> Redaction:
    """Send :data:`CONVERSATION` through a service on a free loopback port with a key of its own."""
    seen = _Recording()
    with open_service(workspace, model=model, release=release_id, wrap_engine=seen.over) as service:
        key, _ = service.keys.create("demonstration", "app")
        with (
            BackgroundServer(service.app) as server,
            openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=key) as client,
        ):
            answer = client.chat.completions.create(
                model=release_id,
                messages=CONVERSATION,
                max_tokens=60,
                temperature=0,
                stop="\n",
            )
    return Redaction(_transcript(CONVERSATION), seen.last, answer.choices[0].message.content or "")


def _transcript(messages: Iterable[Any]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class _Recording:
    """Keeps the last prompt that the engine was given, to show it; in this process only."""

    def __init__(self) -> None:
        self.last = ""
        self._lock = threading.Lock()

    def over(self, engine: Engine) -> Engine:
        """The engine, watched."""
        return _Watched(engine, self._note)

    def _note(self, request: GenerationRequest) -> None:
        with self._lock:
            self.last = _transcript(asdict(message) for message in request.messages)


class _Watched:
    def __init__(self, engine: Engine, note: Callable[[GenerationRequest], None]) -> None:
        self._engine = engine
        self._note = note

    def models(self) -> list[str]:
        return self._engine.models()

    def generate(self, request: GenerationRequest) -> GenerationResult:
        self._note(request)
        return self._engine.generate(request)

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        self._note(request)
        return self._engine.stream(request)


@contextmanager
def _claimed(
    workspace: Workspace, settings: dict[str, Any], say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """The folder, cleared unless it holds an unfinished demonstration with the same settings.

    A finished one is cleared too: its budgets belong to invented people and start afresh, which a
    real department's never may.
    """
    marker = workspace.root / MARKER
    if workspace.root.exists():
        if not workspace.root.is_dir():
            raise WorkspaceInUse(f"{workspace.root} is a file; choose another --workdir")
        if any(workspace.root.iterdir()) and not marker.is_file():
            raise WorkspaceInUse(
                f"{workspace.root} holds something else; choose an empty folder with --workdir"
            )
        if _unfinished(marker, settings):
            say(f"going on with the interrupted demonstration in {workspace.root}")
        else:
            _clear(workspace, marker)
    workspace.root.mkdir(parents=True, exist_ok=True)
    write_atomic(marker, json.dumps({"settings": settings, "finished": False}).encode())
    yield lambda: write_atomic(
        marker, json.dumps({"settings": settings, "finished": True}).encode()
    )


def _unfinished(marker: Path, settings: dict[str, Any]) -> bool:
    try:
        state = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return False
    return bool(state == {"settings": settings, "finished": False})


def _clear(workspace: Workspace, marker: Path) -> None:
    for path in workspace.root.iterdir():
        if path == marker:
            continue  # last: a crash in between must still leave a folder known as ours
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    marker.unlink(missing_ok=True)
