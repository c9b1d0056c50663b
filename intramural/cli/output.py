"""How commands speak: results on standard output, everything else on standard error.

With ``--json`` the result is exactly one JSON value. Without, it is text and tables that read well
in a log of 80 columns too. Nothing here interprets markup: what is printed may come from files.
"""

import json
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JSON_FLAG: Final = "--json"
_WIDTH: Final = 80


class JsonOutput:
    """Whether the one JSON value of the running command was printed."""

    printed = False


def print_json(value: Any) -> None:
    """The one JSON value of a command."""
    JsonOutput.printed = True
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A message beside the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def console(*, stderr: bool = False) -> "Console":
    """A console that prints what it is given, as it is."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def table(*columns: str, right: Iterable[int] = (), title: str | None = None) -> "Table":
    """An empty table; ``right`` are the positions of columns with figures."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    figures = set(right)
    for position, name in enumerate(columns):
        if position in figures:
            made.add_column(name, justify="right", no_wrap=True)
        else:
            made.add_column(name, overflow="fold")
    return made


def print_table(made: "Table") -> None:
    """A table of the result, between empty lines."""
    shown = console()
    with shown.capture() as captured:
        shown.print(made)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    say("\n".join(["", *lines, ""]))


def facts(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line. Sentences are wrapped; a digest is never broken."""
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        lines = textwrap.wrap(
            str(value), max(_WIDTH - width, 20), break_long_words=False, break_on_hyphens=False
        )
        say(f"{name:<{width}}{lines[0] if lines else ''}")
        for line in lines[1:]:
            say(f"{'':<{width}}{line}")


def upper(epsilon: float | None) -> str:
    """Epsilon with four decimals, rounded up: a bound is not printed below itself."""
    if epsilon is None:
        return "-"
    if not math.isfinite(epsilon):
        return "unbounded"
    return f"{math.ceil(round(epsilon * 1e4, 6)) / 1e4:.4f}"


def figure(value: Any) -> str:
    """A metric in a few digits; an interval as `low to high`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(figure(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {figure(item)}" for name, item in value.items())
    return str(value)


def silence_stdout() -> None:
    """Send what is still buffered nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
