"""The audit log: durable, covered, tamper-evident, and closed when in doubt."""

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof_kit import FORK, copy_store, fixed_key, flips, kill_at, offsets, points_of

from privacy import crashpoints
from privacy.audit.checkpoint import Checkpoint
from privacy.audit.entries import KINDS, AuditEntry
from privacy.audit.log import AuditLog, read_log, verify_log
from privacy.audit.merkle import verify_consistency, verify_inclusion
from privacy.errors import (
    AuditEntryInvalid,
    AuditError,
    AuditUnavailable,
    StoreError,
    TamperedStore,
)
from privacy.signing import SigningKey
from privacy.store.place import Place, Postgres
from tests.postgres_kit import Places

ORIGIN = "example.org/audit"
BYTES = "<bytes>"
"""Stands for bytes, which each database spells in its own way."""
GOLDEN = Path(__file__).parent / "golden" / "audit-entry.json"


def entry(number: int = 0, kind: str = "call") -> AuditEntry:
    """An entry that can be told from others."""
    return AuditEntry(kind, "2026-01-31T12:00:00.000000+00:00", "app-1", {"number": number})  # type: ignore[arg-type]


def fill(place: Place, key: SigningKey, count: int = 12) -> None:
    """Open, append one by one, close."""
    with AuditLog(place, key, ORIGIN) as log:
        for number in range(count):
            log.append(entry(number, KINDS[number % len(KINDS)]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log's file, where the test is about files."""
    return tmp_path / "audit.db"


@pytest.fixture
def place(places: Places) -> Place:
    """Where the log is: in either database."""
    return places("audit")


def broken_off(place: Place) -> str:
    """The state of a log whose writer did not close it."""
    return "served" if isinstance(place, Postgres) else "crashed"


def test_an_append_returns_durable_and_covered_by_a_signed_checkpoint(
    place: Place, key: SigningKey
) -> None:
    """Before the caller goes on, another connection finds entry, checkpoint and a valid proof."""
    with AuditLog(place, key, ORIGIN) as log:
        for number in range(9):
            done = log.append(entry(number))
            with read_log(place) as reader:
                note = reader.checkpoint(done.index + 1)
                proof = reader.prove_inclusion(done.index, done.checkpoint_size)
            assert note is not None
            head = Checkpoint.open(note, ORIGIN, key.verify_key)
            assert head.size == done.checkpoint_size == number + 1
            assert verify_inclusion(done.leaf_hash, done.index, head.size, proof, head.root)
        assert log.checkpoint() == note


def test_a_log_only_grows_from_checkpoint_to_checkpoint(place: Place, key: SigningKey) -> None:
    """Consistency proofs connect every checkpoint with every later one, across reopening."""
    fill(place, key, 5)
    fill(place, key, 6)
    with read_log(place) as reader:
        notes = [reader.checkpoint(size) for size in range(1, 12)]
        heads = [Checkpoint.open(str(note), ORIGIN, key.verify_key) for note in notes]
        for old in heads:
            for new in heads[old.size - 1 :]:
                proof = reader.prove_consistency(old.size, new.size)
                assert verify_consistency(old.size, new.size, old.root, new.root, proof)


def test_callers_that_wait_share_one_commit(place: Place, key: SigningKey) -> None:
    """While the first commit is under way forty entries queue; they get one checkpoint."""
    first_is_writing, others_wait = threading.Event(), threading.Event()

    def hold(point: str) -> None:
        if point == "audit.before-commit" and not first_is_writing.is_set():
            first_is_writing.set()
            others_wait.wait(30)

    crashpoints.install(hold)
    with AuditLog(place, key, ORIGIN) as log:
        first = log.submit(entry())
        first_is_writing.wait(30)
        rest = [log.submit(entry(number)) for number in range(1, 41)]
        others_wait.set()
        assert first.result().checkpoint_size == 1
        assert {future.result().checkpoint_size for future in rest} == {41}
        assert [future.result().index for future in rest] == list(range(1, 41))


def test_threads_lose_and_repeat_nothing(place: Place, key: SigningKey) -> None:
    """Eight threads of 25 appends: 200 entries, each once, every index given once."""
    indices: list[int] = []
    with AuditLog(place, key, ORIGIN) as log:

        def work(number: int) -> None:
            indices.extend(log.append(entry(number * 25 + i)).index for i in range(25))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(indices) == list(range(200))
    with read_log(place) as reader:
        numbers = [stored.entry.data["number"] for stored in reader.entries()]
    assert sorted(numbers) == list(range(200))
    assert verify_log(place, key.verify_key).ok


@pytest.mark.parametrize(("point", "stored"), [("audit.before-commit", 1), ("audit.committed", 2)])
def test_after_a_failed_write_every_append_raises(
    place: Place, key: SigningKey, point: str, stored: int
) -> None:
    """Failed and not persisted, failed but persisted: both close the log until it is reopened."""
    log = AuditLog(place, key, ORIGIN)
    log.append(entry(0))
    assert log.available

    def fail(reached: str) -> None:
        if reached == point:
            raise OSError(28, "No space left on device")

    crashpoints.install(fail)
    with pytest.raises(AuditUnavailable, match="No space left"):
        log.append(entry(1))
    crashpoints.install(None)
    for _ in range(3):
        with pytest.raises(AuditUnavailable, match="accepts nothing more"):
            log.append(entry(2))
    assert not log.available
    log.close()
    report = verify_log(place, key.verify_key)
    assert (report.ok, report.state, report.entries) == (True, broken_off(place), stored)
    with AuditLog(place, key, ORIGIN) as again:
        assert again.append(entry(3)).index == stored


def test_everybody_who_waited_for_a_failed_writer_hears_of_it(
    place: Place, key: SigningKey
) -> None:
    """Entries queued behind the failing group are answered too, with the failure."""
    writing, queued = threading.Event(), threading.Event()

    def fail(point: str) -> None:
        if point == "audit.before-commit":
            writing.set()
            queued.wait(30)
            raise OSError(5, "Input/output error")

    log = AuditLog(place, key, ORIGIN)
    crashpoints.install(fail)
    futures = [log.submit(entry())]
    writing.wait(30)
    futures += [log.submit(entry(number)) for number in range(5)]
    queued.set()
    for future in futures:
        with pytest.raises(AuditUnavailable):
            future.result(30)
    log.close()


def test_a_closed_log_accepts_nothing(place: Place, key: SigningKey) -> None:
    """After close, append raises; closing twice is fine."""
    log = AuditLog(place, key, ORIGIN)
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        log.append(entry())


def test_a_forked_child_cannot_append(place: Place, key: SigningKey) -> None:
    """The writer stays with the process that opened the log; a child is refused, not stuck."""
    with AuditLog(place, key, ORIGIN) as log:
        answers = FORK.SimpleQueue()

        def child() -> None:
            try:
                log.append(entry())
            except AuditUnavailable as error:
                answers.put(str(error))

        process = FORK.Process(target=child)
        process.start()
        assert "parent process" in answers.get()
        process.join()
        assert log.append(entry()).index == 0


def scenario(place: Place) -> None:
    """One life of a log."""
    with AuditLog(place, fixed_key(), ORIGIN) as log:
        for number in range(3):
            log.append(entry(number))


@pytest.mark.parametrize("lives", [0, 1])
def test_a_kill_between_any_two_writes_leaves_a_log_that_verifies(
    places: Places, key: SigningKey, lives: int
) -> None:
    """SIGKILL at every named point: every committed entry is there, and the log goes on."""
    trial = places("dry")
    for _ in range(lives):
        scenario(trial)
    points = points_of(lambda: scenario(trial))
    assert {"audit.before-commit", "audit.committed"} <= set(points)
    assert ("store.before-seal" in points) == isinstance(trial, Path)
    for number in range(len(points)):
        place = places(f"k{number}")
        for _ in range(lives):
            scenario(place)
        kill_at(number, lambda place=place: scenario(place))
        committed = 3 * lives + points[: number + 1].count("audit.committed")
        if isinstance(place, Postgres) or place.exists():
            report = verify_log(place, key.verify_key)
            assert (report.ok, report.entries) == (True, committed), (points[number], report)
        with AuditLog(place, key, ORIGIN) as log:
            assert log.append(entry()).index == committed
        assert verify_log(place, key.verify_key).state in ("closed", "served")


def test_what_was_acknowledged_survives_a_kill(place: Place, key: SigningKey) -> None:
    """A writer that is killed in full flight has lost nothing that a caller was told of."""
    reader, writer = FORK.Pipe(duplex=False)

    def child() -> None:
        log = AuditLog(place, fixed_key(), ORIGIN)
        while True:
            writer.send(log.append(entry()).index)

    process = FORK.Process(target=child)
    process.start()
    while reader.recv() < 20:
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    last = 20
    while reader.poll():
        last = reader.recv()
    report = verify_log(place, key.verify_key)
    assert report.ok, report.faults
    assert report.entries >= last + 1


def test_a_log_with_any_byte_changed_does_not_verify(
    path: Path, tmp_path: Path, key: SigningKey
) -> None:
    """Header, pages, unused space and the seal, each byte alone; and it is refused for writing."""
    fill(path, key)
    copy = copy_store(path, tmp_path / "copy")
    for place in flips(copy, offsets(copy.stat().st_size, seed=2, count=150)):
        report = verify_log(copy, key.verify_key)
        assert any("audit.db was changed" in fault for fault in report.faults), place
        if place % 5 == 0:
            with pytest.raises(TamperedStore, match=r"audit\.db was changed"):
                AuditLog(copy, key, ORIGIN)
    seal = copy.with_name("audit.db.seal")
    for place in flips(seal, list(range(seal.stat().st_size))):
        assert any("seal" in fault for fault in verify_log(copy, key.verify_key).faults), place
        if place % 5 == 0:
            with pytest.raises(TamperedStore):
                AuditLog(copy, key, ORIGIN)
    assert verify_log(copy, key.verify_key).ok


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("cut", "bytes, its seal says"),
        ("extended", "bytes, its seal says"),
        ("no database", "audit.db is missing"),
        ("no seal", "audit.db.seal is missing"),
        ("planted", "audit.db-wal appeared"),
    ],
)
def test_a_log_that_was_cut_extended_or_lost_a_file_does_not_verify(
    path: Path, key: SigningKey, change: str, expected: str
) -> None:
    """What happened to the files is named."""
    fill(path, key)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif change == "extended":
        path.write_bytes(path.read_bytes() + b"\0")
    elif change == "planted":
        path.with_name("audit.db-wal").write_bytes(b"x")
    else:
        path.with_name("audit.db" if change == "no database" else "audit.db.seal").unlink()
    report = verify_log(path, key.verify_key)
    assert any(expected in fault for fault in report.faults), report.faults
    with pytest.raises(TamperedStore):
        AuditLog(path, key, ORIGIN)


