"""Bearer tokens of OIDC issuers: JSON Web Tokens (RFC 7519), checked as RFC 8725 advises.

A token opens something only if its signature verifies under a key of an issuer that the policy
names, by an algorithm that the policy allows; its issuer and audience are exactly the policy's; it
has a subject and an expiry; now lies within its times; and one of its role claims maps to a role.
The key decides about the algorithm as well: a public key never serves as a shared secret.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from api.clock import seconds_now
from api.errors import InvalidCredential, unavailable
from api.jwks import Fetch, Jwks, KeysUnavailable
from policies.access import IssuerPolicy
from policies.grants import Caller
from policies.model import Policy

_MOST_CHARACTERS = 16_384
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class TokenVerifier:
    """Turns tokens into callers, by the issuers of the policy.

    Args:
        policy: names issuers, departments and roles.
        fetch: gets key sets by their URL.
        clock: seconds since 1970 (for the times in tokens).
        monotonic: seconds that never go back (for the age of keys).
    """

    def __init__(
        self,
        policy: Policy,
        *,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = seconds_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._keys = {
            name: Jwks(name, issuer, fetch=fetch, clock=monotonic)
            for name, issuer in policy.access.issuers.items()
        }

    def authenticate(self, token: str) -> Caller:
        """Who this token is of. May wait for an issuer, as long as the policy allows.

        Raises:
            InvalidCredential: it opens nothing; the outcome says why.
            HttpError: 503, the issuer's keys are not to be had, so nobody can say.
        """
        if len(token) > _MOST_CHARACTERS or not _COMPACT.fullmatch(token):
            raise InvalidCredential("token_malformed")
        header, claimed = _peek(token)
        name = self._issuer(claimed)
        issuer = self._policy.access.issuers[name]
        claims = self._verified(token, header, name, issuer)
        self._check_times(claims, issuer)
        return self._caller(claims, name, issuer)

    def _issuer(self, claimed: Mapping[str, Any]) -> str:
        """The issuer that the token says it is of; believed only once the signature verifies."""
        audience = claimed.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        reason = "token_issuer"
        for name, issuer in self._policy.access.issuers.items():
            if claimed.get("iss") == issuer.issuer:
                if issuer.audience in audiences:
                    return name
                reason = "token_audience"
        raise InvalidCredential(reason)

    def _verified(
        self, token: str, header: Mapping[str, Any], name: str, issuer: IssuerPolicy
    ) -> Mapping[str, Any]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            raise InvalidCredential("token_algorithm")
        if not isinstance(kid, str | None):
            raise InvalidCredential("token_malformed")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise InvalidCredential("token_type")
        try:
            key = self._keys[name].find(kid)
        except KeysUnavailable:
            raise unavailable(
                "tokens of this issuer cannot be checked at present",
                code="identity_unavailable",
                retry_after=5,
            ) from None
        if key is None or key.key_type != _FAMILIES[algorithm[:2]]:
            raise InvalidCredential("token_key")
        if key.get("alg") not in (None, algorithm):
            raise InvalidCredential("token_key")
        try:
            return jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError):
            raise InvalidCredential("token_signature") from None

    def _check_times(self, claims: Mapping[str, Any], issuer: IssuerPolicy) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()), leeway=issuer.leeway_seconds, exp={"essential": True}
        )
        try:
            registry.validate(dict(claims))
        except JoseError as error:
            expired = error.error == "expired_token"
            raise InvalidCredential("token_expired" if expired else "token_claims") from None

    def _caller(self, claims: Mapping[str, Any], name: str, issuer: IssuerPolicy) -> Caller:
        subject = _claim(claims, issuer.principal_claim)
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise InvalidCredential("token_subject")
        held = set(_texts(_claim(claims, issuer.role_claim)))
        role = next((role for value, role in issuer.roles.items() if value in held), None)
        if role is None:
            raise InvalidCredential("token_role")
        department = ""
        if issuer.department_claim is not None:
            said = _claim(claims, issuer.department_claim)
            if isinstance(said, str) and said in self._policy.departments:
                department = said
        principal = f"{name}:{subject}"
        return Caller(principal, role, f"token:{principal}", department)


def _peek(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims, unverified: only to find the issuer."""
    try:
        unverified = jws.extract_compact(token.encode())
        header, claims = unverified.headers(), json.loads(unverified.payload)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise InvalidCredential("token_malformed") from None
    if not isinstance(claims, dict):
        raise InvalidCredential("token_malformed")
    return header, claims


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its dotted path; a claim whose own name has the dots comes first."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> list[str]:
    """A text, a list of texts or words apart by spaces (as in ``scope``), as a list."""
    if isinstance(value, str):
        return [value, *value.split()]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
