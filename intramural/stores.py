"""Where the stores of a workspace are: files in its folders, or schemas of one PostgreSQL database.

The service's setting ``database_url`` decides, for every command alike. Keys and secrets stay files of
the workspace in either case; each database belongs to one workspace.
"""

from pathlib import Path
from typing import Final

from intramural.workspace import Workspace
from privacy.store.place import Place, Postgres, Server

SETTINGS_FILE: Final = "service.toml"


def settings_file(workspace: Workspace) -> Path | None:
    """The file of the service's settings: the one named, else the workspace's if it is there."""
    if workspace.settings is not None:
        return workspace.settings
    own = workspace.root / SETTINGS_FILE
    return own if own.exists() else None


def audit_place(workspace: Workspace) -> Place:
    """Where the audit log is; :class:`api.settings.SettingsInvalid` where nobody can say."""
    return _place(workspace, workspace.audit)


def keys_place(workspace: Workspace) -> Place:
    """Where the API keys are; raises as :func:`audit_place`."""
    return _place(workspace, workspace.service / "keys.db")


def channels_place(workspace: Workspace) -> Place:
    """Where the promotions are; raises as :func:`audit_place`."""
    return _place(workspace, workspace.service / "channels.db")


def _place(workspace: Workspace, file: Path) -> Place:
    from api.settings import load_settings

    url = load_settings(settings_file(workspace)).database_url
    if url is None:
        return file
    server = Server.parse(url.get_secret_value())
    return Postgres(server, f"intramural_{file.stem}", file.with_suffix(".remembered"))
