"""Refused attempts to join: bounded by address and in all, and on record, one by one or in sum."""

import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from join_kit import Hub, Log, Node

from client.joining import HubLink, PinnedHub, join
from privacy.joining import PATH, EnrolmentToken, JoinRefused, seal
from server.join_service import JoinService
from server.joining import JoinDesk
from server.refusals import WINDOW, Refusals


class Scene:
    """Refusals with a clock and a timer in the test's hand."""

    def __init__(self, per_address: int = 3, in_total: int = 5) -> None:
        self.now = 0.0
        self.log = Log()
        self.due: list[Callable[[], None]] = []
        self.refusals = Refusals(
            self.log,
            per_address=per_address,
            in_total=in_total,
            clock=lambda: self.now,
            later=self._later,
        )

    def _later(self, call: Callable[[], None]) -> Callable[[], None]:
        self.due.append(call)
        return lambda: self.due.remove(call)

    def wait(self, address: str = "192.0.2.1", code: str = "token_unknown") -> float:
        return self.refusals.wait(address, code)

    def sums(self) -> list[tuple[int, dict[str, int]]]:
        return [(e.data["attempts"], e.data["codes"]) for e in self.log.entries]


def test_an_address_is_told_so_often_and_waits_then() -> None:
    """The wait is exact: until the oldest of the window has left it."""
    scene = Scene()
    for number in range(3):
        scene.now = float(number)
        assert scene.wait() == 0.0
    assert scene.wait() == WINDOW - 2
    assert scene.wait("192.0.2.2") == 0.0
    scene.now = WINDOW
    assert scene.wait() == 0.0
    assert scene.wait() == 1.0


def test_all_addresses_together_have_a_bound() -> None:
    """However many there are, and nothing of them is kept."""
    scene = Scene()
    waits = [scene.wait(f"198.51.100.{number}") for number in range(200)]
    assert waits[:5] == [0.0] * 5
    assert set(waits[5:]) == {WINDOW}
    assert len(scene.refusals._told) == 5


@pytest.mark.parametrize(
    "addresses",
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:2::3"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"),
        ("fe80::1%eth0", "fe80::2", "fe80::1"),
        ("", "", ""),
    ],
)
def test_addresses_of_one_holder_are_one(addresses: tuple[str, str, str]) -> None:
    """A /64 of IPv6, IPv4 in either spelling, and what is no address at all."""
    scene = Scene(per_address=2)
    first, second, third = addresses
    assert (scene.wait(first), scene.wait(second)) == (0.0, 0.0)
    assert scene.wait(third) > 0.0


def test_what_was_not_told_is_on_record_in_sum() -> None:
    """One entry a window, with the attempts by code; none where there is nothing to tell."""
    scene = Scene()
    for code in ["token_unknown"] * 5 + ["malformed"] * 2:
        scene.wait(code=code)
    assert scene.sums() == []
    (timer,) = scene.due
    scene.due.clear()
    timer()
    assert scene.sums() == [(4, {"malformed": 2, "token_unknown": 2})]
    scene.refusals.close()
    assert len(scene.sums()) == 1
    scene.wait()
    scene.refusals.close()
    assert scene.due == []
    assert scene.sums()[1:] == [(1, {"token_unknown": 1})]


def test_no_attempt_is_lost_while_the_log_is_away() -> None:
    """They stay counted, and a later entry has them."""
    scene = Scene()
    for _ in range(5):
        scene.wait()
    scene.log.broken = True
    scene.due.pop()()
    assert scene.sums() == []
    assert len(scene.due) == 1
    scene.log.broken = False
    scene.wait()
    scene.due.pop()()
    assert scene.sums() == [(3, {"token_unknown": 3})]


# --- at the desk ----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub that tells two refusals an address."""
    made = Hub(tmp_path)
    made.desk = JoinDesk(
        made.members,
        made.key,
        made.facts,
        lambda: made.registry,
        made.log,
        clock=lambda: made.now,
        refusals=Refusals(made.log, per_address=2, later=lambda call: lambda: None),
    )
    return made


def guess(hub: Hub, address: str = "192.0.2.1") -> JoinRefused:
    """Somebody's attempt with a token that was never issued."""
    node = Node()
    request = node.request(EnrolmentToken.draw(hub.fingerprint))
    with pytest.raises(JoinRefused) as error:
        hub.desk.join(seal(request, node.key), address)
    return error.value


def test_guesses_end_in_429_and_one_entry(hub: Hub) -> None:
    """Two are told and noted by their code, the others wait, and the end of the hub notes them."""
    assert [guess(hub).code for _ in range(5)] == ["token_unknown"] * 2 + ["too_many_attempts"] * 3
    assert guess(hub).retry_after in range(1, 61)
    assert guess(hub, "192.0.2.2").code == "token_unknown"
    assert [entry.data["code"] for entry in hub.log.entries] == ["token_unknown"] * 3
    hub.desk.close()
    last = hub.log.entries[-1].data
    assert (last["step"], last["attempts"], last["codes"]) == (
        "refused_in_sum",
        4,
        {"token_unknown": 4},
    )


def test_a_good_token_gets_in_whatever_others_try(hub: Hub) -> None:
    """Nobody can lock a department out from behind the same proxy."""
    while guess(hub).code != "too_many_attempts":
        pass
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key), "192.0.2.1")
    assert "hr" in hub.members.read()
    assert hub.log.entries[-1].data["outcome"] == "done"


def test_over_the_wire_it_is_429_with_retry_after(hub: Hub, tmp_path: Path) -> None:
    """Status, header and code; and the node's own words say how long."""
    with JoinService(
        hub.desk, "127.0.0.1", 0, ca=tmp_path / "ca.crt", certificate=tmp_path / "server.crt",
        key=tmp_path / "server.key",
    ) as service:  # fmt: skip
        address = f"https://127.0.0.1:{service.port}"
        for _ in range(2):
            guess(hub, "127.0.0.1")
        node, token = Node(), EnrolmentToken.draw(hub.fingerprint)
        with pytest.raises(JoinRefused, match=r"try again in \d+ s") as refused:
            join(address, token, node.request(token), node.key)
        assert refused.value.code == "too_many_attempts"
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            service.port,
            context=ssl.create_default_context(cafile=str(tmp_path / "ca.crt")),
        )
        connection.request("POST", f"{PATH}/join", seal(node.request(token), node.key))
        answer = connection.getresponse()
        assert answer.status == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert json.loads(answer.read())["error"]["code"] == "too_many_attempts"
        connection.close()
        good = hub.invite()
        PinnedHub(tmp_path / "node").key.parent.mkdir()
        PinnedHub(tmp_path / "node").pin(join(address, good, node.request(good), node.key))
        assert HubLink(address, (tmp_path / "ca.crt").read_bytes()).get("/ca")
