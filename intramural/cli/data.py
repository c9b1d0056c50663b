"""``intramural data``: check a department's records, scrub them, and measure the detector on labelled text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from intramural.cli.data_evaluate import evaluate_pii
from intramural.cli.data_scrub import ScrubCommand, scrub
from intramural.cli.options import (
    ColumnOption,
    DepartmentOption,
    JsonOption,
    ToleranceOption,
    WhereOption,
)
from intramural.cli.output import facts, print_json, say
from intramural.cli.parser import CommandGroup
from intramural.errors import CommandRefused

if TYPE_CHECKING:
    from client.records import DataSource, RecordSet
    from policies.model import Policy

app = CommandGroup("Check records, scrub personal data from them, and measure how well that works.")

_TOLERANCE: Final = 0.01
_SHOWN: Final = 20

PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="The policy to go by."),
]


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, CSV or Parquet file.")],
    department: DepartmentOption = None,
    column: ColumnOption = None,
    where: WhereOption = None,
    policy: PolicyOption = None,
    tolerance: ToleranceOption = _TOLERANCE,
    json_output: JsonOption = False,
) -> None:
    """Check a file of records.

    Rows are {"text"}, {"prompt", "completion"}, {"messages": [...]} or {"text", "label"}, with an
    optional subject_id. Tells how many rows are records of which kind, how many a filter leaves
    out, and each faulty row by file, line and reason, never by its content. Exits with 1 where more
    rows are faulty than --tolerance allows. With --policy and --department, also checks that the
    department may train on so many records.

    \b
    Example:
      intramural data check tickets.csv --column text=body --department it_support
    """
    from client.records import read_records
    from intramural.parts import read_policy

    read = read_records(_source(file, department, column, where), tolerance=tolerance)
    if policy is not None:
        _check_policy(read_policy(policy), department, read)
    if json_output:
        print_json(_account(read))
        return
    _print_account(read)


app.command("scrub", cls=ScrubCommand)(scrub)
app.command("evaluate-pii")(evaluate_pii)


def _source(
    file: Path, department: str | None, column: list[str] | None, where: list[str] | None
) -> "DataSource":
    from client.records import DataSource, parse_columns, parse_where

    return DataSource(file, department, parse_columns(column or []), parse_where(where or []))


def _check_policy(policy: "Policy", department: str | None, read: "RecordSet") -> None:
    """Refuse what the department's node would refuse later."""
    names = list(policy.departments) if department is None else [department]
    for name in names:
        budget = policy.budget_of(name)
        if not budget.protects(len(read)):
            raise CommandRefused(
                f"delta={budget.delta} of department {name!r} must be below 1/{len(read)}, one over the "
                f"number of records; lower departments.{name}.delta in the policy"
            )


def _account(read: "RecordSet") -> dict[str, Any]:
    return {
        "file": str(read.source.path),
        "rows": read.rows,
        "records": len(read),
        "kinds": dict(sorted(read.kinds.items())),
        "with_subject_id": sum(record.subject_id is not None for record in read),
        "left_out": dict(read.left_out),
        "faults": [{"line": fault.line, "reason": fault.reason} for fault in read.faults],
    }


def _print_account(read: "RecordSet") -> None:
    from client.errors import list_faults

    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(read.kinds.items()))
    left_out = [f"{count:,} by {name}" for name, count in read.left_out.items()]
    subjects = sum(record.subject_id is not None for record in read)
    facts(
        [
            ("file", read.source.path),
            ("rows", f"{read.rows:,}"),
            ("records", f"{len(read):,} ({kinds})"),
            ("with a subject id", f"{subjects:,}"),
            ("left out", ", ".join(left_out) or "none"),
            ("faulty", f"{len(read.faults):,}"),
        ]
    )
    for line in list_faults(read.faults, _SHOWN):
        say(f"  skipped {line}")
