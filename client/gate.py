"""What stands before the agent: the run's manifest, and the department's own limits.

A request gets to the budget only where a trusted account signed a manifest that asks for exactly
this request, and where the limits of the node allow such a run now. It knows neither records nor
ledger; every word of a decline is public.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from policies.node import NodeLimits, RunFacts, decide_limits
from privacy.errors import PrivacyError
from privacy.exchange import Decline, RoundRequest
from privacy.manifest import ManifestInvalid, RunManifest, SignedManifest
from privacy.signing import VerifyKey

_log = logging.getLogger(__name__)
Trusted = Callable[[], Mapping[str, VerifyKey]]


def _now() -> datetime:
    return datetime.now(UTC)


class Gate(Protocol):
    """Decides before anything else whether a round may be looked at."""

    def check(self, request: RoundRequest, manifest: str | None) -> Decline | None:
        """None lets the round through; ``manifest`` is :meth:`SignedManifest.to_json`'s text."""
        ...


class RunGate:
    """The gate of every node, deployed or simulated.

    ``trusted`` names the hub's run accounts and is asked anew for each round, so that an account
    that ends, ends here too. ``clock`` gives a time with its zone; hours are those of the machine.
    """

    def __init__(
        self,
        department: str,
        trusted: Trusted,
        limits: NodeLimits | None = None,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._department = department
        self._trusted = trusted
        self._limits = limits or NodeLimits()
        self._clock = clock

    def check(self, request: RoundRequest, manifest: str | None) -> Decline | None:
        """See :meth:`Gate.check`."""
        if manifest is None:
            reason = "the round came without the signed manifest of its run"
            return Decline(code="manifest_missing", reason=reason)
        try:
            trusted = self._trusted()
        except PrivacyError as error:
            # Whom to trust cannot be established, so nobody is; why is the node's own business.
            _log.error("the trusted run accounts cannot be read: %s", error)
            reason = "this node cannot tell which accounts to trust; its own log says why"
            return Decline(code="account_not_trusted", reason=reason)
        now = self._clock()
        try:
            signed = SignedManifest.from_json(manifest)
            verified = signed.verify(trusted)
            verified.check_time(now)
            verified.check_request(request, self._department)
        except ManifestInvalid as error:
            return Decline(code=error.code, reason=str(error)[:500])
        decision = decide_limits(self._limits, facts_of(verified), now.astimezone())
        if decision:
            return None
        return Decline.model_validate({"code": decision.code, "reason": decision.reason[:500]})


def facts_of(manifest: RunManifest) -> RunFacts:
    """What a department's limits look at."""
    terms = manifest.terms
    return RunFacts(
        account=manifest.account,
        code_digest=manifest.code_digest,
        base_model=manifest.base_model,
        base_model_digest=terms.base_model_digest,
        minimum_nodes=terms.minimum_nodes,
        rounds=terms.rounds,
        steps=terms.steps,
        noise_multiplier=terms.noise_multiplier,
        clipping_norm=terms.clipping_norm,
    )
