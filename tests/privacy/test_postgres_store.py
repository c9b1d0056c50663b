"""What is PostgreSQL's own: where it is, what it must promise, what is remembered of it."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from proof_kit import EVENT, SHA, fixed_key

import privacy.store.server
from policies.model import Budget
from privacy.errors import StoreError, StoreUnavailable, TamperedStore
from privacy.ledger.entries import EMPTY, schema
from privacy.ledger.ledger import Ledger, verify_ledger
from privacy.signing import SigningKey
from privacy.store.database import open_database
from privacy.store.place import Postgres, Server
from privacy.store.reading import store_exists
from tests.postgres_kit import Cluster, Places


@pytest.fixture
def budget() -> Budget:
    """Room for everything."""
    return Budget(Decimal("50.0"), Decimal("1e-5"))


@pytest.fixture
def place(postgres: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Postgres:
    """A store that no other test knows."""
    name = f"p{abs(hash(request.node.nodeid)) % 10**9}"
    found = Places(tmp_path, postgres, name)("ledger")
    assert isinstance(found, Postgres)
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://crm:s%40fe@db.example.org:6432/intramural?sslrootcert=/ca.pem",
            Server("db.example.org", 6432, "intramural", "crm", "s@fe", None, True, "/ca.pem"),
        ),
        (
            "postgres://crm@127.0.0.1/x",
            Server("127.0.0.1", 5432, "x", "crm", None, None, False, None),
        ),
        (
            "postgresql://crm@localhost:5433/x?host=/run/postgresql",
            Server(
                "localhost", 5433, "x", "crm", None, "/run/postgresql/.s.PGSQL.5433", False, None
            ),
        ),
        (
            "postgresql://crm@10.0.0.7/x?sslmode=disable",
            Server("10.0.0.7", 5432, "x", "crm", None, None, False, None),
        ),
    ],
)
def test_a_url_says_where(url: str, expected: Server) -> None:
    """Host, port, names, and TLS: verified by default but on this machine."""
    assert Server.parse(url) == expected
    assert "s@fe" not in repr(Server.parse(url))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://crm:secret@h/x",
        "postgresql://crm:secret@h",
        "postgresql://h/secret",
        "postgresql://crm:secret@h:port/x",
        "postgresql://crm:secret@h/x?sslmode=require",
        "postgresql://crm:secret@h/x?options=-csearch_path",
        "postgresql://crm:secret@h/x?host=elsewhere",
        "postgresql://crm:secret@h/x?sslmode=disable&sslrootcert=/ca.pem",
        "secret",
    ],
)
def test_a_senseless_url_is_refused_without_its_text(url: str) -> None:
    """The message says what it must be like, and never what it was."""
    with pytest.raises(ValueError) as caught:
        Server.parse(url)
    assert "secret" not in str(caught.value)


def test_a_ledger_is_kept_there_too(place: Postgres, key: SigningKey, budget: Budget) -> None:
    """Reserved, verified, opened again; its socket leads to the same store."""
    assert not store_exists(place)
    with Ledger(place, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, budget)
    assert store_exists(place)
    report = verify_ledger(place, key.verify_key)
    assert (report.ok, report.entries, report.state) == (True, 1, "served")
    assert not verify_ledger(place, fixed_key(8).verify_key).ok
    with pytest.raises(TamperedStore):
        Ledger(place, fixed_key(8))


def test_the_unix_socket_leads_there(postgres: Cluster, tmp_path: Path, key: SigningKey) -> None:
    """A store made over TCP is found over the socket."""
    Ledger(Places(tmp_path, postgres, "sock")("ledger"), key).close()
    server = Server.parse(postgres.socket_url())
    assert verify_ledger(Postgres(server, "sock_ledger", tmp_path / "r"), key.verify_key).ok


def test_a_server_that_may_lose_commits_is_refused(
    postgres: Cluster, place: Postgres, key: SigningKey
) -> None:
    """With fsync off nobody could promise durability."""
    postgres.sql("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        while postgres.sql("SHOW fsync")[0][0] != "off":
            pass  # the reload reaches new sessions in its own time
        with pytest.raises(StoreError, match="fsync=off"):
            Ledger(place, key)
    finally:
        postgres.sql("ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        while postgres.sql("SHOW fsync")[0][0] != "on":
            pass


def test_a_wrong_password_is_told_without_it(place: Postgres, key: SigningKey) -> None:
    """Where, and what the server said."""
    wrong = replace(place, server=replace(place.server, password="not-this-one"))
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        Ledger(wrong, key)
    assert "not-this-one" not in str(caught.value)


def test_nobody_there_is_told(place: Postgres, key: SigningKey) -> None:
    """A port where nobody listens: the error says where, and no password."""
    away = replace(place, server=replace(place.server, port=1))
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/postgres") as caught:
        Ledger(away, key)
    assert str(place.server.password) not in str(caught.value)


def test_an_unencrypted_server_is_refused_where_tls_is_asked(
    place: Postgres, key: SigningKey
) -> None:
    """A server without TLS gets no password over the network."""
    encrypted = replace(place, server=replace(place.server, encrypted=True))
    with pytest.raises(StoreUnavailable):
        Ledger(encrypted, key)


@pytest.mark.parametrize(
    "change",
    [
        ["DROP SCHEMA {schema} CASCADE"],
        ["DELETE FROM entries", "DELETE FROM seals"],
        ['DELETE FROM entries WHERE "index" = 1', "DELETE FROM seals WHERE entries = 2"],
        ["DELETE FROM seals WHERE entries = 2"],
        ['DELETE FROM entries WHERE "index" = 1'],
    ],
    ids=["dropped", "emptied", "put back", "seal removed", "row removed"],
)
def test_a_store_that_was_put_back_is_found(
    postgres: Cluster,
    place: Postgres,
    tmp_path: Path,
    key: SigningKey,
    budget: Budget,
    change: list[str],
) -> None:
    """Whoever owns the database cannot take it back behind what this machine has seen."""
    with Ledger(place, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, budget)
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, budget)
    places = Places(tmp_path, postgres, "")
    if change[0].startswith("DROP SCHEMA"):
        places.sql(place, *(each.format(schema=place.schema) for each in change))
    else:
        places.tamper(place, "seals")
        places.tamper(place, "entries", *change)
    assert not verify_ledger(place, key.verify_key).ok
    with pytest.raises(TamperedStore):
        Ledger(place, key)


def test_what_is_remembered_is_never_taken_back(
    postgres: Cluster,
    place: Postgres,
    tmp_path: Path,
    key: SigningKey,
    budget: Budget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that is put back while it is open: writing says so, and its end forgets nothing."""
    monkeypatch.setattr(privacy.store.server, "_REMEMBER_SECONDS", 0.0)
    database = open_database(place, key, schema(key.verify_key), empty=EMPTY)
    with Ledger(place, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, budget)
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, budget)
    places = Places(tmp_path, postgres, "")
    places.tamper(place, "seals", "DELETE FROM seals WHERE entries = 2")
    places.tamper(place, "entries", 'DELETE FROM entries WHERE "index" = 1')
    with pytest.raises(TamperedStore, match=r"remembers 2: it was put back"), database.write():
        pass
    database.close()
    assert not verify_ledger(place, key.verify_key).ok
    with pytest.raises(TamperedStore):
        Ledger(place, key)


def test_what_somebody_else_appended_is_never_signed(
    postgres: Cluster, place: Postgres, tmp_path: Path, key: SigningKey, budget: Budget
) -> None:
    """An open store that finds a head that nobody signed writes nothing any more."""
    database = open_database(place, key, schema(key.verify_key), empty=EMPTY)
    with Ledger(place, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, budget)
    columns = "kind, at, department, block, run_id, round, previous"
    Places(tmp_path, postgres, "").sql(
        place,
        f'INSERT INTO entries ("index", {columns}, digest, signature) '
        f"SELECT 1, {columns}, '{'f' * 64}', signature FROM entries",
    )
    with pytest.raises(TamperedStore, match="somebody else wrote"), database.write():
        pass
    database.close(seal=False)
    assert not verify_ledger(place, key.verify_key).ok
