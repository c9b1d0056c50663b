"""Signed manifests over the test policy, for tests of node, hub and command line."""

from datetime import timedelta

from federation_kit import DEPARTMENTS, FakeTrainer

from policies.model import Policy
from privacy.manifest import RunManifest, SignedManifest
from privacy.signing import SigningKey
from server.rounds import RunPlan

ACCOUNT = "ada"


def draw(policy: Policy, **changes: object) -> RunManifest:
    """A manifest of the policy's own run; ``changes`` replace arguments or terms."""
    terms = RunPlan.from_policy(policy, FakeTrainer.base_digest)
    changed = {n: changes.pop(n) for n in list(changes) if n in type(terms).model_fields}
    given: dict[str, object] = {
        "account": ACCOUNT,
        "base_model": "fake",
        "terms": terms.model_copy(update=changed),
        "departments": DEPARTMENTS,
        "code_digest": "c" * 64,
        "round_seconds": 60.0,
        "valid": timedelta(days=1),
    }
    given |= changes
    return RunManifest.draw(**given)  # type: ignore[arg-type]


def signed(policy: Policy, key: SigningKey, **changes: object) -> SignedManifest:
    """A manifest signed by ``key``."""
    return SignedManifest.sign(draw(policy, **changes), key)
