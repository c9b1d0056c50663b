"""Opens the parts of a workspace, in one way for every command, the simulation and the service.

Importing this module loads no model library; opening a detector does.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from intramural.errors import WorkspaceError
from intramural.stores import audit_place, keys_place
from intramural.workspace import Workspace
from privacy.files import load_or_create_secret
from privacy.signing import SigningKey
from privacy.store.place import Place

if TYPE_CHECKING:
    from api.keys import KeyStore
    from policies.model import PiiPolicy, Policy
    from privacy.audit.log import AuditLog
    from privacy.pii.custom import CustomPattern
    from privacy.pii.detector import Detector, PiiModels

PII_ASSETS: Final = ("spacy-en-md", "rampart-en-pii", "lac-zh")
"""The detector's models: English names, English classifier, Chinese names."""

DEMO_MODEL: Final = "smollm2-135m-instruct"

AUDIT_ORIGIN: Final = "intramural.local/audit"
"""Name of a workspace's audit log; its checkpoints carry it, so it never changes."""

_KEY_BYTES: Final = 32


def read_policy(path: Path) -> "Policy":
    """A policy file that the whole product can follow.

    Raises:
        PolicyError: it cannot be used, has rules for kinds of personal data that no detector finds
            (such a rule would protect nobody), or patterns that cannot be searched in bounded time.
    """
    from policies.errors import Fault, PolicyError
    from policies.load import load_policy
    from privacy.pii.entities import ENTITIES
    from privacy.pii.errors import PatternRefused

    policy = load_policy(path)
    known = ", ".join(sorted(ENTITIES))
    faults = [
        Fault(key, f"is no kind of personal data that is looked for: {known}")
        for name, key in policy.entities_named().items()
        if name not in ENTITIES
    ]
    try:
        _patterns(policy.pii)
    except PatternRefused as error:
        faults.append(Fault("pii.patterns", str(error)))
    if faults:
        raise PolicyError(faults, source=str(path))
    return policy


def workspace_policy(workspace: Workspace) -> "Policy":
    """The policy of a workspace.

    Raises:
        WorkspaceError: it has none.
        PolicyError: it has one that cannot be used.
    """
    path = workspace.policy()
    if path is None:
        raise WorkspaceError(
            f"{workspace.root} holds no policy.toml, policy.yaml or policy.yml; name another "
            "folder with --workspace"
        )
    return read_policy(path)


def open_audit(workspace: Workspace, *, timeout: float = 10.0) -> "AuditLog":
    """The workspace's audit log, open for writing; made, with its keys, where there is none.

    Several processes may have it open.

    Raises:
        TamperedStore: the log is not what its key signed.
        StoreBusy: another process kept it to itself for ``timeout`` seconds.
        StoreUnavailable: its server cannot be reached.
        KeyUnusable: the key is damaged, or is missing although there is a log.
    """
    from privacy.audit.log import AuditLog

    place = audit_place(workspace)
    key = store_key(place, workspace.audit_key)
    if not workspace.audit_public_key.exists():
        key.verify_key.save(workspace.audit_public_key)
    return AuditLog(place, key, AUDIT_ORIGIN, timeout=timeout)


def store_key(store: Place, key: Path) -> SigningKey:
    """The key that signs a store's heads; made, with its folder, where there is no store.

    A key is never made anew beside a store that another one signed.

    Raises:
        KeyUnusable: it is damaged, or is missing although there is a store.
    """
    from privacy.store.reading import store_exists

    if store_exists(store):
        return SigningKey.load(key)
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SigningKey.load_or_create(key)


def service_key(workspace: Workspace) -> Path:
    """The key that signs the service's stores."""
    return workspace.service / "signing.key"


def open_keys(workspace: Workspace) -> "KeyStore":
    """The service's API keys; made where there are none. Several processes may have them open.

    Raises:
        TamperedStore, StoreBusy, StoreUnavailable: the database cannot be used.
        KeyUnusable, KeyRequestInvalid: its signing key or its secret is unusable or missing.
    """
    from api.keys import KeyStore
    from privacy.store.reading import store_exists

    place, secret = keys_place(workspace), workspace.service / "keys.secret"
    if store_exists(place) and not secret.exists():
        raise WorkspaceError(
            f"{secret} is missing, so none of the keys in {place.name} can be checked; "
            "restore it, or remove the folder and create all keys anew"
        )
    return KeyStore(place, signing_key=store_key(place, service_key(workspace)), secret=secret)


def pii_models(*, home: Path | None = None) -> "PiiModels":
    """The folders of the detector's models.

    Raises:
        AssetMissing: one was not fetched on this machine.
    """
    from intramural.assets import asset_path
    from privacy.pii.detector import PiiModels

    return PiiModels(*(asset_path(name, home=home) for name in PII_ASSETS))


def detector_for(
    pii: "PiiPolicy", named: Iterable[str] = (), *, home: Path | None = None
) -> "Detector":
    """The full detector as the policy configures it, over model assets that verify.

    What the section names is looked for, and what is ``named`` beside it (rules of roles), besides
    all that is personal by itself. Takes seconds: keep one per process.

    Raises:
        AssetMissing, AssetCorrupt: a model was not fetched, or its files were changed.
        DetectorNotReady: a model cannot be used.
    """
    from intramural.assets import AssetCorrupt, verify
    from privacy.pii.detector import open_detector
    from privacy.pii.entities import ENTITIES, PERSONAL

    models = pii_models(home=home)
    for state in verify(PII_ASSETS, home=home):
        if state.faults:
            raise AssetCorrupt(
                f"the model asset {state.asset.name!r} is not as it was fetched: "
                f"{'; '.join(state.faults)}. Run `intramural assets fetch {state.asset.name} --force`"
            )
    return open_detector(
        models,
        pii.languages,
        threshold=pii.threshold,
        allow=pii.allow,
        deny=pii.deny,
        entities=PERSONAL | (ENTITIES & {*named, *pii.named()}),
        thresholds=pii.thresholds,
        patterns=_patterns(pii),
    )


def _patterns(pii: "PiiPolicy") -> "list[CustomPattern]":
    from privacy.pii.custom import CustomPattern

    return [CustomPattern(p.name, p.entity, p.regex, p.score, p.context) for p in pii.patterns]


def pseudonym_key(path: Path) -> bytes:
    """The 32-byte key of a department's pseudonyms; drawn, with mode 0600, where there is none.

    Raises:
        WorkspaceError: the file is no such key, or others can read it.
    """
    return load_or_create_secret(
        path,
        _KEY_BYTES,
        what="pseudonym key",
        remedy="choose another file",
        error=WorkspaceError,
    )


def subject_pseudonym(key: bytes) -> Callable[[str], str]:
    """Turns subject ids into stable names that tell nothing without the key (keyed BLAKE2b)."""

    def pseudonym(subject_id: str) -> str:
        data = subject_id.encode("utf-8", "surrogatepass")
        return "s-" + hashlib.blake2b(data, key=key, digest_size=8).hexdigest()

    return pseudonym
