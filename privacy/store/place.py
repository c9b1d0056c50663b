"""Where a store is: a SQLite file, or a schema of a PostgreSQL database."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

_SCHEMES = ("postgresql", "postgres")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OPTIONS = ("host", "sslmode", "sslrootcert")
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Server:
    """How a PostgreSQL database is reached.

    Attributes:
        host, port, database, user, password: of the connection.
        socket: path of a Unix socket in place of host and port.
        encrypted: over TLS, with the server's certificate and name verified.
        authorities: PEM file of the authorities that are believed; None means the system's.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(repr=False)
    socket: str | None
    encrypted: bool
    authorities: str | None

    @classmethod
    def parse(cls, url: str) -> "Server":
        """Read ``postgresql://USER[:PASSWORD]@HOST[:PORT]/DATABASE``.

        ``?host=/run/postgresql`` names the folder of a Unix socket. ``?sslmode=verify-full`` (the
        default, but for sockets and the loopback interface) or ``disable``; ``?sslrootcert=FILE``.

        Raises:
            ValueError: it is none, in words that repeat nothing of it: it may hold a password.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or 5432
        except ValueError:
            raise ValueError("its port must be a number from 1 to 65535") from None
        database = unquote(parts.path[1:])
        if parts.scheme not in _SCHEMES or not database or "/" in database or not parts.username:
            raise ValueError("must be like postgresql://user[:password]@host[:5432]/database")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if set(options) - set(_OPTIONS):
            raise ValueError(f"takes no other options than {', '.join(_OPTIONS)}")
        folder = options.get("host", "")
        if folder and not folder.startswith("/"):
            raise ValueError("host=... is for the folder of a Unix socket, such as /run/postgresql")
        host = parts.hostname or "localhost"
        near = bool(folder) or host in _LOOPBACK
        mode = options.get("sslmode", "disable" if near else "verify-full")
        if mode not in ("disable", "verify-full"):
            raise ValueError("sslmode must be verify-full or disable")
        if mode == "disable" and "sslrootcert" in options:
            raise ValueError("sslrootcert needs sslmode=verify-full")
        return cls(
            host=host,
            port=port,
            database=database,
            user=unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            socket=f"{folder}/.s.PGSQL.{port}" if folder else None,
            encrypted=mode == "verify-full",
            authorities=options.get("sslrootcert"),
        )


@dataclass(frozen=True)
class Postgres:
    """A store in a schema of its own.

    Attributes:
        server: the database.
        schema: name of the schema; made where it is missing.
        remembered: file in which this machine keeps the last head that it saw, signed.
    """

    server: Server
    schema: str
    remembered: Path

    def __post_init__(self) -> None:
        if not _SCHEMA.fullmatch(self.schema):
            raise ValueError(f"schema={self.schema!r} must match {_SCHEMA.pattern}")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.server.database}/{self.schema}"

    def __str__(self) -> str:
        where = self.server.socket or f"{self.server.host}:{self.server.port}"
        return f"postgresql://{where}/{self.server.database} schema {self.schema}"


Place = Path | Postgres
"""A SQLite file, or a schema of a PostgreSQL database."""
