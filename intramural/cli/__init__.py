"""The command line. Each command lives in the module of its name or group.

Only the option parser is imported to show help; whatever a command needs is imported inside of it,
so that `intramural --help` answers at once.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 130 interrupted.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Final

import typer

from intramural.cli import failures
from intramural.cli.output import JSON_FLAG, JsonOutput, silence_stdout
from intramural.cli.parser import CommandGroup

COMMANDS: Final = ("demo", "simulate", "serve")
"""Each is the function of this name in ``intramural.cli.<name>``."""

GROUPS: Final = (
    "policy",
    "data",
    "budget",
    "release",
    "audit",
    "keys",
    "assets",
    "hub",
    "node",
    "train",
)
"""Each is the ``app`` of ``intramural.cli.<name>``."""

_ENVIRONMENT: Final = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin long while they wait make a run on a busy machine several times slower;
    # threads that never spin make it a third slower on an idle one.
    "GOMP_SPINCOUNT": "20000",
}
"""Read by libraries as they are loaded; what the user has set stands."""

_HELP = """Within the walls: federated fine-tuning under differential privacy, signed releases, and a
service that redacts.

\b
Begin here:
  intramural demo                   the whole path, with invented people
  intramural policy check FILE      is this policy file right?
  intramural serve                  answer applications from the latest release
  intramural hub, intramural node   a federation on several machines

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. With --json a command
prints exactly one JSON value on standard output, {"error": {...}} where it could not do its work;
messages and progress go to standard error.
"""


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"intramural {version('intramural')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def build() -> CommandGroup:
    """The whole command line."""
    app = CommandGroup(_HELP)
    app.callback()(_root)
    for name in COMMANDS:
        app.command(name)(getattr(import_module(f"intramural.cli.{name}"), name))
    for name in GROUPS:
        app.add_typer(import_module(f"intramural.cli.{name}").app, name=name)
    return app


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Set the libraries up and keep their warnings off the terminal; ``-W`` brings them back."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Tells of kernels that it could also fetch from the network, as soon as PEFT imports it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception of a known kind leaves it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    JsonOutput.printed = False
    try:
        with _quiet_libraries():
            code = build()(args=given, prog_name="intramural", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not complain at its end.
        silence_stdout()
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return failures.report(error, json_output=JSON_FLAG in given)
    if code == failures.INTERRUPTED:
        return failures.report(KeyboardInterrupt(), json_output=JSON_FLAG in given)
    return code if isinstance(code, int) else 0
