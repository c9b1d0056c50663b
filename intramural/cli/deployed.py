"""What the commands of hub and node share: options, log lines, signals, lengths of time."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import typer

from intramural.durations import parse_duration

if TYPE_CHECKING:
    from intramural.deployment.hub_home import HubHome
    from intramural.deployment.supervisor import OnSupervisor

HUB: Final = Path("hub")
HubOption = Annotated[
    Path,
    typer.Option(
        "--dir", metavar="DIR", envvar="INTRAMURAL_HUB", show_envvar=True, help="The hub's home."
    ),
]


def private_files(context: typer.Context) -> None:
    """Whatever the command writes, itself or by a library, is its owner's alone."""
    before = os.umask(0o077)
    context.call_on_close(lambda: os.umask(before))


def duration(text: str, option: str) -> timedelta:
    """A length of time such as 24h.

    Raises:
        click.BadParameter: it is none.
    """
    length = parse_duration(text, "mhdw")
    if length is None:
        raise click.BadParameter(f"{text!r} must be like 30m, 24h, 7d or 8w", param_hint=option)
    return length


def log_line(name: str, text: str) -> None:
    """A line of a supervised process, with its time and name."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {name:<9} {text}\n")
    sys.stderr.flush()


@contextmanager
def until_signalled() -> "Iterator[OnSupervisor]":
    """SIGTERM and SIGINT end the supervisor that this hands out, in order."""
    from intramural.deployment.supervisor import OnSupervisor

    handle = OnSupervisor()
    before = {
        number: signal.signal(number, lambda *_: handle.stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield handle
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hub_home(directory: Path) -> "HubHome":
    """The hub in this folder.

    Raises:
        HomeUnusable: there is none.
    """
    from intramural.deployment.hub_home import HubHome

    home = HubHome(directory)
    home.settings()
    return home


def policy_file(given: Path | None) -> Path | None:
    """The policy that was given, else ./policy.toml if it exists."""
    here = Path("policy.toml")
    return given or (here if here.is_file() else None)


def model_setting(given: str | None) -> str:
    """A folder as an absolute path; the name of an asset as it is."""
    if given is None:
        return ""
    return str(Path(given).absolute()) if Path(given).is_dir() else given


def note_audit(audit: Any, step: str, **data: Any) -> None:
    """An audit entry about what the operator does."""
    from privacy.audit.entries import AuditEntry

    audit.append(AuditEntry.now("key", "operator", {"step": step, **data}))


def minute(moment: object) -> str:
    """A time of a table, to the minute."""
    return "never" if moment is None else str(moment)[:16].replace("T", " ")
