"""Who may call: issuers of tokens that are believed, and what each principal may do.

A role says what a kind of caller may do; the table of a principal narrows that for one application
or person, over all its credentials, and never widens it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from policies.errors import Fault
from policies.limits import Number
from policies.roles import Name, Operation, Requests, Together, Tokens
from policies.section import Distinct, Phrase, Section

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
"""Signatures by key pairs only: with a shared secret, or none, anyone could make tokens."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def _jwks(value: str) -> str:
    if value.startswith("/"):
        return value
    parts = urlsplit(value)
    if not parts.hostname or parts.username or parts.password or parts.fragment:
        raise ValueError("must be the https URL of a key set, or the absolute path of a file")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("must begin with https:// (http:// only on the loopback interface) or /")
    return value


def _claim(value: str) -> str:
    if not re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", value):
        raise ValueError("must be the name of a claim; dots lead into objects, as in a.b")
    return value


def _some(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("is empty, but must name at least one")
    return values


Jwks = Annotated[Phrase, AfterValidator(_jwks)]
Claim = Annotated[Phrase, AfterValidator(_claim)]
PrincipalName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+/=-]{0,159}\z")
]


class IssuerPolicy(Section):
    """One issuer of JSON Web Tokens (RFC 7519) whose tokens the service believes.

    `issuer` and `audience` are compared exactly. `jwks` is the URL of its key set (RFC 7517) or the
    absolute path of a file; a URL in a token is never followed. The principal is
    `<name>:<principal_claim>`, where `<name>` is the name of this table, so that it can never be
    taken for the principal of an API key. `roles` maps values of `role_claim` to roles; with
    several, the first of this table counts; with none, the token opens nothing.

    Keys are fetched again after `refresh_seconds`, or when a token names an unknown one. While they
    cannot be fetched, those that are known count until they are `maximum_age_seconds` old.
    """

    issuer: Phrase
    audience: Phrase
    jwks: Jwks
    algorithms: Annotated[tuple[Algorithm, ...], *Distinct, AfterValidator(_some)] = (
        "RS256",
        "ES256",
    )
    principal_claim: Claim = "sub"
    role_claim: Claim = "roles"
    department_claim: Claim | None = None
    roles: Annotated[Mapping[Phrase, Name], Field(min_length=1)]
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    refresh_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    maximum_age_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    timeout_seconds: Annotated[Number, Field(gt=0, le=30)] = 3.0


class AccessPolicy(Section):
    """Credentials besides API keys, and whether principals without a table may call."""

    undeclared_principals: bool = True
    issuers: Mapping[Name, IssuerPolicy] = Field(default_factory=dict)


class PrincipalPolicy(Section):
    """One application or person. What is left out is what the role of the credential says.

    `certificates` are names of client certificates, `URI:…` or `DNS:…` of the subject alternative
    names or a subject as `CN=crm,O=Example`; they need `role`. Rates count over all credentials of
    the principal together. A principal that is not `enabled` may do nothing.
    """

    kind: Literal["service", "person"] = "service"
    enabled: bool = True
    department: Name | None = None
    role: Name | None = None
    certificates: Annotated[tuple[Phrase, ...], *Distinct] = ()
    operations: Annotated[tuple[Operation, ...], *Distinct] | None = None
    releases: Annotated[tuple[Phrase, ...], *Distinct] | None = None
    requests_per_minute: Requests | None = None
    tokens_per_minute: Tokens | None = None
    concurrent_requests: Together | None = None


def access_faults(
    access: AccessPolicy,
    principals: Mapping[str, PrincipalPolicy],
    roles: Sequence[str],
    departments: Sequence[str],
) -> Iterator[tuple[Fault, tuple[str, ...]]]:
    """Names that nothing bears and claims that two make; each with the keys that it rests on."""
    issued: dict[tuple[str, str], str] = {}
    for name, issuer in access.issuers.items():
        key = f"access.issuers.{name}"
        for value, role in issuer.roles.items():
            if role not in roles:
                known = ", ".join(roles)
                message = f"gives {value!r} the role {role!r}; the policy names {known}"
                yield Fault(f"{key}.roles", message), (f"{key}.roles", "roles")
        other = issued.setdefault((issuer.issuer, issuer.audience), name)
        if other != name:
            message = f"has the issuer and audience of access.issuers.{other}; keep one of the two"
            yield Fault(f"{key}.issuer", message), (f"{key}.issuer",)
        if issuer.maximum_age_seconds < issuer.refresh_seconds:
            message = (
                f"is {issuer.maximum_age_seconds}, below refresh_seconds="
                f"{issuer.refresh_seconds}: keys would expire before they are fetched again"
            )
            age = f"{key}.maximum_age_seconds"
            yield Fault(age, message), (age, f"{key}.refresh_seconds")
    bearers: dict[str, str] = {}
    for name, principal in principals.items():
        key = f"principals.{name}"
        if principal.role is not None and principal.role not in roles:
            message = f"is {principal.role!r}; the policy names {', '.join(roles)}"
            yield Fault(f"{key}.role", message), (f"{key}.role", "roles")
        if principal.department is not None and principal.department not in departments:
            message = f"is {principal.department!r}; the policy names {', '.join(departments)}"
            yield Fault(f"{key}.department", message), (f"{key}.department", "departments")
        if principal.certificates and principal.role is None:
            message = f"is missing: a certificate of {name!r} has no role of its own"
            yield Fault(f"{key}.role", message), (f"{key}.role", f"{key}.certificates")
        for subject in principal.certificates:
            other = bearers.setdefault(subject, name)
            if other != name:
                message = f"{subject!r} also stands for principals.{other}; keep one of the two"
                yield Fault(f"{key}.certificates", message), (f"{key}.certificates",)
