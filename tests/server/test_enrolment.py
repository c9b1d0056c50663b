"""Who may contribute."""

import pytest
from federation_kit import make_policy

from privacy.signing import SigningKey
from server.enrolment import EnrolledNode, Enrolment
from server.errors import EnrolmentInvalid

KEYS = [SigningKey.generate().verify_key for _ in range(2)]


def test_enrolment_comes_back_from_its_json() -> None:
    """What was written is read, nodes in the order of their names."""
    enrolment = Enrolment([EnrolledNode("hr", 7, KEYS[0]), EnrolledNode("finance", 8, KEYS[1])])
    again = Enrolment.from_json(enrolment.to_json())
    assert again.nodes == enrolment.nodes
    assert list(again.by_department) == ["finance", "hr"]


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (EnrolledNode("hr", 8, KEYS[1]), "department hr"),
        (EnrolledNode("finance", 7, KEYS[1]), "node id 7"),
        (EnrolledNode("finance", 8, KEYS[0]), "key"),
    ],
)
def test_nothing_is_enrolled_twice(second: EnrolledNode, what: str) -> None:
    """A department, a node and a key each stand for one another, one to one."""
    with pytest.raises(EnrolmentInvalid, match=f"enrolled twice: {what}"):
        Enrolment([EnrolledNode("hr", 7, KEYS[0]), second])


def test_department_beyond_the_policy_is_named() -> None:
    """Nobody takes part whom the policy does not name."""
    with pytest.raises(EnrolmentInvalid, match="law"):
        Enrolment([EnrolledNode("law", 7, KEYS[0])]).check(make_policy())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "fields 'version' and 'nodes'"),
        ({"version": 2, "nodes": []}, "version=2"),
        ({"version": 1, "nodes": []}, "nobody|no department"),
        ({"version": 1, "nodes": [{"department": "hr"}]}, r"nodes\[0\]"),
        (
            {"version": 1, "nodes": [{"department": "hr", "node_id": "1", "key": "x"}]},
            "whole number",
        ),
        ({"version": 1, "nodes": [{"department": "hr", "node_id": 1, "key": "x"}]}, "ed25519"),
    ],
)
def test_malformed_enrolment_is_named_by_its_place(value: object, message: str) -> None:
    """A faulty file says which node and why."""
    with pytest.raises(EnrolmentInvalid, match=message):
        Enrolment.from_json(value)
