"""Where a workspace keeps what: one folder for a simulated federation and the service over it.

::

    <root>/
      policy.toml | policy.yaml     the policy of the run
      nodes/<department>/           what only that department may read
        scrubbed.jsonl              its records after scrubbing
        ledger.db (+ .seal)         its privacy ledger
        signing.key, signing.pub    its Ed25519 key
        pseudonym.key               keys the pseudonyms of its subject ids
        blocks.db                   which data block each record belongs to
        canaries/<run>.json         a run's canaries and their secret coins
          <run>.scores.json         how each canary fared under the run's adapter
          <run>.report.json         what the audit of the run proves
        state/                      replies already given
      hub/                          what the coordinator sees
        checkpoints/                resumable state of each run
        signing.key                 signs releases
        account.key                 signs the manifests of runs
      releases/<id>/                signed releases, and release-key.pub beside them
      personal/<id>/                adapters of single departments on top of a release
      audit/                        audit.db (+ .seal), audit.key, audit.pub
      service/                      API keys (keys.db), their HMAC secret

In a deployment the three first folders live on different machines; the names stay the same.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NodePaths:
    """Files of one department; nobody else reads them."""

    root: Path

    @property
    def scrubbed(self) -> Path:
        return self.root / "scrubbed.jsonl"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def signing_key(self) -> Path:
        return self.root / "signing.key"

    @property
    def public_key(self) -> Path:
        return self.root / "signing.pub"

    @property
    def pseudonym_key(self) -> Path:
        return self.root / "pseudonym.key"

    @property
    def blocks(self) -> Path:
        return self.root / "blocks.db"

    def canaries(self, run: str) -> Path:
        """``run``: the name of the run's checkpoint folder; one set of canaries belongs to it."""
        return self.root / "canaries" / f"{run}.json"

    def canary_scores(self, run: str) -> Path:
        return self.root / "canaries" / f"{run}.scores.json"

    def canary_report(self, run: str) -> Path:
        return self.root / "canaries" / f"{run}.report.json"

    @property
    def state(self) -> Path:
        return self.root / "state"


@dataclass(frozen=True)
class Workspace:
    """Paths under one root; creates nothing.

    ``settings``: the file of the service's settings, where it is not the root's ``service.toml``.
    """

    root: Path
    settings: Path | None = None

    def policy(self) -> Path | None:
        """The policy file of the workspace, or ``None`` where there is none yet."""
        return next(iter(self.policies()), None)

    def policies(self) -> list[Path]:
        """Every policy file in the folder; there should be one."""
        names = ("policy.toml", "policy.yaml", "policy.yml")
        return [self.root / name for name in names if (self.root / name).is_file()]

    def node(self, department: str) -> NodePaths:
        return NodePaths(self.root / "nodes" / department)

    def departments(self) -> list[str]:
        """Departments that have a folder here, in alphabetical order."""
        nodes = self.root / "nodes"
        return sorted(p.name for p in nodes.iterdir() if p.is_dir()) if nodes.is_dir() else []

    @property
    def checkpoints(self) -> Path:
        return self.root / "hub" / "checkpoints"

    @property
    def hub_key(self) -> Path:
        return self.root / "hub" / "signing.key"

    @property
    def account_key(self) -> Path:
        return self.root / "hub" / "account.key"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    def personal(self, release: str) -> Path:
        """Folder of the departments' own adapters for a release; ``<department>.personal``."""
        return self.root / "personal" / release

    @property
    def audit(self) -> Path:
        return self.root / "audit" / "audit.db"

    @property
    def audit_key(self) -> Path:
        return self.root / "audit" / "audit.key"

    @property
    def audit_public_key(self) -> Path:
        return self.root / "audit" / "audit.pub"

    @property
    def service(self) -> Path:
        return self.root / "service"
