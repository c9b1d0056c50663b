"""``intramural audit``: verify the audit log, and read it."""

import re
import textwrap
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import facts, note, print_json, say
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from privacy.audit.reader import AuditReport
    from privacy.signing import VerifyKey
    from privacy.store.place import Place

app = CommandGroup("Verify the audit log, and read it.")

FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The log's database; by default the workspace's."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="The log's public key; by default audit.pub beside the log."
    ),
]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATES = {
    "closed": "every byte is as it was sealed",
    "crashed": "its writer was stopped; checkpoints, tree and signatures are sound",
    "in_use": "being written now; checkpoints, tree and signatures are sound",
    "served": "in a database server; every row, the tree and all signatures are sound",
    "unsealed": "checked without its seal: a removed end cannot be seen",
}


@app.command("verify")
def verify(
    file: FileArgument = None,
    key: KeyOption = None,
    without_seal: Annotated[
        bool,
        typer.Option("--without-seal", help="For a copy of the database without its .seal file."),
    ] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Verify the audit log.

    Checks the seal over every byte, the Merkle tree over all entries, and each signed checkpoint,
    with nothing but the files and the public key; changes nothing, also while the service writes.
    Exits with 1 and names what is wrong.

    \b
    Example:
      intramural audit verify --workspace intramural-demo
    """
    path, public = _locate(file, key, workspace)
    report = _verified(path, public, without_seal=without_seal)
    if json_output:
        print_json(
            {
                "file": str(path),
                "verified": report.ok,
                "entries": report.entries,
                "root": report.root,
                "state": report.state,
                "key_id": public.key_id,
                "faults": list(report.faults),
            }
        )
    elif report.ok:
        facts(
            [
                ("audit log", path),
                ("verified", "yes"),
                ("entries", f"{report.entries:,}"),
                ("root hash", report.root),
                ("signed by key", public.key_id),
                ("how far", _STATES[report.state]),
            ]
        )
    for fault in report.faults:
        note(f"error: {fault}")
    if not report.ok:
        raise typer.Exit(1)


@app.command("show")
def show(
    file: FileArgument = None,
    key: KeyOption = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only call, run_step, budget, release, key or policy. Repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Show the newest of them, so many.")
    ] = 20,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the newest entries of the audit log.

    Entries hold digests, counts and short words, never a prompt or a record. The log is verified
    first; what does not verify is not shown.

    \b
    Example:
      intramural audit show --kind release --kind budget --limit 50
    """
    from privacy.audit.entries import KINDS
    from privacy.audit.log import read_log
    from privacy.errors import TamperedStore

    for name in kind or ():
        if name not in KINDS:
            raise click.BadParameter(
                f"{name!r} is no kind of entry; there are {', '.join(KINDS)}", param_hint="--kind"
            )
    path, public = _locate(file, key, workspace)
    report = _verified(path, public, without_seal=False)
    if not report.ok:
        raise TamperedStore("; ".join(report.faults))
    with read_log(path) as log:
        total = len(log)
        entries = list(deque(log.entries(kinds=kind or ()), maxlen=limit))
    if json_output:
        print_json(
            {
                "total": total,
                "entries": [
                    {
                        "index": stored.index,
                        "leaf_hash": stored.leaf_hash.hex(),
                        "kind": stored.entry.kind,
                        "at": stored.entry.at,
                        "actor": stored.entry.actor,
                        "data": stored.entry.data,
                    }
                    for stored in entries
                ],
            }
        )
        return
    for stored in entries:
        entry = stored.entry
        say(f"{stored.index}  {entry.at[:19].replace('T', ' ')}  {entry.kind}  {entry.actor}")
        for line in textwrap.wrap(_short(entry.data), 74, break_long_words=False):
            say(f"      {line}")
    say(f"{len(entries)} shown of {total:,} entries.")


def _locate(
    file: Path | None, key: Path | None, workspace: Path | None
) -> "tuple[Place, VerifyKey]":
    """Where the log is, and its public key.

    Raises:
        KeyUnusable: the key is missing or malformed.
    """
    from intramural.stores import audit_place
    from privacy.signing import VerifyKey

    if file is not None:
        return file, VerifyKey.load(key or file.with_name("audit.pub"))
    found = find_workspace(workspace)
    return audit_place(found), VerifyKey.load(key or found.audit_public_key)


def _verified(path: "Place", key: "VerifyKey", *, without_seal: bool) -> "AuditReport":
    from privacy.audit.log import verify_log

    return verify_log(path, key, require_seal=not without_seal)


def _short(data: dict[str, Any]) -> str:
    """Data for a person: digests by their beginning, what is empty not at all."""
    parts = []
    for name, value in data.items():
        if isinstance(value, dict):
            shown = ",".join(f"{key}:{_cut(item)}" for key, item in value.items())
        elif isinstance(value, list):
            shown = ",".join(map(_cut, value))
        else:
            shown = "" if value is None else _cut(value)
        if shown:
            parts.append(f"{name}={shown}")
    return "  ".join(parts)


def _cut(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if _DIGEST.fullmatch(text) else text
