"""A whole federation in one process, with the node and hub code of the deployed one.

Each department has its own folder, ledger, key and agent; the hub coordinates them with Flower
over the in-process grid and sees only what crosses the wall. What is simulated is the network, and
that one machine holds everybody's records.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

from client.app import make_client_app
from client.errors import RowFault, list_faults
from client.gate import RunGate
from client.records import DataSource
from intramural.auditing import (
    DepartmentAudit,
    RunAudit,
    audit_run,
    included_units,
    refuse_refuted,
    score_run,
)
from intramural.errors import WorkspaceInUse
from intramural.node import (
    Encoded,
    Scrubbed,
    encode_department,
    open_agent,
    scrub_department,
)
from intramural.parts import detector_for, open_audit, read_policy
from intramural.public_records import EVALUATION_LIMIT, public_set
from intramural.workspace import Workspace
from policies.model import Policy
from policies.node import NodeLimits
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog
from privacy.canonical import digest
from privacy.code_digest import code_digest
from privacy.dp.trainer import LoraTrainer
from privacy.files import write_atomic
from privacy.ledger.ledger import Ledger
from privacy.manifest import RunManifest, SignedManifest
from privacy.pii.detector import Detector
from privacy.release import VerifiedRelease
from privacy.signing import SigningKey
from privacy.store.lock import FileLock
from server.enrolment import EnrolledNode, Enrolment
from server.errors import PlanInvalid
from server.evaluate import EvaluationResult, PublicSet, evaluate
from server.events import Event, NodeDeclined
from server.federation import REPLY_TIMEOUT, run_federation
from server.local_grid import LocalGrid, Phase
from server.publish import HUB, BaseModel, audited, publish_run
from server.rounds import RunPlan, RunStore

ACCOUNT = "workspace"
"""The run account of a simulation: it signs the manifests that the workspace's nodes follow."""

MANIFEST_FILE = "manifest.json"
VALID = timedelta(days=3650)
"""A simulated run may be gone on with whenever its folder is there."""


@dataclass(frozen=True)
class SimulationOptions:
    """What to run and where.

    ``data``: each department's file. ``evaluation``: public held-out records. ``limit``: records
    taken of each department (``None``: all). ``tolerance``: share of faulty rows that is accepted.
    ``new_run``: train once more, at its full cost, where the same run is already complete.
    """

    policy: Path
    data: Mapping[str, DataSource]
    model: Path | str
    out: Path
    model_name: str | None = None
    evaluation: DataSource | None = None
    evaluation_limit: int = EVALUATION_LIMIT
    limit: int | None = None
    tolerance: float = 0.01
    new_run: bool = False


@dataclass(frozen=True)
class Display:
    """Callbacks for whoever watches; each may be left as it is."""

    stage: Callable[[str], None] = lambda _: None
    scrubbing: Callable[[str, int, int], None] = lambda *_: None
    scrubbed: Callable[["DepartmentData"], None] = lambda _: None
    planned: Callable[[RunPlan], None] = lambda _: None
    training: Callable[[str, int, int], None] = lambda *_: None
    event: Callable[[Event], None] = lambda _: None


@dataclass(frozen=True)
class DepartmentData:
    """What became of a department's file, told on the department's own screen only."""

    department: str
    records: int
    findings: Mapping[str, int]
    left_out: Mapping[str, int]
    faults: tuple[RowFault, ...]


@dataclass(frozen=True)
class DepartmentSpend:
    """A department's privacy loss and its budget.

    ``epsilon`` is that of the data block that the policy names, which the budget bounds;
    ``lifetime_epsilon`` that of all its blocks together.
    """

    name: str
    epsilon: float
    lifetime_epsilon: float
    delta: float
    budget: float


@dataclass(frozen=True)
class SimulationResult:
    """Where the release lies and what the run showed; ``audits`` are the departments' own."""

    release: VerifiedRelease
    workspace: Workspace
    plan: RunPlan
    departments: tuple[DepartmentSpend, ...]
    data: tuple[DepartmentData, ...]
    declines: tuple[NodeDeclined, ...]
    evaluation: EvaluationResult | None = None
    audits: tuple[DepartmentAudit, ...] = ()


