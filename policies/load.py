"""Reading a policy file, and saying everything that is wrong with it at once.

Every fault is named by its dotted key, with the value and the bound. The policy's digest is the
SHA-256 of the file's bytes, so `sha256sum policy.toml` agrees with receipts and releases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from policies.access import AccessPolicy, PrincipalPolicy
from policies.errors import Fault, PolicyError
from policies.model import (
    DEFAULT_ROLES,
    DepartmentPolicy,
    PiiPolicy,
    Policy,
    PolicyDocument,
    PrivacyPolicy,
    RolePolicy,
    TrainingPolicy,
    disagreements,
)
from policies.syntax import SUFFIXES, Format, parse_document
from policies.wording import faults_of

WEAK_EPSILON = 10
"""A budget above this is reported as a weak guarantee."""

M = TypeVar("M", bound=BaseModel)


def load_policy(path: str | Path) -> Policy:
    """Read and check a policy file (.toml, .yaml or .yml).

    Raises PolicyError with every fault, also for a file that cannot be read.
    """
    path = Path(path)
    source = str(path)
    format_ = SUFFIXES.get(path.suffix.lower())
    if format_ is None:
        message = f"has the ending {path.suffix!r}; a policy ends in {', '.join(SUFFIXES)}"
        raise PolicyError([Fault("", message)], source=source)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PolicyError([Fault("", f"cannot be read: {reason}")], source=source) from None
    return parse_policy(content, format_, source=source)


def parse_policy(content: bytes, format: Format, *, source: str = "") -> Policy:  # noqa: A002
    """Check a policy given as the bytes of a file. Raises PolicyError with every fault."""
    data = parse_document(content, format, source=source)
    try:
        document = PolicyDocument.model_validate(data)
    except ValidationError as error:
        faults = faults_of(error)
        faults.extend(_other_disagreements(data, faults))
        raise PolicyError(faults, source=source) from None
    values = {name: getattr(document, name) for name in PolicyDocument.model_fields}
    return Policy(**values, digest=hashlib.sha256(content).hexdigest())


def dump_policy(policy: Policy) -> dict[str, Any]:
    """The policy as plain tables, defaults filled in: what a file that says it all would hold.

    Keys without a value are left out, and so is the digest, which a file cannot state.
    """
    tables: dict[str, Any] = _without_none(policy.model_dump(mode="json", exclude={"digest"}))
    return tables


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value


def policy_warnings(policy: PolicyDocument) -> tuple[Fault, ...]:
    """What is allowed, but probably not meant, by key."""
    warnings: list[Fault] = []
    target = policy.training.target_epsilon
    for name, department in policy.departments.items():
        budget = policy.budget_of(name)
        if target is not None and target > budget.epsilon:
            message = (
                f"is {target}, above the budget of {budget.epsilon} of department {name!r}, "
                "which will decline before the run ends"
            )
            warnings.append(Fault("training.target_epsilon", message))
        if budget.epsilon > WEAK_EPSILON:
            own = department.epsilon is not None
            key = f"departments.{name}.epsilon" if own else "privacy.epsilon"
            message = f"is {budget.epsilon}; above {WEAK_EPSILON} the guarantee is weak"
            warnings.append(Fault(key, message))
        if len(str(department.declared_units).rstrip("0")) > 2:
            message = (
                f"is {department.declared_units}, which looks like an exact count; it is public, "
                "so give a rounded figure"
            )
            warnings.append(Fault(f"departments.{name}.declared_units", message))
    defaults = {"pii": policy.pii.default_action} | {
        key: rules.default_action for key, rules in policy.pii_tables().items()
    }
    for key, action in defaults.items():
        if action == "allow":
            message = "is 'allow': every entity without a rule of its own passes unredacted"
            warnings.append(Fault(f"{key}.default_action", message))
    return tuple(dict.fromkeys(warnings))


def _other_disagreements(data: Mapping[str, Any], faults: list[Fault]) -> list[Fault]:
    """What also disagrees between sections, as far as the faulty file lets that be seen.

    The validator compares sections only once each is valid; an author wants to hear it all at
    once. A disagreement that rests on a key already reported is left out.
    """
    found = disagreements(
        _salvage(PrivacyPolicy, data.get("privacy")),
        {
            str(name): _salvage(DepartmentPolicy, department)
            for name, department in _table(data.get("departments")).items()
        },
        _salvage(TrainingPolicy, data.get("training")),
        _salvage(PiiPolicy, data.get("pii")),
        _roles(data.get("roles")),
        _salvage(AccessPolicy, data.get("access")),
        {
            str(name): _salvage(PrincipalPolicy, principal)
            for name, principal in _table(data.get("principals")).items()
        },
    )
    reported = {fault.key.partition("[")[0] for fault in faults}
    return [
        other.fault
        for other in found
        if other.fault not in faults and not reported.intersection(other.keys)
    ]


def _roles(given: object) -> dict[str, RolePolicy]:
    named = {
        str(name): _salvage(RolePolicy, {"operations": [], "pii": role.get("pii", {})})
        for name, role in _table(given).items()
        if isinstance(role, dict)
    }
    return {**DEFAULT_ROLES, **named}


def _table(given: object) -> dict[Any, Any]:
    return given if isinstance(given, dict) else {}


def _salvage(section: type[M], given: object) -> M:
    """The section with its faulty keys left at their defaults."""
    tables = dict(_table(given))
    try:
        return section.model_validate(tables)
    except ValidationError as error:
        for details in error.errors():
            tables.pop(details["loc"][0], None)
        return section.model_validate(tables)
