"""What one caller may do: the role, narrowed by the credential's scope and the principal's table.

Pure decisions, as in :mod:`policies.decisions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from policies.access import PrincipalPolicy
from policies.decisions import ALLOWED, Decision, decide_call
from policies.model import Policy

_UNDECLARED = PrincipalPolicy()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what the credential that was shown is good for.

    `credential` names it in limits and audit entries. `operations` and `releases` are its scope;
    None: all that the role has.
    """

    principal: str
    role: str
    credential: str
    department: str = ""
    operations: tuple[str, ...] | None = None
    releases: tuple[str, ...] | None = None


def principal_policy(policy: Policy, principal: str) -> PrincipalPolicy:
    """The table of a principal; that of one without a table says nothing."""
    return policy.principals.get(principal, _UNDECLARED)


def decide_caller(
    policy: Policy,
    caller: Caller,
    operation: str,
    release: str | None = None,
    max_tokens: int | None = None,
) -> Decision:
    """May this caller do this? As :func:`policies.decisions.decide_call`, for one credential."""
    own = principal_policy(policy, caller.principal)
    if caller.principal not in policy.principals and not policy.access.undeclared_principals:
        return _no("principal_not_allowed", "the policy has no table for this principal")
    if not own.enabled:
        return _no("principal_not_allowed", "the policy has disabled this principal")
    decision = decide_call(policy, caller.role, operation, release, max_tokens)
    if not decision:
        return decision
    for whose, operations, releases in (
        ("the scope of this credential", caller.operations, caller.releases),
        ("the grants of this principal", own.operations, own.releases),
    ):
        if operations is not None and operation not in operations:
            return _no("operation_not_allowed", f"{whose} has not the operation {operation!r}")
        if releases is not None and release is not None and not _matches(release, releases):
            return _no("release_not_allowed", f"{whose} has not the release {release!r}")
    return ALLOWED


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits of one bucket: per minute, and at once; None: none."""

    bucket: str
    requests: int | None
    tokens: int | None
    together: int | None


def rates_of(policy: Policy, caller: Caller) -> tuple[Rates, ...]:
    """The limits of the credential by its role, then those of the principal's table if any.

    A role that the policy does not name gets one request a minute: enough to be told so.
    """
    role = policy.roles.get(caller.role)
    own = principal_policy(policy, caller.principal)
    found = [
        Rates(
            f"credential:{caller.credential}",
            role.requests_per_minute if role else 1,
            role.tokens_per_minute if role else None,
            role.concurrent_requests if role else 1,
        )
    ]
    if own is not _UNDECLARED:
        found.append(
            Rates(
                f"principal:{caller.principal}",
                own.requests_per_minute,
                own.tokens_per_minute,
                own.concurrent_requests,
            )
        )
    return tuple(found)


def _matches(release: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(release, pattern) for pattern in patterns)


def _no(code: str, reason: str) -> Decision:
    return Decision(allowed=False, code=code, reason=reason)
