"""``intramural budget audit``: does a run leak more than it claims?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import note, print_json, print_table, say, table, upper

if TYPE_CHECKING:
    from intramural.auditing import RunAudit


ConfidenceOption = Annotated[
    float,
    typer.Option("--confidence", help="Of all lower bounds together, between 0 and 1."),
]


def audit(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id, or `latest` for the newest run.")
    ] = "latest",
    confidence: ConfidenceOption = 0.95,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw scores and bounds, for you alone."),
    ] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure what a run reveals, and compare it with what it claims.

    With `training.canaries` in the policy, each node mixes made-up records into its own, each by a
    secret fair coin. Here they are attacked: from how much the adapter lowered its loss, each is
    guessed to be in or out, and the right guesses prove a lower bound on epsilon. A bound above the
    claim refutes the claim. A bound below it proves no more than itself: another attack may do
    better.

    Each department's report is kept in its own folder. It is computed from canaries, never from
    records, and publishing it is the department's decision. Exits with 1 where a claim is refuted
    or the run had no canaries. Of a run between machines each department audits its own part, at
    its node: `intramural node audit`.

    \b
    Example:
      intramural budget audit latest --workspace run --plot audit.png
    """
    check_confidence(confidence)
    from intramural.auditing import audit_run, find_run, scores_of

    found = find_workspace(workspace)
    folder, result = find_run(found, run)
    audited = audit_run(found, folder, result, confidence)
    if plot is not None:
        from intramural.audit_plot import plot_audit

        plot_audit(
            [
                (part, *scores_of(found.node(part.name), folder, result))
                for part in audited.departments
            ],
            plot,
        )
    tell(audited, json_output)


def check_confidence(confidence: float) -> None:
    """Raises click.BadParameter for what is no confidence."""
    if not 0 < confidence < 1:
        raise click.BadParameter(
            f"{confidence} must lie between 0 and 1", param_hint="--confidence"
        )


def tell(audited: "RunAudit", json_output: bool) -> None:
    """Print an audit. Raises typer.Exit with code 1 where a claim is refuted."""
    if json_output:
        print_json(audited.to_json())
    else:
        _show(audited)
    if audited.refuted:
        note(f"error: the claim of run {audited.run_id} is refuted: {', '.join(audited.refuted)}")
        raise typer.Exit(1)


def _show(audited: "RunAudit") -> None:
    made = table("department", "proved", "claimed", "history", "provable", "right", "AUC",
                 "TPR", right=(1, 2, 3, 4, 5, 6, 7))  # fmt: skip
    for part in audited.departments:
        rate = part.tpr_at_1_percent_fpr
        made.add_row(
            part.name,
            f"{part.bound.epsilon:.4f}",
            upper(part.epsilon_run),
            upper(part.epsilon_history),
            f"{part.bound.ceiling:.4f}",
            f"{part.bound.correct} of {part.bound.guesses}",
            "-" if part.auc is None else f"{part.auc[0]:.3f}",
            "-" if rate is None else f"{rate:.3f}",
        )
    print_table(made)
    first = audited.departments[0]
    say(f"Epsilon of run {audited.run_id}, for one {first.unit} added or removed.")
    say(
        f"Proved: a lower bound, at confidence {audited.confidence:g} for all departments together,"
    )
    say(
        f"from {first.bound.canaries} canaries each; `provable` is what perfect guesses would prove."
    )
    say("AUC is that of all scores, TPR the share found at 1 % false alarms.")
    if any(part.bound.ceiling <= part.epsilon_run for part in audited.departments):
        say("A claim above `provable` cannot be refuted by so many canaries; at a delta of 1e-5")
        say("the audit reaches furthest with training.canaries between 1,000 and 3,000.")
