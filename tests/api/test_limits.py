"""Rates, places and slots: exact limits, in the process and in Redis, and nobody waits for ever."""

import time
from collections.abc import Callable

import anyio
import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import HttpError
from api.limits import Charge, LocalRates, Rates, Slots, Standing, Together
from api.limits_redis import RedisRates


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """One implementation of the port, and the clock that it goes by."""

    def __init__(self, rates: Rates, forward: Callable[[float], None]) -> None:
        self.rates = rates
        self.forward = forward

    async def take(self, *charges: Charge) -> list[Standing]:
        """See the port."""
        return await self.rates.take(charges)


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


@pytest.fixture(params=["local", "redis"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Both implementations, each under a clock that stands still until it is moved."""
    if request.param == "local":
        clock = Clock()

        def forward(seconds: float) -> None:
            clock.now += seconds

        return Bench(LocalRates(clock), forward)
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])  # by which the fake server goes

    def move(seconds: float) -> None:
        now[0] += seconds

    return Bench(RedisRates(fakeredis.FakeAsyncRedis()), move)


def one(per_minute: int, cost: int = 1, bucket: str = "b", *, owed: bool = False) -> Charge:
    """A charge."""
    return Charge(bucket, per_minute, cost, owed)


@pytest.mark.anyio
async def test_a_whole_minute_may_be_spent_at_once(bench: Bench) -> None:
    """The limit is a rate, not a rhythm: the burst is exactly one minute's, other buckets apart."""
    standings = [(await bench.take(one(5)))[0] for _ in range(6)]
    assert [standing.wait for standing in standings[:5]] == [0.0] * 5
    assert [standing.left for standing in standings] == [4, 3, 2, 1, 0, 0]
    assert standings[5].wait == pytest.approx(12.0, abs=1e-3)
    assert standings[5].full == pytest.approx(60.0, abs=1e-3)
    assert (await bench.take(one(5, bucket="other")))[0].wait == 0.0


@pytest.mark.anyio
async def test_who_waits_as_told_is_let_in(bench: Bench) -> None:
    """The wait that is told is enough."""
    for _ in range(3):
        await bench.take(one(3))
    for _ in range(5):
        (refused,) = await bench.take(one(3))
        assert refused.wait > 0
        bench.forward(refused.wait + 1e-5)
        assert (await bench.take(one(3)))[0].wait == 0.0


@pytest.mark.anyio
async def test_all_charges_or_none(bench: Bench) -> None:
    """A request that one bucket refuses costs the others nothing."""
    await bench.take(one(1, bucket="narrow"))
    wide, narrow = await bench.take(one(10, bucket="wide"), one(1, bucket="narrow"))
    assert wide.wait == 0.0
    assert narrow.wait > 0
    assert (await bench.take(one(10, cost=0, bucket="wide")))[0].left == 10


@pytest.mark.anyio
async def test_what_was_used_is_owed_in_any_case(bench: Bench) -> None:
    """Tokens are charged once they are known; the debt is waited for before the next request."""
    assert (await bench.take(one(100, cost=0)))[0] == Standing(0.0, 100, 0.0)
    (charged,) = await bench.take(one(100, cost=250, owed=True))
    assert (charged.wait, charged.left) == (0.0, 0)
    (refused,) = await bench.take(one(100, cost=0))
    assert refused.wait == pytest.approx(90.6, abs=1e-3)
    bench.forward(refused.wait + 1e-5)
    assert (await bench.take(one(100, cost=0)))[0].wait == 0.0


@given(
    per_minute=st.integers(1, 20),
    waits=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=80),
)
def test_no_minute_holds_more_than_twice_the_limit_and_patience_always_pays(
    per_minute: int, waits: list[float]
) -> None:
    """A burst of one minute's requests, then one per interval; who waits as told is let in."""
    clock = Clock()
    rates = LocalRates(clock)

    def wait() -> float:
        return rates.take_now([one(per_minute)])[0].wait

    accepted: list[float] = []
    for pause in waits:
        clock.now += pause
        seconds = wait()
        if seconds:
            assert seconds <= 60 / per_minute + 1e-6
            clock.now += seconds
            assert wait() == 0
        accepted.append(clock.now)
    for start in accepted:
        span = [at for at in accepted if start <= at <= start + 60]
        assert len(span) <= 2 * per_minute + 1


def test_forgotten_keys_take_no_memory() -> None:
    """State is kept only for keys that it still concerns."""
    clock = Clock()
    rates = LocalRates(clock)
    for number in range(1000):
        rates.take_now([one(10, bucket=f"key-{number}")])
    clock.now = 130.0
    rates.take_now([one(10, bucket="last")])
    assert set(rates._arrivals) == {"last"}


@pytest.mark.anyio
async def test_redis_forgets_too_and_replicas_share() -> None:
    """A bucket expires by itself once it is full; two replicas count together."""
    server = fakeredis.FakeServer()
    first, second = (RedisRates(fakeredis.FakeAsyncRedis(server=server)) for _ in range(2))
    await first.take([one(2)])
    await second.take([one(2)])
    for rates in (first, second):
        assert (await rates.take([one(2)]))[0].wait > 0
    client = fakeredis.FakeRedis(server=server)
    (key,) = client.keys()
    assert 0 < client.pttl(key) <= 62_000


@pytest.mark.anyio
async def test_without_redis_nothing_is_let_in(caplog: pytest.LogCaptureFixture) -> None:
    """Limits that cannot be checked are not assumed to hold: 503, and no address in the log."""
    rates = RedisRates.connect("redis://:hidden-word@127.0.0.1:1/0", 0.2)
    with pytest.raises(HttpError) as caught:
        await rates.take([one(5)])
    assert (caught.value.status, caught.value.code) == (503, "limits_unavailable")
    assert "hidden-word" not in caplog.text + str(caught.value)
    await rates.close()


def test_a_malformed_redis_url_is_refused_without_repeating_it() -> None:
    """It may hold a password."""
    with pytest.raises(ValueError) as caught:
        RedisRates.connect("redis://:hidden-word@host:port/x", 1.0)
    assert "hidden-word" not in str(caught.value)


def test_places_of_each_bucket() -> None:
    """Beyond its places a bucket gets 429 with Retry-After; a place is free when its block ends."""
    together = Together()
    with together.one([("credential:a", 1), ("principal:p", 2)]):
        with pytest.raises(HttpError) as caught, together.one([("credential:a", 1)]):
            pytest.fail("there was no place")
        assert (caught.value.status, caught.value.code) == (429, "concurrency_limit_exceeded")
        assert "Retry-After" in caught.value.headers
        with together.one([("credential:b", 1), ("principal:p", 2)]):
            pass
    with together.one([("credential:a", 1)]):
        pass
    assert not together._running


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
