"""The hub's home: settings, keys, certificates, accounts, members, audit log, in one folder.

Files have mode 0600 and folders 0700. Whatever is made once is never replaced; only the server
certificate is, when its renewal is asked for.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from intramural.deployment.certificates import (
    CertificateUnusable,
    Issued,
    check_given,
    expires,
    make_ca,
    make_server,
    names_of,
)
from intramural.deployment.homes import (
    HomeUnusable,
    keep,
    make_folder,
    read_settings,
    socket_path,
    toml,
)
from privacy.files import write_atomic
from privacy.joining import ca_fingerprint
from privacy.signing import SigningKey
from server.accounts import AccountBook, check_name
from server.members import Members

if TYPE_CHECKING:
    from policies.model import Policy
    from server.audit_socket import Sink
    from server.flower_control import FlowerControl

_PORT = re.compile(r"(?:^[^:]+|\]):[0-9]+$")
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - named to be recognised, never a default


@dataclass(frozen=True)
class HubSettings:
    """``hub.toml``.

    Attributes:
        name: of the hub, and the origin of its audit log.
        host: address that the processes bind.
        port, join_port: of the SuperLink and of the join service.
        superlink_address, join_address: where departments reach these two.
        policy: the policy file that runs are planned under; empty: none yet.
        base_model: folder or asset of the base model; empty: the demo's.
        evaluation: file of public held-out records that releases are evaluated on; empty: none.
    """

    name: str
    host: str
    port: int
    join_port: int
    superlink_address: str
    join_address: str
    policy: str
    base_model: str
    evaluation: str = ""

    @classmethod
    def made(
        cls,
        name: str,
        host: str,
        ports: tuple[int, int],
        address: str | None,
        policy: str,
        base_model: str,
        evaluation: str = "",
    ) -> "HubSettings":
        """Settings for departments that reach the hub at ``address`` (default: ``host``).

        With a port, it is that of a proxy in front of both services; without, the hub's own are.
        """
        public = address or ("127.0.0.1" if host in _EVERYWHERE else host)
        if _PORT.search(public):
            addresses = (public, f"https://{public}")
        else:
            shown = f"[{public}]" if ":" in public else public
            addresses = (f"{shown}:{ports[0]}", f"https://{shown}:{ports[1]}")
        return cls(name, host, *ports, *addresses, policy, base_model, evaluation)

    def to_toml(self) -> str:
        """The file's content."""
        return "".join(f"{key} = {toml(value)}\n" for key, value in asdict(self).items())


