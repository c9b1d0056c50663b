"""Canonical JSON: one value, one spelling."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.canonical import canonical_json, digest, parse_canonical
from privacy.errors import CanonicalError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_every_value_comes_back_from_its_canonical_bytes(value: object) -> None:
    """Reading canonical bytes gives the value that was written."""
    assert parse_canonical(canonical_json(value)) == value


@given(values)
def test_any_other_spelling_is_refused(value: object) -> None:
    """JSON with other white space is the same value and yet not accepted."""
    other = json.dumps(value, ensure_ascii=False, indent=1).encode() + b" "
    with pytest.raises(CanonicalError, match="canonical form"):
        parse_canonical(other)


def test_keys_are_sorted_without_spaces_in_utf8() -> None:
    """The bytes are these and no others."""
    assert (
        canonical_json({"ü": [1, 0.5, True], "a": None}) == '{"a":null,"ü":[1,0.5,true]}'.encode()
    )
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": float("nan")}, r"\$\.a: nan"),
        ([float("inf")], r"\$\[0\]: inf"),
        ({1: 2}, "not a string"),
        ({"a": {1, 2}}, "set has no JSON form"),
        ("\ud800", "lone surrogate"),
        (b"x", "bytes has no JSON form"),
    ],
)
def test_what_json_cannot_say_is_refused_by_its_place(value: object, reason: str) -> None:
    """The message names the place and the reason."""
    with pytest.raises(CanonicalError, match=reason):
        canonical_json(value)


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":1}', b"\xff", b"", b"[" * 100_000, b'{"a":NaN}', b"1.0e0"]
)
def test_ambiguous_or_broken_bytes_are_refused(data: bytes) -> None:
    """Duplicate keys, bad UTF-8, NaN and bottomless nesting raise the one documented error."""
    with pytest.raises(CanonicalError):
        parse_canonical(data)
