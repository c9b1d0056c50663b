"""The ledger never undercounts."""

import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from proof_kit import EVENT, FORK, SHA, copy_store, fixed_key, flips, kill_at, offsets, points_of

from policies.model import Budget
from privacy.errors import BudgetExceeded, LedgerError, StoreError, TamperedStore
from privacy.ledger.entries import LedgerEntry
from privacy.ledger.history import composed as epsilon
from privacy.ledger.history import spent_report
from privacy.ledger.ledger import Ledger, read_ledger, verify_ledger
from privacy.signing import SigningKey

DELTA = Decimal("1e-5")
WIDE = Budget(epsilon=Decimal("50.0"), delta=DELTA)


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
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, Budget(epsilon=Decimal("3.0"), delta=DELTA))
        with pytest.raises(BudgetExceeded) as caught:
            ledger.reserve(
                "hr", "run-1", 2, EVENT, SHA, Budget(epsilon=Decimal("3.0"), delta=DELTA)
            )
        assert str(caught.value) == (
            f"epsilon={cost:.4g} would exceed the budget of 3.0 for department 'hr'"
        )
        assert (caught.value.epsilon, caught.value.budget) == (cost, 3.0)
        assert len(ledger.history("hr")) == 1
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, Budget(epsilon=Decimal(cost), delta=DELTA))


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


def test_a_voided_reservation_counts_no_longer(path: Path, key: SigningKey) -> None:
    """What was given back can be spent again; it stays in the history, with its reason."""
    narrow = Budget(epsilon=Decimal(epsilon([EVENT], DELTA)), delta=DELTA)
    with Ledger(path, key) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, narrow)
        with pytest.raises(BudgetExceeded):
            ledger.reserve("hr", "run-1", 2, EVENT, SHA, narrow)
        ledger.void(taken, "failed_before_reading")
        assert ledger.spent("hr", DELTA) == 0.0
        again = ledger.reserve("hr", "run-1", 2, EVENT, SHA, narrow)
        assert again.epsilon == taken.epsilon
        kinds = [(entry.kind, entry.reason) for entry in ledger.history("hr")]
    assert kinds == [("reserve", None), ("void", "failed_before_reading"), ("reserve", None)]
    (spend,) = spent_report(read_ledger(path, key.verify_key), {"hr": narrow})
    assert (spend.reservations, spend.committed, spend.blocks[0].voided) == (1, 0, 1)
    assert verify_ledger(path, key.verify_key).ok


@pytest.mark.parametrize("first", ["commit", "void"])
@pytest.mark.parametrize("second", ["commit", "void"])
def test_a_reservation_is_settled_once(
    path: Path, key: SigningKey, first: str, second: str
) -> None:
    """Neither a released round is voided, nor a voided one released; nor either of them twice."""

    def settle(ledger: Ledger, how: str) -> None:
        if how == "commit":
            ledger.commit(taken, SHA)
        else:
            ledger.void(taken, "refused_before_reading")

    state = {"commit": "committed", "void": "voided"}[first]
    with Ledger(path, key) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        settle(ledger, first)
        spent = ledger.spent("hr", DELTA)
        with Ledger(path, key) as other:
            for handle in (ledger, other):
                with pytest.raises(LedgerError, match=f"reservation 0 is {state} already"):
                    settle(handle, second)
        assert ledger.spent("hr", DELTA) == spent
        assert len(ledger.read().entries) == 2


def test_a_void_needs_its_reservation_and_a_known_reason(path: Path, key: SigningKey) -> None:
    """A reservation of another round, or a reason that is not enumerated, voids nothing."""
    with Ledger(path, key) as ledger:
        taken = ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        for other in (
            replace(taken, department="it"),
            replace(taken, block="2"),
            replace(taken, round=2),
            replace(taken, index=7),
            replace(taken, index=-1),
        ):
            with pytest.raises(LedgerError, match="there is no reservation"):
                ledger.void(other, "failed_before_reading")
        with pytest.raises(LedgerError, match="reason='because' is unknown; known: refused"):
            ledger.void(taken, "because")  # type: ignore[arg-type]
        assert len(ledger.read().entries) == 1


