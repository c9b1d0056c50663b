"""One audit log, several processes that write it: no fork, no gap, no loss; in either database."""

import os
import signal
import threading
from pathlib import Path

import pytest
from proof_kit import FORK, fixed_key

from privacy import crashpoints
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog, read_log, verify_log
from privacy.errors import AuditUnavailable, StoreBusy, TamperedStore
from privacy.signing import SigningKey
from privacy.store.place import Place, Postgres
from tests.postgres_kit import Cluster, Places

ORIGIN = "example.org/audit"


def entry(writer: int, number: int) -> AuditEntry:
    """An entry that can be told from others."""
    return AuditEntry.now("call", f"app-{writer}", {"number": number})


@pytest.fixture
def place(places: Places) -> Place:
    """Where the log is: in either database."""
    return places("audit")


def test_processes_lose_and_repeat_nothing(place: Place, key: SigningKey) -> None:
    """Three processes of four threads of five appends: each once, every index given once."""
    told = FORK.SimpleQueue()

    def work(writer: int) -> None:
        with AuditLog(place, fixed_key(), ORIGIN, timeout=60) as log:

            def append(thread: int) -> None:
                for number in range(5 * thread, 5 * thread + 5):
                    done = log.append(entry(writer, number))
                    told.put((writer, number, done.index))

            threads = [threading.Thread(target=append, args=(each,)) for each in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    processes = [FORK.Process(target=work, args=(writer,)) for writer in range(3)]
    for process in processes:
        process.start()
    answers = {index: (writer, number) for writer, number, index in (told.get() for _ in range(60))}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(answers) == list(range(60))
    with read_log(place) as reader:
        stored = {
            each.index: (int(each.entry.actor[4:]), each.entry.data["number"])
            for each in reader.entries()
        }
    assert stored == answers
    report = verify_log(place, key.verify_key)
    assert (report.ok, report.entries) == (True, 60)


def test_a_killed_writer_leaves_the_others_writing(place: Place, key: SigningKey) -> None:
    """SIGKILL with the write lock held: the others go on, and nothing acknowledged is lost."""
    reader, writer = FORK.Pipe(duplex=False)
    parent = os.getpid()

    def child() -> None:
        log = AuditLog(place, fixed_key(), ORIGIN)
        writer.send(log.append(entry(1, 0)).index)

        def die(point: str) -> None:
            if point == "audit.before-commit" and os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        crashpoints.install(die)
        log.append(entry(1, 1))

    with AuditLog(place, key, ORIGIN) as log:
        assert log.append(entry(0, 0)).index == 0
        process = FORK.Process(target=child)
        process.start()
        assert reader.recv() == 1
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert log.append(entry(0, 1)).index == 2
    report = verify_log(place, key.verify_key)
    assert (report.ok, report.entries) == (True, 3)


def test_a_log_verifies_while_two_write_it(place: Place, key: SigningKey) -> None:
    """Neither waits for the reader, and each continues from the other's entries."""
    with AuditLog(place, key, ORIGIN) as one, AuditLog(place, key, ORIGIN) as two:
        for number in range(4):
            assert one.append(entry(1, number)).index == 2 * number
            assert two.append(entry(2, number)).index == 2 * number + 1
            report = verify_log(place, key.verify_key)
            assert (report.ok, report.entries) == (True, 2 * number + 2)
            assert report.state == ("served" if isinstance(place, Postgres) else "in_use")
        one.close()
        assert two.append(entry(2, 9)).checkpoint_size == 9
    assert verify_log(place, key.verify_key).ok


UNDERNEATH = {
    "cut": ['DELETE FROM leaves WHERE "index" >= 4', "DELETE FROM checkpoints WHERE size > 4"],
    "emptied": ["DELETE FROM leaves", "DELETE FROM checkpoints"],
    "moved": ['UPDATE leaves SET "index" = 9 WHERE "index" = 5'],
    "renamed": ["UPDATE checkpoints SET note = replace(note, 'example', 'exempla') WHERE size = 6"],
}


@pytest.mark.parametrize("name", UNDERNEATH)
def test_what_was_changed_underneath_is_not_continued(
    places: Places, place: Place, key: SigningKey, name: str
) -> None:
    """A writer knows the tree that it saw; a log that does not go on from there gets no entry."""
    with AuditLog(place, key, ORIGIN) as log:
        log.append(entry(0, 0))
        log.append(entry(0, 1))
    one, two = AuditLog(place, key, ORIGIN), AuditLog(place, key, ORIGIN)
    one.append(entry(1, 0))
    for number in range(3):
        two.append(entry(2, number))
    places.tamper(place, "checkpoints")
    places.tamper(place, "leaves", *UNDERNEATH[name])
    log = two if name == "cut" else one  # one never saw what was cut off
    with pytest.raises(AuditUnavailable, match="accepts nothing more"):
        log.append(entry(0, 2))
    assert not log.available
    for each in (one, two):
        each._database.close(seal=False)
    if name == "cut":
        return  # a genuine earlier state: only who saw a later one knows
    assert not verify_log(place, key.verify_key).ok
    with pytest.raises(TamperedStore):
        AuditLog(place, key, ORIGIN)


def test_a_locked_database_refuses_and_then_goes_on(
    place: Place, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting has an end; whoever waited hears of it, and the log takes entries once it is free."""
    import privacy.store.postgres
    import privacy.store.schema

    with AuditLog(place, key, ORIGIN) as holder:
        for module in (privacy.store.schema, privacy.store.postgres):
            monkeypatch.setattr(module, "BUSY_SECONDS", 1.0)
        with AuditLog(place, key, ORIGIN) as log:
            with holder._database.write(), pytest.raises(AuditUnavailable, match="stayed locked"):
                log.append(entry(0, 0))
            assert log.available
            assert log.append(entry(0, 1)).index == 0


def test_a_lost_server_is_found_again(postgres: Cluster, tmp_path: Path, key: SigningKey) -> None:
    """While the server is away appends are refused and the log says so; then it goes on by itself."""
    place = Places(tmp_path, postgres, "lost")("audit")
    with AuditLog(place, key, ORIGIN) as log:
        assert log.append(entry(0, 0)).index == 0
        postgres.stop()
        try:
            for _ in range(2):
                with pytest.raises(AuditUnavailable, match="cannot be reached"):
                    log.append(entry(0, 1))
            assert not log.available
        finally:
            postgres.start()
        assert log.available
        assert log.append(entry(0, 2)).index == 1
    assert verify_log(place, key.verify_key).ok


def test_a_file_that_is_kept_from_others_is_waited_for(tmp_path: Path, key: SigningKey) -> None:
    """Somebody who opens the file alone for too long is named as the reason."""
    from privacy.store.lock import FileLock

    path = tmp_path / "audit.db"
    AuditLog(path, key, ORIGIN).close()
    with FileLock(tmp_path / "audit.db.lock") as lock:
        assert lock.try_exclusive()
        with pytest.raises(StoreBusy, match="in use by another process"):
            AuditLog(path, key, ORIGIN, timeout=0.0)
