"""Rates and slots: exact limits, and nobody waits for ever."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import HttpError
from api.limits import RateLimiter, Slots


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    per_minute=st.integers(1, 20),
    waits=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=80),
)
def test_no_minute_holds_more_than_twice_the_limit_and_patience_always_pays(
    per_minute: int, waits: list[float]
) -> None:
    """A burst of one minute's requests, then one per interval; who waits as told is let in."""
    clock = Clock()
    limiter = RateLimiter(clock)
    accepted: list[float] = []
    for wait in waits:
        clock.now += wait
        seconds = limiter.wait("key", per_minute)
        assert 0 <= seconds <= 60 / per_minute + 1e-6
        if seconds:
            clock.now += seconds
            assert limiter.wait("key", per_minute) == 0
        accepted.append(clock.now)
    for start in accepted:
        span = [at for at in accepted if start <= at <= start + 60]
        assert len(span) <= 2 * per_minute + 1


def test_a_whole_minute_may_be_spent_at_once() -> None:
    """The limit is a rate, not a rhythm: the burst is exactly one minute's requests."""
    limiter = RateLimiter(Clock())
    results = [limiter.wait("key", 5) for _ in range(6)]
    assert results[:5] == [0.0] * 5
    assert results[5] == pytest.approx(12.0)
    assert limiter.wait("other", 5) == 0.0


def test_forgotten_keys_take_no_memory() -> None:
    """State is kept only for keys that it still concerns."""
    clock = Clock()
    limiter = RateLimiter(clock)
    for number in range(1000):
        limiter.wait(f"key-{number}", 10)
    clock.now = 130.0
    limiter.wait("last", 10)
    assert set(limiter._arrivals) == {"last"}


@pytest.mark.anyio
async def test_slots_run_wait_and_refuse() -> None:
    """One runs, one waits and runs next, the third is refused at once with ``Retry-After``."""
    slots = Slots(1, 1, 60.0)
    order: list[str] = []
    release = anyio.Event()

    async def generation(name: str, hold: anyio.Event | None = None) -> None:
        async with slots.one():
            order.append(name)
            if hold is not None:
                await hold.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(generation, "first", release)
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(generation, "second")
        await anyio.lowlevel.checkpoint()
        with pytest.raises(HttpError) as caught:
            await generation("third")
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        assert int(caught.value.headers["Retry-After"]) >= 1
        release.set()
    assert order == ["first", "second"]


@pytest.mark.anyio
async def test_waiting_has_an_end() -> None:
    """Who waited too long is refused, and its place is free again."""
    slots = Slots(1, 1, 0.01)
    async with slots.one():
        for _ in range(2):
            with pytest.raises(HttpError) as caught:
                async with slots.one():
                    pytest.fail("there was no slot")
            assert caught.value.code == "overloaded"
    async with slots.one():
        pass


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"
