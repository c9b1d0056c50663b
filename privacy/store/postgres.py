"""Speaking with PostgreSQL through pg8000: connections, transactions, errors, signed heads.

The driver is pg8000 because it is permissively licensed and pure Python; nothing outside this
module knows its name.
"""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from privacy.errors import StoreBusy, StoreError, StoreUnavailable, TamperedStore
from privacy.signing import SigningKey, VerifyKey
from privacy.store.append_only import append_only
from privacy.store.place import Postgres
from privacy.store.schema import BUSY_SECONDS, Schema, revision_of, upgrade
from privacy.store.seal import Head, Seal

_ANSWER_SECONDS = 2 * BUSY_SECONDS
_CONNECTIONS = 4
_LOCKED = ("55P03", "40P01", "40001", "57014")
_GONE = ("08", "57P", "53")
_DAMAGED = "XX"

seals = Table(
    "seals",
    MetaData(),
    Column("entries", BigInteger, primary_key=True, autoincrement=False),
    Column("seal", Text, nullable=False),
)
"""One signed head for each write that moved it; of stores whose rows are not signed themselves."""


def server_engine(place: Postgres, *, keep: bool = True) -> Engine:
    """An engine whose transactions take the store's write lock at their start.

    With the execution option ``begin="READ"`` a transaction is one read-only snapshot instead. A
    commit is on the server's disk when it returns. ``keep``: connections are kept for the next use.

    Raises:
        StoreError: the driver is not installed, or the authorities cannot be read.
    """
    server = place.server
    arguments: dict[str, Any] = {
        "user": server.user,
        "password": server.password,
        "database": server.database,
        "timeout": _ANSWER_SECONDS,
        "application_name": "intramural",
        "startup_params": {
            "search_path": place.schema,
            "synchronous_commit": "on",
            "lock_timeout": f"{BUSY_SECONDS:.0f}s",
            "client_encoding": "UTF8",
        },
    }
    if server.socket is not None:
        arguments["unix_sock"] = server.socket
    else:
        arguments |= {"host": server.host, "port": server.port}
    if server.encrypted:
        arguments["ssl_context"] = _context(place)
    pool: dict[str, Any] = {"poolclass": NullPool}
    if keep:
        pool = {"pool_size": _CONNECTIONS, "max_overflow": _CONNECTIONS, "pool_pre_ping": True}
    try:
        engine = create_engine(
            "postgresql+pg8000://", connect_args=arguments, hide_parameters=True, **pool
        )
    except ModuleNotFoundError:
        raise StoreError(
            "PostgreSQL needs the package pg8000; install intramural with the extra 'postgres'"
        ) from None

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, record: Any, positional: Any, named: Any) -> Any:
        try:
            return dialect.connect(*positional, **named)
        except OSError as error:  # of the socket or of TLS, which the driver lets through
            raise _unreachable(place, error.strerror or type(error).__name__) from None

    lock = _lock(place)

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        if connection.get_execution_options().get("begin") == "READ":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            # READ COMMITTED: what follows sees all that was committed before the lock was given.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")

    return engine


@contextmanager
def told(place: Postgres) -> Iterator[None]:
    """The driver's errors in our words, which never repeat a value."""
    try:
        yield
    except IntegrityError as error:
        raise StoreError(f"{place.name} refuses the row: {_words(error)}") from None
    except DBAPIError as error:
        raise _translated(place, error) from None
    except SQLAlchemyError as error:
        raise _unreachable(place, type(error).__name__) from None


def exists(connection: Connection) -> bool:
    """Whether the store's tables are there."""
    return revision_of(connection) is not None


def prepare(connection: Connection, place: Postgres, schema: Schema, key: SigningKey) -> None:
    """Make what is missing, in the caller's write transaction."""
    if not inspect(connection).has_schema(place.schema):
        connection.execute(CreateSchema(place.schema))
    upgrade(connection, schema)
    if not schema.attested and not inspect(connection).has_table(seals.name):
        seals.create(connection)
        _guard(connection)
        add_seal(connection, schema, schema.head(connection), key)


