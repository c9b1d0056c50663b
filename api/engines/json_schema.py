"""A grammar of the instances of a JSON schema (draft 2020-12).

Properties come in the order of the schema; those that it does not name are not written.

Understood: type, properties, required, additionalProperties, items, minItems, maxItems, minLength,
maxLength, minimum, maximum, exclusiveMinimum, exclusiveMaximum (whole numbers), enum, const, anyOf,
oneOf, allOf of one, $ref within the schema. Annotations (title, description, default, examples,
format and their like) say nothing about what fits. Every other keyword is refused by name.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from api.engines.json_grammar import (
    MOST_NESTED,
    Any_,
    Chars,
    Choice,
    FreeMembers,
    Items,
    Members,
    Number,
    Reference,
    SchemaRefused,
    Symbol,
    Text,
)

_SMALL_RANGE: Final = 64
_NOTES: Final = frozenset(
    [
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "definitions",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "examples",
        "example",
        "format",
        "readOnly",
        "strict",
        "title",
        "writeOnly",
    ]
)
_UNDERSTOOD: Final = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ]
)
_OTHERS: Final = frozenset(
    [
        "pattern",
        "multipleOf",
        "prefixItems",
        "contains",
        "minContains",
        "maxContains",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "unevaluatedItems",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentEncoding",
        "contentMediaType",
        "$dynamicRef",
        "$dynamicAnchor",
        "$recursiveRef",
        "$vocabulary",
        "nullable",
        "additionalItems",
    ]
)
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


def of_schema(schema: Mapping[str, Any]) -> tuple[Symbol, ...]:
    """The grammar of the instances of a schema.

    Raises:
        SchemaRefused: it holds what cannot be followed, or nothing could fit it.
    """
    reader = _Reader(schema)
    made = (reader.symbol(schema),)
    reader.read_references()
    return made


class _Reader:
    """Reads one schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, Symbol] = {}
        self._named: list[str] = []

    def read_references(self) -> None:
        """Read all that is referred to now, so that faults are found before anything is made."""
        for pointer in self._named:  # grows while it is read
            self.at(pointer)

    def at(self, pointer: str) -> Symbol:
        """The grammar at a JSON pointer."""
        if pointer not in self._known:
            node: Any = self._root
            for step in pointer.removeprefix("#").split("/")[1:]:
                name = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(node, Mapping) or name not in node:
                    raise SchemaRefused("a $ref leads nowhere")
                node = node[name]
            self._known[pointer] = self.symbol(node)
        return self._known[pointer]

    def symbol(self, schema: Any, depth: int = 0) -> Symbol:
        if schema is True or schema == {}:
            return Any_()
        if not isinstance(schema, Mapping):
            raise SchemaRefused("a schema must be an object")
        if depth > MOST_NESTED:
            raise SchemaRefused(f"the schema nests deeper than {MOST_NESTED} levels")
        for key in schema:
            if key not in _UNDERSTOOD | _NOTES:
                raise SchemaRefused(
                    f"the keyword {key!r} is not supported in a schema"
                    if key in _OTHERS
                    else "the schema holds a keyword that JSON schema does not know"
                )
        if "$ref" in schema:
            pointer = schema["$ref"]
            if not isinstance(pointer, str) or not pointer.startswith("#"):
                raise SchemaRefused("a $ref must point into the schema itself")
            self._named.append(pointer)
            return Reference(partial(self.at, pointer))
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            if not isinstance(values, list) or not values:
                raise SchemaRefused("enum must be an array that is not empty")
            return Choice(tuple((Text(json.dumps(value, ensure_ascii=False)),) for value in values))
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._combined(key, schema[key], depth)
        return self._typed(schema, depth)

    def _combined(self, key: str, parts: Any, depth: int) -> Symbol:
        if not isinstance(parts, list) or not parts:
            raise SchemaRefused(f"{key} must be an array that is not empty")
        if key == "allOf" and len(parts) > 1:
            raise SchemaRefused("the keyword 'allOf' is supported with one schema only")
        return Choice(tuple((self.symbol(part, depth + 1),) for part in parts))

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Symbol:
        kinds = schema.get("type")
        if kinds is None:
            if "properties" in schema or "additionalProperties" in schema:
                kinds = "object"
            elif "items" in schema:
                kinds = "array"
            else:
                return Any_()
        options = kinds if isinstance(kinds, list) else [kinds]
        if not options or any(kind not in _TYPES for kind in options):
            raise SchemaRefused(f"type must be one of {', '.join(_TYPES)}")
        made = [self._of_type(kind, schema, depth) for kind in options]
        return Choice(tuple(made))

    def _of_type(self, kind: str, schema: Mapping[str, Any], depth: int) -> tuple[Symbol, ...]:
        if kind == "object":
            return Text("{"), self._object(schema, depth)
        if kind == "array":
            items = self.symbol(schema.get("items", True), depth + 1)
            least, most = _bound(schema, "minItems") or 0, _bound(schema, "maxItems")
            _ordered("minItems", least, "maxItems", most)
            return Text("["), Items(items, least, most)
        if kind == "string":
            least, most = _bound(schema, "minLength") or 0, _bound(schema, "maxLength")
            _ordered("minLength", least, "maxLength", most)
            return Text('"'), Chars(least, most)
        if kind in ("number", "integer"):
            return (_number(schema, whole=kind == "integer"),)
        if kind == "boolean":
            return (Choice(((Text("true"),), (Text("false"),))),)
        return (Text("null"),)

    def _object(self, schema: Mapping[str, Any], depth: int) -> Symbol:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise SchemaRefused("properties must be an object and required an array")
        if any(name not in properties for name in required):
            raise SchemaRefused("required names a property that properties does not declare")
        if not properties:
            more = schema.get("additionalProperties", True)
            return Text("}") if more is False else FreeMembers(self.symbol(more, depth + 1))
        return Members(
            tuple(
                (name, self.symbol(one, depth + 1), name in required)
                for name, one in properties.items()
            )
        )


def _bound(schema: Mapping[str, Any], key: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise SchemaRefused(f"{key} must be a whole number from 0 to 1000000")
    return value


def _ordered(low: str, least: int, high: str, most: int | None) -> None:
    if most is not None and least > most:
        raise SchemaRefused(f"{low} is above {high}: nothing could fit")


def _limit(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e15:
        raise SchemaRefused(f"{key} must be a number between -1e15 and 1e15")
    return value


def _number(schema: Mapping[str, Any], *, whole: bool) -> Symbol:
    lowest, highest = _limit(schema, "minimum"), _limit(schema, "maximum")
    above, below = _limit(schema, "exclusiveMinimum"), _limit(schema, "exclusiveMaximum")
    if (above is not None or below is not None) and not whole:
        raise SchemaRefused(
            "the keywords 'exclusiveMinimum' and 'exclusiveMaximum' are supported for type integer only"
        )
    if above is not None:
        lowest = max(int(above // 1) + 1, lowest if lowest is not None else -1e15)
    if below is not None:
        highest = min(int(-(-below // 1)) - 1, highest if highest is not None else 1e15)
    if lowest is not None and highest is not None:
        if lowest > highest:
            raise SchemaRefused("minimum is above maximum: nothing could fit")
        if whole and highest - lowest <= _SMALL_RANGE:
            values = range(int(-(-lowest // 1)), int(highest // 1) + 1)
            if not values:
                raise SchemaRefused("no whole number lies between minimum and maximum")
            return Choice(tuple((Text(str(value)),) for value in values))
    return Number(whole, lowest, highest)
