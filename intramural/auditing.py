"""The empirical audit of a run: what its canaries prove against the epsilon that it claims.

Everything here is a department's own: its coins, its scores and its report lie in its folder and
are computed from canaries alone, never from records. Only the verdict on a refuted claim is acted
upon by the hub, which then publishes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intramural.errors import IntramuralError, WorkspaceError
from intramural.workspace import NodePaths, Workspace
from policies.model import Policy
from privacy.canonical import canonical_json
from privacy.dp.accounting import epsilon as composed_epsilon
from privacy.dp.adapter_config import AdapterConfig
from privacy.dp.encode import Unit
from privacy.empirical.attack import loss_scores
from privacy.empirical.bound import CONFIDENCE, OneRunBound, auc, one_run_audit, tpr_at_fpr
from privacy.empirical.canaries import CanarySet, load_scores, save_scores
from privacy.exchange import adapter_digest
from privacy.files import write_atomic
from privacy.receipts import Receipt
from privacy.signing import VerifyKey
from server.rounds import RunResult, RunState, RunStore

if TYPE_CHECKING:
    from privacy.dp.trainer import LoraTrainer

LATEST = "latest"
FEWEST = 2


class ClaimRefuted(IntramuralError):
    """Canaries show a department's run to leak more than its receipts claim; nothing is published."""


class NoCanaries(WorkspaceError):
    """A run without canaries, or with too few, cannot be audited."""


@dataclass(frozen=True)
class DepartmentAudit:
    """What one department's canaries prove about one run.

    Attributes:
        name: whose.
        epsilon_run: what the receipts of this run claim, composed at ``delta``: the claim tested.
        epsilon_history: cost of all that was spent on the block, as the last receipt states it.
        delta, unit: of the claim; adjacency is add or remove one unit.
        bound: what was proved.
        auc: area under the ROC curve with its interval of 95 %; 0.5 is guessing. None where the
            coins of all canaries fell the same way.
        tpr_at_1_percent_fpr: share of included canaries found at 1 % false accusations; None too.
    """

    name: str
    epsilon_run: float
    epsilon_history: float
    delta: float
    unit: str
    bound: OneRunBound
    auc: tuple[float, float, float] | None
    tpr_at_1_percent_fpr: float | None

    @property
    def refuted(self) -> bool:
        """Whether the claim is refuted."""
        return self.bound.epsilon > self.epsilon_run

    def to_json(self) -> dict[str, Any]:
        """The report; says nothing about single canaries."""
        return {
            "name": self.name,
            "unit": self.unit,
            "adjacency": Receipt.adjacency,
            "delta": self.delta,
            "epsilon_run": self.epsilon_run,
            "epsilon_history": self.epsilon_history,
            "epsilon_lower_bound": self.bound.epsilon,
            "largest_provable": self.bound.ceiling,
            "confidence": self.bound.confidence,
            "canaries": self.bound.canaries,
            "guesses": self.bound.guesses,
            "correct": self.bound.correct,
            "auc": self.auc and dict(zip(("value", "low", "high"), self.auc, strict=True)),
            "tpr_at_1_percent_fpr": self.tpr_at_1_percent_fpr,
            "refuted": self.refuted,
        }


@dataclass(frozen=True)
class RunAudit:
    """The audit of one run.

    ``confidence`` holds for all departments together: with this probability no right claim is
    refuted. ``folder`` is the name of the run's checkpoint folder.
    """

    run_id: str
    folder: str
    confidence: float
    departments: tuple[DepartmentAudit, ...]

    @property
    def refuted(self) -> tuple[str, ...]:
        """Departments whose claim is refuted."""
        return tuple(part.name for part in self.departments if part.refuted)

    def to_json(self) -> dict[str, Any]:
        """What ``intramural budget audit --json`` prints."""
        return {
            "run_id": self.run_id,
            "confidence": self.confidence,
            "departments": [part.to_json() for part in self.departments],
            "refuted": list(self.refuted),
        }


def included_units(
    paths: NodePaths, run: str, policy: Policy, trainer: "LoraTrainer"
) -> Sequence[Unit]:
    """The canaries that take part in the run, as units; none where the policy asks for none.

    Raises:
        NoCanaries: fewer than two were asked for.
        CanariesUnusable: those of the run are damaged, exposed or of another number.
    """
    count = policy.training.canaries
    if not count:
        return ()
    if count < FEWEST:
        raise NoCanaries(
            f"training.canaries={count} must be 0 or at least {FEWEST}: so few prove nothing"
        )
    canaries = CanarySet.load_or_draw(paths.canaries(run), count)
    return canaries.units(canaries.examples(trainer.tokenizer, policy.training.max_tokens))


def score_run(
    workspace: Workspace,
    folder: str,
    result: RunResult,
    trainer: "LoraTrainer",
    config: AdapterConfig,
) -> None:
    """Score every contributing department's canaries under the run's adapter; kept on its node.

    Raises:
        CanariesUnusable: a department's canaries are missing, damaged or exposed.
    """
    digest = adapter_digest(result.adapter)
    for name in _contributors(result):
        paths = workspace.node(name)
        canaries = CanarySet.load(paths.canaries(folder))
        examples = canaries.examples(trainer.tokenizer, result.plan.max_tokens)
        scores = loss_scores(trainer, examples, config, result.adapter)
        save_scores(paths.canary_scores(folder), scores, digest)