def refuse_unsafe(connection: Connection, place: Postgres) -> None:
    """Raises:
    StoreError: the server does not keep what it has acknowledged.
    """
    for setting in ("fsync", "full_page_writes"):
        if connection.exec_driver_sql(f"SHOW {setting}").scalar() != "on":
            raise StoreError(
                f"{place.name}: the server runs with {setting}=off, so a commit may be lost; "
                "set it to on"
            )


def last_seal(connection: Connection, schema: Schema, key: VerifyKey) -> Seal:
    """The newest signed head.

    Raises:
        TamperedStore: there is none, or ``key`` did not sign it.
    """
    newest = select(seals.c.seal).order_by(seals.c.entries.desc()).limit(1)
    text = connection.execute(newest).scalar()
    if text is None:
        raise TamperedStore(f"the {schema.kind} has no signed head")
    return Seal.of(str(text).encode(), "the newest signed head", schema.kind, key)


def add_seal(connection: Connection, schema: Schema, head: Head, key: SigningKey) -> None:
    """Sign a head."""
    line = Seal.opened(schema.kind, head, key, created=True).signed(key).decode()
    connection.execute(seals.insert().values(entries=head.entries, seal=line))


def faults_of(
    connection: Connection, place: Postgres, schema: Schema, key: VerifyKey
) -> tuple[Head | None, list[str]]:
    """The head, and what is wrong with the content: chain or tree, signatures, what is remembered."""
    try:
        faults, earlier = [], None
        try:
            earlier = remembered(place, schema, key)
            if not schema.attested:
                sealed = last_seal(connection, schema, key).head
                if (now := schema.head(connection)) != sealed:
                    faults.append(
                        f"{place.name} ends at entry {now.entries} ({now.digest[:16]}…), its "
                        f"newest signed head says {sealed.entries} ({sealed.digest[:16]}…)"
                    )
        except TamperedStore as error:
            faults.append(str(error))
        faults += schema.faults(connection, earlier)
        return schema.head(connection), faults
    except (DBAPIError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, DBAPIError) and isinstance(
            found := _translated(place, error), (StoreBusy, StoreUnavailable)
        ):
            raise found from None
        reason = _words(error) if isinstance(error, DBAPIError) else type(error).__name__
        return None, [f"{place.name} cannot be read as a {schema.kind}: {reason}"]


def remembered(place: Postgres, schema: Schema, key: VerifyKey) -> Head | None:
    """The last head that this machine saw; None where it saw none.

    Raises:
        TamperedStore: the file is not what ``key`` signed.
    """
    if not place.remembered.exists():
        return None
    return Seal.read(place.remembered, schema.kind, key).head


def _guard(connection: Connection) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with Operations.context(MigrationContext.configure(connection)):
        append_only(seals.name, "list of signed heads")


def _lock(place: Postgres) -> int:
    """The store's advisory lock: 63 bits of its name's SHA-256."""
    digest = hashlib.sha256(f"intramural/{place.schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _context(place: Postgres) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=place.server.authorities)
    except (OSError, ssl.SSLError) as error:
        raise StoreError(
            f"{place.name}: sslrootcert={place.server.authorities} cannot be used: "
            f"{error.strerror or type(error).__name__}"
        ) from None


def _fields(error: DBAPIError) -> dict[str, str]:
    """Code (``C``) and message (``M``) of the server's error, as PostgreSQL's protocol has them."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


def _words(error: DBAPIError) -> str:
    # The message alone: details and hints of the server may quote a row.
    return _fields(error).get("M") or type(error.orig).__name__


def _translated(place: Postgres, error: DBAPIError) -> StoreError:
    code = _fields(error).get("C", "")
    if code in _LOCKED:
        return StoreBusy(f"{place.name} stayed locked for {BUSY_SECONDS:.0f} seconds; try again")
    if not code or code.startswith(_GONE):
        return _unreachable(place, _words(error))
    if code.startswith(_DAMAGED):
        return TamperedStore(f"{place.name} is damaged: {_words(error)}")
    return StoreError(f"{place.name}: {_words(error)}")


def _unreachable(place: Postgres, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{place} cannot be reached ({why}); see that the server runs and that the URL is right"
    )
