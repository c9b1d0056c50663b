"""Turns validation faults into sentences that name the field, the kind and the bound.

Nothing that a caller sent is repeated: not a value, and no field name that we do not know.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from api import responses_schema, schemas
from api.errors import HttpError, invalid_request

_MOST = 5


def _names(model: type[schemas.Body]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_KNOWN = sorted(
    {
        name
        for module in (schemas, responses_schema)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, schemas.Body)
        for name in _names(model)
    }
)
# Tags of our discriminated unions: steps of pydantic's path that no caller wrote.
_TAGS = {"body", "query"}
_TAG = "as-"
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "items"),
    "too_long": ("at most", "max_length", "items"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}
_KINDS = {
    "int_type": "a whole number",
    "int_parsing_size": "a whole number of at most 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode (no lone surrogates)",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "union_tag_invalid": "a string or an array",
    "union_tag_not_found": "a string or an array",
}


def fault(errors: Sequence[Any]) -> HttpError:
    """One 400 for all of pydantic's ``errors``; ``param`` is the first field at fault."""
    sentences = [_sentence(error) for error in errors[:_MOST]]
    if len(errors) > _MOST:
        sentences.append(f"and {len(errors) - _MOST} more")
    first = errors[0]
    code = {
        "missing": "missing_field",
        "unsupported": "unsupported_field",
        "unsupported_part": "unsupported_content",
    }.get(first["type"], "json_invalid" if first["type"] == "json_invalid" else "invalid_value")
    return invalid_request("; ".join(sentences), code=code, param=_path(first) or None)


def _sentence(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    ctx = error.get("ctx", {})
    field = _path(error)
    got = _json_kind(error.get("input"))
    if kind == "json_invalid":
        return f"the body is not valid JSON (at character {error['loc'][-1]})"
    if not field and kind != "extra_forbidden":
        if kind == "missing":
            return "the body is empty: send a JSON object"
        return "the body must be a JSON object, sent with Content-Type: application/json"
    if kind == "missing":
        return f"{field} is required"
    if kind == "unsupported":
        return f"{field} is not supported by this service: leave it out or at its neutral value"
    if kind == "unsupported_part":
        return (
            f"{field} {ctx['part']!r} is not supported: personal data cannot be looked for in it; "
            "send its text"
        )
    if kind == "string_pattern_mismatch":
        return f"{field} must match {ctx['pattern']}; the {got} sent does not"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _KNOWN, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{field or 'the body'} has a field that this service does not know{hint}"
    if kind == "literal_error":
        return f"{field} must be {ctx['expected']}, not another {got}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"{field} must be {word} {_figure(ctx[key])}; the {got} sent is not"
    if kind in _LENGTHS:
        word, key, unit = _LENGTHS[kind]
        return f"{field} must have {word} {ctx[key]} {unit}; the {got} sent has not"
    if kind in _KINDS:
        return f"{field} must be {_KINDS[kind]}, not {got}"
    return f"{field} is not valid"


def _is_tag(step: object) -> bool:
    return step in _TAGS or (isinstance(step, str) and step.startswith(_TAG))


def _path(error: Mapping[str, Any]) -> str:
    """``messages[0].content``; without the last step where that is a name that we do not know."""
    steps = [step for step in error["loc"] if not _is_tag(step)]
    if error["type"] == "extra_forbidden":
        steps = steps[:-1]
    if error["type"] == "json_invalid":
        return ""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list | tuple) else "object"


def _figure(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
