"""What the homes of hub and node have in common: folder, lock, socket, settings file, status."""

import hashlib
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intramural.errors import IntramuralError
from privacy.files import create_exclusive, write_atomic
from privacy.store.lock import FileLock

_LONGEST_SOCKET = 100
_LOCK = "supervisor.lock"
_STATUS = "status.json"


class HomeUnusable(IntramuralError):
    """The home of a hub or node is missing, incomplete or in use."""


def make_folder(path: Path) -> None:
    """The folder, which nobody else may enter.

    Raises:
        HomeUnusable: it exists and others may enter it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise HomeUnusable(
            f"{path} has mode {mode:04o}, so others may look into it; run `chmod 700 {path}` or "
            "choose a folder that does not exist yet"
        )


def keep(path: Path, data: bytes) -> None:
    """Write a secret file once; one that is there stays as it is."""
    create_exclusive(path, data, mode=0o600)


def socket_path(home: Path, name: str) -> Path:
    """Where a home's Unix socket lies: in the home, or where its path is too long for a socket, in
    a folder of the temporary directory that only its owner may enter.

    Raises:
        HomeUnusable: that folder belongs to somebody else.
    """
    direct = home / name
    if len(os.fsencode(direct)) <= _LONGEST_SOCKET:
        return direct
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"intramural-{os.getuid()}-{digest}"
    make_folder(folder)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise HomeUnusable(f"{folder} belongs to somebody else; choose a home with a shorter path")
    return folder / name


def read_settings(path: Path, remedy: str) -> dict[str, Any]:
    """A TOML file.

    Raises:
        HomeUnusable: missing or malformed.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HomeUnusable(f"there is no {path}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise HomeUnusable(f"{path} cannot be read: {error}") from None


def toml(value: object) -> str:
    """A text, number, list or table of texts as TOML writes it."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items())
        return "{ " + inner + " }" if inner else "{}"
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def only_one(home: Path, what: str) -> Iterator[None]:
    """Hold the home against a second supervisor; the system lets go at any death.

    Raises:
        HomeUnusable: another one runs.
    """
    with FileLock(home / _LOCK, mode=0o600) as lock:
        if not lock.try_exclusive():
            raise HomeUnusable(f"{what} runs already in {home}; stop it first")
        yield


def is_running(home: Path) -> bool:
    """Whether a supervisor holds the home now."""
    try:
        with FileLock(home / _LOCK, create=False) as lock:
            return not lock.try_exclusive()
    except OSError:
        return False


def write_status(home: Path, status: Mapping[str, object]) -> None:
    """Replace ``status.json``, by which other commands see how the supervisor is doing."""
    write_atomic(home / _STATUS, json.dumps(status, indent=1).encode() + b"\n", mode=0o600)


def read_status(home: Path) -> dict[str, Any]:
    """The status of the running supervisor; empty where none runs."""
    return (read_object(home / _STATUS) or {}) if is_running(home) else {}


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
