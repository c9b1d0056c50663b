"""Opens everything that the service needs from a workspace, or refuses: it fails closed.

The order is from cheap to dear, and from what must hold to what may be slow: policy, release, keys,
audit log, then the models. What was opened is closed in the reverse order, also after a failure.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from intramural.personal import with_personal
from intramural.serving import Backend, following, open_backend, promoted
from intramural.workspace import Workspace
from policies.model import Policy
from privacy.audit.entries import AuditEntry
from privacy.errors import ReleaseInvalid
from privacy.release import VerifiedRelease, list_releases, verify
from privacy.signing import VerifyKey

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.channels import Channel
    from api.engines.base import Engine
    from api.keys import KeyStore
    from api.metrics_shared import SharedFigures
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
_OPENING_SECONDS = 60.0
"""Another process that opens the log after a crash checks all of it first."""
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
    figures: "SharedFigures | None" = None,
    progress: Progress = lambda step: None,
) -> Iterator[Service]:
    """The service over a workspace.

    Args:
        workspace: policy, releases, ledgers, audit log and keys are taken from here.
        release: the id of the one release to serve; "latest" follows what is promoted, and begins
            with the latest one where nothing is.
        model: folder of the base model that the release adapts; by default the demo's asset.
        trusted: who must have signed the release; by default ``release-key.pub`` in the workspace.
        settings: bounds of the process.
        wrap_engine: puts something between the application and the engine.
        open_models: opens detector and engine; by default those of the policy and the release.
        figures: of the other workers of this service, if there are any.
        progress: told what is being opened.

    Raises:
        WorkspaceError: there is no policy or no such release.
        PolicyError: the policy cannot be used.
        ReleaseInvalid, PersonalInvalid: the release, or an adapter on top of it, does not verify.
        PrivacyError, ServiceError: keys, audit log or engine cannot be opened.
        AssetError, PiiError: the models are missing, changed or unusable.
    """
    from api.app import create_app
    from api.channels import Channel
    from api.engines.switching import SwitchingEngine
    from api.releases import Releases
    from api.settings import ServiceSettings
    from api.tracing_export import open_tracing

    settings = settings or ServiceSettings()
    progress("policy")
    policy = workspace_policy(workspace)
    progress("release")
    pinned = release != LATEST
    standing = None if pinned else promoted(workspace, settings.alias)

    def find(name: str) -> VerifiedRelease:
        return with_personal(workspace, find_release(workspace, name, trusted))

    chosen = find(standing or release)
    releases = Releases([chosen], alias=settings.alias)
    with ExitStack() as stack:
        tracing = stack.enter_context(open_tracing(settings.tracing))
        progress("keys")
        keys = open_keys(workspace)
        stack.callback(keys.close)
        progress("audit log")
        audit = stack.enter_context(open_audit(workspace, timeout=_OPENING_SECONDS))
        if open_models is None:
            progress("detector")
            detector = detector_for(policy.pii, policy.entities_named())
            progress("model")
            folder = model_folder(model)
            backend = stack.enter_context(open_backend(settings.engine, folder))
        else:
            detector, opened = open_models(policy, chosen)
            backend = Backend(lambda _: opened)
        switching = SwitchingEngine(backend.open, backend.close, backend.beside)
        switching.load(chosen)

        recorded: dict[str, Channel] = {}

        def told(channels: "Mapping[str, Channel]") -> None:
            for name, channel in channels.items():
                if recorded.get(name) != channel:
                    audit.append(AuditEntry.now("policy", "service", _released(policy, channel)))
                    recorded[name] = channel

        def found(name: str) -> VerifiedRelease:
            return _noted(find(name), audit)

        checks = {}
        if pinned:
            _noted(chosen, audit)
        else:
            checks["promotions"] = stack.enter_context(
                following(
                    workspace,
                    switching,
                    releases,
                    default={settings.alias: Channel(settings.alias, chosen.id)},
                    find=found,
                    told=told,
                )
            )
        engine = switching if wrap_engine is None else wrap_engine(switching)
        app = create_app(
            settings,
            engine=engine,
            detector=detector,
            audit=audit,
            keys=keys,
            policy=policy,
            releases=releases,
            ledgers=lambda: read_spends(workspace, policy, list(releases.values())),
            checks=checks,
            tracing=tracing,
            figures=figures,
        )
        if figures is not None:
            figures.start(app.state.services.metrics.collect)
            stack.callback(figures.close)
        facts = {"step": "serving", "policy": policy.digest, "release": chosen.id}
        audit.append(AuditEntry.now("policy", "service", facts))
        yield Service(app, policy, chosen, engine, detector, audit, keys)


def _noted(release: VerifiedRelease, audit: "AuditLog") -> VerifiedRelease:
    """Put on record whose own adapters are on top of a release, before it answers anybody."""
    if release.personal:
        facts = {
            "step": "personal",
            "release": release.id,
            "departments": sorted(release.personal),
        }
        audit.append(AuditEntry.now("policy", "service", facts))
    return release


def _released(policy: Policy, channel: "Channel") -> dict[str, Any]:
    return {
        "step": "released",
        "policy": policy.digest,
        "name": channel.name,
        "release": channel.stable,
        "canary": channel.canary,
        "percent": channel.percent,
    }


def model_folder(model: Path | None) -> Callable[[], Path]:
    """Gives the folder of the base model: the one named, else the demonstration's."""

    def folder() -> Path:
        from intramural.assets import asset_path

        return model if model is not None else asset_path(DEMO_MODEL)

    return folder


def open_engine(release: VerifiedRelease, model: Path | None = None) -> "Engine":
    """The release's adapter on its base model, in this process.

    Raises:
        AssetMissing: no model was named and the demo's was not fetched.
        EngineError: the model cannot be loaded, or is not the one that the release was trained on.
    """
    from api.engines.settings import EngineSettings

    with open_backend(EngineSettings(), model_folder(model)) as backend:
        return backend.open(release)


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
