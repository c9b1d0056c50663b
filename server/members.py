"""Who is enrolled: invitations, and the departments that used one.

``nodes.json`` is the truth; ``enrolment.json``, which a run reads, is made from it, and Flower's own
list of nodes is brought in line with it at every start.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from privacy.canonical import canonical_json
from privacy.files import write_atomic
from privacy.joining import EnrolmentToken, JoinRefused
from privacy.signing import VerifyKey
from server.enrolment import EnrolledNode, Enrolment
from server.errors import HubError
from server.state_file import StateFile, StateUnusable


class MemberUnknown(HubError):
    """No department of this name is enrolled."""


@dataclass(frozen=True)
class Member:
    """An enrolled department. Times are UTC, RFC 3339; digests as its node last reported them."""

    department: str
    node_id: int
    receipt_key: str
    flower_key: str
    code_digest: str
    policy_digest: str | None
    joined: str
    reported: str
    last_seen: str | None = None


@dataclass(frozen=True)
class Invitation:
    """An enrolment token by its digest."""

    department: str
    expires: str
    used: bool

    def expired(self, now: datetime) -> bool:
        """Whether it ended before ``now``."""
        return now >= datetime.fromisoformat(self.expires)


class Members:
    """The files ``nodes.json``, ``invites.json`` and ``enrolment.json`` in the hub's folder."""

    def __init__(self, folder: Path) -> None:
        self._nodes = StateFile(folder / "nodes.json")
        self._invites = StateFile(folder / "invites.json")
        self._enrolment = folder / "enrolment.json"

    def invite(self, department: str, ca: bytes, valid: timedelta) -> tuple[EnrolmentToken, str]:
        """A new token for ``department`` and when it ends; earlier unused ones of it end now.

        Raises:
            JoinRefused: ``department_taken``.
        """
        if department in self.read():
            raise JoinRefused(
                "department_taken",
                f"department {department!r} is enrolled already; "
                f"remove it first with `intramural hub remove {department}`",
            )
        token = EnrolmentToken.draw(ca)
        until = (datetime.now(UTC) + valid).isoformat(timespec="seconds")
        with self._invites.edit() as value:
            for digest, stored in list(value.items()):
                if stored["department"] == department and not stored["used"]:
                    del value[digest]
            value[token.digest] = {"department": department, "expires": until, "used": False}
        return token, until

    def invitation(self, token: EnrolmentToken) -> Invitation | None:
        """What the token was issued for; None for one that was not, or was replaced."""
        stored = self._invites.read().get(token.digest)
        return None if stored is None else Invitation(**stored)

    def use(self, token: EnrolmentToken) -> None:
        """The token opens nothing any more."""
        with self._invites.edit() as value:
            value[token.digest]["used"] = True

    def read(self) -> dict[str, Member]:
        """Everybody who is enrolled, by department.

        Raises:
            StateUnusable: the file is damaged.
        """
        try:
            return {name: Member(**stored) for name, stored in sorted(self._nodes.read().items())}
        except TypeError as error:
            raise StateUnusable(f"{self._nodes.path}: {error}; restore it from a copy") from None

    def put(self, member: Member) -> None:
        """Enrol a department, or replace what is known of it."""
        with self._nodes.edit() as value:
            value[member.department] = asdict(member)
        self.write_enrolment()

    def note(self, department: str, **changes: Any) -> None:
        """Change what is known of a department; nothing where it was removed meanwhile."""
        with self._nodes.edit() as value:
            if department in value:
                value[department] |= changes

    def remove(self, department: str) -> Member:
        """Forget a department.

        Raises:
            MemberUnknown: it is not enrolled.
        """
        with self._nodes.edit() as value:
            if department not in value:
                raise MemberUnknown(
                    f"no department {department!r} is enrolled; see `intramural hub nodes`"
                )
            member = Member(**value.pop(department))
        self.write_enrolment()
        return member

    def write_enrolment(self) -> None:
        """Bring ``enrolment.json`` in line with ``nodes.json``."""
        nodes = [
            EnrolledNode(m.department, m.node_id, VerifyKey.parse(m.receipt_key))
            for m in self.read().values()
        ]
        if not nodes:
            self._enrolment.unlink(missing_ok=True)
            return
        write_atomic(self._enrolment, canonical_json(Enrolment(nodes).to_json()), mode=0o600)
