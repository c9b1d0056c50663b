"""Joining at the hub: what is checked before a department is enrolled, one audit entry each.

:class:`JoinDesk` decides and knows no sockets; :mod:`server.join_service` speaks HTTPS for it.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from privacy.audit.entries import AuditEntry
from privacy.errors import AuditError
from privacy.joining import (
    EnrolmentToken,
    HubBundle,
    JoinRefused,
    JoinRequest,
    NodeReport,
    RunAccount,
    check_clock,
    now_text,
    seal,
    unseal,
)
from privacy.signing import SigningKey, VerifyKey
from server.audit_socket import Sink
from server.errors import HubError
from server.flower_control import flower_pem
from server.members import Member, Members
from server.refusals import Refusals


class NodeRegistry(Protocol):
    """What joining needs of :class:`server.flower_control.FlowerControl`."""

    def register(self, ssh_key: str, name: str) -> int:
        """The node id of this public key."""
        ...

    def unregister(self, node_id: int) -> None:
        """Remove a node."""
        ...


@dataclass(frozen=True)
class HubFacts:
    """What the hub tells its nodes of itself.

    ``departments``: those that its policy names; None where it has no policy yet.
    ``policy``: digest, text and suffix of the policy file.
    """

    name: str
    superlink: str
    certificate_expires: str
    accounts: tuple[RunAccount, ...]
    departments: frozenset[str] | None = None
    policy: tuple[str, str, Literal[".toml", ".yaml", ".yml"]] | None = None


class JoinDesk:
    """Enrols departments. ``facts`` is asked anew each time, so changes reach the nodes.

    ``is_online`` answers for a Flower node id; None where that is not known. Refusals beyond what
    ``refusals`` allows are all ``too_many_attempts``; whoever is let in is let in whatever others try.
    """

    def __init__(
        self,
        members: Members,
        key: SigningKey,
        facts: Callable[[], HubFacts],
        registry: Callable[[], NodeRegistry],
        audit: Sink,
        *,
        is_online: Callable[[int], bool | None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        refusals: Refusals | None = None,
    ) -> None:
        self._members = members
        self._key = key
        self._facts = facts
        self._registry = registry
        self._audit = audit
        self._is_online = is_online
        self._clock = clock
        self._refusals = refusals or Refusals(audit)
        # One at a time: two nodes with one token, or one name, must not both get in.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Put on record what was refused and not told yet."""
        self._refusals.close()

    def join(self, body: bytes, address: str = "") -> bytes:
        """Enrol the node that signed ``body`` (a :class:`JoinRequest`); the sealed bundle.

        The same node may ask again with the same token, as after a lost answer, and gets an answer.
        ``address``: where it asks from.

        Raises:
            JoinRefused: by its code.
        """
        with self._lock, self._audited("join", address) as audited:
            request, signer = unseal(JoinRequest, body)
            audited.actor = request.department
            audited.facts |= {"key": signer.key_id, "code_digest": request.code_digest}
            check_clock(request.clock, self._clock())
            token = EnrolmentToken.parse(request.token)
            facts = self._facts()
            self._check_certificate(facts)
            known = self._known(request, signer, token)
            if known is None:
                self._check_free(request, signer, facts)
                known = self._enrol(request, signer)
            # A crash before: the node is enrolled, its token unused but its name taken by its own
            # keys; it asks again and gets its answer.
            self._members.use(token)
            return self._bundle(known, facts, with_policy=True)

    def report(self, body: bytes, address: str = "") -> bytes:
        """Note what an enrolled node reports (a :class:`NodeReport`); the sealed bundle.

        Raises:
            JoinRefused: by its code; ``not_enrolled`` for another key than the department's.
        """
        report, signer = unseal(NodeReport, body)
        member = self._members.read().get(report.department)
        if member is None or VerifyKey.parse(member.receipt_key) != signer:
            with self._audited("report", address) as audited:
                audited.actor = report.department
                audited.facts |= {"key": signer.key_id}
                raise JoinRefused(
                    "not_enrolled",
                    f"department {report.department!r} is not enrolled with this node's key; join "
                    "again with a new token of the hub",
                )
        check_clock(report.clock, self._clock())
        if report.leaving:
            with self._lock, self._audited("leave", address) as audited:
                audited.actor = report.department
                self._unregister(self._members.remove(report.department))
            return self._bundle(member, self._facts())
        self._members.note(
            report.department,
            code_digest=report.code_digest,
            policy_digest=report.policy_digest,
            reported=now_text(),
        )
        return self._bundle(member, self._facts())

    def reconcile(self) -> None:
        """Make Flower know every enrolled node, as after its database was lost.

        Raises:
            ControlUnavailable: the SuperLink does not answer.
        """
        with self._lock:
            for member in self._members.read().values():
                node_id = self._registry().register(member.flower_key, member.department)
                if node_id != member.node_id:
                    self._members.note(member.department, node_id=node_id)
            self._members.write_enrolment()

    def _audited(self, step: str, address: str) -> "_Audited":
        return _Audited(self._audit, step, lambda code: self._refusals.wait(address, code))

    def _known(
        self, request: JoinRequest, signer: VerifyKey, token: EnrolmentToken
    ) -> Member | None:
        invitation = self._members.invitation(token)
        if invitation is None:
            raise JoinRefused(
                "token_unknown",
                "the hub issued no such enrolment token, or a newer one replaced it; ask its "
                f"operator for one with `intramural hub invite {request.department}`",
            )
        if invitation.department != request.department:
            raise JoinRefused(
                "token_unknown",
                f"the token is for another department than {request.department!r}; ask for your own",
            )
        member = self._members.read().get(request.department)
        keys = (signer.public_text(), request.flower_key)
        if member is not None and (member.receipt_key, member.flower_key) == keys:
            return member
        if invitation.used:
            raise JoinRefused(
                "token_used",
                "the enrolment token was used already; each is good for one node. Ask the hub's "
                f"operator for a new one with `intramural hub invite {request.department}`",
            )
        if invitation.expired(self._clock()):
            raise JoinRefused(
                "token_expired",
                f"the enrolment token expired at {invitation.expires}; ask the hub's operator for "
                f"a new one with `intramural hub invite {request.department}`",
            )
        return None

    def _check_certificate(self, facts: HubFacts) -> None:
        if datetime.fromisoformat(facts.certificate_expires) <= self._clock():
            raise JoinRefused(
                "certificate_expired",
                f"the hub's certificate expired at {facts.certificate_expires}; its operator renews "
                "it with `intramural hub init --renew`",
            )

    def _check_free(self, request: JoinRequest, signer: VerifyKey, facts: HubFacts) -> None:
        members = self._members.read()
        if request.department in members:
            raise JoinRefused(
                "department_taken",
                f"a node of department {request.department!r} is enrolled already, with other "
                f"keys; the hub's operator can remove it with `intramural hub remove "
                f"{request.department}`",
            )
        for member in members.values():
            if (
                signer.public_text() == member.receipt_key
                or request.flower_key == member.flower_key
            ):
                raise JoinRefused(
                    "key_taken",
                    "another department is enrolled with one of this node's keys; make keys of "
                    "its own with `intramural node init` in an empty folder",
                )
        if facts.departments is not None and request.department not in facts.departments:
            raise JoinRefused(
                "unknown_department",
                f"the hub's policy does not name department {request.department!r}",
            )

    def _enrol(self, request: JoinRequest, signer: VerifyKey) -> Member:
        try:
            flower_pem(request.flower_key)
        except ValueError:
            raise JoinRefused("malformed", "flower_key is no P-384 key in OpenSSH's form") from None
        try:
            node_id = self._registry().register(request.flower_key, request.department)
        except HubError as error:
            raise JoinRefused("unavailable", f"{error}; try again in a minute") from None
        now = now_text()
        member = Member(
            department=request.department,
            node_id=node_id,
            receipt_key=signer.public_text(),
            flower_key=request.flower_key,
            code_digest=request.code_digest,
            policy_digest=request.policy_digest,
            joined=now,
            reported=now,
        )
        # A crash before: Flower knows a node that the hub does not, which no run asks. Asked again,
        # registration gives the same id.
        self._members.put(member)
        return member

    def _unregister(self, member: Member) -> None:
        try:
            self._registry().unregister(member.node_id)
        except HubError as error:
            raise JoinRefused("unavailable", f"{error}; try again in a minute") from None

    def _bundle(self, member: Member, facts: HubFacts, *, with_policy: bool = False) -> bytes:
        digest, text, suffix = facts.policy or (None, None, None)
        bundle = HubBundle(
            hub=facts.name,
            department=member.department,
            node_id=str(member.node_id),
            superlink=facts.superlink,
            accounts=facts.accounts,
            policy_digest=digest,
            policy=text if with_policy else None,
            policy_suffix=suffix if with_policy else None,
            online=self._is_online(member.node_id),
            certificate_expires=facts.certificate_expires,
            issued=now_text(),
        )
        return seal(bundle, self._key)


class _Audited:
    """One audit entry for what happens inside: ``<step>ed``-or-refused, before the answer leaves.

    ``wait`` counts a refusal; above 0 it gets no entry of its own, and the caller is told to wait.
    """

    def __init__(self, audit: Sink, step: str, wait: Callable[[str], float]) -> None:
        self._audit = audit
        self._step = step
        self._wait = wait
        self.actor = "unknown"
        self.facts: dict[str, object] = {}

    def __enter__(self) -> "_Audited":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, JoinRefused):
            return
        if error is not None and (wait := math.ceil(self._wait(error.code))):
            raise JoinRefused(
                "too_many_attempts",
                f"too many attempts were refused within a minute; try again in {wait} s",
                retry_after=wait,
            ) from None
        outcome = (
            {"outcome": "done"} if error is None else {"outcome": "refused", "code": error.code}
        )
        entry = AuditEntry.now("key", self.actor, {"step": self._step, **outcome, **self.facts})
        try:
            self._audit.append(entry)
        except AuditError as failure:
            raise JoinRefused("unavailable", f"nothing is answered unaudited: {failure}") from None
