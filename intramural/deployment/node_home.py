"""A node's home: what only the department may read, in one folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from client.joining import PinnedHub
from client.records import DataSource
from intramural.deployment.homes import (
    HomeUnusable,
    keep,
    make_folder,
    read_settings,
    socket_path,
    toml,
)
from intramural.workspace import NodePaths
from privacy.files import load_or_create_secret, write_atomic
from privacy.joining import NodeReport, now_text
from privacy.signing import SigningKey

if TYPE_CHECKING:
    from policies.model import Policy

READY: Final = "agent ready"
"""What the agent prints once it answers."""

_LIMITS: Final = """
# What this department allows a run, besides its policy; see the page for the department.
[limits]
"""


@dataclass(frozen=True)
class NodeSettings:
    """``node.toml``.

    Attributes:
        department: whose node this is.
        data: the file with its records; columns, where, tolerance: how it is read.
        policy: the department's own policy file; relative to the home.
        base_model: folder or asset of the base model; empty: the demo's.
        hub: address of the hub's join service; empty before joining.
        limits: the department's own limits, as the file has them.
    """

    department: str
    data: str
    columns: Mapping[str, str]
    where: Mapping[str, str]
    tolerance: float
    policy: str
    base_model: str
    hub: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)

    def to_toml(self) -> str:
        """The file's content, without limits."""
        values = asdict(self)
        del values["limits"]
        return "".join(f"{key} = {toml(value)}\n" for key, value in values.items()) + _LIMITS

    def source(self) -> DataSource:
        """The department's records."""
        return DataSource(Path(self.data), self.department, self.columns, self.where)


@dataclass(frozen=True)
class NodeHome(NodePaths):
    """Paths and parts of a node under ``root``, an absolute path."""

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.root / "node.toml"

    @property
    def signing_key(self) -> Path:
        """The Ed25519 key that signs receipts."""
        return self.root / "receipt.key"

    @property
    def public_key(self) -> Path:
        """The public half of it."""
        return self.root / "receipt.pub"

    @property
    def flower_key(self) -> Path:
        """The P-384 key by which the SuperLink knows the node, in OpenSSH's form."""
        return self.root / "flower.key"

    @property
    def superexec_secret(self) -> Path:
        """Keeps other users of this machine from taking the node's tasks."""
        return self.root / "superexec.secret"

    @property
    def last_round(self) -> Path:
        """What the agent answered last, for `node status`."""
        return self.root / "last-round.json"

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return socket_path(self.root, "agent.sock")

    @property
    def hub(self) -> PinnedHub:
        """What is pinned of the hub."""
        return PinnedHub(self.root)

    def create(self, settings: NodeSettings) -> None:
        """Make folder, keys, ledger and settings; what is there already stays as it is.

        Raises:
            HomeUnusable: it is another department's, or others may enter the folder.
        """
        make_folder(self.root)
        if self.config.exists() and self.settings().department != settings.department:
            raise HomeUnusable(
                f"{self.root} is the node of department {self.settings().department!r}; choose "
                "another folder with --dir"
            )
        key = SigningKey.load_or_create(self.signing_key)
        key.verify_key.save(self.public_key)
        self._make_flower_key()
        load_or_create_secret(
            self.superexec_secret, 32, what="secret", remedy="delete it", error=HomeUnusable
        )
        make_folder(self.state)
        from privacy.ledger.ledger import Ledger

        Ledger(self.ledger, key).close()
        keep(self.config, settings.to_toml().encode())

    def settings(self) -> NodeSettings:
        """What ``node.toml`` says.

        Raises:
            HomeUnusable: there is no node here, or a key is missing, unknown or of another type.
        """
        value = read_settings(self.config, "make a node with `intramural node init`")
        kinds: dict[str, tuple[type, ...]] = {
            "department": (str,),
            "data": (str,),
            "columns": (dict,),
            "where": (dict,),
            "tolerance": (float, int),
            "policy": (str,),
            "base_model": (str,),
            "hub": (str,),
            "limits": (dict,),
        }
        faults = [
            f"{key} must be a {kind[0].__name__}"
            for key, kind in kinds.items()
            if key in value and not isinstance(value[key], kind)
        ]
        faults += [f"{key} is missing" for key in kinds.keys() - {"hub", "limits"} - value.keys()]
        faults += [f"{key} is unknown" for key in value.keys() - kinds]
        if faults:
            raise HomeUnusable(f"{self.config}: {'; '.join(sorted(faults))}")
        return NodeSettings(**value)

    def set(self, key: str, value: str) -> None:
        """Change one text of the settings; every other line stays as it is."""
        lines = self.config.read_text(encoding="utf-8").splitlines()
        changed = [
            f"{key} = {toml(value)}" if line.startswith(f"{key} =") else line for line in lines
        ]
        write_atomic(self.config, "".join(f"{line}\n" for line in changed).encode(), mode=0o600)

    def policy_path(self) -> Path:
        """The department's policy file."""
        return self.root / self.settings().policy

    def policy(self) -> "Policy":
        """The department's own policy.

        Raises:
            PolicyError: it cannot be used, or does not name the department.
            HomeUnusable: there is none.
        """
        from intramural.parts import read_policy

        path, department = self.policy_path(), self.settings().department
        if not path.exists():
            raise HomeUnusable(
                f"there is no policy at {path}; put the department's own there, or name it with "
                "`policy` in node.toml"
            )
        policy = read_policy(path)
        policy.department(department)
        return policy

    def ssh_public_key(self) -> str:
        """The public key for Flower, in OpenSSH's form."""
        return self.flower_key.with_suffix(".pub").read_text(encoding="ascii").strip()

    def report(self, *, leaving: bool = False) -> NodeReport:
        """What the node tells the hub of itself; signed by whoever sends it."""
        from privacy.code_digest import code_digest

        return NodeReport(
            department=self.settings().department,
            code_digest=code_digest(),
            policy_digest=self.policy().digest if self.policy_path().exists() else None,
            clock=now_text(),
            leaving=leaving,
        )

    def _make_flower_key(self) -> None:
        public = self.flower_key.with_suffix(".pub")
        if self.flower_key.exists() and public.exists():
            return
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        # The public half last: a crash in between leaves no pair, and both are made anew.
        write_atomic(self.flower_key, private, mode=0o600)
        text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        keep(public, text + b"\n")


def base_model(named: str) -> tuple[Path, str | None]:
    """Folder of a base model, and its public name where the folder does not say it.

    ``named``: a folder, the name of an asset, or empty for the demo's model. Nothing is fetched.

    Raises:
        AssetMissing: it is no folder, and no asset that is here.
    """
    from intramural.assets import asset_path
    from intramural.parts import DEMO_MODEL

    if named and Path(named).is_dir():
        return Path(named), None
    name = named or DEMO_MODEL
    return asset_path(name), name
