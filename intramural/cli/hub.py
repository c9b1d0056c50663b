"""``intramural hub``: the coordinator's side of a deployed federation."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from intramural.cli.deployed import (
    HUB,
    HubOption,
    duration,
    hub_home,
    log_line,
    minute,
    model_setting,
    note_audit,
    policy_file,
    private_files,
    until_signalled,
)
from intramural.cli.hub_accounts import app as account_app
from intramural.cli.options import JsonOption
from intramural.cli.output import facts, note, print_json, print_table, say, table
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from intramural.deployment.hub_home import HubHome

app = CommandGroup("The hub of a deployed federation: set up, start, invite departments.")
app.add_typer(account_app, name="account")


@app.callback()
def private(context: typer.Context) -> None:
    """The hub of a deployed federation: set up, start, invite departments."""
    private_files(context)


@app.command("init")
def init(
    directory: HubOption = HUB,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The hub's name.")] = "hub",
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port of the SuperLink.")] = 9092,
    join_port: Annotated[int, typer.Option("--join-port", help="Port of the join service.")] = 9093,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST[:PORT]",
            help="What departments use: --host by default; with a port, that of a TLS proxy.",
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", "-p", metavar="FILE", help="Policy of the runs; ./policy.toml if it exists."
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="DIR", help="Folder or asset; the demo's by default."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval", metavar="FILE", help="Public held-out records to evaluate releases on."
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate", metavar="FILE", help="A certificate to use, with --key, --ca."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The certificate's key.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Who issued the certificate.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Issue the server certificate anew.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Make a hub: CA and certificate, signing key, secrets, database, settings.

    Done twice it changes nothing and prints the same again: what to hand to the departments.
    Settings are changed in hub.toml, in the hub's home.

    \b
    Example:
      intramural hub init --policy policy.toml --address hub.example.org:443
    """
    from intramural.deployment.hub_home import HubHome, HubSettings

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise click.BadParameter(
            f"{name!r} must be 1 to 64 letters, digits, '.', '_' or '-'", param_hint="--name"
        )
    given = (certificate, key, ca)
    if any(given) and not all(given):
        raise click.UsageError("--certificate, --key and --ca are given together or not at all")
    home = HubHome(directory)
    named = policy_file(policy)
    if named is not None:
        from intramural.parts import read_policy

        read_policy(named)
    settings = HubSettings.made(
        name,
        host,
        (port, join_port),
        address,
        "" if named is None else str(named.absolute()),
        model_setting(base_model),
        "" if evaluation is None else str(evaluation.absolute()),
    )
    existed = home.config.exists()
    if existed:
        _check_unchanged(home, settings)
    home.create(settings, given=(certificate, key, ca) if certificate and key and ca else None)
    if renew and existed:
        home.renew()
        note("the server certificate was issued anew; start the hub again to use it")
    _hand_out(home, json_output=json_output)


@app.command("start")
def start(directory: HubOption = HUB) -> None:
    """Run the hub in the foreground until Ctrl-C or SIGTERM.

    Starts Flower's SuperLink (TLS, node authentication, process isolation) and SuperExec, the join
    service and the keeper of runs; what ends is started again. Everything listens on this machine
    alone unless hub.toml names another host.

    \b
    Example:
      intramural hub start --dir hub
    """
    from intramural.deployment.hub_processes import run_hub_processes

    home = hub_home(directory)
    with until_signalled() as on_supervisor:
        run_hub_processes(home, log_line, on_supervisor)
    log_line("hub", "stopped")