TAMPERINGS = {
    "changed": (
        [f'UPDATE leaves SET body = {BYTES} WHERE "index" = 4'],
        "one of the entries 4 to 4 was changed",
    ),
    "refiled": (["UPDATE leaves SET kind = 'key' WHERE \"index\" = 0"], "entry 0 is filed under"),
    "removed": (['DELETE FROM leaves WHERE "index" = 4'], "entry 4 is missing; entry 5 follows"),
    "swapped": (
        [
            'UPDATE leaves SET "index" = -1 WHERE "index" = 2',
            'UPDATE leaves SET "index" = 2 WHERE "index" = 3',
            'UPDATE leaves SET "index" = 3 WHERE "index" = -1',
        ],
        "one of the entries 2 to 2 was changed",
    ),
    "inserted": (
        ['INSERT INTO leaves SELECT 12, kind, body FROM leaves WHERE "index" = 0'],
        "entries 12 to 12 are covered by no checkpoint",
    ),
    "cut with its checkpoints": (
        ['DELETE FROM leaves WHERE "index" >= 8', "DELETE FROM checkpoints WHERE size > 8"],
        "the log has 8 entries, it was sealed with 12",
    ),
    "emptied": (
        ["DELETE FROM leaves", "DELETE FROM checkpoints"],
        "the log has 0 entries, it was sealed with 12",
    ),
    "cut": (['DELETE FROM leaves WHERE "index" >= 8'], "entries 8 to 8 are missing"),
    "checkpoint changed": (
        ["UPDATE checkpoints SET note = replace(note, '\n5\n', '\n6\n') WHERE size = 5"],
        "checkpoint of size 5",
    ),
    "malformed": ([f'UPDATE leaves SET body = {BYTES} WHERE "index" = 3'], "entry 3 is malformed"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_log_changed_after_a_crash_is_found_by_its_tree(
    places: Places, place: Place, key: SigningKey, name: str
) -> None:
    """Without a seal over the bytes, tree and head still show what was changed, and where."""
    fill(place, key)
    log = AuditLog(place, key, ORIGIN)  # its opening is on record; then it ends without closing
    log._database.close(seal=False)
    assert verify_log(place, key.verify_key).state == broken_off(place)
    statements, expected = TAMPERINGS[name]
    body = {"changed": entry(9, KINDS[4]).to_bytes(), "malformed": b"17"}.get(name, b"").hex()
    spelled = f"'\\x{body}'::bytea" if isinstance(place, Postgres) else f"x'{body}'"
    places.tamper(place, "checkpoints")
    places.tamper(place, "leaves", *(each.replace(BYTES, spelled) for each in statements))
    report = verify_log(place, key.verify_key)
    assert any(expected in fault for fault in report.faults), report.faults
    with pytest.raises(TamperedStore, match="will not be opened for writing"):
        AuditLog(place, key, ORIGIN)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leaves SET kind = 'key'",
        "DELETE FROM leaves",
        "UPDATE checkpoints SET size = 99 WHERE size = 5",
        "DELETE FROM checkpoints",
    ],
)
def test_the_database_refuses_to_change_the_log(
    places: Places, place: Place, key: SigningKey, statement: str
) -> None:
    """Whoever may use the tables may only add to them."""
    fill(place, key, 5)
    with pytest.raises(Exception, match="the audit log is append-only"):
        places.sql(place, statement)


