"""What a release is known to guarantee, as JSON."""

from datetime import datetime
from typing import Any

from privacy.release import VerifiedRelease


def created(release: VerifiedRelease) -> int:
    """When its run began, in seconds since 1970."""
    return int(datetime.fromisoformat(release.run["created"]).timestamp())


def facts(release: VerifiedRelease) -> dict[str, Any]:
    """Base model, policy, signer, guarantee by department, and metrics on public data."""
    privacy = release.privacy
    return {
        "release": release.id,
        "base_model": release.run["base_model"],
        "policy": release.run["policy_digest"],
        "signed_by": release.key_id,
        "privacy": {
            "unit": privacy["unit"],
            "adjacency": privacy["adjacency"],
            "mechanism": privacy["mechanism"],
            "departments": {
                department: {"epsilon": part["epsilon"], "delta": part["delta"]}
                for department, part in privacy["departments"].items()
            },
            "largest_epsilon": privacy["largest_epsilon"],
            "sum_epsilon": privacy["sum_epsilon"],
        },
        "metrics": release.metrics,
    }
