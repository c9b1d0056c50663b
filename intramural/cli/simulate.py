"""``intramural simulate``: a whole federation in one process, on the user's own files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from intramural.cli.options import ColumnOption, JsonOption, ToleranceOption, WhereOption
from intramural.cli.output import console, note, print_json, print_table, say, table, upper

if TYPE_CHECKING:
    from intramural.simulation import SimulationResult


def simulate(
    policy: Annotated[
        Path, typer.Option("--policy", "-p", metavar="FILE", help="The policy of the run.")
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data", metavar="DEPARTMENT=FILE", help="A department's records. Repeatable."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The workspace to write.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH_OR_ID",
            help="Base model: a local folder or a hub id; the demo's by default.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", metavar="FILE", help="Public held-out records to evaluate on."),
    ] = None,
    eval_limit: Annotated[
        int, typer.Option(min=1, help="Most held-out records, evenly spread over the file.")
    ] = 200,
    column: ColumnOption = None,
    where: WhereOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only the first records of each department.")
    ] = None,
    tolerance: ToleranceOption = 0.01,
    new_run: Annotated[
        bool,
        typer.Option(
            "--new-run", help="Train once more, at full cost, where this run is complete already."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a federation of departments in this process, on your own files.

    Each department gets its own folder, key and budget ledger under --out; its records are
    scrubbed there, and the hub sees only what a deployed one would see. An interrupted run goes on
    where it stopped when the same command is given again. Another policy or other records make
    another run, charged to the same ledgers in --out.

    Files: JSON Lines, CSV (each also .gz) or Parquet, with rows {"text"}, {"prompt","completion"},
    {"messages"} or {"text","label"}. Of a file with a column "department" a department takes its
    own rows; of one with a column "split" training takes "train" and --eval takes "test". What is
    left out is counted, every faulty row is told.

    \b
    Example:
      intramural simulate --policy policy.toml --data hr=hr.jsonl \\
          --data finance=finance.csv --eval public.jsonl --out run
    """
    from intramural.quiet import quiet

    note("· loading the libraries")
    quiet()
    from client.records import DataSource, parse_columns, parse_where
    from intramural.progress import RunProgress
    from intramural.simulation import SimulationOptions
    from intramural.simulation import simulate as run

    columns, filters = parse_columns(column or ()), parse_where(where or ())
    base, name = _model(model)
    options = SimulationOptions(
        policy=policy,
        data={
            department: DataSource(path, department, columns, filters)
            for department, path in _files(data).items()
        },
        model=base,
        model_name=name,
        out=out,
        evaluation=_evaluation(evaluation, columns),
        evaluation_limit=eval_limit,
        limit=limit,
        tolerance=tolerance,
        new_run=new_run,
    )
    with RunProgress(console(stderr=True)) as progress:
        result = run(options, progress.display)
    if json:
        print_json(to_json(result))
    else:
        show(result)


def to_json(result: "SimulationResult") -> dict[str, Any]:
    """What ``--json`` prints; counts and canaries are local facts of this one machine."""
    return {
        "release": result.release.id,
        "workspace": str(result.workspace.root),
        "run_id": result.plan.run_id,
        "departments": [asdict(part) for part in result.departments],
        "data": [
            {
                "department": part.department,
                "records": part.records,
                "findings": dict(part.findings),
                "left_out": dict(part.left_out),
                "faults": [asdict(fault) for fault in part.faults],
            }
            for part in result.data
        ],
        "declines": [decline.to_json() for decline in result.declines],
        "evaluation": result.evaluation.to_json() if result.evaluation else None,
        "canaries": [part.to_json() for part in result.audits],
    }


def show(result: "SimulationResult") -> None:
    """The release, the budgets and the metrics, for a person."""
    budgets = table("department", "epsilon", "delta", "budget", right=(1, 2, 3))
    for part in result.departments:
        budgets.add_row(part.name, upper(part.epsilon), f"{part.delta:g}", f"{part.budget:g}")
    print_table(budgets)
    for decline in result.declines:
        say(f"round {decline.round}: {decline.department} declined ({decline.code})")
    for audit in result.audits:
        say(
            f"canaries   {audit.name}: epsilon of this run is at least {audit.bound.epsilon:.4f} "
            f"(measured), at most {upper(audit.epsilon_run)} (claimed)"
        )
    if result.evaluation is None:
        say("not evaluated: give public held-out records with --eval FILE")
    else:
        show_evaluation(result)
    say(f"release    {result.release.id}")
    say(f"workspace  {result.workspace.root}")
    say(f"serve it   intramural serve --workspace {result.workspace.root}")


def show_evaluation(result: "SimulationResult") -> None:
    """Metrics before and after with their 95 % intervals."""
    evaluation = result.evaluation
    if evaluation is None:
        return
    metrics = table("held-out metric", "before", "after", "items", right=(3,))
    for name, part in (("accuracy", evaluation.accuracy), ("loss (nats/token)", evaluation.loss)):
        if part is not None:
            before, after = part.before, part.after
            metrics.add_row(
                name,
                f"{before.value:.3f} [{before.low:.3f}, {before.high:.3f}]",
                f"{after.value:.3f} [{after.low:.3f}, {after.high:.3f}]",
                str(part.items),
            )
    print_table(metrics)


def _files(options: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (name and equals and path):
            raise click.UsageError(
                f"--data {option!r} must read DEPARTMENT=FILE, as in hr=hr.jsonl"
            )
        if name in files:
            raise click.UsageError(f"--data names the department {name!r} twice")
        files[name] = Path(path)
    return files


def _evaluation(path: Path | None, columns: dict[str, str]) -> Any:
    from client.records import DataSource
    from intramural.node import held_out_split

    if path is None:
        return None
    return DataSource(path, columns=columns, where=held_out_split(path))


def _model(given: str | None) -> tuple[Path | str, str | None]:
    """Where the base model lies, and its public name where the folder does not say it."""
    if given is None:
        from intramural.assets import asset_path
        from intramural.parts import DEMO_MODEL

        return asset_path(DEMO_MODEL), DEMO_MODEL
    path = Path(given)
    return (path if path.exists() else given), None