def test_an_earlier_genuine_state_is_caught_by_a_remembered_checkpoint(
    path: Path, tmp_path: Path, key: SigningKey
) -> None:
    """Putting database and seal back verifies by itself; a checkpoint kept elsewhere shows it."""
    fill(path, key, 5)
    copy_store(path, tmp_path / "old")
    fill(path, key, 5)
    with read_log(path) as reader:
        remembered = Checkpoint.open(str(reader.checkpoint()), ORIGIN, key.verify_key)
    for file in (tmp_path / "old").iterdir():
        shutil.copy2(file, path.parent / file.name)
    report = verify_log(path, key.verify_key)
    assert report.ok
    assert report.entries < remembered.size


def test_a_log_of_another_name_or_key_is_refused(place: Place, key: SigningKey) -> None:
    """Origin and key are part of what a log is."""
    fill(place, key)
    with pytest.raises((AuditError, TamperedStore), match=r"'example\.org/other'"):
        AuditLog(place, key, "example.org/other")
    with pytest.raises(TamperedStore):
        AuditLog(place, fixed_key(8), ORIGIN)
    assert not verify_log(place, key.verify_key, origin="example.org/other").ok
    assert not verify_log(place, fixed_key(8).verify_key).ok
    assert verify_log(place, key.verify_key, origin=ORIGIN).ok


