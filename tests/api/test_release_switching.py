"""Releases that change while the service answers: nothing is mixed, dropped or late."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.channels import Channel, ChannelEvent, PromotionRefused, replayed
from api.channels_table import ChannelStore
from api.engines.base import Finished, GenerationRequest, Message, TextDelta, Usage
from api.engines.switching import SwitchingEngine
from api.errors import EngineError
from api.releases import Releases
from api.rollout import Rollout
from privacy.errors import ReleaseInvalid, TamperedStore
from privacy.release import VerifiedRelease
from privacy.signing import SigningKey
from tests.api.service_kit import Factory
from tests.api.test_chat import URL, chat

A, B, C = (f"r-{letter * 20}" for letter in "abc")


class _Named:
    """Answers with the id of its release, in pieces; counts what happens to it."""

    def __init__(self, release: str) -> None:
        self._id = release
        self.closed = False

    def models(self) -> list[str]:
        return [self._id]

    def generate(self, request: GenerationRequest) -> Any:
        raise NotImplementedError

    def stream(self, request: GenerationRequest) -> Iterator[TextDelta | Finished]:
        usage = Usage(1, 1)
        for piece in (self._id[:7], self._id[7:]):
            if self.closed:
                raise EngineError("the release went while it answered")
            yield TextDelta(piece, usage)
        yield Finished("stop", usage)


def _release(name: str) -> VerifiedRelease:
    return SimpleNamespace(id=name, personal={})  # type: ignore[return-value]


def _close(release: str, engine: Any) -> None:
    engine.closed = True


class _Store:
    """Promotions in memory."""

    def __init__(self) -> None:
        self.events: list[ChannelEvent] = []

    def version(self) -> int:
        return len(self.events)

    def channels(self) -> dict[str, Channel]:
        return replayed(self.events)

    def add(self, kind: str, release: str = "", percent: int = 0) -> None:
        self.events.append(ChannelEvent(kind, "intramural", release, percent))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChannelStore]:
    """A store of promotions on disk."""
    opened = ChannelStore(tmp_path / "channels.db", SigningKey.generate())
    yield opened
    opened.close()


def test_ten_thousand_requests_across_a_hundred_switches_are_never_mixed() -> None:
    """Each answer is wholly of the release that it names; none fails while releases come and go."""
    store, releases = _Store(), Releases()
    names = [f"r-{number:020x}" for number in range(100)]
    engine = SwitchingEngine(lambda release: _Named(release.id), _close)
    store.add("stable", names[0])
    # A release stays for a moment after the last channel left it, as in the service.
    rollout = Rollout(store, _release, engine, releases, linger=0.5)
    rollout.start()
    # Request 101 k waits for switch k, and switch k for the requests before it, but those under way.
    turn = threading.Condition()
    counts = {"switched": 0, "answered": 0}

    def ask(number: int) -> tuple[str, str]:
        with turn:
            turn.wait_for(lambda: counts["switched"] >= number // 101, timeout=60)
        chosen = releases.choose("intramural", principal=str(number))
        assert chosen is not None
        request = GenerationRequest(chosen, (Message("user", "who?"),))
        text = "".join(one.text for one in engine.stream(request) if isinstance(one, TextDelta))
        with turn:
            counts["answered"] += 1
            turn.notify_all()
        return chosen, text

    def switch() -> None:
        for number, name in enumerate(names[1:], start=1):
            with turn:
                turn.wait_for(lambda due=101 * number - 20: counts["answered"] >= due, timeout=60)
            store.add("stable", name)
            rollout.refresh()
            _until(lambda name=name: releases.channels["intramural"].stable == name)
            with turn:
                counts["switched"] = number
                turn.notify_all()

    switcher = threading.Thread(target=switch)
    switcher.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(10_000)))
    finally:
        switcher.join()
        rollout.close()
    assert all(text == name for name, text in answers)
    assert {name for name, _ in answers} == set(names)


def test_an_answer_ends_on_the_release_it_began_with() -> None:
    """A release that is taken out goes only when its last answer has ended."""
    closed: list[str] = []
    engine = SwitchingEngine(
        lambda release: _Named(release.id), lambda name, one: closed.append(name)
    )
    engine.load(_release(A))
    held = engine.stream(GenerationRequest(A, (Message("user", "who?"),)))
    first = next(held)
    engine.load(_release(B))
    engine.unload(A)
    assert (engine.models(), closed) == ([B], [])
    rest = list(held)
    assert isinstance(first, TextDelta)
    assert first.text + "".join(x.text for x in rest if isinstance(x, TextDelta)) == A
    assert closed == [A]


def test_a_rollback_takes_effect_within_a_second() -> None:
    """While another release is still loading, a rollback is served within a second."""
    store, releases = _Store(), Releases()
    slow = threading.Event()

    def find(name: str) -> VerifiedRelease:
        if name == C:
            slow.wait(30)
        return _release(name)

    engine = SwitchingEngine(lambda release: _Named(release.id), _close)
    for name in (A, B):
        store.add("stable", name)
    rollout = Rollout(store, find, engine, releases)
    rollout.start()
    try:
        assert rollout.load_next() or set(engine.loaded()) == {A, B}
        _until(lambda: set(releases) == {A, B})
        store.add("canary", C, 50)
        rollout.refresh()
        store.add("rollback")
        store.add("rollback")
        began = time.monotonic()
        _until(lambda: releases.channels["intramural"].stable == A)
        assert time.monotonic() - began < 1.0
    finally:
        slow.set()
        rollout.close()


def _until(holds: Any) -> None:
    ends = time.monotonic() + 10
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError
        threading.Event().wait(0.01)


@pytest.mark.parametrize("error", [ReleaseInvalid("changed"), EngineError("another base model")])
def test_what_does_not_verify_or_load_is_not_served(error: Exception) -> None:
    """A promotion that cannot be served changes nothing; the release before goes on."""
    store, releases = _Store(), Releases()

    def find(name: str) -> VerifiedRelease:
        if name == B:
            raise error
        return _release(name)

    engine = SwitchingEngine(lambda release: _Named(release.id))
    store.add("stable", A)
    rollout = Rollout(store, find, engine, releases)
    rollout.start()
    rollout.close()
    store.add("stable", B)
    rollout.refresh()
    rollout.load_next()
    assert releases.choose("intramural", principal="p") == A
    assert engine.models() == [A]


def test_nothing_is_switched_that_cannot_be_recorded() -> None:
    """Where the audit log takes no entry about a promotion, the release before goes on."""
    store, releases = _Store(), Releases()
    store.add("stable", A)
    available = [True]

    def told(channels: Any) -> None:
        if not available[0]:
            raise OSError("disk full")

    engine = SwitchingEngine(lambda release: _Named(release.id))
    rollout = Rollout(store, _release, engine, releases, told=told)
    rollout.start()
    rollout.close()
    store.add("stable", B)
    available[0] = False
    rollout.refresh()
    with pytest.raises(OSError, match="disk full"):
        rollout.load_next()
    assert releases.choose("intramural", principal="p") == A


@pytest.mark.statistical
def test_a_canary_answers_its_share_of_the_principals() -> None:
    """10 % of 20,000 principals within 1 %, always the same (false alarm below 1e-5, binomial)."""
    channel = Channel("intramural", A, B, 10)
    names = [f"app-{number}" for number in range(20_000)]
    picked = {name: channel.pick(name) for name in names}
    share = sum(pick[0] == B for pick in picked.values()) / len(names)
    assert 0.09 < share < 0.11
    assert all(channel.pick(name) == pick for name, pick in picked.items())
    other = Channel("intramural", A, C, 10)
    both = sum(picked[name][0] == B and other.pick(name)[0] == C for name in names)
    assert 120 < both < 290
    assert Channel("intramural", A, B, 0).pick("app") == [A]
    assert Channel("intramural", A, B, 100).pick("app") == [B, A]


def test_departments_get_their_own_and_grants_choose() -> None:
    """The alias is a department's own release where there is one; what is not usable gives way."""
    shared, own = Channel("intramural", A, B, 100), Channel("intramural.hr", C)
    releases = Releases(map(_release, (A, B, C)), channels=(shared, own))
    assert releases.choose("intramural", principal="p", department="hr") == C
    assert releases.choose("intramural", principal="p", department="it") == B
    assert releases.choose(A, principal="p", department="hr") == A
    assert releases.choose("other", principal="p") is None
    granted = releases.choose(
        "intramural", principal="p", department="hr", usable=lambda release: release == A
    )
    assert granted == A


