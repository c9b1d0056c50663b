"""Who may contribute: each department with its Flower node and its public key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from policies.model import Policy
from privacy.errors import KeyUnusable
from privacy.signing import VerifyKey
from server.errors import EnrolmentInvalid


@dataclass(frozen=True)
class EnrolledNode:
    """A department, the Flower node id it answers from, and the key its receipts are signed with."""

    department: str
    node_id: int
    key: VerifyKey


class Enrolment:
    """Enrolled nodes by department and by node id.

    Raises:
        EnrolmentInvalid: nobody, or a department, node id or key named twice. Two departments with
            one key could sign for each other.
    """

    def __init__(self, nodes: Iterable[EnrolledNode]) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.department))
        if not self.nodes:
            raise EnrolmentInvalid("no department is enrolled; enrol at least one")
        for what, values in (
            ("department", [node.department for node in self.nodes]),
            ("node id", [str(node.node_id) for node in self.nodes]),
            ("key", [node.key.key_id for node in self.nodes]),
        ):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise EnrolmentInvalid(f"enrolled twice: {what} {', '.join(repeated)}")
        self.by_department: Mapping[str, EnrolledNode] = {n.department: n for n in self.nodes}
        self.by_node_id: Mapping[int, EnrolledNode] = {n.node_id: n for n in self.nodes}

    def check(self, policy: Policy) -> None:
        """Return when the policy names every enrolled department.

        Raises:
            EnrolmentInvalid: it does not; all the unknown ones are named.
        """
        unknown = sorted(set(self.by_department) - set(policy.departments))
        if unknown:
            raise EnrolmentInvalid(
                f"the policy does not name the enrolled departments {', '.join(unknown)}"
            )

    def to_json(self) -> dict[str, Any]:
        """``{"version":1,"nodes":[{"department","node_id","key"}]}``."""
        return {
            "version": 1,
            "nodes": [
                {"department": n.department, "node_id": n.node_id, "key": n.key.public_text()}
                for n in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            EnrolmentInvalid: another version, or a node that is malformed; it is named by its place.
        """
        if not isinstance(value, dict) or set(value) != {"version", "nodes"}:
            raise EnrolmentInvalid("an enrolment has the fields 'version' and 'nodes'")
        if value["version"] != 1 or not isinstance(value["nodes"], list):
            raise EnrolmentInvalid(f"version={value['version']!r} of an enrolment is unknown")
        return cls(_node(index, item) for index, item in enumerate(value["nodes"]))


def _node(index: int, item: object) -> EnrolledNode:
    if not isinstance(item, dict) or set(item) != {"department", "node_id", "key"}:
        raise EnrolmentInvalid(f"nodes[{index}] needs 'department', 'node_id' and 'key'")
    department, node_id, key = item["department"], item["node_id"], item["key"]
    if not isinstance(department, str) or isinstance(node_id, bool) or not isinstance(node_id, int):
        raise EnrolmentInvalid(f"nodes[{index}]: department must be a text, node_id a whole number")
    try:
        return EnrolledNode(department, node_id, VerifyKey.parse(str(key)))
    except KeyUnusable as error:
        raise EnrolmentInvalid(f"nodes[{index}] ({department}): {error}") from None
