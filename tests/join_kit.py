"""What tests of joining share: a desk over real files, with Flower's registry and the log in memory."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from intramural.deployment.certificates import make_ca, make_server
from privacy.audit.entries import AuditEntry
from privacy.errors import AuditUnavailable
from privacy.joining import EnrolmentToken, JoinRequest, RunAccount, ca_fingerprint, now_text
from privacy.signing import SigningKey
from server.flower_control import ControlUnavailable
from server.joining import HubFacts, JoinDesk
from server.members import Members

CODE, POLICY = "c" * 64, "d" * 64


def flower_key() -> str:
    """A new public P-384 key in OpenSSH's form."""
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@dataclass
class Log:
    """An audit sink that keeps its entries, or fails when told to."""

    entries: list[AuditEntry] = field(default_factory=list)
    broken: bool = False

    def append(self, entry: AuditEntry) -> None:
        if self.broken:
            raise AuditUnavailable("the disk is full")
        self.entries.append(entry)


@dataclass
class Registry:
    """Flower's list of nodes: a number for each key."""

    ids: dict[str, int] = field(default_factory=dict)
    away: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, ssh_key: str, name: str) -> int:
        if self.away:
            raise ControlUnavailable("the SuperLink does not answer")
        with self.lock:
            return self.ids.setdefault(ssh_key, 2**63 + len(self.ids))

    def unregister(self, node_id: int) -> None:
        self.ids = {key: number for key, number in self.ids.items() if number != node_id}


class Hub:
    """A hub's desk in ``folder``, with its CA and server certificate there."""

    def __init__(self, folder: Path, *, certificate_made: datetime | None = None) -> None:
        self.folder = folder
        ca = make_ca("test", [])
        server = make_server(ca, [], certificate_made)
        for name, data in (
            ("ca.crt", ca.certificate),
            ("server.crt", server.certificate),
            ("server.key", server.key),
        ):
            (folder / name).write_bytes(data)
        self.fingerprint = ca_fingerprint(ca.certificate)
        self.key = SigningKey.generate()
        self.members = Members(folder)
        self.log, self.registry = Log(), Registry()
        self.now = datetime.now(UTC)
        self.certificate_expires = self.now + timedelta(days=90)
        account = RunAccount(name="ada", key=SigningKey.generate().verify_key.public_text())
        self.accounts = (account,)
        self.departments: frozenset[str] | None = frozenset({"hr", "finance"})
        self.desk = JoinDesk(
            self.members,
            self.key,
            self.facts,
            lambda: self.registry,
            self.log,
            clock=lambda: self.now,
        )

    def facts(self) -> HubFacts:
        return HubFacts(
            name="test",
            superlink="127.0.0.1:9092",
            certificate_expires=self.certificate_expires.isoformat(timespec="seconds"),
            accounts=self.accounts,
            departments=self.departments,
            policy=(POLICY, "version = 1\n", ".toml"),
        )

    def invite(
        self, department: str = "hr", valid: timedelta = timedelta(hours=1)
    ) -> EnrolmentToken:
        return self.members.invite(department, self.fingerprint, valid)[0]

    def outcomes(self) -> list[tuple[str, str, str | None]]:
        """Step, outcome and code of every entry."""
        return [
            (
                e.data["step"],
                e.data["outcome"],
                e.data.get("code") if e.data["outcome"] == "refused" else None,
            )
            for e in self.log.entries
        ]


@dataclass
class Node:
    """A node's two keys, and what it would ask."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    flower: str = field(default_factory=flower_key)

    def request(
        self, token: EnrolmentToken, department: str = "hr", clock: str | None = None
    ) -> JoinRequest:
        return JoinRequest(
            department=department,
            token=token.text(),
            flower_key=self.flower,
            code_digest=CODE,
            policy_digest=POLICY,
            clock=clock or now_text(),
        )
