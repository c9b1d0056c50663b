"""``intramural keys``: API keys of the service."""

import shlex
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import facts, note, print_json, print_table, say, table
from intramural.cli.parser import CommandGroup
from intramural.durations import parse_duration

if TYPE_CHECKING:
    from api.keys import ApiKey
    from intramural.workspace import Workspace
    from privacy.audit.log import AuditLog

app = CommandGroup("API keys of the service: create, list, rotate, revoke.")

_UNITS = "hdw"


@app.command("create")
def create(
    principal: Annotated[
        str,
        typer.Option("--principal", metavar="NAME", help="Application or person that it is for."),
    ],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="Role of the policy, such as app.")
    ],
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="WHEN", help="12h, 90d, 8w, a date (UTC), or never."),
    ] = "90d",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name by which it can be rotated.")
    ] = "",
    operations: Annotated[
        list[str] | None,
        typer.Option("--operation", metavar="OP", help="Only this of the role; may be repeated."),
    ] = None,
    releases: Annotated[
        list[str] | None,
        typer.Option("--release", metavar="ID", help="Only releases like this, such as 'r-12*'."),
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NET", help="Only from this network, such as 10.2.0.0/16."),
    ] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Create an API key, and show it once.

    Only a keyed digest of it is stored, so nobody can show it again. It works from the next request
    on, also while the service runs. What its role may do is decided by the policy at each request.
    A key may be narrowed to some operations, releases and networks. The audit log gets an entry.

    \b
    Example:
      intramural keys create --principal helpdesk --role app --expires 90d
      intramural keys create --principal crm --role app --operation redact
    """
    from api.keys_scope import Scope
    from intramural.parts import open_audit, open_keys, workspace_policy

    until = _expiry(expires, datetime.now(UTC))
    found = find_workspace(workspace)
    workspace_policy(found).role(role)
    scope = Scope.of(operations or (), releases or (), networks or ())
    with open_audit(found) as audit, closing(open_keys(found)) as store:
        text, key = store.create(principal, role, until, name=name, scope=scope)
        try:
            index = _note(audit, "created", key)
        except BaseException:
            store.revoke(key.id)  # a key that no log knows of must open nothing
            raise
    if json_output:
        print_json({"key": text, **_fields(key), "audit_index": index})
        return
    say(text)
    note(
        f"This is the only time that the key is shown. Id {key.id}, role {role}, expires "
        f"{_day(key.expires)}. Send it as `Authorization: Bearer <key>`.\n"
        f"Revoke it with: intramural keys revoke {key.id} --workspace {shlex.quote(str(found.root))}"
    )


@app.command("list")
def list_(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """List all API keys that ever were, oldest first.

    Shows who they are for and whether they still work; never the keys themselves.

    \b
    Example:
      intramural keys list --workspace intramural-demo
    """
    found = find_workspace(workspace)
    keys = _stored(found)
    if json_output:
        print_json({"keys": [_fields(key) for key in keys]})
        return
    if not keys:
        say("No key was created yet.")
        return
    made = table("id", "name", "principal", "role", "scope", "state", "expires", "last used")
    now = datetime.now(UTC)
    for key in keys:
        made.add_row(
            key.id,
            key.name or "-",
            key.principal,
            key.role,
            "narrowed" if key.scope.text() else "all",
            key.state(now),
            _day(key.expires),
            "-" if key.used is None else f"{key.used:%Y-%m-%d %H:%M}",
        )
    print_table(made)


@app.command("rotate")
def rotate(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the key, or its id as `keys list` shows it."),
    ],
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old key goes on to work.")
    ] = "24h",
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="WHEN", help="12h, 90d, 8w, a date (UTC), or never."),
    ] = "90d",
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Replace an API key by a new one, and show that once.

    The new key has the principal, role and scope of the old one, which goes on to work for the
    overlap and then expires. With an overlap of 0h it ends at once.

    \b
    Example:
      intramural keys rotate crm --overlap 24h
    """
    from intramural.parts import open_audit, open_keys

    now = datetime.now(UTC)
    until, length = _expiry(expires, now), _duration(overlap)
    found = find_workspace(workspace)
    with open_audit(found) as audit, closing(open_keys(found)) as store:
        text, key, retired = store.rotate(name, length, until)
        try:
            index = _note(audit, "created", key)
            for old in retired:
                _note(audit, "retired", old)
        except BaseException:
            store.revoke(key.id)  # a key that no log knows of must open nothing
            raise
    if json_output:
        old_keys = [_fields(old) for old in retired]
        print_json({"key": text, **_fields(key), "retired": old_keys, "audit_index": index})
        return
    say(text)
    note(
        f"This is the only time that the key is shown. Id {key.id}, role {key.role}, expires "
        f"{_day(key.expires)}."
    )
    for old in retired:
        note(f"The key {old.id} works until {old.expires:%Y-%m-%d %H:%M} UTC.")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id as `keys list` shows it.")],
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Revoke an API key.

    It opens nothing from the next request on, also while the service runs. Revoking twice is fine.

    \b
    Example:
      intramural keys revoke 0123456789abcdef
    """
    from api.errors import KeyRequestInvalid
    from intramural.parts import open_audit, open_keys
    from intramural.stores import keys_place
    from privacy.errors import PrivacyError
    from privacy.store.reading import store_exists

    found = find_workspace(workspace)
    if not store_exists(keys_place(found)):
        raise KeyRequestInvalid(f"there is no key with id {key_id!r}: no key was created yet")
    with closing(open_keys(found)) as store:
        key = store.revoke(key_id)
    try:
        with open_audit(found) as audit:
            index = _note(audit, "revoked", key)
    except PrivacyError:
        note(f"the key {key.id} is revoked, but the audit log could not take an entry about it")
        raise
    if json_output:
        print_json({**_fields(key), "audit_index": index})
    else:
        facts([("revoked", key.id), ("principal", key.principal), ("role", key.role)])


def _note(audit: "AuditLog", event: str, key: "ApiKey") -> int:
    """Append an entry; its index."""
    from privacy.audit.entries import AuditEntry

    data = {"step": event, "key": key.id, "principal": key.principal, "role": key.role}
    return audit.append(AuditEntry.now("key", "admin", data)).index


def _stored(workspace: "Workspace") -> "list[ApiKey]":
    from intramural.parts import open_keys
    from intramural.stores import keys_place
    from privacy.store.reading import store_exists

    if not store_exists(keys_place(workspace)):
        return []
    with closing(open_keys(workspace)) as store:
        return store.list()


def _expiry(text: str, now: datetime) -> datetime | None:
    """When a key ends.

    Raises:
        click.BadParameter: neither a duration nor a date.
    """
    if text == "never":
        return None
    try:
        if (length := parse_duration(text, _UNITS)) is not None:
            return now + length
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} must be like 12h, 90d or 8w, a date like 2030-12-31 (UTC), or never",
            param_hint="--expires",
        ) from None


def _duration(text: str) -> timedelta:
    """How long.

    Raises:
        click.BadParameter: no duration.
    """
    length = timedelta() if text == "0h" else parse_duration(text, _UNITS)
    if length is None:
        raise click.BadParameter(f"{text!r} must be like 0h, 24h, 7d or 2w", param_hint="--overlap")
    return length


def _fields(key: "ApiKey") -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "principal": key.principal,
        "role": key.role,
        "state": key.state(datetime.now(UTC)),
        "created": key.created.isoformat(),
        "expires": None if key.expires is None else key.expires.isoformat(),
        "revoked": None if key.revoked is None else key.revoked.isoformat(),
        "scope": asdict(key.scope),
        "last_used": None if key.used is None else key.used.isoformat(),
    }


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d}"
