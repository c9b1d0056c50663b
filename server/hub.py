"""The hub's process: its settings, and the way from a connected grid to a finished run.

Settings come from the run configuration, or from the environment of the hub (``base-model`` is
``INTRAMURAL_BASE_MODEL`` there). The environment wins: what the hub's operator has fixed, nobody who
may start a run can change.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flwr.app import UserConfig
from flwr.serverapp import Grid

from policies.load import load_policy
from privacy.audit.log import AuditLog
from privacy.code_digest import code_digest
from privacy.dp.trainer import LoraTrainer
from privacy.release import Release
from privacy.signing import SigningKey
from server.enrolment import Enrolment
from server.errors import EnrolmentInvalid, PlanInvalid, RoundFailed
from server.events import Event
from server.federation import run_federation
from server.publish import BaseModel, audited, publish_run
from server.rounds import RunPlan, RunStore

_log = logging.getLogger(__name__)
AUDIT_FILE = "audit.db"
_POLL = 1.0


@dataclass(frozen=True)
class HubSettings:
    """Where a run's inputs lie on the hub and where its outputs go; times in seconds."""

    policy: Path
    enrolment: Path
    base_model: str
    checkpoint_dir: Path
    output_dir: Path
    signing_key: Path
    audit_origin: str
    join_timeout: float
    reply_timeout: float

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

        settings = cls(
            policy=Path(text("policy")),
            enrolment=Path(text("enrolment")),
            base_model=text("base-model"),
            checkpoint_dir=Path(text("checkpoint-dir")),
            output_dir=Path(text("output-dir")),
            signing_key=Path(text("signing-key")),
            audit_origin=text("audit-origin"),
            join_timeout=seconds("join-timeout", 600.0),
            reply_timeout=seconds("reply-timeout", 3600.0),
        )
        if faults:
            raise PlanInvalid(f"the run cannot start: {'; '.join(faults)}")
        return settings


def run_hub(grid: Grid, run_config: UserConfig) -> Release:
    """Run, or resume, the federation that the settings describe, and publish its release.

    Raises:
        server.errors.HubError: a setting, the enrolment, the checkpoint or a round stands against it.
        policies.errors.PolicyError: the policy file cannot be used.
        privacy.errors.PrivacyError: the hub's key, audit log or release cannot be used.
    """
    settings = HubSettings.read(run_config)
    policy = load_policy(settings.policy)
    enrolment = read_enrolment(settings.enrolment)
    trainer = LoraTrainer(settings.base_model)
    stored = RunStore(settings.checkpoint_dir).load()
    plan = RunPlan.from_policy(policy, trainer.base_digest)
    config = plan.adapter_config()
    if stored is None or not stored.finished:
        wait_for_nodes(grid, enrolment, plan.minimum_nodes, timeout=settings.join_timeout)
    key = SigningKey.load_or_create(settings.signing_key)
    with AuditLog(settings.output_dir / AUDIT_FILE, key, settings.audit_origin) as audit:
        result = run_federation(
            grid,
            plan,
            policy,
            enrolment,
            trainer.initial_adapter(config, plan.seed),
            settings.checkpoint_dir,
            audited(audit, policy.digest, _report),
            reply_timeout=settings.reply_timeout,
        )
        return publish_run(
            result,
            base_model=BaseModel(trainer.name, trainer.adapter_config_json(config)),
            enrolment=enrolment,
            metrics={},
            out_dir=settings.output_dir,
            key=key,
            code_digest=code_digest(),
            audit=audit,
        )


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
