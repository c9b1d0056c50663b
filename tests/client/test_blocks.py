"""The block register: a unit has one block for ever, and only units without one are new."""

import multiprocessing
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from client.blocks import BlockRegister
from client.errors import AgentMisconfigured
from privacy import crashpoints

KEY = bytes(range(32))


def prints(*names: str) -> list[bytes]:
    return [sha256(name.encode()).digest() for name in names]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "blocks.json"


def test_only_units_of_no_other_block_belong_to_a_new_one(path: Path) -> None:
    """Old units are told apart from new ones, by a register that survives its process."""
    assert BlockRegister(path, KEY).claim("1", prints("a", "b")) == [True, True]
    register = BlockRegister(path, KEY)
    assert register.claim("2", prints("b", "c", "a")) == [False, True, False]
    assert register.claim("1", prints("a", "b", "c")) == [True, True, False]
    assert register.blocks() == ("1", "2")


def test_claiming_again_changes_nothing(path: Path) -> None:
    """The same claim gives the same answer and the same bytes."""
    register = BlockRegister(path, KEY)
    register.claim("1", prints("a", "b"))
    before = path.read_bytes()
    assert register.claim("1", prints("b", "a", "a")) == [True, True, True]
    assert register.claim("2", prints("a")) == [False]
    assert path.read_bytes() == before


def test_an_edited_unit_counts_as_new(path: Path) -> None:
    """The documented trap: the register cannot know it, so the lifetime epsilon has to cover it."""
    register = BlockRegister(path, KEY)
    register.claim("1", prints("Ada, 36"))
    assert register.claim("2", prints("Ada, 37")) == [True]


def test_the_file_says_nothing_about_the_units(path: Path) -> None:
    """Without the key a fingerprint cannot be looked up; only the owner reads the file."""
    BlockRegister(path, KEY).claim("1", prints("a"))
    (fingerprint,) = prints("a")
    assert fingerprint.hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", ["bit", "cut", "empty", "key", "moved"])
def test_a_register_that_was_changed_is_refused(path: Path, change: str) -> None:
    """Moving a unit to another block, or cutting the list, would make old units new."""
    BlockRegister(path, KEY).claim("1", prints("a", "b"))
    data = path.read_bytes()
    if change == "bit":
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif change == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "moved":
        path.write_bytes(data.replace(b'{"1":', b'{"2":'))
    key = bytes(32) if change == "key" else KEY
    with pytest.raises(AgentMisconfigured, match="damaged, or was written under another key"):
        BlockRegister(path, key).claim("2", prints("c"))


def test_names_keys_and_fingerprints_are_checked(path: Path) -> None:
    """What could not identify a unit or a block is refused before anything is written."""
    with pytest.raises(AgentMisconfigured, match="8 bytes"):
        BlockRegister(path, bytes(8))
    with pytest.raises(AgentMisconfigured, match="is no name"):
        BlockRegister(path, KEY).claim("../x", prints("a"))
    with pytest.raises(AgentMisconfigured, match="fewer than 16 bytes"):
        BlockRegister(path, KEY).claim("1", [b"short"])
    assert not path.exists()


@pytest.mark.parametrize("point", ["blocks.before-write", "files.before-rename"])
def test_a_crash_leaves_the_old_register_or_the_new_one(path: Path, point: str) -> None:
    """Killed before the rename, nothing was claimed, and the units can still be."""

    class Killed(BaseException):
        pass

    def handler(reached: str) -> None:
        if reached == point:
            raise Killed

    register = BlockRegister(path, KEY)
    register.claim("1", prints("a"))
    crashpoints.install(handler)
    try:
        with pytest.raises(Killed):
            register.claim("1", prints("b"))
    finally:
        crashpoints.install(None)
    assert BlockRegister(path, KEY).claim("2", prints("a", "b")) == [False, True]


def test_processes_that_claim_at_once_never_share_a_unit(path: Path) -> None:
    """Four processes claim the same units for four blocks: each unit gets exactly one."""
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(4), fork.SimpleQueue()
    units = [str(number) for number in range(40)]

    def claim(block: str) -> None:
        register = BlockRegister(path, KEY)
        barrier.wait()
        results.put([register.claim(block, prints(unit))[0] for unit in units])

    workers = [fork.Process(target=claim, args=(str(block),)) for block in range(4)]
    for worker in workers:
        worker.start()
    answers = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * len(units)
