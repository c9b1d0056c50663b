"""Who asks: an API key, a token of an issuer, or a client certificate becomes a caller."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from api.errors import InvalidCredential, unavailable
from api.keys import KeyStore
from api.tokens import TokenVerifier
from policies.grants import Caller, principal_policy
from policies.model import Policy
from privacy.errors import StoreError

_log = logging.getLogger(__name__)


class Authenticator:
    """Judges credentials by the key store, the issuers and the principals of the policy."""

    def __init__(self, policy: Policy, keys: KeyStore, tokens: TokenVerifier) -> None:
        self._policy = policy
        self._keys = keys
        self._tokens = tokens
        self._certificates = {
            subject: name
            for name, principal in policy.principals.items()
            for subject in principal.certificates
        }

    def caller(self, bearer: str, names: Sequence[str], origin: str | None) -> Caller:
        """Who shows these credentials. May wait for a database or an issuer.

        Args:
            bearer: text of the bearer credential; ``""`` where there is none.
            names: names in the client certificate that TLS verified; empty without one.
            origin: the caller's address.

        Raises:
            InvalidCredential: they open nothing.
            HttpError: 503, nobody can say.
        """
        known = {self._certificates[name] for name in names if name in self._certificates}
        if len(known) > 1:
            raise InvalidCredential("certificate_ambiguous")
        certified = next(iter(known), None)
        if not bearer and certified is not None:
            own = principal_policy(self._policy, certified)
            role = own.role or ""  # the policy was refused if it had none
            return Caller(certified, role, f"certificate:{certified}", own.department or "")
        caller = self._bearer(bearer, origin)
        if certified is not None and caller.principal != certified:
            raise InvalidCredential("certificate_mismatch", caller.credential)
        return caller

    def note_use(self, caller: Caller) -> None:
        """Note when an API key was last used."""
        if ":" not in caller.credential:
            self._keys.note_use(caller.credential)

    def _bearer(self, text: str, origin: str | None) -> Caller:
        # A key has no dots, a token two: neither is ever tried as the other.
        if "." in text and self._policy.access.issuers:
            return self._with_department(self._tokens.authenticate(text))
        try:
            key = self._keys.authenticate(text, origin)
        except StoreError as error:
            _log.error("keys cannot be read: %s", type(error).__name__)
            raise unavailable(
                "keys cannot be checked at present, so nothing is answered",
                code="keys_unavailable",
                retry_after=1,
            ) from None
        caller = Caller(
            key.principal,
            key.role,
            key.id,
            operations=key.scope.operations,
            releases=key.scope.releases,
        )
        return self._with_department(caller)

    def _with_department(self, caller: Caller) -> Caller:
        own = principal_policy(self._policy, caller.principal)
        if own.role is not None and own.role != caller.role:
            raise InvalidCredential("role_mismatch", caller.credential)
        if own.department is None:
            return caller
        return replace(caller, department=own.department)
