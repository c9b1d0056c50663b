"""Where the texts of a value are, and the same value with other texts in their place.

JSON is not read and written anew: its strings are exchanged where they stand, so that numbers,
spacing, escapes and the order of keys of everything else stay as they are, byte for byte. A string
that itself holds JSON, as the arguments of a tool call do, is entered like the value that it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from client.formats import parse_json
from client.rows import ROLES

Change = Callable[[str, str], str]
"""(path, text) -> text to stand in its place; called in the order of the texts."""

_STRING: Final = r'"(?:[^"\\]|\\.)*"'
# Phone, card and identity numbers are also written as JSON numbers. Shorter ones are counts,
# prices and times.
_LONG_NUMBER: Final = r"(?<![\d.eE+-])\d{11,}(?![\d.eE])"
_TOKEN: Final = re.compile(rf"{_STRING}|[{{}}\[\],]|{_LONG_NUMBER}", re.DOTALL)
_NAME: Final = re.compile(r"[^\W\d][\w .-]{0,59}")
_DIGITS: Final = re.compile(r"\d{5}")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.:/-]{0,59}|\d{1,4}")
_WORD: Final = re.compile(r"[^\W_]")
_DEEPEST: Final = 8
"""JSON in a string in JSON …: below so many levels a string is read as plain text."""


@dataclass(slots=True)
class _Level:
    is_object: bool
    key: str = ""
    expects_key: bool = False
    keys: set[str] = field(default_factory=set)


def shown_name(name: str) -> str:
    """A column's name for reports; ``*`` where it does not look like the name of anything."""
    return name if _NAME.fullmatch(name) and not _DIGITS.search(name) else "*"


def map_json(
    raw: str, change: Change, *, path: str = "", only: frozenset[str] | None = None
) -> str:
    """``raw``, a valid JSON value, with each text that stands in it changed.

    ``only`` names the keys of the outermost object whose values are entered. Keys of inner objects
    that are not identifiers are texts too. A long number that is changed becomes a string.
    """
    return _map_json(raw, change, path, only, 0)


def _map_json(raw: str, change: Change, path: str, only: frozenset[str] | None, depth: int) -> str:
    parts: list[str] = []
    done = 0
    levels: list[_Level] = []
    for match in _TOKEN.finditer(raw):
        token = match.group()
        first = token[0]
        if first == "{":
            levels.append(_Level(True, expects_key=True))
        elif first == "[":
            levels.append(_Level(False))
        elif first in "}]":
            levels.pop()
        elif first == ",":
            levels[-1].expects_key = levels[-1].is_object
        else:
            top = levels[-1] if levels else None
            if top is not None and top.expects_key:
                top.expects_key = False
                new = _key(token, change, path, levels)
            elif only is not None and levels and levels[0].key not in only:
                continue
            else:
                new = _value(token, change, _path(path, levels), depth)
            if new != token:
                parts += (raw[done : match.start()], new)
                done = match.end()
    return "".join((*parts, raw[done:])) if parts else raw


def _key(token: str, change: Change, path: str, levels: list[_Level]) -> str:
    top = levels[-1]
    key = str(json.loads(token))
    top.key = key
    # The keys of the outermost object are the columns.
    named = _PLAIN_KEY.fullmatch(key) is not None
    outermost = len(levels) == 1 and not path
    if named or (outermost and "@" not in key and not _DIGITS.search(key)):
        return token
    new = change(_path(path, levels[:-1]) + ".*", key)
    if new == key:
        return token
    unique, number = new, 1
    while unique in top.keys:
        number += 1
        unique = f"{new}~{number}"
    top.keys.add(unique)
    return _encoded(unique, token)


def _value(token: str, change: Change, path: str, depth: int) -> str:
    if token[0] != '"':
        new = change(path, token)
        return token if new == token else json.dumps(new)
    text = str(json.loads(token))
    if path.endswith(".role") and text in ROLES:
        return token
    new = map_text(text, change, path, depth)
    return token if new == text else _encoded(new, token)


def _encoded(text: str, like: str) -> str:
    """JSON for ``text``, with escapes where ``like`` had them or nothing else is possible."""
    if like.isascii() and ("\\u" in like or text.isascii()):
        return json.dumps(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def map_text(text: str, change: Change, path: str, depth: int = 0) -> str:
    """One text changed; where it holds a JSON object or list, the texts in that."""
    if not _WORD.search(text):
        return text
    if depth < _DEEPEST and text.lstrip()[:1] in ("{", "["):
        try:
            parse_json(text)
        except ValueError:
            return change(path, text)
        return _map_json(text, change, path, None, depth + 1)
    return change(path, text)


def _path(base: str, levels: list[_Level]) -> str:
    parts = [base] if base else []
    for level in levels:
        if level.is_object:
            name = shown_name(level.key)
            parts.append(f".{name}" if parts else name)
        else:
            parts.append("[]")
    return "".join(parts)


def map_object(value: Any, change: Change, path: str) -> Any:
    """A Python value as Arrow gives it, with each text in it changed; other values as they are."""
    if isinstance(value, str):
        return map_text(value, change, path)
    if isinstance(value, list):
        return [map_object(item, change, f"{path}[]") for item in value]
    if isinstance(value, tuple):
        return tuple(map_object(item, change, f"{path}[]") for item in value)
    if isinstance(value, dict):
        return {
            key: item
            if key == "role" and item in ROLES
            else map_object(item, change, f"{path}.{shown_name(str(key))}")
            for key, item in value.items()
        }
    return value
