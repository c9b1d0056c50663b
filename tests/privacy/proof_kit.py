"""What the tests of the proofs share: a fixed key, crashes at named points, changed bytes."""

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import crashpoints
from privacy.dp.events import PoissonGaussian
from privacy.receipts import Receipt
from privacy.signing import SigningKey

FORK = multiprocessing.get_context("fork")
SHA = "0123456789abcdef" * 4
EVENT = PoissonGaussian(sampling_rate=0.25, noise_multiplier=1.5, steps=6)


def fixed_key(byte: int = 7) -> SigningKey:
    """The same key in every run, for golden files."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32))


def receipt(key: SigningKey, **changes: Any) -> Receipt:
    """A receipt with plausible fields."""
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "round": 1,
        "department": "hr",
        "block": "1",
        "event": EVENT,
        "epsilon": 2.5,
        "lifetime_epsilon": 3.5,
        "delta": 1e-5,
        "unit": "record",
        "policy_digest": "a" * 64,
        "code_digest": "b" * 64,
        "adapter_before": "c" * 64,
        "adapter_after": "d" * 64,
        "key_id": key.key_id,
    }
    return Receipt(**{**fields, **changes})


def points_of(scenario: Callable[[], None]) -> list[str]:
    """Every crash point that a scenario passes, in order."""
    points: list[str] = []
    crashpoints.install(points.append)
    try:
        scenario()
    finally:
        crashpoints.install(None)
    return points


def kill_at(number: int, scenario: Callable[[], None]) -> None:
    """Run a scenario in a process that gets SIGKILL at its ``number``-th crash point (from 0)."""

    def child() -> None:
        seen = 0

        def handler(point: str) -> None:
            nonlocal seen
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        crashpoints.install(handler)
        scenario()

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def copy_store(path: Path, folder: Path) -> Path:
    """Copy a store with all its side files into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in path.parent.glob(path.name + "*"):
        shutil.copy2(file, folder / file.name)
    return folder / path.name


def offsets(size: int, *, seed: int, count: int) -> list[int]:
    """Places to change: the whole header, both ends of every page, and ``count`` random ones."""
    edges = {i for page in range(0, size, 4096) for i in (page, page + 8, page + 4095) if i < size}
    drawn = random.Random(seed).sample(range(size), min(count, size))
    return sorted({*range(min(size, 100)), *edges, *drawn, size - 1})


def flips(file: Path, places: list[int]) -> Iterator[int]:
    """Change one byte of the file after the other, each time only that one; then restore it."""
    original = file.read_bytes()
    for place in places:
        changed = bytearray(original)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        yield place
    file.write_bytes(original)
