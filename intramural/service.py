"""Opens everything that the service needs from a workspace, or refuses: it fails closed.

The order is from cheap to dear, and from what must hold to what may be slow: policy, release, keys,
audit log, then the models. What was opened is closed in the reverse order, also after a failure.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intramural.errors import WorkspaceError
from intramural.ledgers import read_spends
from intramural.parts import (
    DEMO_MODEL,
    detector_for,
    open_audit,
    open_keys,
    pii_models,
    workspace_policy,
)
from intramural.workspace import Workspace
from policies.model import Policy
from privacy.audit.entries import AuditEntry
from privacy.errors import ReleaseInvalid
from privacy.release import VerifiedRelease, list_releases, verify
from privacy.signing import VerifyKey

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.engines.base import Engine
    from api.keys import KeyStore
    from api.settings import ServiceSettings
    from privacy.audit.log import AuditLog
    from privacy.pii.detector import Detector

__all__ = [
    "LATEST",
    "Models",
    "Service",
    "find_release",
    "open_engine",
    "open_service",
    "pii_models",
]

LATEST = "latest"
Progress = Callable[[str], None]
"""Called with what is being opened now."""
Models = Callable[[Policy, VerifiedRelease], "tuple[Detector, Engine]"]
"""Opens what finds personal data and what answers."""


@dataclass(frozen=True)
class Service:
    """An application and its parts, open until the block of :func:`open_service` ends."""

    app: "FastAPI"
    policy: Policy
    release: VerifiedRelease
    engine: "Engine"
    detector: "Detector"
    audit: "AuditLog"
    keys: "KeyStore"


@contextmanager
def open_service(
    workspace: Workspace,
    *,
    release: str = LATEST,
    model: Path | None = None,
    trusted: VerifyKey | None = None,
    settings: "ServiceSettings | None" = None,
    wrap_engine: "Callable[[Engine], Engine] | None" = None,
    open_models: "Models | None" = None,
    progress: Progress = lambda step: None,
) -> Iterator[Service]:
    """The service over a workspace.

    Args:
        workspace: policy, releases, ledgers, audit log and keys are taken from here.
        release: the id of the release to serve, or "latest".
        model: folder of the base model that the release adapts; by default the demo's asset.
        trusted: who must have signed the release; by default ``release-key.pub`` in the workspace.
        settings: bounds of the process.
        wrap_engine: puts something between the application and the engine.
        open_models: opens detector and engine; by default those of the policy and the release.
        progress: told what is being opened.

    Raises:
        WorkspaceError: there is no policy or no such release.
        PolicyError: the policy cannot be used.
        ReleaseInvalid: the release does not verify.
        PrivacyError, ServiceError: keys, audit log or engine cannot be opened.
        AssetError, PiiError: the models are missing, changed or unusable.
    """
    from api.app import create_app
    from api.settings import ServiceSettings

    progress("policy")
    policy = workspace_policy(workspace)
    progress("release")
    chosen = find_release(workspace, release, trusted)
    with ExitStack() as stack:
        progress("keys")
        keys = open_keys(workspace)
        stack.callback(keys.close)
        progress("audit log")
        audit = stack.enter_context(open_audit(workspace))
        detector, engine = (open_models or _models(model, progress))(policy, chosen)
        if wrap_engine is not None:
            engine = wrap_engine(engine)
        app = create_app(
            settings or ServiceSettings(),
            engine=engine,
            detector=detector,
            audit=audit,
            keys=keys,
            policy=policy,
            releases=[chosen],
            ledgers=lambda: read_spends(workspace, policy, [chosen]),
        )
        facts = {"step": "serving", "policy": policy.digest, "release": chosen.id}
        audit.append(AuditEntry.now("policy", "service", facts))
        yield Service(app, policy, chosen, engine, detector, audit, keys)


def _models(model: Path | None, progress: Progress) -> "Models":
    def opened(policy: Policy, release: VerifiedRelease) -> "tuple[Detector, Engine]":
        progress("detector")
        detector = detector_for(policy.pii, policy.entities_named())
        progress("model")
        return detector, open_engine(release, model)

    return opened


def open_engine(release: VerifiedRelease, model: Path | None = None) -> "Engine":
    """The release's adapter on its base model, in this process.

    Raises:
        AssetMissing: no model was named and the demo's was not fetched.
        EngineError: the model cannot be loaded, or is not the one that the release was trained on.
    """
    from api.engines.transformers_local import TransformersEngine
    from intramural.assets import asset_path

    folder = model if model is not None else asset_path(DEMO_MODEL)
    return TransformersEngine(folder, release)


def find_release(
    workspace: Workspace, name: str = LATEST, trusted: VerifyKey | None = None
) -> VerifiedRelease:
    """The release of this id, or the latest one, verified.

    Raises:
        WorkspaceError: there is no such release.
        ReleaseInvalid: it does not verify; or another one does not, so that nobody can say which
            is the latest.
    """
    if name != LATEST:
        folder = workspace.releases / name
        if not name or Path(name).name != name or not folder.is_dir():
            known = sorted(p.name for p in _folders(workspace))
            there = f"there are {', '.join(known)}" if known else "there is none yet"
            raise WorkspaceError(f"no release {name!r} in {workspace.releases}; {there}")
        return verify(folder, trusted)
    found: list[VerifiedRelease] = []
    for release_id, release in list_releases(workspace.root, trusted):
        if isinstance(release, ReleaseInvalid):
            raise ReleaseInvalid(
                f"{release}. Nobody can say whether {release_id} is the latest; name a release, "
                "or move this one away"
            )
        found.append(release)
    if not found:
        raise WorkspaceError(
            f"{workspace.releases} holds no release yet; `intramural simulate` or "
            "`intramural demo` makes one"
        )
    return max(found, key=lambda each: (each.run["created"], each.id))


def _folders(workspace: Workspace) -> Iterator[Path]:
    if workspace.releases.is_dir():
        yield from (path for path in workspace.releases.iterdir() if path.is_dir())
