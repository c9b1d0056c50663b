"""The ledger never undercounts."""

import sqlite3
from pathlib import Path

import pytest
from proof_kit import EVENT, FORK, SHA, copy_store, fixed_key, flips, kill_at, offsets, points_of

from policies.model import Budget
from privacy.dp.accounting import epsilon
from privacy.errors import BudgetExceeded, LedgerError, StoreError, TamperedStore
from privacy.ledger.ledger import Ledger, read_ledger, spent_report, verify_ledger
from privacy.signing import SigningKey

DELTA = 1e-5
WIDE = Budget(epsilon=50.0, delta=DELTA)


def fill(path: Path, key: SigningKey, rounds: int = 3) -> None:
    """Open, charge and commit some rounds of two departments, close."""
    with Ledger(path, key) as ledger:
        for number in range(1, rounds + 1):
            for department in ("hr", "it"):
                taken = ledger.reserve(department, "run-1", number, EVENT, SHA, WIDE)
                ledger.commit(taken, SHA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger lies; a folder whose name needs quoting in URIs."""
    return tmp_path / "node 1#?%" / "ledger.db"


def test_what_is_charged_is_composed_over_the_whole_history(path: Path, key: SigningKey) -> None:
    """Epsilon covers every run ever reserved, and survives closing."""
    with Ledger(path, key) as ledger:
        first = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        assert first.epsilon == epsilon([EVENT], DELTA)
    with Ledger(path, key) as ledger:
        second = ledger.reserve("hr", "run-2", 1, EVENT, SHA, WIDE)
        assert second.epsilon == epsilon([EVENT, EVENT], DELTA) > first.epsilon
        assert ledger.spent("hr", DELTA) == second.epsilon
        assert ledger.spent("it", DELTA) == 0.0
        assert [entry.run_id for entry in ledger.history("hr")] == ["run-1", "run-2"]


def test_a_round_that_does_not_fit_is_refused_before_it_is_charged(
    path: Path, key: SigningKey
) -> None:
    """The message names value, bound and department; nothing was written."""
    cost = epsilon([EVENT, EVENT], DELTA)
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, Budget(epsilon=3.0, delta=DELTA))
        with pytest.raises(BudgetExceeded) as caught:
            ledger.reserve("hr", "run-1", 2, EVENT, SHA, Budget(epsilon=3.0, delta=DELTA))
        assert str(caught.value) == (
            f"epsilon={cost:.4g} would exceed the budget of 3.0 for department 'hr'"
        )
        assert (caught.value.epsilon, caught.value.budget) == (cost, 3.0)
        assert len(ledger.history("hr")) == 1
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, Budget(epsilon=cost, delta=DELTA))


def test_asking_for_a_round_again_is_charged_again(path: Path, key: SigningKey) -> None:
    """A second attempt at the same round is never free."""
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        again = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        assert again.epsilon == epsilon([EVENT, EVENT], DELTA)


def test_a_commit_costs_nothing_and_happens_once(path: Path, key: SigningKey) -> None:
    """Committing twice, or what was never reserved, is refused."""
    with Ledger(path, key) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        before = ledger.spent("hr", DELTA)
        ledger.commit(taken, SHA)
        assert ledger.spent("hr", DELTA) == before
        with pytest.raises(LedgerError, match="committed already"):
            ledger.commit(taken, SHA)
    with (
        Ledger(path.with_name("other.db"), key) as other,
        pytest.raises(LedgerError, match="no reservation 0"),
    ):
        other.commit(taken, SHA)


@pytest.mark.parametrize(
    "arguments",
    [
        ("h r", "run-1", 1, SHA),
        ("hr", "", 1, SHA),
        ("hr", "run-1", 0, SHA),
        ("hr", "run-1", 1, "x"),
    ],
)
def test_malformed_names_are_refused(
    path: Path, key: SigningKey, arguments: tuple[str, str, int, str]
) -> None:
    """Names, rounds and digests are checked before anything is charged."""
    department, run_id, number, policy = arguments
    with Ledger(path, key) as ledger, pytest.raises(LedgerError):
        ledger.reserve(department, run_id, number, EVENT, policy, WIDE)


def test_the_report_names_budget_spent_and_what_was_released(path: Path, key: SigningKey) -> None:
    """Per department: epsilon, delta, budget; departments without a budget are not hidden."""
    with Ledger(path, key) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        ledger.commit(taken, SHA)
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, WIDE)
        ledger.reserve("old", "run-0", 1, EVENT, SHA, WIDE)
        report = spent_report(ledger, {"hr": WIDE, "new": WIDE})
    hr, new, old = report
    assert (hr.department, hr.budget, hr.reservations, hr.committed) == ("hr", 50.0, 2, 1)
    assert hr.epsilon == epsilon([EVENT, EVENT], DELTA)
    assert hr.remaining == 50.0 - hr.epsilon
    assert (new.epsilon, new.reservations) == (0.0, 0)
    assert (old.department, old.budget, old.remaining, old.delta) == ("old", None, None, DELTA)
    assert spent_report(read_ledger(path, key.verify_key), {"hr": WIDE, "new": WIDE}) == report


def test_processes_that_reserve_at_once_cannot_overspend(path: Path, key: SigningKey) -> None:
    """Four processes released together take exactly what one would have been given."""
    budget = Budget(epsilon=5.0, delta=DELTA)
    allowed = 0
    while epsilon([EVENT] * (allowed + 1), DELTA) <= budget.epsilon:
        allowed += 1
    barrier, results = FORK.Barrier(4), FORK.SimpleQueue()

    def spend(name: str) -> None:
        granted = 0
        with Ledger(path, fixed_key()) as ledger:
            barrier.wait()
            try:
                while True:
                    ledger.reserve("hr", name, granted + 1, EVENT, SHA, budget)
                    granted += 1
            except BudgetExceeded:
                pass
        results.put(granted)

    workers = [FORK.Process(target=spend, args=(f"run-{i}",)) for i in range(4)]
    for worker in workers:
        worker.start()
    granted = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    assert granted == allowed >= 4
    report = verify_ledger(path, key.verify_key)
    assert (report.ok, report.state, report.entries) == (True, "closed", allowed)


def scenario(path: Path) -> None:
    """Everything a node does with a ledger in one life."""
    with Ledger(path, fixed_key()) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        ledger.commit(taken, SHA)
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, WIDE)


@pytest.mark.parametrize("lives", [0, 1])
def test_a_kill_between_any_two_writes_leaves_what_was_reserved_spent(
    tmp_path: Path, key: SigningKey, lives: int
) -> None:
    """SIGKILL at every named point, of a first and of a second life: it opens, nothing is lost."""

    def prepare(path: Path) -> None:
        for _ in range(lives):
            scenario(path)

    trial = tmp_path / "dry" / "ledger.db"
    prepare(trial)
    points = points_of(lambda: scenario(trial))
    assert {"store.opened", "ledger.before-reserve", "ledger.reserved", "store.sealed"} <= set(
        points
    )
    for number in range(len(points)):
        path = tmp_path / str(number) / "ledger.db"
        prepare(path)
        kill_at(number, lambda path=path: scenario(path))
        # A point called "reserved" is passed after the write, so it counts when killed there.
        reserved = 2 * lives + points[: number + 1].count("ledger.reserved")
        if path.exists():
            assert verify_ledger(path, key.verify_key).ok, points[number]
        with Ledger(path, key) as ledger:
            events = ledger.read().events("hr")
            assert len(events) == reserved, points[number]
            assert ledger.spent("hr", DELTA) == epsilon([EVENT] * reserved, DELTA)
            ledger.reserve("hr", "run-9", 1, EVENT, SHA, WIDE)
        report = verify_ledger(path, key.verify_key)
        assert (report.ok, report.state) == (True, "closed"), report.faults


def test_a_ledger_with_any_byte_changed_does_not_verify(
    path: Path, tmp_path: Path, key: SigningKey
) -> None:
    """Header, pages, unused space and the seal, each byte alone; and it is refused for writing."""
    fill(path, key)
    copy = copy_store(path, tmp_path / "copy")
    assert verify_ledger(copy, key.verify_key).ok
    for place in flips(copy, offsets(copy.stat().st_size, seed=1, count=150)):
        report = verify_ledger(copy, key.verify_key)
        assert any("ledger.db was changed" in fault for fault in report.faults), place
        if place % 5 == 0:
            with pytest.raises(TamperedStore, match=r"ledger\.db was changed"):
                Ledger(copy, key)
    seal = copy.with_name("ledger.db.seal")
    for place in flips(seal, list(range(seal.stat().st_size))):
        report = verify_ledger(copy, key.verify_key)
        assert any("seal" in fault for fault in report.faults), place
        if place % 5 == 0:
            with pytest.raises(TamperedStore):
                Ledger(copy, key)
    assert verify_ledger(copy, key.verify_key).ok


def test_verifying_changes_and_leaves_nothing(path: Path, key: SigningKey) -> None:
    """No side file appears and no byte changes, also beside a read-only copy."""
    fill(path, key)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert verify_ledger(path, key.verify_key).ok
    read_ledger(path, key.verify_key)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert set(before) == {"ledger.db", "ledger.db.seal", "ledger.db.lock"}


def test_a_ledger_that_was_cut_extended_or_lost_a_file_does_not_verify(
    path: Path, tmp_path: Path, key: SigningKey
) -> None:
    """Truncation, extension, a removed database or seal, and a planted log are all named."""
    fill(path, key)
    size = path.stat().st_size

    def faults_after(change: str) -> str:
        copy = copy_store(path, tmp_path / "copy")
        if change == "cut":
            copy.write_bytes(copy.read_bytes()[:-4096])
        elif change == "emptied":
            copy.write_bytes(b"")
        elif change == "extended":
            copy.write_bytes(copy.read_bytes() + b"\0")
        elif change == "planted":
            copy.with_name("ledger.db-wal").write_bytes(b"x" * 32)
        elif change == "no database":
            copy.unlink()
        else:
            copy.with_name("ledger.db.seal").unlink()
        with pytest.raises(TamperedStore):
            Ledger(copy, key)
        return "; ".join(verify_ledger(copy, key.verify_key).faults)

    assert f"has {size - 4096} bytes, its seal says {size}" in faults_after("cut")
    assert "has 0 bytes" in faults_after("emptied")
    assert f"has {size + 1} bytes" in faults_after("extended")
    assert "ledger.db-wal appeared" in faults_after("planted")
    assert "ledger.db is missing" in faults_after("no database")
    assert "ledger.db.seal is missing" in faults_after("no seal")
    with pytest.raises(StoreError, match="there is no ledger"):
        verify_ledger(tmp_path / "none.db", key.verify_key)


def crashed(path: Path, key: SigningKey) -> None:
    """A ledger whose writer was killed after some rounds of a second life."""
    fill(path, key)
    kill_at(points_of_second_life(path, key), lambda: scenario(path))


def points_of_second_life(path: Path, key: SigningKey) -> int:
    """The number of the last crash point before the ledger would be closed."""
    copy = path.with_name("dry.db")
    fill(copy, key, 1)
    return points_of(lambda: scenario(copy)).index("store.before-seal") - 1


TAMPERINGS = {
    "changed": ('UPDATE entries SET epsilon = 0.5 WHERE "index" = 2', "entry 2 was changed"),
    "event changed": (
        'UPDATE entries SET event = replace(event, \'"steps":6\', \'"steps":1\') WHERE "index" = 0',
        "entry 0 was changed",
    ),
    "removed": ('DELETE FROM entries WHERE "index" = 3', "entry 3 is missing"),
    "removed and closed up": (
        """DELETE FROM entries WHERE "index" = 3;
        UPDATE entries SET "index" = "index" - 1 WHERE "index" > 3""",
        "entry 3 does not continue entry 2",
    ),
    "cut at the end": ('DELETE FROM entries WHERE "index" >= 10', "entries 10 to 11 were removed"),
    "event malformed": (
        "UPDATE entries SET event = 'x' WHERE \"index\" = 2",
        "entry 2 is malformed",
    ),
    "type changed": ("UPDATE entries SET round = 'one' WHERE \"index\" = 2", "entry 2"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_ledger_changed_after_a_crash_is_found_by_its_chain(
    tmp_path: Path, key: SigningKey, name: str
) -> None:
    """Without a seal over the bytes, chain and head still show what was changed, and where."""
    path = tmp_path / "ledger.db"
    crashed(path, key)
    assert verify_ledger(path, key.verify_key).state == "crashed"
    statement, expected = TAMPERINGS[name]
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"DROP TRIGGER entries_no_update; DROP TRIGGER entries_no_delete; {statement}"
        )
    connection.close()
    report = verify_ledger(path, key.verify_key)
    assert any(expected in fault for fault in report.faults), report.faults
    with pytest.raises(TamperedStore, match="will not be opened for writing"):
        Ledger(path, key)


def test_a_rewritten_chain_needs_the_key(tmp_path: Path, key: SigningKey) -> None:
    """Somebody who recomputes every digest still cannot sign; another key is named."""
    path = tmp_path / "ledger.db"
    fill(path, fixed_key(8))
    report = verify_ledger(path, key.verify_key, require_seal=False)
    assert any("entry 0: the signature was not made by key" in fault for fault in report.faults)
    with pytest.raises(TamperedStore):
        Ledger(path, key)


def test_the_file_alone_verifies_with_the_public_key(
    path: Path, tmp_path: Path, key: SigningKey
) -> None:
    """A database copied without its seal is checked by chain and signatures, and says so."""
    fill(path, key)
    alone = tmp_path / "alone.db"
    alone.write_bytes(path.read_bytes())
    report = verify_ledger(alone, key.verify_key, require_seal=False)
    assert (report.ok, report.state, report.entries) == (True, "unsealed", 12)
    assert not verify_ledger(alone, key.verify_key).ok


def test_the_table_itself_refuses_changes(path: Path, key: SigningKey) -> None:
    """An ordinary statement can neither update nor delete an entry."""
    fill(path, key, 1)
    connection = sqlite3.connect(path)
    for statement in ("UPDATE entries SET epsilon = 0", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_ledger_in_use_can_be_read_and_verified(path: Path, key: SigningKey) -> None:
    """Readers do not disturb the writer, and the report says that somebody writes."""
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        assert verify_ledger(path, key.verify_key).state == "in_use"
        assert len(read_ledger(path, key.verify_key).entries) == 1
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, WIDE)
    assert verify_ledger(path, key.verify_key).state == "closed"
