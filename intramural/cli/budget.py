"""``intramural budget``: what was spent, whether the ledgers are sound, what a run would cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from intramural.cli.budget_audit import audit
from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import facts, note, print_json, print_table, say, table, upper
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from intramural.ledgers import LedgerCheck
    from intramural.workspace import Workspace
    from policies.model import Policy

app = CommandGroup("Privacy budgets: what was spent, what a run would cost.")

STATES = {
    "absent": "no ledger yet: nothing was ever charged",
    "closed": "every byte is as it was sealed",
    "crashed": "its writer was stopped; chain and signatures are sound",
    "in_use": "being written now; chain and signatures are sound",
    "unsealed": "no readable seal",
}


@app.command("show")
def show(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """Show what each department has spent of its budget.

    Epsilon is computed from all that was spent on the policy's data block, at the department's
    delta, and holds for one record (or subject) added or removed; the budget bounds it. Lifetime is
    the same over every block there ever was. What was reserved counts as spent, also where a run
    was interrupted. The ledgers are verified first: one that was changed is named, its figures are
    not shown, and the command exits with 1.

    \b
    Example:
      intramural budget show --workspace intramural-demo
    """
    from intramural.ledgers import spends
    from intramural.parts import workspace_policy

    found = find_workspace(workspace)
    policy = workspace_policy(found)
    checks, damaged = _checks(found, policy)
    accounts = {spend.department: spend for spend in spends(checks, policy)}
    spent = [account.epsilon for account in accounts.values()]
    lifetimes = [account.lifetime_epsilon for account in accounts.values()]
    if json_output:
        departments = []
        for check in checks:
            account = accounts.get(check.department)
            figures: dict[str, Any] = {"epsilon": None, "delta": None, "budget": None}
            if account is not None:
                figures = {
                    "block": account.block,
                    "epsilon": account.epsilon,
                    "lifetime_epsilon": account.lifetime_epsilon,
                    "delta": account.delta,
                    "budget": None if account.budget is None else float(account.budget),
                    "remaining": account.remaining,
                    "reservations": account.reservations,
                    "committed": account.committed,
                    "blocks": [dict(vars(block)) for block in account.blocks],
                }
            departments.append({"name": check.department, **figures, **_soundness(check)})
        print_json(
            {
                "unit": policy.privacy.unit,
                "adjacency": "add_or_remove_one",
                "departments": departments,
                "largest_epsilon": max(spent, default=0.0),
                "sum_epsilon": sum(spent),
                "largest_lifetime_epsilon": max(lifetimes, default=0.0),
                "sum_lifetime_epsilon": sum(lifetimes),
                "policy": policy.digest,
                "verified": not damaged and all(check.ok for check in checks),
            }
        )
    else:
        made = table("department", "block", "epsilon", "budget", "lifetime", "delta", "rounds",
                     "ledger", right=(2, 3, 4, 5, 6))  # fmt: skip
        for check in checks:
            account = accounts.get(check.department)
            if account is None:
                made.add_row(check.department, *"??????", "does not verify")
                continue
            made.add_row(
                check.department,
                account.block,
                upper(account.epsilon),
                "-" if account.budget is None else str(account.budget),
                upper(account.lifetime_epsilon),
                f"{account.delta:g}",
                f"{account.committed}/{account.reservations}",
                check.state,
            )
            for block in account.blocks:
                if block.block != account.block:
                    made.add_row("", block.block, upper(block.epsilon), "-", "", "",
                                 f"{block.committed}/{block.reservations}", "")  # fmt: skip
        print_table(made)
        say(f"For one {policy.privacy.unit} added or removed; epsilon is rounded up; rounds are")
        say("released/charged. Lifetime is over every data block; the budget is for one.")
        say(
            f"Known to one department: at most {upper(max(spent, default=0.0))}; "
            f"to all of them (sum): at most {upper(sum(spent))}."
        )
        say(
            f"Lifetime, in one department: at most {upper(max(lifetimes, default=0.0))}; "
            f"in all (sum): at most {upper(sum(lifetimes))}."
        )
    _finish(checks, damaged)


@app.command("verify")
def verify(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """Verify the departments' budget ledgers.

    Checks the seal over every byte, the chain of entries, every signature, and that each round for
    which a release carries a receipt was charged. Exits with 1 and names what is wrong.

    \b
    Example:
      intramural budget verify --workspace intramural-demo
    """
    from intramural.parts import workspace_policy

    found = find_workspace(workspace)
    checks, damaged = _checks(found, workspace_policy(found))
    if json_output:
        print_json(
            {
                "verified": not damaged and all(check.ok for check in checks),
                "ledgers": [
                    {
                        "department": check.department,
                        "entries": check.entries,
                        "head": check.head,
                        **_soundness(check),
                    }
                    for check in checks
                ],
            }
        )
    else:
        made = table("department", "entries", "verified", "how far", right=(1,))
        for check in checks:
            told = STATES[check.state] if check.ok else "; ".join(check.faults)
            made.add_row(check.department, str(check.entries), "yes" if check.ok else "NO", told)
        print_table(made)
    _finish(checks, damaged)


@app.command("plan")
def plan(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="Policy file of the run.")],
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, max=10_000, help="Rounds, instead of the policy's."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, max=100_000, help="Steps of one round, instead of the policy's."
        ),
    ] = None,
    sampling_rate: Annotated[
        float | None,
        typer.Option("--sampling-rate", help="Above 0, at most 1, instead of the policy's."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", help="Cost of the whole run, instead of the policy's."),
    ] = None,
    noise_multiplier: Annotated[
        float | None,
        typer.Option("--noise-multiplier", help="Price this noise instead of calibrating it."),
    ] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Tell what a run would cost each department, before it runs.

    Calibrates the noise as the hub will, or prices the noise that is named, and composes the run
    with each department's stored history in --workspace, where one is named. Nothing is charged. Exits with 1 where a department could
    not pay for the whole run: it would decline the rounds that do not fit, and the run would go on
    with the others. What asks for more than the policy's training section is declined by every
    node; change the policy first.

    \b
    Example:
      intramural budget plan policy.toml --rounds 8 --epsilon 4
    """
    from intramural.parts import read_policy
    from intramural.planning import RunShape, plan_costs
    from privacy.errors import TamperedStore

    if sampling_rate is not None and not 0 < sampling_rate <= 1:
        raise click.BadParameter(f"{sampling_rate} must lie above 0 and at most at 1",
                                 param_hint="--sampling-rate")  # fmt: skip
    if epsilon is not None and not 0 < epsilon < float("inf"):
        raise click.BadParameter(f"{epsilon} must be a number above 0", param_hint="--epsilon")
    if noise_multiplier is not None:
        if epsilon is not None:
            raise click.UsageError("--epsilon and --noise-multiplier: name one, the other follows")
        if not 0 < noise_multiplier < float("inf"):
            raise click.BadParameter(f"{noise_multiplier} must be a number above 0",
                                     param_hint="--noise-multiplier")  # fmt: skip
    loaded = read_policy(policy)
    shape = RunShape.of(
        loaded,
        rounds=rounds,
        steps=steps,
        sampling_rate=sampling_rate,
        epsilon=epsilon,
        noise_multiplier=noise_multiplier,
    )
    checks: tuple[LedgerCheck, ...] = ()
    if workspace is not None:
        checks, damaged = _checks(find_workspace(workspace), loaded)
        if wrong := _wrong(checks, damaged):
            raise TamperedStore("; ".join(wrong))
    costs = plan_costs(loaded, shape, {check.department: check.history for check in checks})
    training = shape.training
    beyond = shape.beyond(loaded)
    fits = all(cost.fits for cost in costs)
    if json_output:
        print_json(
            {
                "policy": loaded.digest,
                "unit": loaded.privacy.unit,
                "adjacency": "add_or_remove_one",
                "rounds": training.rounds,
                "steps": training.local_steps,
                "sampling_rate": training.sampling_rate,
                "clipping": training.clipping,
                "noise_bands": training.noise_bands,
                "target_epsilon": shape.target_epsilon,
                "noise_multiplier": shape.noise_multiplier,
                "history": str(workspace) if workspace is not None else None,
                "departments": [cost.to_json() for cost in costs],
                "fits": fits,
                "beyond_policy": beyond,
            }
        )
    else:
        target = shape.target_epsilon
        noise = (
            f"{shape.noise_multiplier:g}, as named"
            if target is None
            else f"{shape.noise_multiplier:.3f}, calibrated for epsilon {target:g}"
        )
        facts(
            [
                ("run", f"{training.rounds} rounds of {training.local_steps} steps"),
                ("mechanism", shape.mechanism),
                ("sampling rate", f"{training.sampling_rate:g} (Poisson)"),
                ("noise multiplier", noise),
                ("adjacency", f"add or remove one {loaded.privacy.unit}"),
                ("stored history", "none given" if workspace is None else str(workspace)),
            ]
        )
        made = table("department", "batch", "this run", "spent", "after it", "budget", "delta",
                     "fits", right=(1, 2, 3, 4, 5, 6))  # fmt: skip
        for cost in costs:
            told = "yes" if cost.fits else f"{cost.affordable_rounds} of {cost.rounds} rounds"
            made.add_row(cost.department, f"{cost.expected_batch:g}", upper(cost.run),
                         upper(cost.spent), upper(cost.after), f"{cost.budget:g}",
                         f"{cost.delta:g}", told)  # fmt: skip
        print_table(made)
        say("Epsilon, rounded up. Costs compose; they do not simply add up. The batch is the")
        say("expected one of a step, in units of privacy, by the declared size.")
    for name in beyond:
        note(f"warning: {name} asks for more than the policy allows; every node would decline")
    if not fits:
        short = ", ".join(cost.department for cost in costs if not cost.fits)
        note(f"error: the run does not fit into the budget of {short}")
        raise typer.Exit(1)


