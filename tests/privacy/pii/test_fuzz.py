"""The fuzz targets hold on their corpus and on what is near it; the fuzzer itself runs by hand."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Broken, stream
from privacy.pii import restoring

CORPUS = Path(__file__).parents[3] / "fuzz" / "corpus"
SEEDS = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(("name", "path"), SEEDS, ids=[f"{n}-{p.name}" for n, p in SEEDS])
def test_every_seed_holds_and_so_do_its_neighbours(name: str, path: Path) -> None:
    """What the corpus keeps, and that with bytes changed, cut or doubled, breaks no promise."""
    seed = path.read_bytes()
    TARGETS[name](seed)
    dice = random.Random(path.name)
    for _ in range(12):
        data = bytearray(seed)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data) + 1)
            data[at : at + dice.randint(0, 3)] = dice.choice(
                (
                    b"",
                    b"<",
                    b"_1>",
                    b"\\",
                    b"\x00",
                    bytes([dice.randrange(256)]),
                    data[at : at + 5] * 2,
                )
            )
        TARGETS[name](bytes(data))


def test_every_target_has_seeds() -> None:
    """The corpus has a folder with seeds for each target, and no other."""
    assert {name for name, _ in SEEDS} == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=120))
def test_any_bytes_are_taken(name: str, data: bytes) -> None:
    """No bytes at all make a target fail."""
    TARGETS[name](data)


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restorer that forgets what it holds back fails the stream target."""
    monkeypatch.setattr(restoring.StreamRestorer, "flush", lambda self: "")
    with pytest.raises(Broken, match="cut changed"):
        stream(b"\x01\x00Dear <PERS")