@app.command("invite")
def invite(
    department: Annotated[str, typer.Argument(metavar="DEPARTMENT", help="Whom to invite.")],
    valid: Annotated[
        str, typer.Option("--valid", metavar="TIME", help="How long: 30m, 24h, 7d.")
    ] = "24h",
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """Make an enrolment token for a department, and show it once.

    It is good for one node of this department, once. A newer one replaces it. Hand it over by a way
    that you trust: it also tells the node which hub is the right one.

    \b
    Example:
      intramural hub invite hr --valid 24h
    """
    span = duration(valid, "--valid")
    home = hub_home(directory)
    policy = home.policy()
    if policy is not None:
        policy.department(department)
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", department):
        raise click.BadParameter(f"{department!r} is no name of a department")
    with home.audit() as audit:
        token, until = home.members.invite(department, home.fingerprint(), span)
        note_audit(audit, "invited", department=department, expires=until)
    url = home.settings().join_address
    if json_output:
        print_json({"department": department, "token": token.text(), "expires": until, "hub": url})
        return
    say(token.text())
    note(
        f"This is the only time that the token is shown. It ends at {until}. In {department}:\n"
        f"  intramural node init --department {department} --data FILE\n"
        f"  intramural node join {url} --token TOKEN\n"
        "  intramural node start"
    )


@app.command("nodes")
def nodes(directory: HubOption = HUB, json_output: JsonOption = False) -> None:
    """List the enrolled departments: online or not, last seen, and what each node runs.

    Code and policy digests are those that the node reported last; `differs` marks those that are
    not this hub's.

    \b
    Example:
      intramural hub nodes
    """
    from privacy.code_digest import code_digest
    from server.errors import HubError

    home = hub_home(directory)
    policy, code = home.policy(), code_digest()
    try:
        with home.control() as control:
            seen = {node.node_id: node for node in control.nodes()}
    except HubError:
        note("the hub is not running: who is online is not known")
        seen = {}
    rows: list[dict[str, Any]] = []
    for member in home.members.read().values():
        flower = seen.get(member.node_id)
        rows.append(
            {
                "department": member.department,
                "node_id": str(member.node_id),
                "online": None if flower is None else flower.online,
                "last_seen": (flower.last_seen if flower else None) or member.last_seen,
                "joined": member.joined,
                "reported": member.reported,
                "code_digest": member.code_digest,
                "policy_digest": member.policy_digest,
                "same_code": member.code_digest == code,
                "same_policy": policy is not None and member.policy_digest == policy.digest,
            }
        )
    if json_output:
        print_json({"nodes": rows})
        return
    if not rows:
        say("No department is enrolled yet; invite one with `intramural hub invite DEPARTMENT`.")
        return
    made = table("department", "state", "last seen", "code", "policy")
    for row in rows:
        state = {True: "online", False: "offline", None: "unknown"}[row["online"]]
        made.add_row(
            row["department"],
            state,
            minute(row["last_seen"]),
            _digest(row["code_digest"], same=row["same_code"]),
            _digest(row["policy_digest"], same=row["same_policy"]),
        )
    print_table(made)


@app.command("remove")
def remove(
    department: Annotated[str, typer.Argument(metavar="DEPARTMENT", help="Whom to remove.")],
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """Remove a department: its node is not asked any more and cannot connect.

    What it contributed stays in the releases; its own ledger keeps what was spent. It can be
    invited again.

    \b
    Example:
      intramural hub remove hr
    """
    from server.errors import HubError

    home = hub_home(directory)
    with home.audit() as audit:
        member = home.members.remove(department)
        note_audit(audit, "removed", department=department)
    try:
        with home.control() as control:
            control.unregister(member.node_id)
    except HubError:
        note("the hub is not running; Flower forgets the node when it starts")
    if json_output:
        print_json({"removed": department})
    else:
        facts([("removed", department)])


def _check_unchanged(home: "HubHome", wanted: Any) -> None:
    from dataclasses import asdict

    from intramural.errors import CommandRefused

    context = click.get_current_context()
    there, asked = asdict(home.settings()), asdict(wanted)
    same = ("host", "port", "join_port", "name", "policy", "base_model", "evaluation")
    fields = {name: name for name in same} | {"address": "superlink_address"}
    changed = [
        f"{field} is {there[field]!r}, not {asked[field]!r}"
        for option, field in fields.items()
        if context.get_parameter_source(option) != click.core.ParameterSource.DEFAULT
        and there[field] != asked[field]
    ]
    if changed:
        raise CommandRefused(
            f"there is a hub in {home.root} already: {'; '.join(changed)}. "
            f"Change {home.config} instead"
        )


def _hand_out(home: "HubHome", *, json_output: bool) -> None:
    from intramural.deployment.certificates import expiry_warning

    settings, until = home.settings(), home.certificate_expires()
    told = {
        "hub": settings.name,
        "home": str(home.root),
        "join_address": settings.join_address,
        "superlink_address": settings.superlink_address,
        "ca_sha256": home.fingerprint().hex(),
        "signing_key": home.key().verify_key.public_text(),
        "certificate_expires": until.isoformat(timespec="seconds"),
        "policy": settings.policy or None,
    }
    if json_output:
        print_json(told)
    else:
        facts([(name.replace("_", " "), value or "none yet") for name, value in told.items()])
    if warning := expiry_warning(until):
        note(f"warning: {warning}")
    note(
        "Departments need the join address and a token of their own: intramural hub start, then "
        "intramural hub invite DEPARTMENT"
    )


def _digest(value: str | None, *, same: bool) -> str:
    return "none" if value is None else value[:12] + ("" if same else " differs")
