"""A validator for the JSON Schema keywords that our schemas use (draft 2020-12); no other is known.

It is small so that the tests need no further package. A keyword that it does not know is an error,
so that no schema is taken for checked which is not.
"""

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, Any] = {"object": dict, "string": str, "number": (int, float), "integer": int}
_NOTES = {"$schema", "$id", "$defs", "title", "description"}


def faults(
    value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$"
) -> Iterator[str]:
    """What of ``value`` contradicts ``schema``; ``root`` is the document that references lead into."""
    for keyword, bound in schema.items():
        if keyword in _NOTES:
            continue
        if keyword == "$ref":
            target: Any = root
            for part in bound.removeprefix("#/").split("/"):
                target = target[part]
            yield from faults(value, target, root, at)
        elif keyword == "oneOf":
            if sum(not list(faults(value, option, root)) for option in bound) != 1:
                yield f"{at}: fits not exactly one of {len(bound)}"
        elif keyword == "properties":
            for name in bound.keys() & value.keys() if isinstance(value, dict) else ():
                yield from faults(value[name], bound[name], root, f"{at}.{name}")
        elif not _fits(keyword, bound, value, schema):
            yield f"{at}: {keyword} {bound!r}"


def _fits(keyword: str, bound: Any, value: Any, schema: dict[str, Any]) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if keyword == "type":
        return isinstance(value, _TYPES[bound]) and not isinstance(value, bool)
    if keyword == "const":
        return bool(value == bound) and isinstance(value, bool) == isinstance(bound, bool)
    if keyword == "enum":
        return value in bound
    if keyword == "required":
        return not isinstance(value, dict) or set(bound) <= set(value)
    if keyword == "additionalProperties" and bound is False:
        return not isinstance(value, dict) or set(value) <= set(schema["properties"])
    if keyword == "pattern":
        # A dollar of ECMA-262 matches the very end alone, unlike Python's.
        return not isinstance(value, str) or bool(re.search(bound.replace("$", r"\Z"), value))
    if keyword == "minimum":
        return not number or value >= bound
    if keyword == "exclusiveMinimum":
        return not number or value > bound
    if keyword == "maximum":
        return not number or value <= bound
    if keyword == "exclusiveMaximum":
        return not number or value < bound
    raise ValueError(f"{keyword!r} is no keyword that this validator knows")