def simulate(options: SimulationOptions, display: Display | None = None) -> SimulationResult:
    """Scrub, train, evaluate and publish; goes on where an interrupted run of the folder stopped.

    Raises the errors of the rooms: a policy, file, budget, round or release that stands against it;
    and :class:`~intramural.auditing.ClaimRefuted` where the run's canaries do.
    Nothing half-written is left: what is durable is a checkpoint, a ledger entry or a release.
    """
    display = display or Display()
    policy = read_policy(options.policy)
    _check_departments(policy, options)
    workspace = Workspace(options.out)
    _lay_out(workspace)
    scrubbed = _scrub(options, policy, workspace, display)
    display.stage("loading the base model")
    trainer = LoraTrainer(options.model, name=options.model_name)
    terms = RunPlan.from_policy(policy, trainer.base_digest)
    public = _public_set(options, policy, trainer, display)
    code = code_digest()
    folder = _run_folder(workspace, terms, scrubbed, new_run=options.new_run)
    account = SigningKey.load_or_create(workspace.account_key)
    manifest = _manifest(folder, terms, options, trainer.name, account)
    plan = RunPlan.of(manifest.manifest)
    with ExitStack() as stack:
        stack.callback(trainer.forget)
        agents, ledgers, nodes, told = {}, {}, [], []
        for node_id, (name, source) in enumerate(sorted(options.data.items()), start=1):
            encoded = encode_department(scrubbed[name], source, trainer, policy, options.tolerance)
            told.append(_told(name, scrubbed[name], encoded))
            display.scrubbed(told[-1])
            if encoded.without_subject:
                display.stage(
                    f"{name}: {encoded.without_subject} records name no subject; each counts as one"
                )
            paths = workspace.node(name)
            agent, ledger, key = open_agent(
                name,
                paths,
                policy,
                [*encoded.units, *included_units(paths, folder.name, policy, trainer)],
                trainer,
                code,
                partial(display.training, name),
                gate=RunGate(
                    name, lambda: {ACCOUNT: account.verify_key}, NodeLimits().under(policy)
                ),
            )
            agents[node_id] = agent
            ledgers[name] = stack.enter_context(ledger)
            nodes.append(EnrolledNode(name, node_id, key.verify_key))
        display.planned(plan)
        config = plan.adapter_config()
        enrolment = Enrolment(nodes)
        stack.enter_context(_alone(workspace))
        audit = stack.enter_context(open_audit(workspace))
        grid = LocalGrid(
            make_client_app(lambda context: agents[context.node_id]),
            {node.node_id: {} for node in nodes},
            on_node=_announce(enrolment, plan, display),
        )
        _keep_policy(workspace, options.policy)
        result = run_federation(
            grid,
            plan,
            policy,
            enrolment,
            trainer.initial_adapter(config, plan.seed),
            folder,
            audited(audit, policy.digest, display.event),
            manifest=manifest,
        )
        audits: tuple[DepartmentAudit, ...] = ()
        if policy.training.canaries:
            display.stage("comparing what the canaries show with what the receipts claim")
            score_run(workspace, folder.name, result, trainer, config)
            checked = audit_run(workspace, folder.name, result)
            _refuse_refuted(checked, audit, policy)
            audits = checked.departments
        evaluation = None
        if public is not None:
            display.stage("evaluating on public held-out records")
            evaluation = evaluate(
                trainer,
                public,
                config=config,
                max_tokens=plan.max_tokens,
                after=result.adapter,
            )
        display.stage("publishing the release")
        release = publish_run(
            result,
            base_model=BaseModel(trainer.name, trainer.adapter_config_json(config)),
            enrolment=enrolment,
            metrics=evaluation.to_json() if evaluation is not None else {},
            out_dir=workspace.root,
            key=SigningKey.load_or_create(workspace.hub_key),
            code_digest=code,
            audit=audit,
        )
        spends = tuple(_spend(policy, name, ledgers[name]) for name in sorted(ledgers))
    return SimulationResult(
        release, workspace, result.plan, spends, tuple(told), result.declines, evaluation, audits
    )


def _check_departments(policy: Policy, options: SimulationOptions) -> None:
    unknown = sorted(set(options.data) - set(policy.departments))
    if unknown:
        known = ", ".join(sorted(policy.departments))
        raise PlanInvalid(
            f"the policy has no department {', '.join(unknown)}; it names {known}: correct --data "
            "or add the department to the policy"
        )


def _alone(workspace: Workspace) -> FileLock:
    """Held while a federation runs in the workspace; the system releases it at any death.

    Raises:
        WorkspaceInUse: another one runs there.
    """
    lock = FileLock(workspace.checkpoints.parent / "simulation.lock")
    if not lock.try_exclusive():
        lock.close()
        raise WorkspaceInUse(
            f"another simulation runs in {workspace.root}; let it end, or choose another folder"
        )
    return lock


