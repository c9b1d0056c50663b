"""``data scrub --preview``: a few records before and after, on the terminal and nowhere else."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from intramural.cli.output import console, note, say

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from intramural.bulk_rows import Batch, Selection
    from intramural.bulk_worker import Finding
    from policies.model import Policy

_COLOURS: Final = ("red", "green", "yellow", "blue", "magenta", "cyan")
_LONGEST: Final = 2000


def show(file: Path, selection: "Selection", policy: "Policy | None", count: int) -> None:
    """The first ``count`` rows that the selection takes.

    Raises:
        RecordError: the file cannot be read, or holds no such row.
        RedactionUnavailable: personal data could not be looked for; nothing is shown then.
    """
    import secrets

    from client.errors import RecordError
    from intramural.bulk_pool import open_worker
    from intramural.bulk_rows import Source
    from intramural.bulk_worker import Task

    source = Source(file, selection)
    batch = _first(source.batches(), count)
    if batch is None:
        raise RecordError(f"{file}: no row of the first few can be shown; see `data check`")
    note("opening the detector …")
    task = Task(
        source.format, source.zipped, source.dialect, selection, policy, secrets.token_bytes(32)
    )
    worker = open_worker(task)
    shown = console()
    for row, after, findings in worker.preview(batch)[:count]:
        if shown.is_terminal:
            shown.print(_side_by_side(row.line, row.columns, row.texts, after, findings))
        else:
            _plain(row.line, row.columns, row.texts, after, findings)
    if shown.is_terminal:
        note("nothing was written")


def _first(batches: "Iterable[Batch]", count: int) -> "Batch | None":
    """The first batch with a row in it, cut to ``count`` rows."""
    for batch in batches:
        if batch.taken:
            batch.rows = batch.rows[:count]
            if batch.arrow is not None:
                from intramural.bulk_parquet import from_ipc, to_ipc

                batch.arrow = to_ipc(from_ipc(batch.arrow).slice(0, count))
            return batch
    return None


def _plain(
    line: int,
    columns: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    findings: "Sequence[Finding]",
) -> None:
    say(f"line {line}")
    for place, (column, was, now) in enumerate(zip(columns, before, after, strict=True)):
        found = [f for f in findings if f.place == place]
        say(f"  {column}")
        say(f"    before: {_cut(was)!r}")
        if found:
            kinds = ", ".join(f"{f.span.entity} {f.span.score:.2f} {f.action}" for f in found)
            say(f"    after:  {_cut(now)!r}")
            say(f"    found:  {kinds}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _side_by_side(
    line: int,
    columns: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    findings: "Sequence[Finding]",
) -> "Table":
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.ROUNDED, title=f"line {line}", title_justify="left", expand=True, show_lines=True
    )
    made.add_column("column", ratio=1, overflow="fold")
    made.add_column("before", ratio=4, overflow="fold")
    made.add_column("after", ratio=4, overflow="fold")
    for place, (column, was, now) in enumerate(zip(columns, before, after, strict=True)):
        found = [f for f in findings if f.place == place]
        made.add_row(column, *_painted(_cut(was), _cut(now), found))
    return made


def _painted(was: str, now: str, findings: "Sequence[Finding]") -> "tuple[Text, Text]":
    """Both texts with what was found in its type's colour, and the type beside it."""
    from rich.text import Text

    left, right = Text(), Text()
    done = at = 0
    for place, finding in enumerate(findings):
        span = finding.span
        if span.end > len(was):
            break
        between = was[done : span.start]
        left.append(between)
        left.append(was[span.start : span.end], style=f"bold {colour(span.entity)}")
        left.append(f" {span.entity}", style=f"dim {colour(span.entity)}")
        right.append(now[at : at + len(between)])
        at += len(between)
        following = findings[place + 1].span.start if place + 1 < len(findings) else len(was)
        rest = was[span.end : following]
        # What stands for the finding ends where the unchanged text after it begins.
        end = now.find(rest, at) if rest else (at if place + 1 < len(findings) else len(now))
        if rest and place + 1 == len(findings) and now.endswith(rest):
            end = len(now) - len(rest)
        right.append(now[at : max(end, at)], style=f"bold {colour(span.entity)}")
        at = max(end, at)
        done = span.end
    left.append(was[done:])
    right.append(now[at:])
    return left, right


def colour(entity: str) -> str:
    """The same colour for a type every time."""
    return _COLOURS[sum(entity.encode()) % len(_COLOURS)]
