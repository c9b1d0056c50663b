"""``intramural node``: a department's side of a deployed federation."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from intramural.cli.budget_audit import ConfidenceOption
from intramural.cli.deployed import (
    log_line,
    model_setting,
    policy_file,
    private_files,
    until_signalled,
)
from intramural.cli.options import ColumnOption, JsonOption, ToleranceOption, WhereOption
from intramural.cli.output import facts, note, print_json
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from intramural.deployment.node_home import NodeHome
    from privacy.signing import VerifyKey

app = CommandGroup("A department's node: join a hub, start, look, audit, leave.")


@app.callback()
def private(context: typer.Context) -> None:
    """A department's node: join a hub, start, look, audit, leave."""
    private_files(context)


NodeOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        envvar="INTRAMURAL_NODE",
        show_envvar=True,
        help="The node's home; the only ./node-* by default.",
    ),
]


@app.command("init")
def init(
    department: Annotated[
        str, typer.Option("--department", "-d", metavar="NAME", help="Whose node this is.")
    ],
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="The department's records.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="FILE",
            help="The department's own policy; ./policy.toml, else the hub's when joining.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="DIR", help="Folder or asset; the demo's by default."),
    ] = None,
    column: ColumnOption = None,
    where: WhereOption = None,
    tolerance: ToleranceOption = 0.01,
    directory: NodeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a department's node: its keys, its ledger, its settings.

    Nothing leaves this machine. Done twice it changes nothing. Settings are changed in node.toml, in
    the node's home.

    \b
    Example:
      intramural node init --department hr --data hr.jsonl --policy policy.toml
    """
    from client.records import DataSource, parse_columns, parse_where
    from intramural.deployment.homes import HomeUnusable
    from intramural.deployment.node_home import NodeHome, NodeSettings
    from intramural.parts import read_policy
    from privacy.signing import VerifyKey

    if not data.is_file():
        raise HomeUnusable(f"there is no file {data}; name the department's records with --data")
    columns, filters = parse_columns(column or ()), parse_where(where or ())
    DataSource(data, department, columns, filters)
    named = policy_file(policy)
    if named is not None:
        read_policy(named).department(department)
    home = NodeHome((directory or Path(f"node-{department}")).absolute())
    home.create(
        NodeSettings(
            department=department,
            data=str(data.absolute()),
            columns=columns,
            where=filters,
            tolerance=tolerance,
            policy="policy.toml" if named is None else str(named.absolute()),
            base_model=model_setting(base_model),
        )
    )
    told = {
        "department": department,
        "home": str(home.root),
        "receipt_key": VerifyKey.load(home.public_key).public_text(),
        "policy": home.settings().policy,
    }
    if json_output:
        print_json(told)
    else:
        facts([(name.replace("_", " "), value) for name, value in told.items()])
        note("Next: intramural node join https://HUB --token TOKEN, with the hub's token")


@app.command("join")
def join(
    hub: Annotated[str, typer.Argument(metavar="URL", help="The hub, as https://host:port.")],
    token: Annotated[
        str,
        typer.Option(
            "--token",
            metavar="TOKEN",
            envvar="INTRAMURAL_TOKEN",
            show_envvar=True,
            help="The hub's enrolment token; - reads it from standard input.",
        ),
    ],
    directory: NodeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Join a hub.

    Registers the public keys there, and pins its CA and signing key here. The token says which CA is
    the hub's, so already the first connection is authenticated. No record, no key but the public
    ones, and no count leaves this machine.

    \b
    Example:
      intramural node join https://hub.example.org:9093 --token imj_...
    """
    import sys

    from client.joining import join as ask
    from intramural.errors import CommandRefused
    from privacy.files import write_atomic
    from privacy.joining import EnrolmentToken, JoinRequest
    from privacy.signing import SigningKey

    home = _home(directory)
    if home.hub.joined:
        raise CommandRefused(
            f"this node has joined the hub {home.hub.read().hub!r} already; leave it first with "
            "`intramural node leave`"
        )
    text = sys.stdin.readline() if token == "-" else token  # noqa: S105 - not a token
    parsed = EnrolmentToken.parse(text)
    report = home.report()
    request = JoinRequest(
        department=report.department,
        token=parsed.text(),
        flower_key=home.ssh_public_key(),
        code_digest=report.code_digest,
        policy_digest=report.policy_digest,
        clock=report.clock,
    )
    joined = ask(hub, parsed, request, SigningKey.load(home.signing_key))
    bundle, path = joined.bundle, home.policy_path()
    if not path.exists() and bundle.policy is not None and bundle.policy_suffix is not None:
        path = home.root / f"policy{bundle.policy_suffix}"
        write_atomic(path, bundle.policy.encode(), mode=0o600)
        home.set("policy", path.name)
        note(f"the hub's policy is now this node's own, at {path}: read it, it is yours to change")
    elif bundle.policy_digest is not None and report.policy_digest != bundle.policy_digest:
        note(
            "warning: this node's policy is another than the hub's; it will decline every run that "
            "is planned under the hub's"
        )
    home.set("hub", hub)
    home.hub.pin(joined)
    told = {
        "department": bundle.department,
        "hub": bundle.hub,
        "hub_key": joined.key.public_text(),
        "superlink": bundle.superlink,
        "node_id": bundle.node_id,
    }
    if json_output:
        print_json(told)
    else:
        facts([(name.replace("_", " "), value) for name, value in told.items()])
        note("Next: intramural node start")


