"""What ``intramural train`` does at the hub: plan a run, sign and store it, tell how it is doing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intramural.deployment.homes import is_running
from intramural.deployment.hub_home import HubHome
from intramural.errors import CommandRefused
from intramural.parts import read_policy
from intramural.run_file import DepartmentCost, RunWish, read_run_file, run_costs
from policies.errors import PolicyError
from privacy.audit.entries import AuditEntry
from privacy.code_digest import code_digest
from privacy.errors import PrivacyError
from privacy.manifest import RunManifest, SignedManifest
from privacy.receipts import Receipt
from privacy.signing import SigningKey
from server.errors import HubError
from server.evaluate import PublicSet
from server.rounds import RunPlan, RunState
from server.runs import OVER, Keeping, RunFolder, run_folders, trusted_keys

if TYPE_CHECKING:
    from privacy.dp.trainer import LoraTrainer

UNKNOWN_DIGEST = "0" * 64
"""Stands for the base model's digest where a run is only priced, not started."""


@dataclass(frozen=True)
class PlannedRun:
    """A checked run with its cost; nothing is charged, nothing stored."""

    wish: RunWish
    plan: RunPlan
    base_model: Path
    base_model_name: str
    costs: tuple[DepartmentCost, ...]
    accounts: tuple[str, ...]

    @property
    def can_start(self) -> bool:
        """Whether enough departments can take part in all of it."""
        able = sum(cost.enrolled and cost.fits for cost in self.costs)
        return bool(self.accounts) and able >= self.plan.minimum_nodes

    def to_json(self) -> dict[str, Any]:
        """What ``train plan --json`` prints."""
        plan = self.plan
        return {
            "policy": plan.policy_digest,
            "base_model": self.base_model_name,
            "unit": plan.unit,
            "adjacency": Receipt.adjacency,
            "rounds": plan.rounds,
            "steps": plan.steps,
            "sampling_rate": plan.sampling_rate,
            "clipping_norm": plan.clipping_norm,
            "target_epsilon": plan.target_epsilon,
            "noise_multiplier": plan.noise_multiplier,
            "aggregation": plan.aggregation,
            "server_optimiser": plan.server_optimiser,
            "minimum_nodes": plan.minimum_nodes,
            "enough": self.wish.enough,
            "round_seconds": self.wish.round_seconds,
            "departments": [cost.to_json() for cost in self.costs],
            "approval": {
                "signature": "a hub account must sign: intramural train start --account NAME",
                "accounts": list(self.accounts),
            },
            "can_start": self.can_start,
        }


def hub_policy(home: HubHome) -> Path:
    """The file of the policy that runs are planned under.

    Raises:
        CommandRefused: the hub has none yet.
    """
    path = home.policy_path()
    if path is None:
        raise CommandRefused(f"the hub has no policy yet; name one with `policy` in {home.config}")
    return path


def plan_run(home: HubHome, file: Path) -> PlannedRun:
    """Check a run file and price it, with what the hub's receipts say was spent before.

    Raises:
        CommandRefused, PolicyError: the hub has no policy yet, or one that cannot be used.
        RunFileInvalid, PlanInvalid: it is no run that the policy allows.
        AssetMissing: the base model is not there.
    """
    wish = read_run_file(file, read_policy(hub_policy(home)))
    folder, name = model_of(home, wish)
    plan = wish.plan(UNKNOWN_DIGEST)
    members = home.members.read()
    costs = run_costs(wish, plan, receipts_of(home), members)
    accounts = tuple(account.name for account in home.accounts.trusted())
    return PlannedRun(wish, plan, folder, name, costs, accounts)


def model_of(home: HubHome, wish: RunWish) -> tuple[Path, str]:
    """Folder and public name of the run's base model."""
    from intramural.deployment.node_home import base_model

    folder, name = base_model(wish.base_model or home.settings().base_model)
    return folder.absolute(), name or folder.name


