"""A clock that jumps: nothing that has expired opens again, and nothing recorded is lost."""

from datetime import UTC, datetime, timedelta

import pytest

import api.clock
import privacy.audit.entries
from api.clock import SteadyClock, utc_now
from privacy.audit.log import verify_log
from tests.api.service_kit import POLICY, Factory
from tests.api.test_chat import URL, chat
from tests.api.test_tokens import SECTION, World

HOUR = 3600.0


class Clocks:
    """The wall clock, which is set, and the one that only goes on."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.passed = 0.0

    def go(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.passed += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Both clocks of the service, in the test's hands; audit entries are stamped by the wall clock."""
    made = Clocks()
    steady = SteadyClock(lambda: made.wall, lambda: made.passed)
    monkeypatch.setattr(api.clock, "_steady", steady)

    class Wall(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.fromtimestamp(made.wall, UTC)

    monkeypatch.setattr(privacy.audit.entries, "datetime", Wall)
    return made


def test_the_steady_clock_never_falls_behind_what_has_passed() -> None:
    """It follows the wall clock forwards; set back, it goes on from its start with what passed."""
    made = Clocks()
    start = made.wall
    clock = SteadyClock(lambda: made.wall, lambda: made.passed)
    made.go(10)
    assert clock() == start + 10
    made.wall += HOUR
    assert clock() == start + HOUR + 10
    made.wall -= 2 * HOUR
    assert clock() == start + 10
    made.go(5)
    assert clock() == start + 15


def test_expiries_hold_when_the_clock_jumps(make_service: Factory, clocks: Clocks) -> None:
    """API keys, tokens and sealed maps: shut while the clock is ahead, and never opened by one set back."""
    world = World()
    world.now = clocks.wall
    service = make_service(policy_text=POLICY + SECTION, fetch_keys=world.fetch)
    key, _ = service.keys.create("brief", "app", utc_now() + timedelta(seconds=60))
    token = world.token(exp=int(clocks.wall) + 60)  # and 30 seconds of leeway
    app = service.client()
    body = {"text": "Write to ada@example.org", "restorable": True, "expires_in": 60}
    redacted = app.post("/v1/redact", json=body).json()
    restore = {"token": redacted["token"], "text": redacted["text"]}

    def opens() -> list[int]:
        bearers = [
            service.client(None).get("/v1/models", headers={"Authorization": f"Bearer {text}"})
            for text in (key, token)
        ]
        return [answer.status_code for answer in (*bearers, app.post("/v1/restore", json=restore))]

    start = clocks.wall
    assert opens() == [200, 200, 200]
    clocks.wall = start + HOUR
    assert opens() == [401, 401, 400]
    clocks.wall = start
    assert opens() == [200, 200, 200]
    clocks.wall = start - HOUR
    clocks.go(59)
    assert opens() == [200, 200, 200]
    clocks.go(60)
    assert clocks.wall < start
    assert opens() == [401, 401, 400]


def test_the_log_is_whole_and_in_order_whatever_the_clock_says(
    make_service: Factory, clocks: Clocks
) -> None:
    """Entries stand in the order of the calls, not of their times; each call is counted once."""
    service = make_service()
    client = service.client()
    for jump in (0, -48 * HOUR, 96 * HOUR, -24 * HOUR):
        clocks.wall += jump
        assert client.post(URL, json=chat("Hello")).status_code == 200
    entries = service.entries()
    assert [entry.data["outcome"] for entry in entries] == ["ok"] * 4
    stamps = [entry.at for entry in entries]
    assert stamps != sorted(stamps)
    used = service.app.state.services.usage.lines(datetime.fromtimestamp(0, UTC).date())
    assert sum(made.requests for _, made in used) == 4
    service.audit.close()
    assert verify_log(service.audit.place, service.signing_key.verify_key).ok