def test_entries_are_read_by_position_and_kind(
    places: Places, place: Place, key: SigningKey
) -> None:
    """In order, filtered, with their positions; proofs for what is not there are refused."""
    fill(place, key)
    with read_log(place) as reader:
        assert len(reader) == 12
        assert [e.index for e in reader.entries(kinds=["call"])] == [0, 6]
        assert [e.index for e in reader.entries(start=3, stop=5)] == [3, 4]
        assert next(reader.entries(start=7)).entry == entry(7, KINDS[1])
        with pytest.raises(ValueError, match="size=13"):
            reader.prove_inclusion(0, 13)
    with pytest.raises(StoreError, match="there is no audit log"), read_log(places("x")):
        pass


def test_text_digests_are_keyed_by_log_and_key(tmp_path: Path, key: SigningKey) -> None:
    """The same text gives one digest in a log, and another under another origin or key."""
    digests = set()
    for number, (signer, origin) in enumerate(
        [(key, ORIGIN), (key, "example.org/other"), (fixed_key(8), ORIGIN)]
    ):
        with AuditLog(tmp_path / f"{number}.db", signer, origin) as log:
            assert log.text_digest("Anna") == log.text_digest("Anna") != log.text_digest("Anne")
            digests.add(log.text_digest("Anna"))
    assert len(digests) == 3


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x" * 201},
        {"text": "two\nlines"},
        {"Text": "x"},
        {"nested": {"a": {"b": 1}}},
        {"items": [1, 2]},
        {"raw": b"x"},
        {"share": float("nan")},
        {"count": 2**60},
        {"counts": {"<script>": 1}},
        {str(i): i for i in range(3)},
        {f"k{i}": i for i in range(201)},
    ],
)
def test_an_entry_cannot_carry_a_text_or_a_deep_structure(data: dict[str, object]) -> None:
    """Digests, counts and short words only; the error repeats no value."""
    with pytest.raises(AuditEntryInvalid) as caught:
        AuditEntry.now("call", "app-1", data)
    assert "xxx" not in str(caught.value)


