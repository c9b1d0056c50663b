"""Issuers, principals and what a caller may do."""

from typing import Any

import pytest

from policies.errors import PolicyError
from policies.grants import Caller, decide_caller, rates_of
from policies.load import dump_policy, parse_policy
from policies.model import Policy

BASE = """
version = 1
organisation = "Example"
[departments.hr]
[departments.finance]
"""
ISSUER = """
[access.issuers.corp]
issuer = "https://login.example.org"
audience = "intramural"
jwks = "https://login.example.org/keys"
roles = {users = "app"}
"""


def policy(text: str = "") -> Policy:
    """A policy with more sections."""
    return parse_policy((BASE + text).encode(), "toml")


def faults(text: str) -> dict[str, str]:
    """What is wrong with a policy, by key."""
    with pytest.raises(PolicyError) as caught:
        policy(text)
    return {fault.key: fault.message for fault in caught.value.faults}


def test_every_fault_of_the_access_sections_at_once() -> None:
    """Names that nothing bears and claims that two make are each told by their key."""
    found = faults(
        ISSUER
        + """
maximum_age_seconds = 10
[access.issuers.copy]
issuer = "https://login.example.org"
audience = "intramural"
jwks = "/etc/keys.json"
roles = {x = "nobody"}
[principals.a]
role = "nobody"
department = "sales"
certificates = ["CN=a"]
[principals.b]
certificates = ["CN=a"]
"""
    )
    assert set(found) == {
        "access.issuers.corp.maximum_age_seconds",
        "access.issuers.copy.roles",
        "access.issuers.copy.issuer",
        "principals.a.role",
        "principals.a.department",
        "principals.b.role",
        "principals.b.certificates",
    }


@pytest.mark.parametrize(
    "jwks",
    [
        "http://login.example.org/keys",
        "ftp://login.example.org/keys",
        "file:///etc/keys",
        "keys.json",
        "https://user:word@login.example.org/keys",
        "https:///keys",
        "http://127.0.0.1.example.org/keys",
    ],
)
def test_key_sets_come_from_safe_places(jwks: str) -> None:
    """Only https, loopback or an absolute path, without a password."""
    assert set(faults(ISSUER.replace("https://login.example.org/keys", jwks))) == {
        "access.issuers.corp.jwks"
    }


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "RSA-OAEP", ""])
def test_only_signatures_by_key_pairs(algorithm: str) -> None:
    """No policy can allow an algorithm by which callers could sign their own tokens."""
    found = faults(ISSUER.replace("roles = ", f"algorithms = ['{algorithm}']\nroles = "))
    assert set(found) == {"access.issuers.corp.algorithms[0]"}


def test_the_sections_are_shown_and_read_back() -> None:
    """What `policy show` prints is a policy again."""
    declared = policy(ISSUER + "[principals.'ada@example.org']\nkind = 'person'\n")
    shown: dict[str, Any] = dump_policy(declared)
    assert shown["access"]["issuers"]["corp"]["roles"] == {"users": "app"}
    assert shown["principals"]["ada@example.org"]["kind"] == "person"


GRANTS = """
[roles.app]
operations = ["chat", "models"]
releases = ["r-1*"]
tokens_per_minute = 1000
[principals.crm]
operations = ["chat", "redact"]
releases = ["r-12*"]
requests_per_minute = 5
concurrent_requests = 2
"""


@pytest.mark.parametrize(
    ("operations", "releases", "operation", "release", "code"),
    [
        (None, None, "chat", "r-123", "allowed"),
        (None, None, "chat", None, "allowed"),
        (None, None, "models", None, "operation_not_allowed"),  # the principal has it not
        (None, None, "redact", None, "operation_not_allowed"),  # the role has it not
        (None, None, "chat", "r-133", "release_not_allowed"),  # the principal has it not
        (None, None, "chat", "r-2", "release_not_allowed"),  # the role has it not
        (("models",), None, "chat", None, "operation_not_allowed"),  # the scope has it not
        (("chat",), None, "chat", "r-12", "allowed"),
        (None, ("r-124",), "chat", "r-123", "release_not_allowed"),
        (None, ("r-124",), "chat", "r-124", "allowed"),
        (("redact", "budgets"), ("*",), "budgets", None, "operation_not_allowed"),
    ],
)
def test_role_scope_and_principal_must_agree(
    operations: Any, releases: Any, operation: str, release: str | None, code: str
) -> None:
    """A call is allowed only if all three allow it; none of them widens another."""
    caller = Caller("crm", "app", "k", operations=operations, releases=releases)
    assert decide_caller(policy(GRANTS), caller, operation, release).code == code


def test_limits_of_the_credential_and_of_the_principal() -> None:
    """A role's rates count for each credential, a principal's over all; unknown roles get little."""
    declared = policy(GRANTS)
    own, shared = rates_of(declared, Caller("crm", "app", "k1"))
    assert (own.bucket, own.requests, own.tokens, own.together) == ("credential:k1", 60, 1000, 32)
    assert (shared.bucket, shared.requests, shared.tokens) == ("principal:crm", 5, None)
    assert shared.together == 2
    (only,) = rates_of(declared, Caller("erp", "former", "k2"))
    assert (only.requests, only.together) == (1, 1)
