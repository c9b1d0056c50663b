"""Joining at the hub's desk: who gets in, who does not, and that each attempt is on record."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from join_kit import CODE, POLICY, Hub, Node, flower_key

from privacy.joining import (
    EnrolmentToken,
    HubBundle,
    JoinRefused,
    JoinRequest,
    NodeReport,
    now_text,
    seal,
    unseal,
)
from server.hub import read_enrolment
from server.members import MemberUnknown


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub whose policy names hr and finance."""
    return Hub(tmp_path)


def refused(hub: Hub, node: Node, request: JoinRequest) -> str:
    """The code with which the hub refuses."""
    with pytest.raises(JoinRefused) as error:
        hub.desk.join(seal(request, node.key))
    return error.value.code


def test_a_department_with_a_token_is_enrolled(hub: Hub) -> None:
    """Both keys are registered, the bundle is the hub's, and a run would find the node."""
    node, token = Node(), hub.invite()
    bundle, signer = unseal(HubBundle, hub.desk.join(seal(node.request(token), node.key)))
    assert signer == hub.key.verify_key
    assert bundle.department == "hr"
    assert bundle.policy_digest == POLICY
    assert set(bundle.trusted()) == {"ada"}
    enrolled = read_enrolment(hub.folder / "enrolment.json").by_department["hr"]
    assert enrolled.node_id == hub.registry.ids[node.flower] == int(bundle.node_id)
    assert enrolled.key == node.key.verify_key
    assert hub.outcomes() == [("join", "done", None)]


def test_a_lost_answer_can_be_asked_for_again(hub: Hub) -> None:
    """The same node with the same token gets the same enrolment, and no second one."""
    node, token = Node(), hub.invite()
    first, second = (
        unseal(HubBundle, hub.desk.join(seal(node.request(token), node.key)))[0] for _ in range(2)
    )
    assert first.node_id == second.node_id
    assert len(hub.registry.ids) == 1


Case = Callable[[Hub], tuple[Node, JoinRequest]]


def _other_node(hub: Hub) -> tuple[Node, JoinRequest]:
    token, first, second = hub.invite(), Node(), Node()
    hub.desk.join(seal(first.request(token), first.key))
    return second, second.request(token)


