"""``intramural release``: list, show, verify, promote, roll back; add a department's own adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import facts, figure, note, print_json, print_table, say, table, upper
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from api.channels import Channel
    from privacy.errors import ReleaseInvalid
    from privacy.release import VerifiedRelease
    from privacy.signing import VerifyKey

app = CommandGroup("List, show, verify, promote and roll back signed releases.")

_NAME = "intramural"
"""The service's default alias."""

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Public key that must have signed; by default release-key.pub beside the releases.",
    ),
]


@app.command("list")
def list_(
    workspace: WorkspaceOption = None, key: KeyOption = None, json_output: JsonOption = False
) -> None:
    """List the releases of a workspace.

    Each is verified while it is listed, oldest first. Exits with 1 where one does not verify.

    \b
    Example:
      intramural release list --workspace intramural-demo
    """
    from privacy.errors import ReleaseInvalid
    from privacy.release import list_releases

    found = find_workspace(workspace)
    listed = list(list_releases(found.root, _trusted(key)))
    # Those without a readable date first: they are what the reader has to look at.
    listed.sort(key=lambda item: "" if isinstance(item[1], ReleaseInvalid) else _created(item[1]))
    if json_output:
        print_json({"releases": [_entry(name, release) for name, release in listed]})
    elif not listed:
        say(f"{found.releases} holds no release yet.")
    else:
        made = table("release", "created (UTC)", "base model", "epsilon", "verified", right=(3,))
        for name, release in listed:
            if isinstance(release, ReleaseInvalid):
                made.add_row(name, "?", "?", "?", "NO")
                continue
            made.add_row(
                name,
                _created(release)[:16].replace("T", " "),
                release.run["base_model"],
                upper(release.privacy["largest_epsilon"]),
                "yes",
            )
        print_table(made)
    _finish([release for _, release in listed if isinstance(release, ReleaseInvalid)])


