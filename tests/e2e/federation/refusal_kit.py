"""Manifests that no node may follow, and a bundle that no node may run."""

import secrets
from collections.abc import Callable
from pathlib import Path

from fault_kit import DEPARTMENTS, PATIENCE, Federation
from flwr.cli.build import build_fab_from_files

from client.agent_socket import SocketAgent
from client.bundle import BUNDLED, build_bundle, content_of
from privacy.exchange import Decline
from privacy.manifest import RunManifest, RunTerms, SignedManifest
from privacy.signing import SigningKey
from server.runs import RunFolder

Sign = Callable[[RunManifest, SigningKey], SignedManifest]


def account_key(there: Federation) -> SigningKey:
    """The key of the account that all nodes trust."""
    return SigningKey.load(there.hub_home / "accounts" / "ada" / "account.key")


def another(manifest: RunManifest, **terms: object) -> RunManifest:
    """The same run with other terms, under an id of its own."""
    changed = manifest.terms.model_copy(update=terms)
    return manifest.model_copy(update={"terms": changed, "nonce": secrets.token_hex(16)})


def signed(manifest: RunManifest, key: SigningKey) -> SignedManifest:
    """As `train start` signs."""
    return SignedManifest.sign(manifest, key)


def unsigned(manifest: RunManifest, key: SigningKey) -> SignedManifest:
    """With a signature of nobody's."""
    return SignedManifest(manifest, bytes(64))


def forged(manifest: RunManifest, key: SigningKey) -> SignedManifest:
    """Signed by somebody who says that they are the account."""
    return SignedManifest.sign(manifest, SigningKey.generate())


def by_a_stranger(manifest: RunManifest, key: SigningKey) -> SignedManifest:
    """Properly signed by an account that the hub does not have."""
    return SignedManifest.sign(manifest.model_copy(update={"account": "mallory"}), key)


def spent(there: Federation) -> dict[str, int]:
    """How many entries each ledger has."""
    return {name: len(there.ledger(name).entries) for name in DEPARTMENTS}


def ask(
    there: Federation,
    run: RunFolder,
    department: str,
    manifest: SignedManifest,
    terms: RunTerms | None = None,
    *,
    attach: bool = True,
) -> Decline:
    """A decline of a department's running agent; the request is the manifest's unless others are given."""
    state = run.state()
    assert state is not None
    asked = terms or manifest.manifest.terms
    request = asked.request_under(manifest.manifest.run_id, 1, department)
    agent = SocketAgent(there.node_home(department).socket, PATIENCE)
    answer = agent.handle(request, state.adapter, manifest.to_json() if attach else None)
    assert isinstance(answer, Decline)
    return answer


def kept_out(there: Federation, run: RunFolder, manifest: SignedManifest) -> RunFolder:
    """A run of the hub that the keeper does not start by itself."""
    policy = there.root / "policy.toml"
    made = RunFolder.create(there.hub_home / "runs", manifest, policy, run.base_model())
    with made.keep() as value:
        value.update(wanted="stop", standing="cancelled")
    return made


def altered_bundle(marker: Path) -> bytes:
    """The bundle with one more line in the ClientApp, which leaves ``marker`` where it runs."""
    files: dict[str, bytes | Path] = {
        name: data
        for name, data in content_of(build_bundle()).items()
        if name in {*BUNDLED, "pyproject.toml"}
    }
    app = files["client/app.py"]
    assert isinstance(app, bytes)
    files["client/app.py"] = app + f"\nPath({str(marker)!r}).touch()\n".encode()
    altered, _ = build_fab_from_files(files)
    return altered