def _never_issued(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    return node, node.request(EnrolmentToken.draw(hub.fingerprint))


def _replaced(hub: Hub) -> tuple[Node, JoinRequest]:
    node, token = Node(), hub.invite()
    hub.invite()
    return node, node.request(token)


def _for_another(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    return node, node.request(hub.invite("finance"))


def _too_late(hub: Hub) -> tuple[Node, JoinRequest]:
    node, token = Node(), hub.invite(valid=timedelta(minutes=2))
    hub.now += timedelta(minutes=3)
    return node, node.request(token, clock=hub.now.isoformat())


def _wrong_clock(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    clock = (hub.now + timedelta(hours=1)).isoformat()
    return node, node.request(hub.invite(), clock=clock)


def _taken(hub: Hub) -> tuple[Node, JoinRequest]:
    token, first, second = hub.invite(), Node(), Node()
    hub.desk.join(seal(first.request(token), first.key))
    member = hub.members.remove("hr")
    fresh = hub.invite()
    hub.members.put(member)
    return second, second.request(fresh)


def _receipt_key_of_another(hub: Hub) -> tuple[Node, JoinRequest]:
    token, first = hub.invite("finance"), Node()
    hub.desk.join(seal(first.request(token, "finance"), first.key))
    thief = Node(key=first.key)
    return thief, thief.request(hub.invite())


def _flower_key_of_another(hub: Hub) -> tuple[Node, JoinRequest]:
    token, first = hub.invite("finance"), Node()
    hub.desk.join(seal(first.request(token, "finance"), first.key))
    thief = Node(flower=first.flower)
    return thief, thief.request(hub.invite())


def _not_in_policy(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    return node, node.request(hub.invite("sales"), "sales")


def _expired_certificate(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    hub.certificate_expires = hub.now - timedelta(days=1)
    return node, node.request(hub.invite())


def _no_flower_key(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node(flower="ssh-nothing AAAA")
    return node, node.request(hub.invite())


def _flower_away(hub: Hub) -> tuple[Node, JoinRequest]:
    node = Node()
    hub.registry.away = True
    return node, node.request(hub.invite())


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (_other_node, "token_used"),
        (_never_issued, "token_unknown"),
        (_replaced, "token_unknown"),
        (_for_another, "token_unknown"),
        (_too_late, "token_expired"),
        (_wrong_clock, "clock_skew"),
        (_taken, "department_taken"),
        (_receipt_key_of_another, "key_taken"),
        (_flower_key_of_another, "key_taken"),
        (_not_in_policy, "unknown_department"),
        (_expired_certificate, "certificate_expired"),
        (_no_flower_key, "malformed"),
        (_flower_away, "unavailable"),
    ],
)
def test_each_refusal_has_its_code_and_an_audit_entry(hub: Hub, case: Case, code: str) -> None:
    """Nobody gets in by another way than a fresh token, and the log says who tried what."""
    node, request = case(hub)
    before = hub.members.read()
    assert refused(hub, node, request) == code
    assert hub.outcomes()[-1] == ("join", "refused", code)
    assert hub.members.read() == before


def test_a_signature_of_somebody_else_is_refused(hub: Hub) -> None:
    """A request whose key is not its signer's enrols nobody, and is on record."""
    node, token = Node(), hub.invite()
    sealed = seal(node.request(token), node.key)
    other = claimed_by_another(sealed, node)
    with pytest.raises(JoinRefused) as error:
        hub.desk.join(other)
    assert error.value.code == "signature_invalid"
    assert hub.outcomes() == [("join", "refused", "signature_invalid")]


def claimed_by_another(sealed: bytes, node: Node) -> bytes:
    """The statement with another public key in place of the signer's."""
    stranger = Node().key.verify_key.public_text()
    return sealed.replace(node.key.verify_key.public_text().encode(), stranger.encode())


def test_of_two_nodes_with_one_token_exactly_one_gets_in(hub: Hub) -> None:
    """Also where both ask at the same moment."""
    token, nodes = hub.invite(), [Node() for _ in range(6)]
    start, codes = threading.Barrier(len(nodes)), []

    def ask(node: Node) -> None:
        start.wait()
        try:
            hub.desk.join(seal(node.request(token), node.key))
            codes.append("done")
        except JoinRefused as error:
            codes.append(error.code)

    threads = [threading.Thread(target=ask, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["done"] + ["token_used"] * 5


def test_nobody_joins_unaudited(hub: Hub) -> None:
    """With a broken audit log a node gets no answer, and can ask again once it is mended."""
    node, token = Node(), hub.invite()
    hub.log.broken = True
    assert refused(hub, node, node.request(token)) == "unavailable"
    hub.log.broken = False
    hub.desk.join(seal(node.request(token), node.key))
    assert hub.outcomes() == [("join", "done", None)]


def test_a_report_updates_digests_and_brings_new_accounts(hub: Hub) -> None:
    """The operator sees what a node runs now, the node whom the hub trusts now."""
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key))
    hub.accounts = ()
    report = NodeReport(department="hr", code_digest="e" * 64, policy_digest=None, clock=now_text())
    bundle, signer = unseal(HubBundle, hub.desk.report(seal(report, node.key)))
    assert (bundle.accounts, signer) == ((), hub.key.verify_key)
    assert bundle.policy is None
    assert hub.members.read()["hr"].code_digest == "e" * 64


def test_a_report_with_another_key_is_refused_and_on_record(hub: Hub) -> None:
    """Nobody speaks for a department but its own node."""
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key))
    report = NodeReport(department="hr", code_digest=CODE, policy_digest=None, clock=now_text())
    with pytest.raises(JoinRefused) as error:
        hub.desk.report(seal(report, Node().key))
    assert error.value.code == "not_enrolled"
    assert hub.outcomes()[-1] == ("report", "refused", "not_enrolled")


def test_a_node_that_leaves_is_gone_and_its_name_free(hub: Hub) -> None:
    """Flower forgets it, no run finds it, and another node can join in its place."""
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key))
    report = NodeReport(
        department="hr", code_digest=CODE, policy_digest=None, clock=now_text(), leaving=True
    )
    hub.desk.report(seal(report, node.key))
    assert hub.members.read() == {}
    assert hub.registry.ids == {}
    assert not (hub.folder / "enrolment.json").exists()
    other = Node()
    hub.desk.join(seal(other.request(hub.invite()), other.key))


def test_a_lost_flower_database_is_brought_in_line(hub: Hub) -> None:
    """Every enrolled node is registered again, under the id that Flower now gives."""
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key))
    hub.registry.ids = {flower_key(): 2**63}
    hub.desk.reconcile()
    assert read_enrolment(hub.folder / "enrolment.json").by_department["hr"].node_id == 2**63 + 1


def test_removing_somebody_unknown_says_so(hub: Hub) -> None:
    """A slip of the pen removes nobody silently."""
    with pytest.raises(MemberUnknown, match="hub nodes"):
        hub.members.remove("sales")


def test_the_files_are_the_operators_alone(hub: Hub) -> None:
    """Invitations, nodes and enrolment have mode 0600, and hold no secret of a token."""
    node, token = Node(), hub.invite()
    hub.desk.join(seal(node.request(token), node.key))
    for name in ("nodes.json", "invites.json", "enrolment.json"):
        path = hub.folder / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert token.secret.hex() not in path.read_text()
        assert token.text() not in path.read_text()