def audit_run(
    workspace: Workspace, folder: str, result: RunResult, confidence: float = CONFIDENCE
) -> RunAudit:
    """Compare each contributing department's claim with what its canaries prove; reports are kept.

    Raises:
        NoCanaries: none were inserted.
        CanariesUnusable: canaries or scores are missing, damaged or exposed.
        ReceiptInvalid: a receipt was not signed by its department.
    """
    names = _contributors(result)
    if not any(workspace.node(name).canaries(folder).exists() for name in names):
        raise NoCanaries(
            f"run {result.plan.run_id} had no canaries, so nothing can be measured: set "
            "training.canaries in the policy (1000, say) and run once more"
        )
    # Divided by the number of departments (Bonferroni), so that the confidence holds for all.
    level = 1 - (1 - confidence) / len(names)
    audits = tuple(_audit(workspace.node(name), name, folder, result, level) for name in names)
    for part in audits:
        keep_report(workspace.node(part.name), folder, result.plan.run_id, part)
    return RunAudit(result.plan.run_id, folder, confidence, audits)


def refuse_refuted(audit: RunAudit) -> None:
    """Return when no claim is refuted.

    Raises:
        ClaimRefuted: names the departments, what they claim and what was proved.
    """
    if not audit.refuted:
        return
    told = "; ".join(
        f"{part.name}: at least {part.bound.epsilon:.3f} is proved, {part.epsilon_run:.3f} claimed"
        for part in audit.departments
        if part.refuted
    )
    raise ClaimRefuted(
        f"the privacy claim of run {audit.run_id} is refuted at confidence {audit.confidence:g} "
        f"({told}), so it is not published. Look into it with `intramural budget audit "
        f"{audit.run_id}`: noise, clipping or sampling of these nodes is not what was accounted for"
    )


def find_run(workspace: Workspace, wanted: str) -> tuple[str, RunResult]:
    """The folder name and the result of a finished run: by its run id, or the latest.

    Raises:
        WorkspaceError: there is no such run, or it is not finished.
        CheckpointUnusable: its checkpoint is damaged.
    """
    found: list[tuple[str, RunState]] = []
    folders = sorted(workspace.checkpoints.iterdir()) if workspace.checkpoints.is_dir() else []
    for folder in folders:
        state = RunStore(folder).load() if folder.is_dir() else None
        if state is not None:
            found.append((folder.name, state))
    if not found:
        raise WorkspaceError(
            f"no run was ever begun in {workspace.root}. Of a run between machines, each department "
            "audits its own part with `intramural node audit RELEASE`"
        )
    found.sort(key=lambda item: item[1].at)
    chosen = [item for item in found if wanted in (LATEST, item[1].plan.run_id)]
    if not chosen:
        known = ", ".join(state.plan.run_id for _, state in found)
        raise WorkspaceError(f"there is no run {wanted!r} in {workspace.root}; it has {known}")
    name, state = chosen[-1]
    if not state.finished:
        raise WorkspaceError(
            f"run {state.plan.run_id} has completed {state.round} of {state.plan.rounds} rounds; "
            "finish it with the command that began it"
        )
    return name, state.result()


def scores_of(
    paths: NodePaths, folder: str, result: RunResult
) -> tuple[list[float], tuple[bool, ...]]:
    """Score and coin of each canary, for the department's own eyes.

    Raises:
        CanariesUnusable: they are missing, damaged, exposed or of another adapter.
    """
    canaries = CanarySet.load(paths.canaries(folder))
    return load_scores(
        paths.canary_scores(folder), adapter_digest(result.adapter)
    ), canaries.included


def audit_department(
    name: str,
    receipts: Sequence[Receipt],
    scores: Sequence[float],
    included: Sequence[bool],
    level: float,
) -> DepartmentAudit:
    """Compare what a department's verified receipts of one run claim with what its canaries prove.

    ``level``: confidence of this department's bound.
    """
    last = receipts[-1]
    both = any(included) and not all(included)
    return DepartmentAudit(
        name=name,
        epsilon_run=composed_epsilon([receipt.event for receipt in receipts], last.delta),
        epsilon_history=last.epsilon,
        delta=last.delta,
        unit=last.unit,
        bound=one_run_audit(scores, included, last.delta, level),
        auc=auc(scores, included) if both else None,
        tpr_at_1_percent_fpr=tpr_at_fpr(scores, included) if both else None,
    )


def keep_report(paths: NodePaths, folder: str, run_id: str, part: DepartmentAudit) -> None:
    """Keep a department's report in its own folder."""
    report = {"run_id": run_id, **part.to_json()}
    write_atomic(paths.canary_report(folder), canonical_json(report), mode=0o600)


def _audit(
    paths: NodePaths, name: str, folder: str, result: RunResult, level: float
) -> DepartmentAudit:
    key = VerifyKey.load(paths.public_key)
    receipts = [r.verify(key) for r in result.receipts if r.receipt.department == name]
    return audit_department(name, receipts, *scores_of(paths, folder, result), level)


def _contributors(result: RunResult) -> list[str]:
    """Departments with a receipt: whoever declined every round taught the adapter nothing."""
    return sorted({signed.receipt.department for signed in result.receipts})