def _refuse_refuted(checked: RunAudit, audit: AuditLog, policy: Policy) -> None:
    """Before anything is published: a refuted claim must not be relied upon by anybody."""
    if checked.refuted:
        # The verdict alone, on record before anybody sees it; figures stay with the departments.
        verdict = {"step": "claim_refuted", "run_id": checked.run_id, "policy": policy.digest}
        told = verdict | {"departments": list(checked.refuted)}
        audit.append(AuditEntry.now("run_step", HUB, told))
    refuse_refuted(checked)


def _told(name: str, scrubbed: Scrubbed, encoded: Encoded) -> DepartmentData:
    return DepartmentData(
        name, encoded.examples, scrubbed.findings, scrubbed.left_out, encoded.faults
    )


def _lay_out(workspace: Workspace) -> None:
    for folder in (workspace.checkpoints, workspace.hub_key.parent, workspace.audit.parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _keep_policy(workspace: Workspace, policy_file: Path) -> None:
    """The policy of the latest run, as it was given; only once a run under it is about to begin."""
    kept = workspace.root / f"policy{policy_file.suffix.lower()}"
    content = policy_file.read_bytes()
    if not (kept.is_file() and kept.read_bytes() == content):
        write_atomic(kept, content)
    for other in workspace.policies():
        if other != kept:
            other.unlink()


def _run_folder(
    workspace: Workspace, plan: RunPlan, scrubbed: Mapping[str, Scrubbed], *, new_run: bool
) -> Path:
    """Where this run's checkpoint lies: one folder for the same plan over the same records.

    Other records or another plan are another run, charged to the same ledgers. The same again is
    gone on with, or found complete; ``new_run`` begins another one where it is complete.
    """
    data = {name: part.fingerprint for name, part in scrubbed.items()}
    name = digest({"plan": plan.terms, "data": data})[:16]

    def usable(folder: Path) -> bool:
        state = RunStore(folder).load()
        return state is None or not state.finished or not new_run

    return next(filter(usable, (workspace.checkpoints / f"{name}-{n}" for n in count(1))))


def _manifest(
    folder: Path,
    terms: RunPlan,
    options: SimulationOptions,
    base_model: str,
    account: SigningKey,
) -> SignedManifest:
    """The run's signed manifest: the stored one, or a new one, stored before anything is asked."""
    path = folder / MANIFEST_FILE
    if path.exists():
        return SignedManifest.from_json(path.read_bytes())
    manifest = RunManifest.draw(
        ACCOUNT,
        base_model,
        terms,
        tuple(sorted(options.data)),
        code_digest=code_digest(),
        round_seconds=REPLY_TIMEOUT,
        valid=VALID,
    )
    signed = SignedManifest.sign(manifest, account)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A crash before: no run exists. A crash after: the run that begins has this manifest's id.
    write_atomic(path, signed.to_json().encode())
    return signed


def _scrub(
    options: SimulationOptions, policy: Policy, workspace: Workspace, display: Display
) -> dict[str, Scrubbed]:
    opened: list[Detector] = []

    def detector() -> Detector:
        # Opened at the first need: a resumed run has its records scrubbed already.
        if not opened:
            display.stage("loading the PII models")
            opened.append(detector_for(policy.pii))
        return opened[0]

    scrubbed = {}
    for name, source in sorted(options.data.items()):
        paths = workspace.node(name)
        paths.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        scrubbed[name] = scrub_department(
            name,
            source,
            paths,
            policy,
            detector,
            tolerance=options.tolerance,
            limit=options.limit,
            advance=partial(display.scrubbing, name),
        )
    return scrubbed


def _public_set(
    options: SimulationOptions, policy: Policy, trainer: LoraTrainer, display: Display
) -> PublicSet | None:
    if options.evaluation is None:
        return None
    limit, max_tokens = options.evaluation_limit, policy.training.max_tokens
    public, faults = public_set(options.evaluation, limit, max_tokens, trainer)
    for line in list_faults(faults):
        display.stage(f"public record skipped: {line}")
    return public


def _announce(
    enrolment: Enrolment, plan: RunPlan, display: Display
) -> Callable[[int, Phase], None]:
    def announce(node_id: int, phase: Phase) -> None:
        if phase == "asked":
            display.training(enrolment.by_node_id[node_id].department, 0, plan.steps)

    return announce


def _spend(policy: Policy, name: str, ledger: Ledger) -> DepartmentSpend:
    budget = policy.budget_of(name)
    spent = ledger.spent(name, budget.delta, budget.block)
    lifetime = ledger.spent(name, budget.delta)
    return DepartmentSpend(name, spent, lifetime, budget.stated_delta, float(budget.epsilon))