def test_rollbacks_undo_promotions_in_order() -> None:
    """A rollback ends a canary, then goes back step by step, and refuses at the first release."""
    store = _Store()
    for kind, release, percent in (("stable", A, 0), ("stable", B, 0), ("canary", C, 5)):
        store.add(kind, release, percent)
    assert store.channels()["intramural"] == Channel("intramural", B, C, 5, (A,))
    store.add("rollback")
    assert store.channels()["intramural"] == Channel("intramural", B, earlier=(A,))
    store.add("rollback")
    assert store.channels()["intramural"] == Channel("intramural", A)
    store.add("rollback")
    with pytest.raises(PromotionRefused, match="first release"):
        store.channels()


@pytest.mark.parametrize(
    ("name", "release", "channel", "percent"),
    [
        ("intramural", "../x", "stable", 0),
        (A, A, "stable", 0),
        ("a b", A, "stable", 0),
        ("intramural", A, "canary", 10),
    ],
)
def test_senseless_promotions_are_refused(
    store: ChannelStore, name: str, release: str, channel: Any, percent: int
) -> None:
    """Neither a path nor a release id is a name, and a canary needs a stable release beside it."""
    with pytest.raises(PromotionRefused):
        store.promote(name, release, channel, percent)
    assert (store.version(), store.channels()) == (0, {})


