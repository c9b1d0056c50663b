"""Limits at the door: rates and places of a caller, and of everybody together."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from api.errors import too_many_requests, unavailable
from api.limits import Charge, LocalRates, Rates, Standing, Together
from api.settings import ServiceSettings
from policies.grants import Caller, rates_of
from policies.model import Policy

_KINDS = ("requests", "tokens")


class HasHeaders(Protocol):
    """An answer to which headers can be added."""

    headers: dict[str, str]


class Admission:
    """Decides by the policy's limits whether a caller may be served now.

    Rates count in ``rates``, wherever that is kept; places count in this process.
    """

    def __init__(self, settings: ServiceSettings, policy: Policy, rates: Rates) -> None:
        self._settings = settings
        self._policy = policy
        self._rates = rates
        self._strangers = LocalRates()
        self._together = Together()
        self._served = 0

    def stranger(self) -> None:
        """Count a request whose credentials opened nothing.

        Raises:
            HttpError: 429, there were too many of them.
        """
        # One bucket for all strangers: an address proves nothing behind a proxy.
        limit = self._settings.failed_authentications_per_minute
        (standing,) = self._strangers.take_now([Charge("strangers", limit)])
        if standing.wait:
            raise too_many_requests(
                "too many requests with invalid keys", retry_after=math.ceil(standing.wait)
            )

    async def admit(self, caller: Caller, answer: HasHeaders) -> AbstractContextManager[None]:
        """Take a request from the caller's rates, and say in the answer's headers how they stand.

        Returns:
            Holds the request's places while it is entered; entering it raises HttpError 429 or 503
            where there is none.

        Raises:
            HttpError: 429 with ``Retry-After``, or 503 where the rates cannot be reached.
        """
        limits = rates_of(self._policy, caller)
        charges = [
            Charge(f"{kind}:{limit.bucket}", most, int(kind == "requests"))
            for limit in limits
            for kind, most in zip(_KINDS, (limit.requests, limit.tokens), strict=True)
            if most is not None
        ]
        standings = await self._rates.take(charges)
        pairs = list(zip(charges, standings, strict=True))
        for kind in _KINDS:
            own = [pair for pair in pairs if pair[0].bucket.startswith(f"{kind}:")]
            if own:
                tightest = min(own, key=lambda pair: pair[1].left)
                answer.headers |= _headers(kind, *tightest)
        for charge, standing in pairs:
            if standing.wait:
                kind, whose, _ = charge.bucket.split(":", 2)
                raise too_many_requests(
                    f"this {whose} may use {charge.per_minute} {kind} per minute",
                    retry_after=math.ceil(standing.wait),
                )
        together = [(each.bucket, each.together) for each in limits if each.together is not None]
        return self._places(together)

    async def used(self, caller: Caller, tokens: int) -> None:
        """Charge the tokens that a request used, known only at its end.

        Raises:
            HttpError: 503, the rates cannot be reached.
        """
        charges = [
            Charge(f"tokens:{limit.bucket}", limit.tokens, tokens, owed=True)
            for limit in rates_of(self._policy, caller)
            if limit.tokens is not None
        ]
        if tokens and charges:
            await self._rates.take(charges)

    @contextmanager
    def _places(self, together: list[tuple[str, int]]) -> Iterator[None]:
        most = self._settings.concurrent_requests
        if self._served >= most:
            raise unavailable(
                f"the service is busy: {most} requests are under way",
                code="overloaded",
                retry_after=1,
            )
        with self._together.one(together):
            self._served += 1
            try:
                yield
            finally:
                self._served -= 1


def _headers(kind: str, charge: Charge, standing: Standing) -> dict[str, str]:
    """OpenAI's rate-limit headers; times as it writes them, such as ``1.5s``."""
    return {
        f"x-ratelimit-limit-{kind}": str(charge.per_minute),
        f"x-ratelimit-remaining-{kind}": str(standing.left),
        f"x-ratelimit-reset-{kind}": f"{standing.full:.3f}".rstrip("0").rstrip(".") + "s",
    }
