"""The hub's process: its settings, and the way from a connected grid to a finished run.

Settings come from the run configuration, or from the environment of the hub (``output-dir`` is
``INTRAMURAL_OUTPUT_DIR`` there). The environment wins: what the hub's operator has fixed, nobody who
may start a run can change. What is to be done stands in the run's signed manifest alone.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flwr.app import UserConfig
from flwr.serverapp import Grid

from policies.errors import PolicyError
from privacy.audit.log import AuditLog
from privacy.code_digest import code_digest
from privacy.dp.errors import DpError
from privacy.dp.trainer import LoraTrainer
from privacy.errors import AuditUnavailable, PrivacyError, StoreBusy
from privacy.manifest import RunManifest
from privacy.release import Release
from privacy.signing import SigningKey
from server.accounts import AccountBook
from server.audit_socket import RemoteAudit, Sink
from server.enrolment import Enrolment
from server.errors import EnrolmentInvalid, HubError, PlanInvalid, RoundFailed
from server.evaluate import evaluate
from server.events import Event
from server.federation import run_federation
from server.publish import BaseModel, audited, publish_run
from server.rounds import RunPlan, RunResult
from server.runs import RunFolder, trusted_keys

_log = logging.getLogger(__name__)
AUDIT_FILE = "audit.db"
_POLL = 1.0
_RUN_ID = re.compile(r"run-[0-9a-f]{20}")
_PASSING = (RoundFailed, AuditUnavailable, StoreBusy)
"""What may be over at the next attempt; anything else needs a person."""


@dataclass(frozen=True)
class HubSettings:
    """Where a run's inputs lie on the hub and where its outputs go; times in seconds.

    ``runs``: the folder of the runs' folders; ``INTRAMURAL_HUB``/runs on a deployed hub.
    ``audit_socket``: of the process that owns the audit log; None where this process owns it, as
    ``output_dir/audit.db``.
    """

    run_id: str
    runs: Path
    enrolment: Path
    accounts: Path
    output_dir: Path
    signing_key: Path
    audit_origin: str
    audit_socket: Path | None
    join_timeout: float

    @classmethod
    def read(cls, run_config: UserConfig) -> Self:
        """Settings from the environment, the run configuration and the defaults, in that order.

        Raises:
            PlanInvalid: names every setting that is missing or malformed.
        """
        faults: list[str] = []

        def text(name: str) -> str:
            value = os.environ.get(_variable(name)) or run_config.get(name)
            if not value:
                faults.append(f"{name} is missing (or set {_variable(name)})")
            return str(value or "")

        def seconds(name: str, default: float) -> float:
            value = os.environ.get(_variable(name)) or run_config.get(name) or default
            try:
                number = float(value)
            except ValueError:
                number = 0.0
            if not 0 < number < float("inf"):
                faults.append(f"{name}={value!r} must be a number of seconds above 0")
            return number

        run_id = str(run_config.get("run-id") or "")
        if not _RUN_ID.fullmatch(run_id):
            faults.append(f"run-id={run_id!r} must be 'run-' and 20 hexadecimal digits")
        audit, home = os.environ.get("INTRAMURAL_AUDIT_SOCKET"), os.environ.get("INTRAMURAL_HUB")
        settings = cls(
            run_id=run_id,
            runs=Path(home) / "runs" if home else Path(text("runs")),
            enrolment=Path(text("enrolment")),
            accounts=Path(text("accounts")),
            output_dir=Path(text("output-dir")),
            signing_key=Path(text("signing-key")),
            audit_origin=text("audit-origin"),
            audit_socket=Path(audit) if audit else None,
            join_timeout=seconds("join-timeout", 600.0),
        )
        if faults:
            raise PlanInvalid(f"the run cannot start: {'; '.join(faults)}")
        return settings

    @contextmanager
    def audit(self, key: SigningKey) -> Iterator[Sink]:
        """The audit log, of this process or of another."""
        if self.audit_socket is not None:
            yield RemoteAudit(self.audit_socket)
            return
        with AuditLog(self.output_dir / AUDIT_FILE, key, self.audit_origin) as log:
            yield log


def run_hub(grid: Grid, run_config: UserConfig) -> Release:
    """Run, or resume, the federation of a signed manifest, and publish its release.

    Raises:
        server.errors.HubError: a setting, the enrolment, the checkpoint or a round stands against it.
        policies.errors.PolicyError: the policy file cannot be used.
        privacy.errors.PrivacyError: the manifest, or the hub's key, audit log or release.
    """
    settings = HubSettings.read(run_config)
    run = RunFolder(settings.runs / settings.run_id)
    with run.working():
        try:
            return _run(grid, settings, run)
        except (HubError, PolicyError, PrivacyError, DpError) as error:
            with run.keep() as kept:
                kept["reason"], kept["hopeless"] = str(error), not isinstance(error, _PASSING)
            raise


def _run(grid: Grid, settings: HubSettings, run: RunFolder) -> Release:
    signed = run.signed()
    manifest = signed.verify(trusted_keys(AccountBook(settings.accounts)))
    policy = run.policy()
    trainer = LoraTrainer(run.base_model(), name=manifest.base_model)
    if trainer.base_digest != manifest.terms.base_model_digest:
        raise PlanInvalid(
            f"the base model in {run.base_model()} is {trainer.base_digest[:12]}, the manifest's "
            f"is {manifest.terms.base_model_digest[:12]}; put the right one there"
        )
    enrolment = cohort(read_enrolment(settings.enrolment), manifest)
    stored = run.state()
    plan = RunPlan.of(manifest)
    config = plan.adapter_config()
    if stored is None or not stored.finished:
        wait_for_nodes(grid, enrolment, plan.minimum_nodes, timeout=settings.join_timeout)
    key = SigningKey.load_or_create(settings.signing_key)
    with settings.audit(key) as audit:
        result = run_federation(
            grid,
            plan,
            policy,
            enrolment,
            trainer.initial_adapter(config, plan.seed),
            run.store.folder,
            audited(audit, policy.digest, run.telling(_report)),
            manifest=signed,
        )
        release = publish_run(
            result,
            base_model=BaseModel(trainer.name, trainer.adapter_config_json(config)),
            enrolment=enrolment,
            metrics=_metrics(run, result, trainer),
            out_dir=settings.output_dir,
            key=key,
            code_digest=code_digest(),
            audit=audit,
        )
    with run.keep() as kept:
        kept["release"] = release.id
    return release


def _metrics(run: RunFolder, result: RunResult, trainer: LoraTrainer) -> Mapping[str, Any]:
    """What public records say about the run's adapter; empty where there are none.

    Raises:
        EvaluationInvalid: the records are damaged, or a loss is not finite.
    """
    kept = run.metrics()
    if kept is not None:
        return kept
    public = run.public()
    if public is None:
        return {}
    metrics = evaluate(
        trainer,
        public,
        config=result.plan.adapter_config(),
        max_tokens=result.plan.max_tokens,
        after=result.adapter,
    ).to_json()
    # A crash before: evaluated once more. A crash after: the same figures, and so the same release.
    run.keep_metrics(metrics)
    return metrics


def cohort(enrolment: Enrolment, manifest: RunManifest) -> Enrolment:
    """The enrolled departments that the manifest asks.

    Raises:
        EnrolmentInvalid: fewer than its minimum cohort.
    """
    asked = set(manifest.departments)
    nodes = [node for node in enrolment.nodes if node.department in asked]
    if len(nodes) < manifest.terms.minimum_nodes:
        missing = ", ".join(sorted(asked - {node.department for node in nodes}))
        raise EnrolmentInvalid(
            f"{len(nodes)} departments of the cohort are enrolled, minimum_nodes="
            f"{manifest.terms.minimum_nodes}; not enrolled: {missing}"
        )
    return Enrolment(nodes)


def read_enrolment(path: Path) -> Enrolment:
    """The enrolment stored as JSON at ``path``.

    Raises:
        EnrolmentInvalid: missing, unreadable or malformed.
    """
    try:
        return Enrolment.from_json(json.loads(path.read_bytes()))
    except OSError as error:
        raise EnrolmentInvalid(f"the enrolment {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EnrolmentInvalid(f"the enrolment {path} is no JSON: {error}") from None


def wait_for_nodes(
    grid: Grid,
    enrolment: Enrolment,
    minimum: int,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as ``minimum`` enrolled nodes are connected; Flower offers only polling.

    Raises:
        RoundFailed: fewer were connected within ``timeout`` seconds.
    """
    deadline = clock() + timeout
    while True:
        online = set(grid.get_node_ids())
        connected = [n.department for n in enrolment.nodes if n.node_id in online]
        if len(connected) >= minimum:
            return
        if clock() >= deadline:
            raise RoundFailed(1, minimum, connected, [])
        pause(_POLL)


def _report(event: Event) -> None:
    _log.info("%s", event)


def _variable(name: str) -> str:
    return f"INTRAMURAL_{name.upper().replace('-', '_')}"
