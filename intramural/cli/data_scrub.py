"""``intramural data scrub``: a file of any size without the personal data in it, or a look at a few rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import typer

from intramural.cli.options import DepartmentOption, JsonOption, ToleranceOption, WhereOption
from intramural.cli.output import console, facts, note, print_json, print_table, say, table
from intramural.cli.parser import Command
from intramural.errors import CommandRefused

if TYPE_CHECKING:
    from intramural.bulk_rows import Selection
    from intramural.scrubbing import Advance, Job, Outcome

_TOLERANCE: Final = 0.01
_SHOWN: Final = 20
_PREVIEWED: Final = 5
_PREVIEW: Final = "--preview"
_LEAST_SECONDS: Final = 1e-6


class ScrubCommand(Command):
    """Lets ``--preview`` stand without its number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        for place, word in enumerate(args):
            if word == _PREVIEW and not (place + 1 < len(args) and args[place + 1].isdecimal()):
                given[given.index(_PREVIEW)] = f"{_PREVIEW}={_PREVIEWED}"
        return super().parse_args(ctx, given)


def scrub(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL, CSV or Parquet file.")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="File to write, of the same format."),
    ] = None,
    department: DepartmentOption = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="Scrub only this column and copy the others as they are. As OURS=THEIRS, such as"
            " text=body: the file's column for one of ours; all are scrubbed. Repeatable.",
        ),
    ] = None,
    where: WhereOption = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="The policy to go by.")
    ] = None,
    tolerance: ToleranceOption = _TOLERANCE,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Key of everything that is keyed, made if missing; by default used once and"
            " forgotten.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Processes; by default one a usable core."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Where the report goes; by default OUT.report.json."
        ),
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(
            _PREVIEW,
            min=1,
            metavar="[N]",
            help=f"Show the first N rows ({_PREVIEWED}) before and after, and write nothing.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace OUT; start anew where other work is half done."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Write a file without the personal data in it.

    Every text of every row goes through the detector, JSON inside of texts included. What is found
    is replaced by its type, as in <PERSON>, or as --policy says for training data; subject ids
    become keyed pseudonyms. Format, columns and everything else stay. Files of any size take
    bounded memory; a run that was stopped continues when it is repeated. Faulty rows are left out
    and told by line, up to --tolerance. OUT appears complete or not at all, readable by you only;
    counts, rates and shapes of what was found go into the report beside it and nowhere else.
    Scrubbing lowers a risk; it is no differential privacy.

    \b
    Example:
      intramural data scrub hr.jsonl hr.scrubbed.jsonl --policy policy.toml
      intramural data scrub tickets.csv --preview 3
    """
    from intramural.parts import pseudonym_key, read_policy
    from intramural.scrubbing import Job, scrub_file

    if preview is None and target is None:
        raise click.UsageError("name the file to write, OUT, or look at a few rows with --preview")
    if preview is not None and json_output:
        raise click.UsageError("--preview shows records to a person; it has no --json")
    rules = None if policy is None else read_policy(policy)
    if rules is not None and department is not None:
        rules.department(department)
    selection = _selection(department, column, where)
    if preview is not None:
        from intramural.cli.data_preview import show

        show(source, selection, rules, preview)
        return
    if target is None:
        raise click.UsageError("name the file to write, OUT")
    told = report or target.with_name(f"{target.name}.report.json")
    _check_report(told, report is not None and not force, (source, target))
    job = Job(
        source=source,
        target=target,
        selection=selection,
        policy=rules,
        key=None if key is None else pseudonym_key(key),
        tolerance=tolerance,
        workers=workers,
        force=force,
    )
    with _bar() as (advance, say_beside):
        done = scrub_file(job, advance, say_beside)
    account = _account(job, done)
    _write_report(told, account)
    if json_output:
        print_json({**account, "report": str(told)})
        return
    _print(job, done, told)


def _selection(
    department: str | None, column: list[str] | None, where: list[str] | None
) -> "Selection":
    from client.errors import DataSourceError
    from client.records import DataSource, parse_columns, parse_where
    from intramural.bulk_rows import Selection

    mapped = parse_columns(text for text in column or [] if "=" in text)
    names = [text.strip() for text in column or [] if "=" not in text]
    if "" in names:
        raise DataSourceError("--column needs the name of a column")
    wanted = parse_where(where or [])
    # Contradictions between these are found in one place for every command.
    DataSource(Path(), department, mapped, wanted)
    return Selection(mapped, wanted, department, frozenset(names) if names else None)


def _check_report(path: Path, must_be_new: bool, others: tuple[Path, ...]) -> None:
    if any(path.absolute() == other.absolute() for other in others):
        raise CommandRefused(f"{path} is not free for the report; give --report another name")
    if must_be_new and path.exists():
        raise CommandRefused(f"{path} exists already; give --report another name, or give --force")
    if not path.parent.is_dir():
        raise CommandRefused(f"{path} cannot be written: there is no folder {path.parent}")


@contextmanager
def _bar() -> "Iterator[tuple[Advance, Callable[[str], None]]]":
    """A bar with rate and time left on a terminal; in a pipe, lines alone."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    errors = console(stderr=True)
    progress = Progress(
        TextColumn("scrubbing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        Remaining(),
        console=errors,
        disable=not errors.is_terminal,
    )
    with progress:
        task = progress.add_task("scrubbing", total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} rows/s" if speed else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield advance, note if not errors.is_terminal else errors.print


def _account(job: "Job", done: "Outcome") -> dict[str, Any]:
    seen, tally = done.survey, done.tally
    return {
        "file": str(job.source),
        "output": str(job.target),
        "records": seen.taken,
        "written": done.written,
        "with_subject_id": tally.subjects,
        "left_out": dict(seen.left_out),
        "faulty": done.faulty,
        "faults": [{"line": fault.line, "reason": fault.reason} for fault in done.faults],
        "input_sha256": seen.digest,
        "policy": None if job.policy is None else job.policy.digest,
        "scrubbed_columns": None if job.selection.only is None else sorted(job.selection.only),
        **tally.report(),
        "rows": seen.rows,
        "resumed_rows": done.resumed,
        "workers": done.workers,
        "seconds": round(done.seconds, 3),
        "rows_per_second": round(
            (tally.rows - done.resumed) / max(done.seconds, _LEAST_SECONDS), 3
        ),
    }


def _write_report(path: Path, account: dict[str, Any]) -> None:
    import json

    from privacy.files import write_atomic

    write_atomic(
        path, json.dumps(account, ensure_ascii=False, indent=2).encode() + b"\n", mode=0o600
    )


def _print(job: "Job", done: "Outcome", report: Path) -> None:
    from client.errors import list_faults

    seen, tally = done.survey, done.tally
    left_out = [f"{count:,} by {name}" for name, count in seen.left_out.items()]
    facts(
        [
            ("file", job.source),
            ("rows", f"{seen.rows:,}"),
            ("scrubbed", f"{tally.rows:,}"),
            ("with a subject id", f"{tally.subjects:,}"),
            ("left out", ", ".join(left_out) or "none"),
            ("blocked by the policy", f"{tally.blocked:,}"),
            ("faulty", f"{done.faulty:,}"),
        ]
    )
    for line in list_faults(done.faults, _SHOWN):
        say(f"  skipped {line}")
    if job.selection.only is not None:
        say(f"Only {', '.join(sorted(job.selection.only))} scrubbed; other columns as they were.")
    made = table("type", "replaced", "kept by the policy", right=(1, 2))
    for entity in sorted({*tally.counts, *tally.kept}):
        made.add_row(entity, str(tally.counts[entity]), str(tally.kept[entity]))
    if made.row_count:
        print_table(made)
    else:
        say("No personal data was found.")
    say(f"{done.written:,} records written to {job.target}")
    say(f"report: {report}")