def start_run(home: HubHome, file: Path, account: str | None) -> RunManifest:
    """Sign a run with an account's key and store it for the keeper; its manifest.

    Raises:
        CommandRefused: there is no account to sign with, or too few departments could take part.
        RunFileInvalid, PlanInvalid, AssetMissing: as :func:`plan_run`.
        RecordError, EvaluationInvalid: the hub's public records cannot be used.
    """
    from privacy.dp.trainer import LoraTrainer

    name, key = account_key(home, account)
    planned = plan_run(home, file)
    if not planned.can_start:
        lines = [f"{c.name}: {told}" for c in planned.costs for told in c.approval]
        raise CommandRefused(
            f"fewer than minimum_nodes={planned.plan.minimum_nodes} departments could take part in "
            f"the whole run: {'; '.join(lines)}"
        )
    trainer = LoraTrainer(planned.base_model, name=planned.base_model_name)
    terms = planned.plan.model_copy(update={"base_model_digest": trainer.base_digest})
    wish = planned.wish
    public = _public_set(home, terms.max_tokens, trainer)
    manifest = RunManifest.draw(
        name,
        planned.base_model_name,
        terms,
        wish.departments,
        code_digest=code_digest(),
        round_seconds=wish.round_seconds,
        valid=wish.valid,
        enough=wish.enough,
    )
    policy = hub_policy(home)
    with home.audit() as audit:
        # On record before it exists. A crash after: an entry for a run that never began.
        entry = {
            "step": "run_signed",
            "run_id": manifest.run_id,
            "account": name,
            "key": key.key_id,
            "policy": terms.policy_digest,
            "base_model": terms.base_model_digest,
            "departments": list(manifest.departments)[:200],
            "rounds": terms.rounds,
            "epsilon": repr(terms.target_epsilon),
        }
        audit.append(AuditEntry.now("run_step", name, entry))
    signed = SignedManifest.sign(manifest, key)
    run = RunFolder.create(home.runs, signed, policy, planned.base_model, public)
    # A crash before: an incomplete folder, which the keeper does not see.
    with run.keep() as kept:
        kept.update(wanted="run", standing="waiting")
    return manifest


def _public_set(home: HubHome, max_tokens: int, trainer: "LoraTrainer") -> PublicSet | None:
    from client.records import DataSource
    from intramural.node import held_out_split
    from intramural.public_records import EVALUATION_LIMIT, public_set

    path = home.evaluation_path()
    if path is None:
        return None
    source = DataSource(path, where=held_out_split(path))
    return public_set(source, EVALUATION_LIMIT, max_tokens, trainer)[0]


def account_key(home: HubHome, account: str | None) -> tuple[str, SigningKey]:
    """Name and key of the account that signs: a name of the hub's, or its folder elsewhere.

    Raises:
        CommandRefused: none is named and there is not exactly one here, or its token or its key is
            not that of an active account.
        KeyUnusable: its key cannot be read.
    """
    if account is None:
        here = sorted(p.parent for p in home.accounts_folder.glob("*/account.key"))
        if len(here) != 1:
            there = ", ".join(path.name for path in here) or "none"
            raise CommandRefused(
                f"a run needs a hub account to sign it; its key is here for: {there}. Name one with "
                "--account, or make one with `intramural hub account add NAME`"
            )
        folder = here[0]
    else:
        given = Path(account)
        folder = given if (given / "account.key").exists() else home.accounts_folder / account
    if not (folder / "account.key").exists():
        raise CommandRefused(
            f"there is no account {account!r}: neither a folder with account.key and token, nor a "
            "name whose key is still at the hub; see `intramural hub account list`"
        )
    key = SigningKey.load(folder / "account.key")
    try:
        token = (folder / "token").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise CommandRefused(f"{folder} holds no token of the account") from None
    found = home.accounts.by_token(token)
    if found is None or found.key != key.verify_key:
        raise CommandRefused(
            f"the key and the token in {folder} are not those of an active account of this hub; it "
            "was removed or has expired"
        )
    return found.name, key


def receipts_of(home: HubHome) -> list[Receipt]:
    """Every receipt in the checkpoints of the hub's runs; a damaged run has none."""
    found: list[Receipt] = []
    for run in run_folders(home.runs):
        try:
            state = run.state()
        except HubError:
            continue
        found += [] if state is None else [signed.receipt for signed in state.receipts]
    return found


def status_of(home: HubHome, run: RunFolder) -> dict[str, Any]:
    """All that the hub knows of a run, as ``train status --json`` prints it.

    Raises:
        RunUnknown, ManifestInvalid, CheckpointUnusable: the run's folder is damaged.
    """
    manifest, state = run.signed().manifest, run.state()
    members = home.members.read()
    receipts: defaultdict[str, list[Receipt]] = defaultdict(list)
    for signed in () if state is None else state.receipts:
        receipts[signed.receipt.department].append(signed.receipt)
    kept, terms = run.keeping(), manifest.terms
    progress = run.progress()
    return {
        "run_id": run.run_id,
        "state": kept.standing,
        "reason": kept.reason or None,
        "wanted": kept.wanted,
        "hub_running": is_running(home.root),
        "account": manifest.account,
        "created": manifest.created,
        "valid_until": manifest.valid_until,
        "base_model": manifest.base_model,
        "rounds": terms.rounds,
        "rounds_done": 0 if state is None else state.round,
        "minimum_nodes": terms.minimum_nodes,
        "enough": manifest.enough,
        "round_seconds": manifest.round_seconds,
        "attempts": kept.attempts,
        "interruptions": list(kept.interruptions),
        "round_under_way": _under_way(kept, state, progress),
        "per_round": list(_rounds(manifest, state)),
        "departments": [
            _department(manifest, name, receipts[name], enrolled=name in members)
            for name in manifest.departments
        ],
        "release": kept.release,
        "metrics": run.metrics(),
    }


