"""A throw-away Redis on a Unix socket, started from the system's own binary."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.postgres_kit import required


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Its URL, inside the block; ``folder`` must have a short path, as sockets do."""
    binary = shutil.which("redis-server")
    required(binary, "Redis", "redis-server")
    assert binary is not None
    path = folder / "redis.sock"
    process = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "ready to accept connections" in line.lower():
                break
        else:
            raise RuntimeError("redis-server did not start")
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
