"""Entries of the hub's other processes reach the log of the one that owns it."""

import socket
import threading
from pathlib import Path

import pytest
from join_kit import Log

from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog, read_log
from privacy.errors import AuditUnavailable
from privacy.signing import SigningKey
from server.audit_socket import AuditServer, RemoteAudit


def entry(number: int = 0) -> AuditEntry:
    """Some fact."""
    return AuditEntry.now("key", "test", {"number": number})


def test_entries_are_durable_once_the_call_returns(tmp_path: Path) -> None:
    """Also those of many threads at once; none is lost and none is there twice."""
    with (
        AuditLog(tmp_path / "audit.db", SigningKey.generate(), "test/audit") as log,
        AuditServer(log, tmp_path / "s"),
    ):
        remote = RemoteAudit(tmp_path / "s")
        threads = [
            threading.Thread(target=remote.append, args=(entry(number),)) for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with read_log(tmp_path / "audit.db") as stored:
            numbers = sorted(item.entry.data["number"] for item in stored.entries())
    assert numbers == list(range(20))


def test_a_failed_log_is_told_to_the_sender(tmp_path: Path) -> None:
    """Nobody goes on in the belief that something is on record."""
    log = Log(broken=True)
    with AuditServer(log, tmp_path / "s"), pytest.raises(AuditUnavailable, match="disk is full"):
        RemoteAudit(tmp_path / "s").append(entry())


def test_nobody_there_is_told_as_such(tmp_path: Path) -> None:
    """A hub that does not run takes no entry."""
    with pytest.raises(AuditUnavailable, match="hub start"):
        RemoteAudit(tmp_path / "s").append(entry())


def test_junk_is_refused_and_the_next_entry_taken(tmp_path: Path) -> None:
    """A sender of something else gets an error, and the socket is its owner's alone."""
    log = Log()
    with AuditServer(log, tmp_path / "s"):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(tmp_path / "s"))
            connection.sendall(b'{"no": "entry"}\n')
            assert b"error" in connection.recv(1000)
        RemoteAudit(tmp_path / "s").append(entry(7))
    assert [item.data for item in log.entries] == [{"number": 7}]
    assert not (tmp_path / "s").exists()


def test_without_the_variable_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was not started by the hub is told how to start it."""
    monkeypatch.delenv("INTRAMURAL_AUDIT_SOCKET", raising=False)
    with pytest.raises(AuditUnavailable, match="hub start"):
        RemoteAudit.from_environment()
