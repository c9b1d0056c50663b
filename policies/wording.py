"""A validator's findings in the policy's own words: dotted key, value, bound, way out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.errors import Fault, PolicyError
from policies.model import PolicyDocument

Location = tuple[int | str, ...]

_COMPARISONS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}

_KINDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "is_instance_of": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

_NAME_RULES = {
    "departments": "is no department name: use a small letter, then small letters, digits and _ (at most 40)",
    "roles": "is no role name: use a small letter, then small letters, digits and _ (at most 40)",
    "issuers": "is no name: use a small letter, then small letters, digits and _ (at most 40)",
    "principals": "is no principal: use letters, digits and ._@:+/=- (at most 160), a letter or digit first",
    "entities": "is no entity name: use capital letters, digits and _, as in EMAIL_ADDRESS",
}


def faults_of(error: ValidationError) -> list[Fault]:
    """Every finding of the validator as a fault."""
    faults: list[Fault] = []
    for details in error.errors(include_url=False):
        inner = details.get("ctx", {}).get("error")
        if isinstance(inner, PolicyError):
            faults.extend(inner.faults)
        else:
            faults.append(_fault(details))
    return faults


def dotted(location: Location) -> str:
    """The key as a file's author would say it: `training.targets[1]`."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            key += f".{part}" if key else part
    return key


def show(value: object) -> str:
    """A value for a message, in at most 60 characters."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Decimal):
        value = value if value.is_finite() else float(value)
        text = str(value)
    else:
        text = ("false", "true")[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fault(details: ErrorDetails) -> Fault:
    location: Location = details["loc"]
    if len(location) >= 3 and location[-1] == "[key]":
        table = location[:-2]
        return Fault(
            dotted(table),
            f"{details['input']!r} {_NAME_RULES.get(str(table[-1]), 'cannot stand here')}",
        )
    if details["type"] == "extra_forbidden":
        return Fault(dotted(location), f"is no key of a policy{_suggestion(location)}")
    return Fault(dotted(location), _words(details))


def _words(details: ErrorDetails) -> str:
    kind, value, bounds = details["type"], show(details["input"]), details.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind in _COMPARISONS:
        relation, bound = _COMPARISONS[kind]
        return f"is {value}, but must be {relation} {bounds[bound]}"
    if kind in _KINDS:
        return f"is {value}, but must be {_KINDS[kind]}"
    if kind == "literal_error":
        return f"is {value}, but must be {bounds['expected']}"
    if kind == "too_short":
        return "is empty, but must name at least one"
    if kind == "string_too_short":
        return "is empty"
    if kind == "string_too_long":
        return f"has {len(str(details['input']))} characters, but may have {bounds['max_length']}"
    if kind == "string_pattern_mismatch":
        blank = not str(details["input"]).strip()
        return "is blank" if blank else f"is {value}, which has a character that is not allowed"
    if kind == "value_error":
        return str(bounds["error"])
    return f"is {value}: {details['msg'][:1].lower()}{details['msg'][1:]}"


def _suggestion(location: Location) -> str:
    """For an unknown key: the nearest key of its section, or the section where it belongs."""
    name = str(location[-1])
    section = _section_at(location[:-1])
    siblings = list(section.model_fields) if section else []
    if elsewhere := [key for key in _plain_keys() if key.rpartition(".")[2] == name]:
        return f"; did you mean {' or '.join(elsewhere)}?"
    if close := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return f"; did you mean {dotted((*location[:-1], close[0]))}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _section_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    current: Any = PolicyDocument
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        elif get_origin(current) is not None and len(get_args(current)) == 2:
            current = get_args(current)[1]
        else:
            return None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _plain_keys() -> list[str]:
    """The dotted keys of the sections that occur once."""
    keys: list[str] = []
    for name, field in PolicyDocument.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys.extend(f"{name}.{inner}" for inner in section.model_fields)
        else:
            keys.append(name)
    return keys
