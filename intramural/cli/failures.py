"""What went wrong, in one line for a person and one exit code for a script.

The one place that knows exit codes. The rooms' errors pass through with their own words; anything
unforeseen is told by its type and place only, because its text may quote what it stumbled over.
Set ``INTRAMURAL_DEBUG=1`` to see the traceback.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import click

from intramural.cli.output import JsonOutput

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_EXTRAS: Final = {
    "fastapi": "api",
    "uvicorn": "api",
    "prometheus_client": "api",
    "flwr": "node or hub",
    "dp_accounting": "node or hub",
    "pyarrow": "node",
    "torch": "models",
    "transformers": "models",
    "peft": "models",
    "safetensors": "models",
    "presidio_analyzer": "pii",
    "spacy": "pii",
    "onnxruntime": "pii",
    "faker": "demo",
    "openai": "demo",
}


def report(error: BaseException, *, json_output: bool) -> int:
    """Say what happened on standard error; with ``--json`` also on standard output.

    Where the command's own JSON value was printed already, that stays the only one.
    """
    code, message = _judged(error)
    plain = code == INTERRUPTED or isinstance(error, click.exceptions.NoArgsIsHelpError)
    _say(sys.stderr, message if plain else f"error: {message}")
    if os.environ.get("INTRAMURAL_DEBUG") and code != INTERRUPTED:
        traceback.print_exception(error)
    if json_output and not JsonOutput.printed:
        body: dict[str, Any] = {"type": type(error).__name__, "message": message}
        faults = getattr(error, "faults", None)
        if isinstance(faults, tuple):
            body["faults"] = [_fields(fault) for fault in faults]
        _say(sys.stdout, json.dumps({"error": body}, ensure_ascii=False))
    return code


def _judged(error: BaseException) -> tuple[int, str]:
    """Exit code and message."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, click.ClickException):
        return error.exit_code, _usage(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        extra = _EXTRAS.get(package, "demo")
        return FAILED, (
            f"this command needs the Python package {package!r}, which is not installed; "
            f"install intramural with the extra {extra} (`demo` has all of them)"
        )
    if (code := _known(error)) is not None:
        return code, str(error) or type(error).__name__
    if isinstance(error, OSError):
        return FAILED, _os_error(error)
    return FAILED, (
        f"unexpected {type(error).__name__} at {_place(error)}; this is a fault in intramural. "
        "Set INTRAMURAL_DEBUG=1 to see where it came from"
    )


def _known(error: BaseException) -> int | None:
    """The exit code of an error that a room raises on purpose."""
    # Imported only now: a command that does its work pays nothing for the ways it could fail.
    from api.errors import ServiceError
    from client.errors import ClientError, DataSourceError
    from intramural.assets import AssetError
    from intramural.errors import IntramuralError
    from policies.errors import PolicyError
    from privacy.dp.errors import DpError
    from privacy.errors import PrivacyError
    from privacy.pii.errors import PiiError
    from server.errors import HubError

    if isinstance(error, DataSourceError):
        return USAGE
    rooms = (
        ServiceError,
        ClientError,
        AssetError,
        IntramuralError,
        PolicyError,
        DpError,
        PrivacyError,
        PiiError,
        HubError,
    )
    return FAILED if isinstance(error, rooms) else None


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return message  # the help of the group: that is the answer
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')}. Try `{error.ctx.command_path} --help`"
    return message


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _fields(fault: object) -> dict[str, Any]:
    """A fault's fields: policies have key and message, rows have file, line and reason."""
    names = ("key", "message", "file", "line", "reason")
    return {name: getattr(fault, name) for name in names if hasattr(fault, name)}


def _say(stream: Any, text: str) -> None:
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except (BrokenPipeError, ValueError):  # nobody listens any more
        return
