"""The store under ledger and log: migrations, seals, locks."""

import importlib
import pkgutil
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from proof_kit import EVENT, SHA, fixed_key
from sqlalchemy import MetaData, create_engine

import privacy.store
from policies.model import Budget
from privacy.audit import tables
from privacy.errors import StoreBusy, StoreError, TamperedStore
from privacy.ledger import entries
from privacy.ledger.ledger import Ledger, verify_ledger
from privacy.signing import SigningKey
from privacy.store.database import open_database
from privacy.store.lock import FileLock
from privacy.store.reading import look
from privacy.store.schema import Schema
from privacy.store.seal import Head, Seal

BUDGET = Budget(Decimal("50.0"), Decimal("1e-5"))


def schemas(key: SigningKey) -> dict[str, tuple[Schema, MetaData]]:
    """Each store's schema with the tables that its models declare."""
    return {
        "ledger": (entries.schema(key.verify_key), entries.Base.metadata),
        "audit": (tables.schema("example.org/a", key.verify_key), tables.Base.metadata),
    }


@pytest.mark.parametrize("store", ["ledger", "audit"])
def test_migrations_end_at_the_revision_and_tables_that_the_code_expects(
    store: str, tmp_path: Path, key: SigningKey
) -> None:
    """The newest revision is the named one, and Alembic finds no difference to the models."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from privacy.store.schema import migrate, writing_engine

    schema, metadata = schemas(key)[store]
    config = Config()
    config.set_main_option("script_location", str(Path(privacy.store.__path__[0]) / "migrations"))
    config.set_main_option("version_locations", str(schema.migrations))
    config.set_main_option("path_separator", "newline")
    assert ScriptDirectory.from_config(config).get_current_head() == schema.revision

    engine = writing_engine(tmp_path / "s.db")
    migrate(engine, schema)
    migrate(engine, schema)
    engine.dispose()
    engine = create_engine(f"sqlite:///{tmp_path / 's.db'}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []


def test_a_seal_of_another_store_does_not_fit(tmp_path: Path, key: SigningKey) -> None:
    """Two ledgers of one key: swapping their seals is found."""
    for name in ("a", "b"):
        with Ledger(tmp_path / f"{name}.db", key) as ledger:
            ledger.reserve(name, "run-1", 1, EVENT, SHA, BUDGET)
    a, b = tmp_path / "a.db.seal", tmp_path / "b.db.seal"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    for name in ("a", "b"):
        assert not verify_ledger(tmp_path / f"{name}.db", key.verify_key).ok
        with pytest.raises(TamperedStore):
            Ledger(tmp_path / f"{name}.db", key)


def test_the_last_of_several_writers_seals(tmp_path: Path, key: SigningKey) -> None:
    """While one still writes the store stays open; after the last it is closed and verifies."""
    path = tmp_path / "l.db"
    first, second = Ledger(path, key), Ledger(path, key)
    first.reserve("hr", "run-1", 1, EVENT, SHA, BUDGET)
    first.close()
    first.close()
    assert Seal.read(tmp_path / "l.db.seal", "ledger", key.verify_key).state == "open"
    second.reserve("hr", "run-1", 2, EVENT, SHA, BUDGET)
    second.close()
    seal = Seal.read(tmp_path / "l.db.seal", "ledger", key.verify_key)
    assert (seal.state, seal.head.entries) == ("closed", 2)
    assert verify_ledger(path, key.verify_key).ok


def test_a_new_store_claimed_by_a_replayed_seal_is_refused(tmp_path: Path, key: SigningKey) -> None:
    """A seal that says "just made" does not open a database that has entries."""
    path = tmp_path / "l.db"
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, BUDGET)
    replayed = Seal.opened("ledger", entries.EMPTY, key, created=False)
    replayed.write(tmp_path / "l.db.seal", key)
    with pytest.raises(TamperedStore, match="just created"):
        Ledger(path, key)


def test_a_seal_reads_back_as_written(tmp_path: Path, key: SigningKey) -> None:
    """Both states, under the right key and kind only."""
    database, file = tmp_path / "x.db", tmp_path / "x.db.seal"
    database.write_bytes(b"content")
    for seal in (
        Seal.opened("ledger", Head(3, "ab"), key, created=True),
        Seal.closed("ledger", Head(3, "ab"), key, database),
    ):
        seal.write(file, key)
        assert Seal.read(file, "ledger", key.verify_key) == seal
        with pytest.raises(TamperedStore, match="kind"):
            Seal.read(file, "audit log", key.verify_key)
        with pytest.raises(TamperedStore, match="not made by key"):
            Seal.read(file, "ledger", fixed_key(8).verify_key)
    assert seal.faults(database) == []


def test_locks_exclude_and_end_with_their_holder(tmp_path: Path) -> None:
    """Exclusive excludes all, shared excludes exclusive, closing lets go."""
    path = tmp_path / "lock"
    one, two = FileLock(path), FileLock(path)
    assert one.try_exclusive()
    assert not two.try_exclusive()
    assert not two.try_shared()
    with pytest.raises(StoreBusy):
        two.shared(timeout=0.0)
    assert one.try_shared()
    assert two.try_shared()
    assert not one.try_exclusive()
    assert two.try_exclusive()
    one.close()
    two.close()
    with FileLock(tmp_path / "none", create=False) as absent:
        assert absent.try_exclusive()
    assert not (tmp_path / "none").exists()


def test_every_module_of_the_proofs_imports_alone() -> None:
    """No import cycle hides behind an order of imports."""
    for package in ("privacy.store", "privacy.ledger", "privacy.audit"):
        module = importlib.import_module(package)
        for found in pkgutil.iter_modules(module.__path__, package + "."):
            importlib.import_module(found.name)


def test_readers_share_a_closed_store(tmp_path: Path, key: SigningKey) -> None:
    """Three looks at once see sealed bytes, and a writer waits until they end."""
    path = tmp_path / "l.db"
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, BUDGET)
    with (
        look(path, "ledger", key.verify_key) as one,
        look(path, "ledger", key.verify_key) as two,
        look(path, "ledger", None) as three,
    ):
        assert {one.state, two.state, three.state} == {"closed"}
        with pytest.raises(StoreBusy, match="in use"):
            open_database(
                path,
                key,
                entries.schema(key.verify_key),
                empty=entries.EMPTY,
                timeout=0.0,
            )
    Ledger(path, key).close()


def test_a_file_that_is_no_database_is_named_and_left_alone(
    tmp_path: Path, key: SigningKey
) -> None:
    """Garbage without a seal is reported, never replaced by a new store."""
    path = tmp_path / "l.db"
    path.write_bytes(b"not a database" * 500)
    report = verify_ledger(path, key.verify_key)
    assert any("seal is missing" in fault for fault in report.faults)
    assert any("cannot be read as a ledger" in fault for fault in report.faults)
    with pytest.raises(TamperedStore, match="seal is missing"):
        Ledger(path, key)
    assert path.read_bytes() == b"not a database" * 500


def test_an_error_of_the_database_is_told_in_our_words(tmp_path: Path, key: SigningKey) -> None:
    """A row that breaks a rule of the table raises StoreError and changes nothing."""
    path = tmp_path / "l.db"
    database = open_database(path, key, entries.schema(key.verify_key), empty=entries.EMPTY)
    with pytest.raises(StoreError, match="refuses the row"), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO entries (kind) VALUES ('reserve')")
    with pytest.raises(StoreError, match="no such table"), database.write() as connection:
        connection.exec_driver_sql("DELETE FROM absent")
    database.close()
    assert verify_ledger(path, key.verify_key).entries == 0
