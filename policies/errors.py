"""What can be wrong with a policy.

ValueError
└── PolicyError            the policy cannot be used; .faults lists every reason
    ├── UnknownDepartment  a department that the policy does not name
    └── UnknownRole        a role that the policy does not name
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding in a policy: the dotted key that it concerns, and what there is to say.

    `key` is empty where the whole file is meant. `message` names the value, the bound and, where
    one exists, the way out.
    """

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class PolicyError(ValueError):
    """A policy that cannot be used. `faults` holds every fault found, never only the first."""

    def __init__(self, faults: Iterable[Fault], *, source: str = "") -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        self.source = source
        super().__init__(self.faults, source)

    def __str__(self) -> str:
        subject = f"policy {self.source}" if self.source else "policy"
        if len(self.faults) == 1:
            return f"{subject}: {self.faults[0]}"
        lines = [f"{subject} has {len(self.faults)} faults:", *(f"  {f}" for f in self.faults)]
        return "\n".join(lines)


class UnknownDepartment(PolicyError):
    """A department that the policy does not name."""


class UnknownRole(PolicyError):
    """A role that the policy does not name."""
