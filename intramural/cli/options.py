"""Options that several commands share, and what they mean."""

from pathlib import Path
from typing import Annotated, Final

import click
import typer

from intramural.cli.output import JSON_FLAG
from intramural.errors import WorkspaceError
from intramural.workspace import Workspace

DEFAULT_WORKSPACE: Final = Path("intramural-demo")
_VARIABLE: Final = "INTRAMURAL_WORKSPACE"

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        envvar=_VARIABLE,
        show_envvar=True,
        help=f"Folder of policy, nodes, releases and audit log; ./{DEFAULT_WORKSPACE} if it exists.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option(JSON_FLAG, help="Print exactly one JSON value on standard output.")
]
DepartmentOption = Annotated[
    str | None, typer.Option("--department", "-d", metavar="NAME", help="Only this department.")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="OURS=THEIRS",
        help="The file's column for one of ours, as in text=body. Repeatable.",
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only rows with this value, as in split=train. Repeatable.",
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option(
        "--tolerance", metavar="SHARE", help="Largest share of faulty rows, between 0 and 1."
    ),
]


def find_workspace(given: Path | None) -> Workspace:
    """The workspace that is meant.

    Raises:
        click.UsageError: none was named and there is no default one.
        WorkspaceError: the one that was named is no folder.
    """
    if given is None:
        if not DEFAULT_WORKSPACE.is_dir():
            raise click.UsageError(
                f"name the folder with --workspace DIR or {_VARIABLE}; "
                f"there is no ./{DEFAULT_WORKSPACE} here"
            )
        given = DEFAULT_WORKSPACE
    if not given.is_dir():
        raise WorkspaceError(f"there is no workspace at {given}: it is no folder")
    return Workspace(given)
