"""What a store must say about itself, and how its tables come into being.

SQLAlchemy and Alembic speak only here, in this folder, and in the modules that own tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from privacy.store.seal import Head

BUSY_SECONDS = 30.0
Access = Literal["immutable", "ro", "rw"]


@dataclass(frozen=True)
class Schema:
    """One kind of store.

    Attributes:
        kind: its name in seals and messages.
        migrations: folder of its Alembic revisions.
        revision: the newest of them.
        head: reads the logical end, cheaply and without checking.
        faults: checks everything that is chained or signed, and that the history begins with the
            given earlier head (None: no such claim); returns what is wrong, in words.
        attested: its own rows carry signatures over every head, as checkpoints do.
    """

    kind: str
    migrations: Path
    revision: str
    head: Callable[[Connection], Head]
    faults: Callable[[Connection, Head | None], list[str]]
    attested: bool = False


def writing_engine(path: Path) -> Engine:
    """An engine on the database file whose transactions take SQLite's write lock at their start.

    WAL with ``synchronous=FULL``: a commit is on the disk when it returns, and costs one sync.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        # The driver's own transaction control would leave DDL outside of every transaction.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        mode = connection.get_execution_options().get("begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def reading_engine(path: Path, access: Access) -> Engine:
    """An engine that changes nothing.

    Args:
        path: the database file.
        access: "immutable" promises that nobody writes, and creates no side files; "ro" follows a
            live writer; "rw" may replay the log of a crashed one, for copies only.
    """
    query = {"immutable": "1"} if access == "immutable" else {"mode": access}
    engine = create_engine(
        URL.create("sqlite", database=path.absolute().as_uri(), query={"uri": "true", **query}),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def migrate(engine: Engine, schema: Schema) -> None:
    """Bring the tables to ``schema.revision`` in one transaction.

    A crash leaves the old tables or the new ones. Callers that race wait for each other.
    """
    with engine.begin() as connection:
        upgrade(connection, schema)


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables that are there; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def upgrade(connection: Connection, schema: Schema) -> None:
    """Bring the tables to ``schema.revision`` in the caller's transaction."""
    if revision_of(connection) == schema.revision:
        return
    # Imported only here: most openings find the tables as they should be.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("version_locations", str(schema.migrations))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    command.upgrade(config, schema.revision)