@app.command("start")
def start(directory: NodeOption = None) -> None:
    """Run the node in the foreground until Ctrl-C or SIGTERM.

    Scrubs the records where that is not done yet, loads the model once, and connects. What ends is
    started again.

    \b
    Example:
      intramural node start --dir node-hr
    """
    from intramural.deployment.node_processes import run_node_processes

    home = _home(directory)
    with until_signalled() as on_supervisor:
        run_node_processes(home, log_line, on_supervisor)
    log_line("node", "stopped")


@app.command("status")
def status(directory: NodeOption = None, json_output: JsonOption = False) -> None:
    """Say whether the node is online.

    And what it answered last, and what is left of its budget: for the department alone. Exits with 0
    also where the node is offline.

    \b
    Example:
      intramural node status --dir node-hr
    """
    from intramural.deployment.node_status import node_status

    told = node_status(_home(directory))
    if json_output:
        print_json(told)
        return
    last, budget = told["last_round"], told["budget"]
    shown: list[tuple[str, object]] = [
        ("department", told["department"]),
        ("state", "online" if told["online"] else "offline"),
        ("agent", "answers" if told["agent"] else "does not answer"),
        ("hub", told["hub"] or "not joined"),
        ("last contact", told["last_contact"] or "never"),
    ]
    if told["problem"]:
        shown.append(("problem", told["problem"]))
    if last is None:
        shown.append(("last round", "none yet"))
    else:
        shown.append(
            (
                "last round",
                f"{last['round']} of {last['rounds']} of {last['run_id']}: {last['answer']}",
            )
        )
    if budget is not None:
        shown.append(
            (
                "epsilon left",
                f"{budget['left']:.4f} of {budget['epsilon']} (delta {budget['delta']})",
            )
        )
    facts(shown)


@app.command("leave")
def leave(
    directory: NodeOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where the hub does not answer.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Leave the hub.

    It removes this node from its list, and the node forgets the hub. Keys, records and ledger stay:
    what was spent remains spent. Stop `node start` first.

    \b
    Example:
      intramural node leave --dir node-hr
    """
    from client.errors import ClientError
    from intramural.deployment.homes import is_running
    from intramural.errors import CommandRefused
    from privacy.joining import JoinRefused
    from privacy.signing import SigningKey

    home = _home(directory)
    if is_running(home.root):
        raise CommandRefused("the node is running; stop `intramural node start` first")
    bundle = home.hub.read()
    try:
        key = SigningKey.load(home.signing_key)
        home.hub.report(home.settings().hub, home.report(leaving=True), key)
    except (ClientError, JoinRefused) as error:
        gone = isinstance(error, JoinRefused) and error.code == "not_enrolled"
        if not force and not gone:
            raise
        note(f"the hub did not take it: {error}")
    home.hub.forget()
    home.set("hub", "")
    if json_output:
        print_json({"left": bundle.hub, "department": bundle.department})
    else:
        facts([("left", bundle.hub)])


ReleaseArgument = Annotated[
    Path,
    typer.Argument(metavar="RELEASE", help="Folder of a release that the hub published."),
]
ReleaseKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Public key that must have signed the release; by default that of the hub joined.",
    ),
]


@app.command("personal")
def personal(
    release: ReleaseArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write it; here by default."),
    ] = None,
    key: ReleaseKeyOption = None,
    directory: NodeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write the department's own adapter to a file.

    With `training.personal` a node trains an adapter of its own beside the shared one. The file is
    for the department's service, signed with the node's key, and fits this release alone. It does
    not go to the hub: whoever has it learns what the department's service would tell. A service
    takes it by `intramural release add-personal`.

    \b
    Example:
      intramural node personal releases/r-0123456789abcdef0123 --dir node-hr
    """
    from intramural.deployment.node_release import read_release, take_personal

    home = _home(directory)
    placed = take_personal(home, read_release(home, release, _key(key)), out)
    if json_output:
        print_json(placed.to_json())
    else:
        facts(list(placed.to_json().items()))
        note("Next, at the department's service: intramural release add-personal FILE")


@app.command("audit")
def audit(
    release: ReleaseArgument,
    confidence: ConfidenceOption = 0.95,
    key: ReleaseKeyOption = None,
    directory: NodeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure what a release reveals of canaries.

    And compare it with the claim, as `intramural budget audit` does for a simulation. Coins and
    scores never leave the node, so a deployed run is audited here, by each department for itself,
    once the hub has published its release. The report stays in the node's folder. Exits with 1
    where the claim is refuted or the node inserted no canaries.

    \b
    Example:
      intramural node audit releases/r-0123456789abcdef0123 --dir node-hr
    """
    from intramural.cli.budget_audit import check_confidence, tell
    from intramural.deployment.node_release import audit_release, read_release

    check_confidence(confidence)
    home = _home(directory)
    tell(audit_release(home, read_release(home, release, _key(key)), confidence), json_output)


def _key(path: Path | None) -> "VerifyKey | None":
    from privacy.signing import VerifyKey

    return None if path is None else VerifyKey.load(path)


def _home(directory: Path | None) -> "NodeHome":
    from intramural.deployment.node_home import NodeHome

    if directory is None:
        found = sorted(path.parent for path in Path().glob("node-*/node.toml"))
        if len(found) != 1:
            raise click.UsageError(
                "name the node's home with --dir DIR or INTRAMURAL_NODE; there "
                + ("is no ./node-* here" if not found else f"are {len(found)} here")
            )
        directory = found[0]
    home = NodeHome(Path(os.path.abspath(directory)))  # noqa: PTH100 - links are kept as they are
    home.settings()
    return home
