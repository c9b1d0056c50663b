"""One byte string for one JSON value, so that digests and signatures agree everywhere.

The form is close to RFC 8785 (JCS): sorted keys, no spaces, UTF-8. It differs in two stated ways:
keys are sorted by code point, and floats are written as Python's shortest round-trip ``repr``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from privacy.errors import CanonicalError

_MAX_DEPTH = 64


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value.

    Args:
        value: mappings with string keys, sequences, strings, integers, finite floats, booleans, None.

    Raises:
        CanonicalError: NaN, an infinity, a key that is no string, a type that JSON lacks,
            a lone surrogate, or nesting deeper than 64.
    """
    _check(value, "$", 0)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_canonical(data: bytes) -> Any:
    """Read bytes that must already be canonical.

    Accepting only one spelling of a value means that no byte of a signed text can change unseen.

    Raises:
        CanonicalError: not JSON, or JSON in any other spelling (duplicate keys included).
    """
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not JSON in UTF-8: {error}") from None
    if canonical_json(value) != data:
        raise CanonicalError("JSON is not in its canonical form (sorted keys, no spaces, UTF-8)")
    return value


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _check(value: Any, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise CanonicalError(f"{where}: nested deeper than {_MAX_DEPTH}")
    if value is None or isinstance(value, bool | int):
        return
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise CanonicalError(f"{where}: {value} has no JSON form; numbers must be finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CanonicalError(f"{where}: key {key!r} is {type(key).__name__}, not a string")
            _check_text(key, where)
            _check(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]", depth + 1)
    else:
        kind = "mapping" if isinstance(value, Mapping) else "sequence"
        hint = f"; pass a plain {kind}" if isinstance(value, Mapping | Sequence) else ""
        raise CanonicalError(f"{where}: {type(value).__name__} has no JSON form{hint}")


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CanonicalError(f"{where}: text with a lone surrogate has no UTF-8 form") from None
