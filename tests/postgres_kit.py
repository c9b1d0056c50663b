"""A throw-away PostgreSQL, started from the system's own binaries; and places in either database."""

import contextlib
import ctypes
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pg8000.dbapi
import pytest

from privacy.store.place import Place, Postgres, Server

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_USERS = ("postgres", "nobody")
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def binaries() -> Path | None:
    """The folder of the newest server's binaries, or None."""
    found = shutil.which("postgres")
    folders = [*_FOLDERS, *([Path(found).resolve().parent] if found else [])]
    return next((each for each in folders if (each / "initdb").exists()), None)


def required(found: object, what: str, package: str) -> None:
    """Skip where something is not installed; fail where CI must have it."""
    if not found:
        told = f"{what} is not installed (Debian package {package})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)


class Cluster:
    """A running server on a free loopback port; fsync is on, as a store demands it."""

    def __init__(self, folder: Path, server: Path, user: str | None) -> None:
        self.password = secrets.token_urlsafe(16)
        self._folder, self._bin, self._user = folder, server, user
        self._names = itertools.count(1)
        secret = folder / "password"
        secret.write_text(self.password)
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(secret, user)
        self._call("initdb", "-D", str(folder / "data"), "-U", "owner", "-A", "scram-sha-256", "-N")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        self._process = subprocess.Popen(
            [
                self._bin / "postgres",
                *("-D", self._folder / "data", "-k", self._folder, "-p", str(self.port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            user=self._user,
            preexec_fn=_die_with_parent,
            env={"LC_ALL": "C"},
        )
        assert self._process.stderr is not None
        told = []
        for line in self._process.stderr:
            told.append(line)
            if "ready to accept connections" in line:
                break
        else:
            raise RuntimeError("".join(told))
        # Nobody reads on, and a full pipe would stop the server.
        self._drain = subprocess.Popen(
            ["cat"], stdin=self._process.stderr, stdout=subprocess.DEVNULL
        )

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server; clients are thrown out. SIGQUIT: as a crash would, without a word."""
        self._process.send_signal(number)
        self._process.wait(60)
        self._drain.wait(60)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{next(self._names)}"
        self.sql(f"CREATE DATABASE {name}")
        return self._url("127.0.0.1", name)

    @property
    def url(self) -> str:
        """The URL of the database that everybody shares."""
        return self._url("127.0.0.1", "postgres")

    def socket_url(self) -> str:
        """The same database over its Unix socket."""
        return f"{self._url('localhost', 'postgres')}?host={self._folder}"

    def sql(self, *statements: str, database: str = "postgres", schema: str = "public") -> list:
        """Run statements one by one; the rows of the last one."""
        connection = pg8000.dbapi.connect(
            "owner",
            host="127.0.0.1",
            port=self.port,
            password=self.password,
            database=database,
            startup_params={"search_path": schema},
        )
        with contextlib.closing(connection):
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def _url(self, host: str, database: str) -> str:
        return f"postgresql://owner:{self.password}@{host}:{self.port}/{database}"

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments, "--pwfile", str(self._folder / "password")],
            check=True,
            capture_output=True,
            user=self._user,
            env={"LC_ALL": "C"},
        )


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster inside the block; as root under another user, which PostgreSQL insists on."""
    server = binaries()
    required(server, "PostgreSQL", "postgresql")
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="intramural-pg-"))
    try:
        cluster = Cluster(folder, server, _unprivileged())
        try:
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


class Places:
    """Places for stores of one test, in one kind of database; ``cluster`` is None for SQLite."""

    def __init__(self, folder: Path, cluster: Cluster | None, prefix: str) -> None:
        self.folder, self.cluster, self._prefix = folder, cluster, prefix

    def __call__(self, name: str = "audit") -> Place:
        """The place of this name; the same at every call."""
        if self.cluster is None:
            return self.folder / f"{name}.db"
        server = Server.parse(self.cluster.url)
        return Postgres(server, f"{self._prefix}_{name}", self.folder / f"{name}.remembered")

    def sql(self, place: Place, *statements: str) -> list:
        """Speak to a store's database behind the store's back; the rows of the last statement."""
        if isinstance(place, Postgres):
            assert self.cluster is not None
            return self.cluster.sql(*statements, schema=place.schema)
        import sqlite3

        with contextlib.closing(sqlite3.connect(place)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            connection.commit()
            return rows

    def tamper(self, place: Place, table: str, *statements: str) -> None:
        """Change an append-only table, as its owner can once the triggers are gone."""
        on = f" ON {table}" if isinstance(place, Postgres) else ""
        drops = [f"DROP TRIGGER {table}_no_{action}{on}" for action in ("update", "delete")]
        self.sql(place, *drops, *statements)


def _unprivileged() -> str | None:
    if os.getuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(user for user in _USERS if user in known)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGINT)
