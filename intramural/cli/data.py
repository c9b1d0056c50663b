"""``intramural data``: check a department's records, and scrub personal data from them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from intramural.cli.options import (
    ColumnOption,
    DepartmentOption,
    JsonOption,
    ToleranceOption,
    WhereOption,
)
from intramural.cli.output import console, facts, note, print_json, print_table, say, table
from intramural.cli.parser import CommandGroup
from intramural.errors import CommandRefused

if TYPE_CHECKING:
    from client.records import DataSource, Record, RecordSet
    from policies.model import Policy

app = CommandGroup("Check records, and scrub personal data from them.")

_AT_ONCE: Final = 64
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


@app.command("scrub")
def scrub(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL, CSV or Parquet file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL file to write.")],
    department: DepartmentOption = None,
    column: ColumnOption = None,
    where: WhereOption = None,
    policy: PolicyOption = None,
    tolerance: ToleranceOption = _TOLERANCE,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Key of the subject ids' pseudonyms, made if missing; by default used once and"
            " forgotten.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Write records without the personal data in them.

    Every text of every record goes through the detector. What is found is replaced by its type, as
    in <PERSON>, unless --policy keeps that type; subject ids become keyed pseudonyms. OUT appears
    complete or not at all, readable by you only. The counts by type are printed here and go nowhere
    else. Scrubbing lowers a risk; it is no differential privacy.

    \b
    Example:
      intramural data scrub hr.jsonl hr.scrubbed.jsonl --policy policy.toml
    """
    from client.records import read_records, write_records
    from intramural.parts import read_policy

    if target.exists():
        if target.is_file() and source.exists() and target.samefile(source):
            raise CommandRefused(f"{target} is the file to be scrubbed; choose another name")
        if not force:
            raise CommandRefused(f"{target} exists already; choose another name, or give --force")
    rules = None if policy is None else read_policy(policy)
    if rules is not None and department is not None:
        rules.department(department)
    read = read_records(_source(source, department, column, where), tolerance=tolerance)
    scrubbing = _Scrubbing(read, rules, key)
    written = write_records(target, scrubbing.records(), overwrite=force)
    if json_output:
        print_json(
            {
                **_account(read),
                "output": str(target),
                "written": written,
                "counts": dict(sorted(scrubbing.counts.items())),
                "kept": dict(sorted(scrubbing.kept.items())),
            }
        )
        return
    _print_account(read)
    made = table("type", "replaced", "kept by the policy", right=(1, 2))
    for entity in sorted({*scrubbing.counts, *scrubbing.kept}):
        made.add_row(entity, str(scrubbing.counts[entity]), str(scrubbing.kept[entity]))
    if made.row_count:
        print_table(made)
    else:
        say("No personal data was found.")
    say(f"{written:,} records written to {target}")


class _Scrubbing:
    """Scrubs batch after batch, and counts."""

    def __init__(self, read: "RecordSet", policy: "Policy | None", key: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self._read = read
        self._policy = policy
        self._key = key

    def records(self) -> "Iterator[Record]":
        """The records, scrubbed, in order. Opens the detector when the first one is asked for."""
        import secrets

        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from client.rows import Record
        from intramural.parts import detector_for, pseudonym_key, subject_pseudonym
        from policies.decisions import action_for
        from policies.model import PiiPolicy
        from privacy.pii.scrub import Scrubber, always_redact

        policy = self._policy
        subject = subject_pseudonym(
            secrets.token_bytes(32) if self._key is None else pseudonym_key(self._key)
        )
        note("opening the detector …")
        scrubber = Scrubber(
            detector_for(PiiPolicy() if policy is None else policy.pii),
            always_redact if policy is None else lambda entity: action_for(policy, entity),
        )
        errors = console(stderr=True)
        records = self._read.records
        with Progress(
            TextColumn("scrubbing"),
            BarColumn(),
            MofNCompleteColumn(),
            console=errors,
            disable=not errors.is_terminal,
        ) as progress:
            task = progress.add_task("scrubbing", total=len(records))
            for start in range(0, len(records), _AT_ONCE):
                batch = records[start : start + _AT_ONCE]
                scrubbed, report = scrubber.scrub_items(batch, Record.map_text)
                self.counts.update(report.counts)
                self.kept.update(report.kept)
                yield from (record.map_subject(subject) for record in scrubbed)
                progress.advance(task, len(batch))


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
