"""``intramural hub account``: who may start runs."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from intramural.cli.deployed import HUB, HubOption, duration, hub_home, minute, note_audit
from intramural.cli.options import JsonOption
from intramural.cli.output import facts, note, print_json, print_table, table
from intramural.cli.parser import CommandGroup

app = CommandGroup(
    """Who may start runs: add, list, remove.

    \b
    Example:
      intramural hub account add ada
    """
)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for.")],
    valid: Annotated[
        str, typer.Option("--valid", metavar="TIME", help="How long: 12h, 90d, 52w, or never.")
    ] = "never",
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """Make a run account: a key that signs run manifests, and a token that opens the control port.

    Both are written into a folder of the hub's home, for this one person; the hub itself keeps the
    public key and a digest of the token. Nodes learn of the account within a minute.

    \b
    Example:
      intramural hub account add ada --valid 90d
    """
    home = hub_home(directory)
    with home.audit() as audit:
        folder = home.add_account(name, None if valid == "never" else duration(valid, "--valid"))
        account = home.accounts.find(name)
        key_id = "" if account.key is None else account.key.key_id
        note_audit(audit, "account_added", account=name, key=key_id)
    if json_output:
        print_json({"account": name, "folder": str(folder), "expires": account.expires})
        return
    facts([("account", name), ("expires", account.expires or "never"), ("folder", str(folder))])
    note("It holds account.key and token. Hand both to this person alone, then delete them here.")


@app.command("list")
def list_(directory: HubOption = HUB, json_output: JsonOption = False) -> None:
    """List the accounts that may speak to the control port.

    \b
    Example:
      intramural hub account list
    """
    now = datetime.now(UTC)
    rows = [
        {
            "account": account.name,
            "key_id": None if account.key is None else account.key.key_id,
            "active": account.active(now),
            "created": account.created,
            "expires": account.expires,
        }
        for account in hub_home(directory).accounts.read()
    ]
    if json_output:
        print_json({"accounts": rows})
        return
    made = table("account", "key id", "state", "created", "expires")
    for row in rows:
        made.add_row(
            str(row["account"]),
            str(row["key_id"] or "the hub's own"),
            "active" if row["active"] else "expired",
            minute(row["created"]),
            minute(row["expires"]),
        )
    print_table(made)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose account.")],
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """End a run account at once.

    Its token opens nothing any more, and nodes decline the next rounds of the runs that it signed
    as soon as they have heard of it, within a minute.

    \b
    Example:
      intramural hub account remove ada
    """
    home = hub_home(directory)
    with home.audit() as audit:
        home.remove_account(name)
        note_audit(audit, "account_removed", account=name)
    if json_output:
        print_json({"removed": name})
    else:
        facts([("removed", name)])