def test_promotions_are_kept_and_shared(tmp_path: Path) -> None:
    """What one process promotes another sees at once; it is there after a restart, and sealed."""
    path, key = tmp_path / "channels.db", SigningKey.generate()
    one, two = ChannelStore(path, key), ChannelStore(path, key)
    one.promote("intramural", A)
    assert two.channels()["intramural"].stable == A
    two.promote("intramural", B, "canary", 25)
    assert (one.version(), one.channels()["intramural"].percent) == (2, 25)
    one.close()
    two.close()
    again = ChannelStore(path, key)
    assert again.channels()["intramural"] == Channel("intramural", A, B, 25)
    again.close()
    path.write_bytes(path.read_bytes().replace(B.encode(), C.encode()))
    with pytest.raises(TamperedStore):
        ChannelStore(path, key)


def test_a_service_switches_between_two_calls(
    make_service: Factory, published: VerifiedRelease
) -> None:
    """The same alias answers with another release after a switch; body and header name it."""
    first = published.id
    engine = SwitchingEngine(lambda release: _Named(release.id), _close)
    releases = Releases([published, _release(B)], channels=[Channel("intramural", first)])
    for release in releases.values():
        engine.load(release)
    service = make_service(engine=engine, releases=releases)
    client = service.client()
    seen = []
    for stable in (first, B):
        releases.replace(list(releases.values()), [Channel("intramural", stable)])
        answer = client.post(URL, json=chat("who?"))
        content = answer.json()["choices"][0]["message"]["content"]
        seen.append((answer.json()["model"], answer.headers["x-intramural-release"], content))
    assert seen == [(first,) * 3, (B,) * 3]
    engine.unload(B)
    gone = client.post(URL, json=chat("who?"))
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "engine_unavailable")
