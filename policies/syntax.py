"""From the bytes of a policy file to plain tables, or every reason why not.

TOML is read by the standard library. YAML is read safely and by the rules of YAML 1.2's core
schema (YAML 1.2.2, section 10.3): `1e-5` is a number, `no` and `on` are texts, `010` is ten.
Duplicate keys, aliases and tags are refused: a policy must mean what its reader sees. For the same
reason a number with a fraction or an exponent is read as the decimal that is written there, never
as the binary number next to it.
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from typing import Any, Literal

import yaml

from policies.errors import Fault, PolicyError

Format = Literal["toml", "yaml"]

SUFFIXES: dict[str, Format] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}

MAX_BYTES = 1024 * 1024


def parse_document(content: bytes, format: Format, *, source: str) -> dict[str, Any]:  # noqa: A002
    """The document's top-level table.

    Raises PolicyError with the line of a syntax error.
    """
    if len(content) > MAX_BYTES:
        message = f"has {len(content):,} bytes; a policy has at most {MAX_BYTES:,}"
        raise PolicyError([Fault("", message)], source=source)
    text = _decode(content, source)
    try:
        data = _load_toml(text) if format == "toml" else _load_yaml(text, source)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([Fault("", f"is not valid TOML: {error}")], source=source) from None
    except yaml.YAMLError as error:
        raise PolicyError([Fault("", _yaml_message(error))], source=source) from None
    except RecursionError:
        raise PolicyError([Fault("", "is nested too deeply")], source=source) from None
    except PolicyError:
        raise
    except (ValueError, ArithmeticError) as error:
        # For instance an integer of thousands of digits, the thirteenth month, or an exponent of
        # thirty digits (whose error has no words of its own).
        message = f"holds a value that cannot be read: {_words(error)}"
        raise PolicyError([Fault("", message)], source=source) from None
    if data is None:
        raise PolicyError([Fault("", "is empty")], source=source)
    if not isinstance(data, dict):
        raise PolicyError([Fault("", "must be a table of keys and values")], source=source)
    return data


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 (line {line}); save it as UTF-8"
        raise PolicyError([Fault("", message)], source=source) from None


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2 and without aliases."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[Fault] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not accepted in a policy; write it out", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a table", node.start_mark)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                self.faults.append(Fault("", f"line {line}: the key {key!r} is not a text"))
                continue
            if key in table:
                self.faults.append(Fault("", f"line {line}: the key {key!r} is given twice"))
                continue
            table[key] = self.construct_object(value_node, deep=True)
        return table


def _construct_table(loader: _CoreLoader, node: yaml.Node) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _construct_decimal(loader: _CoreLoader, node: yaml.ScalarNode) -> Decimal:
    return Decimal(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


_CoreLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})\Z"), _first
    )
_CoreLoader.add_constructor("tag:yaml.org,2002:map", _construct_table)
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _construct_decimal)


def _load_toml(text: str) -> object:
    return tomllib.loads(text, parse_float=Decimal)


def _load_yaml(text: str, source: str) -> object:
    loader = _CoreLoader(text)
    try:
        data: object = loader.get_single_data()
    finally:
        loader.dispose()
    if loader.faults:
        raise PolicyError(loader.faults, source=source)
    return data


def _words(error: Exception) -> str:
    return "a number out of all bounds" if isinstance(error, ArithmeticError) else str(error)


def _yaml_message(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return f"is not valid YAML: {error.problem or error.context}{where}"
    return f"is not valid YAML: {str(error).splitlines()[0]}"