app.command("audit")(audit)


def _checks(
    workspace: "Workspace", policy: "Policy"
) -> "tuple[tuple[LedgerCheck, ...], list[str]]":
    """A check of each ledger, and what is wrong with the releases that they are compared to."""
    from intramural.ledgers import check_ledgers
    from privacy.errors import ReleaseInvalid
    from privacy.release import VerifiedRelease, list_releases

    releases: list[VerifiedRelease] = []
    damaged: list[str] = []
    for _, release in list_releases(workspace.root):
        if isinstance(release, ReleaseInvalid):
            damaged.append(str(release))
        else:
            releases.append(release)
    return check_ledgers(workspace, policy, releases), damaged


def _soundness(check: "LedgerCheck") -> dict[str, Any]:
    return {"state": check.state, "verified": check.ok, "faults": list(check.faults)}


def _wrong(checks: "Sequence[LedgerCheck]", damaged: Sequence[str]) -> list[str]:
    wrong = [f"{check.department}: {fault}" for check in checks for fault in check.faults]
    return wrong + [f"release {fault}" for fault in damaged]


def _finish(checks: "Sequence[LedgerCheck]", damaged: Sequence[str]) -> None:
    """Exit with 1 where something is wrong, and say what."""
    wrong = _wrong(checks, damaged)
    for line in wrong:
        note(f"error: {line}")
    if wrong:
        raise typer.Exit(1)
