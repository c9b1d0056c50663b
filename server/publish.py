"""From a finished run to a signed release, each step in the audit log.

The guarantee in a release is derived from the departments' verified receipts, never from the plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from privacy.audit.entries import AuditEntry, Kind
from privacy.dp.accounting import ACCOUNTANT
from privacy.exchange import adapter_digest
from privacy.release import Release, publish
from privacy.signing import SigningKey
from privacy.statement import ReleaseStatement
from server.enrolment import Enrolment
from server.events import (
    Event,
    NodeDeclined,
    NodeReplied,
    OnEvent,
    RoundFinished,
    RoundStarted,
    RunBegan,
    ignore,
)
from server.rounds import RunResult

HUB = "hub"


class AuditSink(Protocol):
    """What publishing needs of :class:`privacy.audit.log.AuditLog`."""

    def append(self, entry: AuditEntry) -> object:
        """Durable once this returns."""
        ...


@dataclass(frozen=True)
class BaseModel:
    """The base model by its public name, with PEFT's configuration of the adapter for it.

    ``adapter_config``: :meth:`privacy.dp.trainer.LoraTrainer.adapter_config_json`.
    """

    name: str
    adapter_config: Mapping[str, Any]


def publish_run(
    result: RunResult,
    *,
    base_model: BaseModel,
    enrolment: Enrolment,
    metrics: Mapping[str, Any],
    out_dir: Path,
    key: SigningKey,
    code_digest: str,
    audit: AuditSink,
) -> Release:
    """Publish the run's adapter under ``out_dir/releases`` and note it in the audit log.

    ``metrics``: :meth:`server.evaluate.EvaluationResult.to_json`, or empty. Publishing the same run
    with the same metrics again gives the same release.

    Raises:
        ReleaseInvalid: a receipt does not verify, or the adapter cannot be published.
        AuditUnavailable: the log could not take an entry. If it was the first, nothing is
            published; if it was the last, the release exists and publishing again notes it.
    """
    plan = result.plan
    statement = ReleaseStatement(
        run_id=plan.run_id,
        created=result.finished_at,
        base_model=base_model.name,
        base_model_digest=plan.base_model_digest,
        rounds=result.rounds,
        clipping_norm=plan.clipping_norm,
        factors=plan.factors,
        policy_digest=plan.policy_digest,
        code_digest=code_digest,
        accountant=ACCOUNTANT,
    )
    intent = {
        "step": "publishing",
        "run_id": plan.run_id,
        "policy": plan.policy_digest,
        "adapter": adapter_digest(result.adapter),
    }
    # A crash after this entry leaves the intent on record and no release, or a release that the
    # next call finds in its place.
    audit.append(AuditEntry.now("run_step", HUB, intent))
    release = publish(
        out_dir,
        result.adapter,
        base_model.adapter_config,
        statement,
        result.receipts,
        metrics,
        key,
        department_keys={node.department: node.key for node in enrolment.nodes},
    )
    departments = release.privacy["departments"]
    audit.append(
        AuditEntry.now(
            "release",
            HUB,
            {
                "release": release.id,
                "run_id": plan.run_id,
                "policy": plan.policy_digest,
                "code": code_digest,
                "epsilon": {name: repr(part["epsilon"]) for name, part in departments.items()},
                "delta": {name: repr(part["delta"]) for name, part in departments.items()},
            },
        )
    )
    return release


def audited(audit: AuditSink, policy_digest: str, on_event: OnEvent = ignore) -> OnEvent:
    """An ``OnEvent`` that puts each event of a run into the audit log before anybody sees it.

    ``policy_digest``: of the policy in force, which every entry names.

    Raises (when called):
        AuditUnavailable: the log could not take the entry; the run then stops.
    """
    run_id = ""

    def handle(event: Event) -> None:
        nonlocal run_id
        if isinstance(event, RunBegan):
            run_id = event.run_id
        audit.append(audit_entry(event, run_id, policy_digest))
        on_event(event)

    return handle


def audit_entry(event: Event, run_id: str, policy_digest: str) -> AuditEntry:
    """The entry for an event: codes, digests and figures, never the text of a reason."""
    actor, facts = HUB, _facts(event)
    if isinstance(event, NodeDeclined | NodeReplied):
        actor = event.department
    kind: Kind = "budget" if isinstance(event, NodeReplied) else "run_step"
    common = {"run_id": run_id, "round": event.round, "policy": policy_digest}
    return AuditEntry.now(kind, actor, common | facts)


def _facts(event: Event) -> dict[str, Any]:
    match event:
        case RunBegan(rounds=rounds):
            return {"step": "run_began", "rounds": rounds}
        case RoundStarted(rounds=rounds, departments=departments):
            return {"step": "round_started", "rounds": rounds, "departments": list(departments)}
        case NodeDeclined(code=code):
            return {"step": "node_declined", "code": code}
        case NodeReplied(epsilon=epsilon, delta=delta, receipt_digest=receipt):
            return {"step": "node_replied", "epsilon": epsilon, "delta": delta, "receipt": receipt}
        case RoundFinished(contributed=contributed, adapter_digest=digest):
            return {"step": "round_finished", "departments": list(contributed), "adapter": digest}
