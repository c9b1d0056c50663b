"""Small JSON files of the hub that several of its processes read and one at a time changes."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from privacy.files import write_atomic
from server.errors import HubError


class StateUnusable(HubError):
    """A state file of the hub is damaged."""


class StateFile:
    """A JSON object at ``path`` (mode 0600), with the lock ``<path>.lock`` for its writers."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def read(self) -> dict[str, Any]:
        """The object; empty where there is no file.

        Raises:
            StateUnusable: it holds something else.
        """
        try:
            value = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StateUnusable(
                f"{self.path} cannot be read ({error}); restore it from a copy"
            ) from None
        if not isinstance(value, dict):
            raise StateUnusable(f"{self.path} holds no JSON object; restore it from a copy")
        return value

    @contextmanager
    def edit(self) -> Iterator[dict[str, Any]]:
        """The object to change; stored durably at the end, and not at all after an exception."""
        descriptor = os.open(
            self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            value = self.read()
            yield value
            # A crash before: the old file. A crash after: the new one.
            write_atomic(self.path, json.dumps(value, indent=1).encode() + b"\n", mode=0o600)
        finally:
            os.close(descriptor)