WRONG_ENTRIES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "void after commit": (
        [
            {"kind": "commit", "reservation": 0, "receipt_digest": SHA},
            {"kind": "void", "reservation": 0, "reason": "failed_before_reading"},
        ],
        "entry 2 settles no open reservation",
    ),
    "void of nothing": (
        [{"kind": "void", "reservation": 5, "reason": "failed_before_reading"}],
        "entry 1 settles no open reservation",
    ),
    "void without reason": (
        [{"kind": "void", "reservation": 0}],
        "entry 1 is neither a commit with a receipt nor a void with a reason",
    ),
    "void of another block": (
        [{"kind": "void", "reservation": 0, "reason": "failed_before_reading", "block": "2"}],
        "entry 1 settles the reservation of another round",
    ),
    "reservation without limits": (
        [{"kind": "reserve", "event": EVENT, "epsilon": 1.0}],
        "entry 1 reserves without event, cost or limits",
    ),
}


@pytest.mark.parametrize("name", WRONG_ENTRIES)
def test_entries_that_only_a_faulty_writer_could_sign_do_not_verify(
    path: Path, tmp_path: Path, key: SigningKey, name: str
) -> None:
    """Chain and signatures of these are sound: their meaning is checked too."""
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)
        previous = ledger.read().entries[0]
    copy = copy_store(path, tmp_path / "copy")
    entries, expected = WRONG_ENTRIES[name]
    connection = sqlite3.connect(copy)
    connection.executescript("CREATE TABLE made AS SELECT * FROM entries; DROP TABLE entries;")
    connection.execute("ALTER TABLE made RENAME TO entries")
    for number, fields in enumerate(entries, 1):
        entry = LedgerEntry(
            **{
                "index": number,
                "at": "",
                "department": "hr",
                "block": "1",
                "run_id": "run-1",
                "round": 1,
                "previous": previous.digest,
                **fields,
            }
        )
        columns = entry.columns(key.sign(entry.body()))
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"INSERT INTO entries ({names}) VALUES ({marks})", list(columns.values())
        )
        previous = entry
    connection.commit()
    connection.close()
    report = verify_ledger(copy, key.verify_key, require_seal=False)
    assert any(expected in fault for fault in report.faults), report.faults


def test_a_new_block_has_a_budget_of_its_own_and_a_lifetime_beside_it(
    path: Path, key: SigningKey
) -> None:
    """The budget bounds one block; the lifetime epsilon composes everything, whatever the block."""
    cost = epsilon([EVENT], DELTA)
    old = Budget(epsilon=Decimal(cost), delta=DELTA)
    new = replace(old, block="2027")
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, old)
        taken = ledger.reserve("hr", "run-2", 1, EVENT, SHA, new)
        assert (taken.block, taken.epsilon) == ("2027", cost)
        assert taken.lifetime_epsilon == epsilon([EVENT, EVENT], DELTA) > cost
        for budget in (old, new):
            with pytest.raises(BudgetExceeded):
                ledger.reserve("hr", "run-3", 1, EVENT, SHA, budget)
        history = ledger.read()
    assert history.blocks("hr") == ("1", "2027")
    (spend,) = spent_report(history, {"hr": new})
    assert (spend.block, spend.epsilon) == ("2027", cost)
    assert spend.lifetime_epsilon == taken.lifetime_epsilon
    assert [(one.block, one.epsilon) for one in spend.blocks] == [("1", cost), ("2027", cost)]
    (unnamed,) = spent_report(history, {})
    assert (unnamed.block, unnamed.budget) == ("2027", None)


def test_limits_are_kept_and_compared_as_decimals(path: Path, key: SigningKey) -> None:
    """A budget is its text: one last digit below the cost refuses, and the entry shows it as written."""
    cost = Decimal(epsilon([EVENT], DELTA))
    exact = Budget(epsilon=cost, delta=DELTA)
    with Ledger(path, key) as ledger:
        below = Budget(epsilon=cost - Decimal("1e-20"), delta=DELTA)
        with pytest.raises(BudgetExceeded) as caught:
            ledger.reserve("hr", "run-1", 1, EVENT, SHA, below)
        assert f"epsilon={float(cost)!r} would exceed" in str(caught.value)
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, exact)
        ledger.reserve("hr", "run-1", 2, EVENT, SHA, Budget(Decimal("8.10"), Decimal("1e-5")))
        first, second = ledger.history("hr")
    assert (first.budget, second.budget, second.delta) == (str(cost), "8.10", "0.00001")