def brief(run: RunFolder) -> dict[str, Any]:
    """One line about a run; of a damaged one that it is."""
    try:
        manifest, state, kept = run.signed().manifest, run.state(), run.keeping()
    except (HubError, PrivacyError, PolicyError) as error:
        return {"run_id": run.run_id, "state": "damaged", "reason": str(error)}
    return {
        "run_id": run.run_id,
        "state": kept.standing,
        "created": manifest.created,
        "account": manifest.account,
        "rounds": manifest.terms.rounds,
        "rounds_done": 0 if state is None else state.round,
        "release": kept.release,
        "reason": kept.reason or None,
    }


def cancel_run(home: HubHome, run: RunFolder) -> str:
    """Ask the keeper to stop a run, or stop it here where no hub runs; its standing.

    Raises:
        CommandRefused: it is over already.
    """
    kept = run.keeping()
    if kept.standing in OVER:
        raise CommandRefused(f"run {run.run_id} is {kept.standing} already")
    _note(home, "run_cancel_asked", run)
    with run.keep() as value:
        value["wanted"] = "stop"
        if not is_running(home.root):
            value.update(standing="cancelled", reason="it was cancelled")
        return str(value["standing"])


def resume_run(home: HubHome, run: RunFolder) -> None:
    """Let a run that was cancelled or has failed go on at its next round.

    Raises:
        CommandRefused: it is not to be resumed.
        ManifestInvalid: its account is not trusted any more, or its time is over.
    """
    kept = run.keeping()
    if kept.standing not in ("cancelled", "failed"):
        raise CommandRefused(
            f"run {run.run_id} is {kept.standing}"
            + ("" if kept.standing == "finished" else "; the hub goes on with it by itself")
        )
    run.manifest(trusted_keys(home.accounts)).check_time(datetime.now(UTC))
    _note(home, "run_resume_asked", run)
    with run.keep() as value:
        value.update(
            wanted="run", standing="waiting", attempts=0, reason="", hopeless=False, flower_run=None
        )


def _note(home: HubHome, step: str, run: RunFolder) -> None:
    with home.audit() as audit:
        facts = {"step": step, "run_id": run.run_id}
        audit.append(AuditEntry.now("run_step", "operator", facts))


def _under_way(
    kept: Keeping, state: RunState | None, progress: Mapping[str, Any]
) -> dict[str, Any] | None:
    done = 0 if state is None else state.round
    if kept.standing not in ("running", "retrying") or progress.get("round", 0) <= done:
        return None
    answered = {*progress["contributed"], *(item["department"] for item in progress["declined"])}
    return {
        "round": progress["round"],
        "asked": progress["asked"],
        "contributed": progress["contributed"],
        "declined": [_declined(item) for item in progress["declined"]],
        "waiting": [name for name in progress["asked"] if name not in answered],
        "at": progress.get("at"),
    }


def _rounds(manifest: RunManifest, state: RunState | None) -> Iterator[dict[str, Any]]:
    if state is None:
        return
    for number in range(1, state.round + 1):
        contributed = [s.receipt.department for s in state.receipts if s.receipt.round == number]
        declined = [d.to_json() for d in state.declines if d.round == number]
        told = {*contributed, *(item["department"] for item in declined)}
        absent = [name for name in manifest.departments if name not in told]
        declined += [
            {"department": name, "code": "not_enrolled", "reason": "it was not enrolled"}
            for name in absent
        ]
        yield {
            "round": number,
            "contributed": contributed,
            "declined": [_declined(item) for item in declined],
        }


def _declined(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("department", "code", "reason")}


def _department(
    manifest: RunManifest, name: str, receipts: Sequence[Receipt], *, enrolled: bool
) -> dict[str, Any]:
    last = receipts[-1] if receipts else None
    return {
        "name": name,
        "rounds_contributed": len(receipts),
        "epsilon": None if last is None else last.epsilon,
        "lifetime_epsilon": None if last is None else last.lifetime_epsilon,
        "delta": manifest.terms.deltas[name],
        "enrolled": enrolled,
    }