def test_an_entry_has_a_known_kind_and_a_utc_time() -> None:
    """What nobody can filter or order by is refused."""
    with pytest.raises(AuditEntryInvalid, match="kind"):
        entry(0, "chat")
    with pytest.raises(AuditEntryInvalid, match="at"):
        AuditEntry("call", "2026-01-31T12:00:00", "app-1", {})
    with pytest.raises(AuditEntryInvalid, match="actor"):
        AuditEntry.now("call", "a\nb", {})


@given(
    st.dictionaries(
        st.from_regex(r"\A[a-z][a-z0-9_]{0,9}\Z"),
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text("abcé中 -", max_size=20)
        | st.lists(st.text("abc", max_size=5), max_size=3)
        | st.dictionaries(st.text("ABC_", min_size=1, max_size=5), st.integers(0, 99), max_size=3),
        max_size=5,
    )
)
def test_an_entry_comes_back_from_its_leaf(data: dict[str, object]) -> None:
    """The stored bytes say everything and have one spelling."""
    one = AuditEntry.now("run_step", "hub", data)
    assert AuditEntry.from_bytes(one.to_bytes()) == one
    with pytest.raises(AuditEntryInvalid):
        AuditEntry.from_bytes(one.to_bytes() + b" ")


def test_the_form_of_an_entry_is_fixed() -> None:
    """Its bytes are the leaves of the tree: they change with a new version only."""
    data = {"release": "r-1", "entities": {"PERSON": 2}, "restored": True, "tokens": 17}
    one = AuditEntry("call", "2026-01-31T12:00:00.000000+00:00", "app-1", data)
    assert one.to_bytes() + b"\n" == GOLDEN.read_bytes()
