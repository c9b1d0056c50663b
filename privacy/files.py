"""Durable, atomic files and their digests."""

import contextlib
import hashlib
import os
import secrets
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


def load_or_create_secret(
    path: Path, size: int, *, what: str, remedy: str, error: type[Exception]
) -> bytes:
    """``size`` random bytes that only their owner can read; drawn where there is no file.

    ``what`` names the secret in the message of ``error``, ``remedy`` says what else can be done.

    Raises:
        error: others can read the file, or it has another size.
    """
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        create_exclusive(path, secrets.token_bytes(size), mode=0o600)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise error(
            f"{what} {path} has mode {mode:04o}; others may have read it. "
            f"Run `chmod 600 {path}` if you know that nobody did, else {remedy}"
        )
    secret = path.read_bytes()
    if len(secret) != size:
        raise error(f"{what} {path} has {len(secret)} bytes, not {size}")
    return secret
