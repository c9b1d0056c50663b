"""The department's own limits on a run, besides its policy: pure decisions over public run facts.

The policy is one file for hub and nodes; these limits belong to one node alone, in the table
``[limits]`` of its settings. Every limit that is left out does not limit. They can only refuse:
what the policy does not allow stays refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from policies.decisions import ALLOWED, Decision
from policies.errors import Fault, PolicyError
from policies.limits import Number
from policies.model import Digest, Policy
from policies.section import Distinct, Phrase, Section
from policies.wording import faults_of

LimitCode = Literal[
    "account_not_allowed",
    "code_not_allowed",
    "base_model_not_allowed",
    "cohort_too_small",
    "too_many_rounds",
    "too_many_steps",
    "noise_too_low",
    "clipping_norm_too_high",
    "outside_allowed_hours",
]
"""Which limit declines."""

LIMIT_CODES: tuple[LimitCode, ...] = get_args(LimitCode)

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*) +)?"
    r"(?P<start>[0-2]\d:[0-5]\d)-(?P<end>[0-2]\d:[0-5]\d)"
)
_MIDNIGHT = 24 * 60


@dataclass(frozen=True)
class Window:
    """Local hours of some weekdays (0 is Monday), in minutes; one past midnight began the day before."""

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``mon-fri 20:00-06:00``, ``sat,sun 00:00-24:00`` or ``22:00-05:00`` (every day).

        Raises:
            ValueError: it is none of these.
        """
        found = _WINDOW.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError(f"{text!r} must be like 'mon-fri 20:00-06:00' or '22:00-05:00'")
        start, end = _minutes(found["start"]), _minutes(found["end"])
        if start >= _MIDNIGHT or end > _MIDNIGHT or start == end:
            raise ValueError(f"{text!r} must begin before 24:00 and not end when it begins")
        return cls(_days(found["days"]), start, end)

    def holds(self, now: datetime) -> bool:
        """Whether the local time ``now`` lies in it."""
        day, minute = now.weekday(), now.hour * 60 + now.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        began_before = (day - 1) % 7 in self.days and minute < self.end
        return began_before or (day in self.days and minute >= self.start)


def _checked_window(text: str) -> str:
    Window.parse(text)
    return text


Hours = Annotated[str, StringConstraints(max_length=100), AfterValidator(_checked_window)]


class NodeLimits(Section):
    """What this department allows a run.

    ``base_models`` are digests or public names, ``accounts`` those of the hub's accounts that may
    sign, ``code`` the digests of hub code that is accepted. ``minimum_cohort`` bounds the fewest
    contributions that a round may be made of. ``hours`` are local time windows, ``maximum_steps``
    is for one round. An empty list allows nothing.
    """

    minimum_noise_multiplier: Annotated[Number, Field(gt=0)] | None = None
    maximum_clipping_norm: Annotated[Number, Field(gt=0)] | None = None
    base_models: Annotated[tuple[Phrase, ...], *Distinct] | None = None
    minimum_cohort: Annotated[int, Field(ge=1)] | None = None
    maximum_rounds: Annotated[int, Field(ge=1)] | None = None
    maximum_steps: Annotated[int, Field(ge=1)] | None = None
    hours: Annotated[tuple[Hours, ...], *Distinct] | None = None
    accounts: Annotated[tuple[Phrase, ...], *Distinct] | None = None
    code: Annotated[tuple[Digest, ...], *Distinct] | None = None

    def under(self, policy: Policy) -> NodeLimits:
        """These limits, with the policy's minimum cohort where they name no larger one."""
        least = max(self.minimum_cohort or 1, policy.training.minimum_nodes)
        return self.model_copy(update={"minimum_cohort": least})

    @classmethod
    def read(cls, table: Mapping[str, Any], *, source: str = "") -> NodeLimits:
        """The table ``[limits]`` of a settings file.

        Raises:
            PolicyError: with every fault by its key.
        """
        known = {key: value for key, value in table.items() if key in cls.model_fields}
        faults = [
            Fault(f"limits.{key}", f"is unknown; known: {', '.join(cls.model_fields)}")
            for key in table
            if key not in known
        ]
        try:
            limits = cls.model_validate(known)
        except ValidationError as error:
            faults += [Fault(f"limits.{f.key}", f.message) for f in faults_of(error)]
        if faults:
            raise PolicyError(faults, source=source)
        return limits


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's manifest says, as far as a department's limits have a say in it."""

    account: str
    code_digest: str
    base_model: str
    base_model_digest: str
    minimum_nodes: int
    rounds: int
    steps: int
    noise_multiplier: float
    clipping_norm: float


def decide_limits(limits: NodeLimits, facts: RunFacts, now: datetime) -> Decision:
    """May a run like this train here at the local time ``now``?"""
    if limits.accounts is not None and facts.account not in limits.accounts:
        return _no("account_not_allowed", f"account={facts.account!r} may not start runs here")
    if limits.code is not None and facts.code_digest not in limits.code:
        return _no("code_not_allowed", f"code_digest={facts.code_digest[:12]} is not accepted here")
    models = limits.base_models
    if models is not None and not {facts.base_model, facts.base_model_digest} & {*models}:
        return _no(
            "base_model_not_allowed",
            f"base_model={facts.base_model!r} ({facts.base_model_digest[:12]}) may not train here",
        )
    lowest: tuple[tuple[LimitCode, str, float, str, float | None], ...] = (
        ("cohort_too_small", "minimum_nodes", facts.minimum_nodes, "minimum_cohort",
         limits.minimum_cohort),
        ("noise_too_low", "noise_multiplier", facts.noise_multiplier, "minimum_noise_multiplier",
         limits.minimum_noise_multiplier),
    )  # fmt: skip
    highest: tuple[tuple[LimitCode, str, float, str, float | None], ...] = (
        ("too_many_rounds", "rounds", facts.rounds, "maximum_rounds", limits.maximum_rounds),
        ("too_many_steps", "steps", facts.steps, "maximum_steps", limits.maximum_steps),
        ("clipping_norm_too_high", "clipping_norm", facts.clipping_norm, "maximum_clipping_norm",
         limits.maximum_clipping_norm),
    )  # fmt: skip
    for code, name, value, key, bound in lowest:
        # Written so that a NaN is refused.
        if bound is not None and not value >= bound:
            return _no(code, f"{name}={value!r} is below this department's {key}={bound!r}")
    for code, name, value, key, bound in highest:
        if bound is not None and not value <= bound:
            return _no(code, f"{name}={value!r} exceeds this department's {key}={bound!r}")
    if limits.hours is not None and not any(Window.parse(t).holds(now) for t in limits.hours):
        return _no("outside_allowed_hours", f"this department trains at {'; '.join(limits.hours)}")
    return ALLOWED


def _no(code: LimitCode, reason: str) -> Decision:
    return Decision(allowed=False, code=code, reason=reason)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{part!r} must be of {', '.join(_DAYS)}")
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        found |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return frozenset(found)
