"""Durable, atomic files and their digests."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from privacy.crashpoints import reached


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: durable once this returns, never seen half-written.

    A crash before the rename leaves the old file (and a stray ``.<name>.*.tmp``); after it, the new
    one. The directory is synced too, because a rename is only as durable as its directory.
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        reached("files.before-rename")
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def create_exclusive(path: Path, data: bytes, *, mode: int) -> bool:
    """Create ``path`` with ``data`` durably, or leave it alone when it exists.

    Returns:
        True when this call created it. Of many concurrent callers exactly one gets True, and every
        other one finds the complete file (a hard link appears at once, never half-written).
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(name)
        except FileExistsError:
            return False
    finally:
        Path(name).unlink()
    sync_directory(path.parent)
    return True


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    _fsync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits, as ``sha256sum`` prints it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