def test_a_charge_is_on_the_disk_before_training_may_start(path: Path, key: SigningKey) -> None:
    """SQLite syncs its log at every commit (synchronous=FULL, 2), and writers take turns."""
    with Ledger(path, key) as ledger:
        with ledger._database.write() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            other = sqlite3.connect(path, timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
        ledger.reserve("hr", "run-1", 1, EVENT, SHA, WIDE)


def test_a_handle_reads_only_what_is_new_to_it(path: Path, key: SigningKey) -> None:
    """Its account rests on what it verified itself, so a row changed underneath lowers no cost; the
    change is found by the next verification, and no ledger opens over it."""
    with Ledger(path, key) as ledger:
        for number in (1, 2, 3):
            ledger.reserve("hr", "run-1", number, EVENT, SHA, WIDE)
        spent = ledger.spent("hr", DELTA)
        change(path, "UPDATE entries SET event = replace(event, '\"steps\":6', '\"steps\":1') "
                     'WHERE "index" = 0')  # fmt: skip
        taken = ledger.reserve("hr", "run-1", 4, EVENT, SHA, WIDE)
        assert taken.epsilon == epsilon([EVENT] * 4, DELTA) > spent
        report = verify_ledger(path, key.verify_key)
        assert any("entry 0 was changed" in fault for fault in report.faults)
        with Ledger(path, key) as second, pytest.raises(TamperedStore, match="entry 0 was changed"):
            second.read()
        ledger._database.close(seal=False)
    with pytest.raises(TamperedStore, match="entry 0 was changed"):
        Ledger(path, key)


@pytest.mark.parametrize(
    "statement",
    [
        'DELETE FROM entries WHERE "index" = 2',
        'DELETE FROM entries WHERE "index" >= 1',
        'UPDATE entries SET epsilon = 0.1 WHERE "index" = 2',
    ],
)
def test_a_removed_or_changed_end_is_noticed_at_once(
    path: Path, key: SigningKey, statement: str
) -> None:
    """The last entry that a handle knows must still stand where it stood."""
    with Ledger(path, key) as ledger:
        for number in (1, 2, 3):
            ledger.reserve("hr", "run-1", number, EVENT, SHA, WIDE)
        ledger.read()
        change(path, statement)
        with pytest.raises(TamperedStore):
            ledger.reserve("hr", "run-1", 4, EVENT, SHA, WIDE)
        ledger._database.close(seal=False)


def change(path: Path, statement: str) -> None:
    """What somebody with the file and without the key can do."""
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"DROP TRIGGER entries_no_update; DROP TRIGGER entries_no_delete; {statement}"
        )
    connection.close()


def test_readers_and_writers_of_one_handle_see_one_chain(path: Path, key: SigningKey) -> None:
    """Threads share a handle: none sees a chain that is broken or shorter than its own charge."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(1, 11):
                taken = ledger.reserve(name, "run-1", number, EVENT, SHA, WIDE)
                assert ledger.read().reservation(taken.index) is not None
        except BaseException as error:
            failures.append(error)

    with Ledger(path, key) as ledger:
        threads = [Thread(target=work, args=(name,)) for name in ("hr", "it", "law")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(ledger.read().entries) == 30


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
        report = spent_report(ledger.read(), {"hr": WIDE, "new": WIDE})
    hr, new, old = report
    assert (hr.department, hr.budget, hr.reservations, hr.committed) == ("hr", 50.0, 2, 1)
    assert hr.epsilon == epsilon([EVENT, EVENT], DELTA)
    assert hr.remaining == pytest.approx(50.0 - hr.epsilon)
    assert (new.epsilon, new.reservations) == (0.0, 0)
    assert (old.department, old.budget, old.remaining, old.delta) == ("old", None, None, 1e-5)
    assert spent_report(read_ledger(path, key.verify_key), {"hr": WIDE, "new": WIDE}) == report


def test_processes_that_reserve_at_once_cannot_overspend(path: Path, key: SigningKey) -> None:
    """Four processes released together take exactly what one would have been given."""
    budget = Budget(epsilon=Decimal(5), delta=DELTA)
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
        empty = ledger.reserve("hr", "run-1", 3, EVENT, SHA, WIDE)
        ledger.void(empty, "failed_before_reading")


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
    assert {"store.opened", "ledger.before-reserve", "ledger.before-void", "store.sealed"} <= set(
        points
    )
    for number in range(len(points)):
        path = tmp_path / str(number) / "ledger.db"
        prepare(path)
        kill_at(number, lambda path=path: scenario(path))
        # A point called "reserved" is passed after the write, so it counts when killed there.
        passed = points[: number + 1]
        reserved = 2 * lives + passed.count("ledger.reserved") - passed.count("ledger.voided")
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
    change(path, statement)
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