@app.command("show")
def show(
    release: Annotated[
        str, typer.Argument(metavar="[RELEASE]", help="Id, path of its folder, or latest.")
    ] = "latest",
    workspace: WorkspaceOption = None,
    key: KeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what a release is and what it guarantees.

    The release is verified first; what does not verify is not shown.

    \b
    Example:
      intramural release show latest --workspace intramural-demo
    """
    shown = _find(release, workspace, _trusted(key))
    if json_output:
        print_json(
            {
                "id": shown.id,
                "path": str(shown.path),
                "key_id": shown.key_id,
                "run": shown.run,
                "privacy": shown.privacy,
                "metrics": shown.metrics,
                "receipts": len(shown.receipts),
            }
        )
        return
    run, privacy = shown.run, shown.privacy
    facts(
        [
            ("release", shown.id),
            ("folder", shown.path),
            ("signed by key", shown.key_id),
            ("created", run["created"]),
            ("run", f"{run['run_id']}, {run['rounds']} rounds, {len(shown.receipts)} receipts"),
            ("base model", run["base_model"]),
            ("base model digest", run["base_model_digest"]),
            ("policy digest", run["policy_digest"]),
            ("unit and adjacency", f"one {privacy['unit']}, {privacy['adjacency']}"),
            ("mechanism", privacy["mechanism"]),
            ("accountant", run["accountant"]),
        ]
    )
    made = table("department", "epsilon", "delta", "rounds", right=(1, 2, 3))
    for name, part in privacy["departments"].items():
        made.add_row(name, upper(part["epsilon"]), f"{part['delta']:g}", str(part["rounds"]))
    print_table(made)
    say(
        f"Known to one department: epsilon at most {upper(privacy['largest_epsilon'])}; "
        f"to all: at most {upper(privacy['sum_epsilon'])}."
    )
    if shown.metrics:
        facts([(name, figure(value)) for name, value in sorted(shown.metrics.items())])


@app.command("verify")
def verify(
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="[RELEASE]", help="Id or path of its folder; by default all of the workspace."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    key: KeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Verify releases.

    Checks the signature, every byte of every file, that no file is missing or was added, and every
    department's receipts. Exits with 1 and names what is wrong. The key beside the releases shows a
    changed file; give the hub's key with --key to be safe from a forger who replaced both.

    \b
    Example:
      intramural release verify releases/r-0123456789abcdef0123 --key hub.pub
    """
    from privacy.errors import ReleaseInvalid
    from privacy.release import list_releases

    trusted = _trusted(key)
    results: list[tuple[str, VerifiedRelease | ReleaseInvalid]]
    if release is None:
        results = list(list_releases(find_workspace(workspace).root, trusted))
    else:
        try:
            one = _find(release, workspace, trusted)
            results = [(one.id, one)]
        except ReleaseInvalid as error:
            results = [(Path(release).name, error)]
    wrong = [found for _, found in results if isinstance(found, ReleaseInvalid)]
    if json_output:
        print_json(
            {
                "verified": bool(results) and not wrong,
                "releases": [_entry(name, found) for name, found in results],
            }
        )
    else:
        for name, found in results:
            if not isinstance(found, ReleaseInvalid):
                files = len(found.manifest["files"]) + 2
                say(
                    f"{name}: verified, {files} files and {len(found.receipts)} receipts, "
                    f"signed by key {found.key_id}"
                )
    if not results:
        note("error: there is no release to verify")
        raise typer.Exit(1)
    _finish(wrong)


@app.command("promote")
def promote(
    release: Annotated[
        str,
        typer.Argument(
            metavar="[NAME@]RELEASE",
            help="Id of the release, or latest; before the @ the model name, by default intramural.",
        ),
    ],
    channel: Annotated[
        str, typer.Option("--channel", metavar="CHANNEL", help="stable, or canary.")
    ] = "stable",
    percent: Annotated[
        int,
        typer.Option("--percent", min=0, max=100, help="Share of the principals on the canary."),
    ] = 10,
    workspace: WorkspaceOption = None,
    key: KeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Let a release answer under a model name.

    The release is verified first. Services that follow promotions (those started without --release)
    load it and then switch, without breaking an answer; until then the one before goes on. The
    stable release answers everybody but the canary's share of the principals, who are always the
    same ones. What is promoted as NAME.DEPARTMENT answers that department's callers of NAME.

    \b
    Example:
      intramural release promote latest
      intramural release promote latest --channel canary --percent 10
      intramural release promote intramural.hr@r-0123456789abcdef0123
    """
    from typing import Literal, cast

    from intramural.errors import CommandRefused
    from intramural.serving import open_channels

    if channel not in ("stable", "canary"):
        raise CommandRefused(f"there is no channel {channel!r}: use stable or canary")
    found = find_workspace(workspace)
    name, version = _name_and_version(release)
    verified = _find(version, found.root, _trusted(key))
    with open_channels(found) as store:
        made = store.promote(
            name,
            verified.id,
            cast("Literal['stable', 'canary']", channel),
            percent if channel == "canary" else 0,
        )
    _tell(made, json_output)


@app.command("rollback")
def rollback(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Model name that was promoted.")
    ] = _NAME,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take the last promotion back.

    Ends the canary of the name; where there is none, the stable release before answers again. A
    running service holds that one ready and switches within a second. No answer breaks off.

    \b
    Example:
      intramural release rollback intramural
    """
    from intramural.serving import open_channels

    with open_channels(find_workspace(workspace)) as store:
        made = store.rollback(name)
    _tell(made, json_output)


@app.command("add-personal")
def add_personal(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `intramural node personal` wrote.")
    ],
    workspace: WorkspaceOption = None,
    key: KeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put a department's own adapter on a release.

    The file must be for a release of the workspace and signed by the key of the department's
    receipts in it. Callers of that department, as the policy or their token names it, are then
    answered by both adapters, everybody else by the release alone. A service takes it when it loads
    the release: add it before the promotion, or start the service anew.

    \b
    Example:
      intramural release add-personal r-0123456789abcdef0123.hr.personal
    """
    from intramural.personal import put_in, read_file
    from intramural.service import find_release
    from privacy.personal import wanted_release

    found, data = find_workspace(workspace), read_file(file)
    placed = put_in(found, find_release(found, wanted_release(data), _trusted(key)), data)
    if json_output:
        print_json(placed.to_json())
    else:
        say(f"{placed.department}: its own adapter is on top of {placed.release} from now on")
        note("A service that has loaded this release already must be started anew")


def _name_and_version(release: str) -> tuple[str, str]:
    name, found, version = release.rpartition("@")
    return (name, version) if found else (_NAME, release)


def _tell(made: "Channel", json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "name": made.name,
                "stable": made.stable,
                "canary": made.canary or None,
                "percent": made.percent,
                "earlier": list(made.earlier),
            }
        )
        return
    say(f"{made.name}: {made.stable} is stable")
    if made.canary:
        say(f"{made.name}: {made.canary} answers {made.percent} % of the principals")


def _find(release: str, workspace: Path | None, trusted: "VerifyKey | None") -> "VerifiedRelease":
    """A release by its folder's path, else by its id in the workspace."""
    from intramural.service import find_release
    from privacy.release import verify as verify_release

    path = Path(release)
    if "/" in release or path.is_dir():
        # Not resolved: a release that is a link is none.
        named = path.name not in ("", "..")
        return verify_release(path.absolute() if named else path.resolve(), trusted)
    return find_release(find_workspace(workspace), release, trusted)


def _trusted(key: Path | None) -> "VerifyKey | None":
    if key is None:
        return None
    from privacy.signing import VerifyKey

    return VerifyKey.load(key)


def _created(release: "VerifiedRelease") -> str:
    return str(release.run["created"])


def _entry(name: str, release: "VerifiedRelease | ReleaseInvalid") -> dict[str, Any]:
    if isinstance(release, Exception):
        return {"id": name, "verified": False, "fault": str(release)}
    return {
        "id": name,
        "verified": True,
        "created": _created(release),
        "base_model": release.run["base_model"],
        "key_id": release.key_id,
        "unit": release.privacy["unit"],
        "largest_epsilon": release.privacy["largest_epsilon"],
        "sum_epsilon": release.privacy["sum_epsilon"],
    }


def _finish(wrong: "list[ReleaseInvalid]") -> None:
    for error in wrong:
        note(f"error: {error}")
    if wrong:
        raise typer.Exit(1)
