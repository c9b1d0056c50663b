"""What a department does at its node with a release that the hub published.

It takes its own adapter out for its service, and audits what the release reveals of its canaries.
Both need what never leaves the node: the adapter, the coins.
"""

from pathlib import Path

from client.personal import PersonalAdapters
from intramural.auditing import NoCanaries, RunAudit, audit_department, keep_report
from intramural.deployment.node_home import NodeHome, base_model
from intramural.errors import CommandRefused
from intramural.personal import Placed
from privacy.empirical.canaries import CanarySet, save_scores
from privacy.exchange import adapter_digest
from privacy.files import write_atomic
from privacy.personal import SUFFIX, sealed
from privacy.receipts import Receipt
from privacy.release import VerifiedRelease, verify
from privacy.signing import SigningKey, VerifyKey


def read_release(home: NodeHome, folder: Path, trusted: VerifyKey | None = None) -> VerifiedRelease:
    """The release in a folder, signed by the hub that this node has joined or by ``trusted``.

    Raises:
        ReleaseInvalid: it does not verify.
        JoinRefused: the node has joined no hub, and no key was given.
    """
    if trusted is None:
        home.hub.read()
        trusted = VerifyKey.load(home.hub.key)
    return verify(folder.absolute(), trusted)


def take_personal(home: NodeHome, release: VerifiedRelease, out: Path | None = None) -> Placed:
    """Write the node's own adapter of the release's run to a file, signed; mode 0600.

    ``out``: by default ``<release>.<department>.personal`` in the working folder.

    Raises:
        CommandRefused: the node has none of this run.
        PersonalInvalid: the release is none that this node took part in, or has another shape.
    """
    department, run_id = home.settings().department, release.run["run_id"]
    tensors = PersonalAdapters(home.state).read(run_id)
    if not tensors:
        raise CommandRefused(
            f"this node has no personal adapter of run {run_id}: it trains one where its policy has "
            "training.personal = true while the run goes on"
        )
    data = sealed(release, department, tensors, SigningKey.load(home.signing_key))
    path = out or Path(f"{release.id}.{department}{SUFFIX}")
    write_atomic(path, data, mode=0o600)
    return Placed(department, release.id, path)


def audit_release(home: NodeHome, release: VerifiedRelease, confidence: float) -> RunAudit:
    """Score the canaries of the release's run and compare them with the receipts' claim.

    ``confidence``: of this department's bound alone. Canaries, scores and report stay here.

    Raises:
        NoCanaries: the node inserted none.
        CommandRefused: the release has no receipt of this node, or the node holds another model.
        CanariesUnusable: the canaries are damaged or exposed.
    """
    from privacy.dp.adapter import config_of
    from privacy.dp.trainer import LoraTrainer
    from privacy.empirical.attack import loss_scores

    settings, policy, run_id = home.settings(), home.policy(), release.run["run_id"]
    receipts = _own_receipts(home, release)
    path = home.canaries(run_id)
    if not path.exists():
        raise NoCanaries(
            f"this node inserted no canaries into run {run_id}, so nothing can be measured: set "
            "training.canaries in the policy (1000, say) and train once more"
        )
    canaries = CanarySet.load(path)
    folder, name = base_model(settings.base_model)
    trainer = LoraTrainer(folder, name=name)
    if trainer.base_digest != release.run["base_model_digest"]:
        raise CommandRefused(
            f"{release.id} was trained on base model {release.run['base_model_digest'][:12]}, this "
            f"node holds {trainer.base_digest[:12]}; name the other with `base_model` in "
            f"{home.config}"
        )
    tensors = release.tensors()
    config = config_of(release.adapter_config, release.run["factors"])
    examples = canaries.examples(trainer.tokenizer, policy.training.max_tokens)
    scores = loss_scores(trainer, examples, config, tensors)
    save_scores(home.canary_scores(run_id), scores, adapter_digest(tensors))
    coins = canaries.included
    part = audit_department(settings.department, receipts, scores, coins, confidence)
    keep_report(home, run_id, run_id, part)
    return RunAudit(run_id, run_id, confidence, (part,))


def _own_receipts(home: NodeHome, release: VerifiedRelease) -> list[Receipt]:
    """In the order of their rounds."""
    own, name = VerifyKey.load(home.public_key).key_id, home.settings().department
    found = [r for r in release.receipts if (r.department, r.key_id) == (name, own)]
    if not found:
        raise CommandRefused(
            f"{release.id} has no receipt of this node: its run went on without department {name!r}, "
            "or with another key of it"
        )
    return sorted(found, key=lambda receipt: receipt.round)