class HubHome:
    """Paths and parts of the hub under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.config = self.root / "hub.toml"
        self.ca, self.ca_key = self.root / "ca.crt", self.root / "ca.key"
        self.certificate, self.certificate_key = self.root / "server.crt", self.root / "server.key"
        self.signing_key = self.root / "signing.key"
        self.superexec_secret = self.root / "superexec.secret"
        self.internal_token = self.root / "internal.token"
        self.superlink_db = self.root / "superlink.db"
        self.accounts_file = self.root / "accounts.json"
        self.enrolment = self.root / "enrolment.json"
        self.audit_db = self.root / "audit.db"
        self.runs = self.root / "runs"
        self.releases = self.root / "releases"
        self.flwr_home = self.root / "flwr"
        self.accounts_folder = self.root / "accounts"

    def create(
        self,
        settings: HubSettings,
        *,
        given: tuple[Path, Path, Path] | None = None,
    ) -> None:
        """Make what is missing; a home that is complete stays as it is, to the byte.

        ``given``: certificate, key and CA to use.

        Raises:
            HomeUnusable: the folder may be entered by others.
            CertificateUnusable: the given certificate cannot serve.
        """
        make_folder(self.root)
        for folder in (self.runs, self.releases, self.flwr_home, self.accounts_folder):
            make_folder(folder)
        if not self.certificate.exists():
            self._certify(settings, given)
        key = SigningKey.load_or_create(self.signing_key)
        # Where `intramural audit` looks for the key of a log beside it.
        keep(self.root / "audit.pub", key.verify_key.public_text().encode() + b"\n")
        keep(self.superexec_secret, secrets.token_hex(32).encode())
        keep(self.internal_token, secrets.token_urlsafe(32).encode())
        if not self.accounts_file.exists():
            self.accounts.set_internal(self.internal_token.read_text())
        if not self.audit_db.exists():
            with self.audit():
                pass  # made, so that everything that follows can be on record
        # Last: a home with settings is a whole one. After a crash before, init makes the rest.
        keep(self.config, settings.to_toml().encode())

    def renew(self) -> None:
        """Issue the server certificate anew, for the same names.

        Raises:
            CertificateUnusable: the certificate was given; who issued it renews it.
        """
        if not self.ca_key.exists():
            raise CertificateUnusable(
                f"{self.certificate} was given to the hub; put a new one and its key "
                f"({self.certificate_key.name}) in its place"
            )
        ca = Issued(self.ca.read_bytes(), self.ca_key.read_bytes())
        self._keep_server(make_server(ca, names_of(self.certificate)))

    def settings(self) -> HubSettings:
        """What ``hub.toml`` says.

        Raises:
            HomeUnusable: there is no hub here, or a key is missing, unknown or of another type.
        """
        value = read_settings(self.config, "make a hub with `intramural hub init`")
        value.setdefault("evaluation", "")
        faults = [
            f"{key} must be a {kind.__name__}"
            for key, kind in HubSettings.__annotations__.items()
            if not isinstance(value.get(key), kind)
        ]
        faults += [f"{key} is unknown" for key in value.keys() - HubSettings.__annotations__]
        if faults:
            raise HomeUnusable(f"{self.config}: {'; '.join(sorted(faults))}")
        return HubSettings(**value)

    def key(self) -> SigningKey:
        """The hub's signing key."""
        return SigningKey.load(self.signing_key)

    @property
    def accounts(self) -> AccountBook:
        """The hub's accounts."""
        return AccountBook(self.accounts_file)

    @property
    def members(self) -> Members:
        """The hub's departments and invitations."""
        return Members(self.root)

    @property
    def audit_socket(self) -> Path:
        """Where the running hub takes audit entries."""
        return socket_path(self.root, "audit.sock")

    def fingerprint(self) -> bytes:
        """SHA-256 of the CA, 32 bytes."""
        return ca_fingerprint(self.ca.read_bytes())

    def certificate_expires(self) -> datetime:
        """When the server certificate ends."""
        return expires(self.certificate)

    def policy(self) -> "Policy | None":
        """The policy that runs are planned under, if there is one yet.

        Raises:
            PolicyError: it cannot be used.
        """
        from intramural.parts import read_policy

        path = self.policy_path()
        return None if path is None else read_policy(path)

    def policy_path(self) -> Path | None:
        """The policy file, if one is named; relative to the home."""
        named = self.settings().policy
        return self.root / named if named else None

    def evaluation_path(self) -> Path | None:
        """The file of public held-out records, if one is named; relative to the home."""
        named = self.settings().evaluation
        return self.root / named if named else None

    def local_address(self) -> str:
        """``host:port`` of the SuperLink as the hub's own processes reach it."""
        return _local(self.settings())

    def control(self) -> "FlowerControl":
        """Flower's control API with the hub's own account."""
        from server.flower_control import FlowerControl

        token = self.internal_token.read_text().strip()
        return FlowerControl(self.local_address(), self.ca.read_bytes(), token)

    @contextmanager
    def audit(self) -> "Iterator[Sink]":
        """The audit log: through the running hub, or the log itself where none runs.

        Raises:
            StoreBusy, TamperedStore, AuditError: it cannot be used.
        """
        from intramural.deployment.homes import is_running
        from privacy.audit.log import AuditLog
        from server.audit_socket import RemoteAudit

        if is_running(self.root):
            yield RemoteAudit(self.audit_socket)
            return
        with AuditLog(self.audit_db, self.key(), self.origin(), timeout=5.0) as log:
            yield log

    def origin(self) -> str:
        """Name of the audit log; it never changes, so it does not depend on the settings."""
        return f"intramural.local/hub/{self.key().key_id}"

    def add_account(self, name: str, valid: timedelta | None) -> Path:
        """A new run account; the folder with its key and token, to hand over and then to delete.

        Raises:
            AccountInvalid: the name is malformed or taken.
        """
        check_name(name)
        folder = self.accounts_folder / name
        make_folder(folder)
        key = SigningKey.load_or_create(folder / "account.key")
        token = self.accounts.add(name, key.verify_key, valid)
        # A crash before: an account whose token nobody has; remove it and add it again.
        write_atomic(folder / "token", token.encode() + b"\n", mode=0o600)
        return folder

    def remove_account(self, name: str) -> None:
        """End a run account at once, and delete what is left of its secrets here.

        Raises:
            AccountInvalid: there is none of this name.
        """
        self.accounts.remove(name)
        for secret in ("account.key", "token"):
            (self.accounts_folder / name / secret).unlink(missing_ok=True)

    def _certify(
        self,
        settings: HubSettings,
        given: tuple[Path, Path, Path] | None,
    ) -> None:
        if given is not None:
            server, ca = check_given(*given, _host(_local(settings)))
            keep(self.ca, ca)
            self._keep_server(server)
            return
        hosts = [_host(settings.superlink_address), _host(settings.join_address)]
        wanted = [h for h in (*hosts, settings.host) if h not in _EVERYWHERE]
        if not self.ca.exists():
            made = make_ca(settings.name, wanted)
            # A crash in between leaves a key without a certificate: both are made anew.
            write_atomic(self.ca_key, made.key, mode=0o600)
            write_atomic(self.ca, made.certificate, mode=0o600)
        ca_pair = Issued(self.ca.read_bytes(), self.ca_key.read_bytes())
        self._keep_server(make_server(ca_pair, wanted))

    def _keep_server(self, server: Issued) -> None:
        write_atomic(self.certificate_key, server.key, mode=0o600)
        write_atomic(self.certificate, server.certificate, mode=0o600)


def policy_document(path: Path) -> tuple[str, Literal[".toml", ".yaml", ".yml"]] | None:
    """Text and suffix of a policy file as a node gets it; None for a file that it could not read."""
    suffixes: dict[str, Any] = {s: s for s in (".toml", ".yaml", ".yml")}
    suffix = suffixes.get(path.suffix.lower())
    return None if suffix is None else (path.read_text(encoding="utf-8"), suffix)


def utc_text(moment: datetime) -> str:
    """A time as statements and status files carry it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _local(settings: HubSettings) -> str:
    if settings.host in _EVERYWHERE:
        return f"127.0.0.1:{settings.port}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _host(address: str) -> str:
    bare = address.removeprefix("https://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    return (host if colon and port.isdecimal() else bare).strip("[]")
