"""Epsilon and delta as a policy states them: exact decimals, and the budget that they make.

The module knows numbers only. What a department is, and where its figures come from, is
`policies.model`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

DIGITS = 15
"""Most significant digits of an epsilon or a delta: so many survive a JSON number unchanged (IEEE
754 binary64), and a receipt can therefore state the very limit that the policy's text states."""

_EXACT = Context(prec=60)


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value


def _as_decimal(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return Decimal(repr(value))


def _few_digits(value: Decimal) -> Decimal:
    if len(value.as_tuple().digits) > DIGITS or not -300 < value.adjusted() < 300:
        raise ValueError(
            f"has {len(value.as_tuple().digits)} significant digits and an exponent of "
            f"{value.adjusted()}; it may have {DIGITS} digits and an exponent within 300"
        )
    return value


Number = Annotated[float, BeforeValidator(_as_float)]
Limit = Annotated[
    Decimal,
    BeforeValidator(_as_decimal),
    AfterValidator(_few_digits),
    PlainSerializer(float, when_used="json"),
]
Epsilon = Annotated[Limit, Field(gt=0)]
Delta = Annotated[Limit, Field(gt=0, lt=1)]


def rounded_down(value: Decimal) -> float:
    """The largest binary64 number that is at most ``value``.

    For limits on their way to the accountant: a delta or epsilon above the declared one, by however
    little, would overstate the guarantee.
    """
    nearest = float(value)
    return math.nextafter(nearest, -math.inf) if Decimal(nearest) > value else nearest


@dataclass(frozen=True, slots=True)
class Budget:
    """What one department may spend on the records of one block: (epsilon, delta), exactly.

    ``epsilon`` and ``delta`` are the decimals of the policy's own text. ``block`` names the records.

    Raises TypeError for a binary number: it would be a limit that no file states.
    """

    epsilon: Decimal
    delta: Decimal
    block: str = "1"

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            value = getattr(self, name)
            if not isinstance(value, Decimal):
                raise TypeError(f"{name}={value!r} must be a Decimal, as in Decimal('8.1')")

    def allows(self, epsilon: float) -> bool:
        """Whether a composed cost is within the budget; compared exactly, not in binary64."""
        return Decimal(epsilon) <= self.epsilon

    def protects(self, units: int) -> bool:
        """Whether delta is below one over ``units``, so that none may be published outright."""
        return _EXACT.multiply(self.delta, Decimal(units)) < 1

    @property
    def accountant_delta(self) -> float:
        """The delta at which epsilon is computed: the largest number not above the declared one."""
        return rounded_down(self.delta)

    @property
    def stated_delta(self) -> float:
        """The number whose shortest spelling is the declared delta: for JSON, never for accounting."""
        return float(self.delta)
