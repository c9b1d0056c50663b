"""Which texts a grammar of a JSON schema lets a model make."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.engines.json_grammar import ANY_OBJECT, SchemaRefused, Walk
from api.engines.json_schema import of_schema

PERSON: dict[str, Any] = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "ab", 3]}, "maxItems": 2},
        "boss": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "note": {"type": ["string", "number"], "description": "anything"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

FITTING = [
    {"name": "Ada", "age": 36},
    {"name": "Ada", "age": 0, "tags": []},
    {"name": '"\\\n', "age": 150, "tags": ["ab", 3], "note": -0.5},
    {"name": "好", "age": 7, "boss": {"name": "B", "age": 1, "boss": None}},
    {"name": "A", "age": 1, "note": "x"},
]
OTHERS = [
    "{}",
    '{"name": "Ada"}',
    '{"name": "", "age": 1}',
    '{"name": "abcdefghijklm", "age": 1}',
    '{"name": "A", "age": 151}',
    '{"name": "A", "age": -1}',
    '{"name": "A", "age": 1.5}',
    '{"name": "A", "age": 01}',
    '{"name": "A", "age": 1, "tags": ["a", "a", "a"]}',
    '{"name": "A", "age": 1, "tags": ["b"]}',
    '{"name": "A", "age": 1, "more": 1}',
    '{"name": "A\n", "age": 1}',
    '{"name": "A", "age": 1} ',
    "[]",
    "",
]


def accepts(schema: dict[str, Any], text: str) -> bool:
    """Whether the whole text is made by the grammar."""
    walk = Walk(of_schema(schema)).after(text)
    return walk is not None and walk.complete


@pytest.mark.parametrize("value", FITTING)
def test_instances_are_let_through(value: Any) -> None:
    """What fits the schema can be written, compactly or with a blank after each mark."""
    for separators in ((",", ":"), (", ", ": ")):
        for ascii_only in (True, False):
            text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
            assert accepts(PERSON, text)


@pytest.mark.parametrize("text", OTHERS)
def test_all_else_is_not(text: str) -> None:
    """What does not fit, or is cut off, is no complete text of the grammar."""
    assert not accepts(PERSON, text)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_the_grammar_makes_is_an_instance(data: st.DataObject) -> None:
    """Random walks end with JSON that has the required members, types and bounds of the schema."""
    walk, text = Walk(of_schema(PERSON)), ""
    for _ in range(300):
        ways = {c: after for c in _ALPHABET if (after := walk.after(c)) is not None}
        if walk.complete and (not ways or data.draw(st.booleans())):
            break
        # Ends come more often than they would by chance, or walks would hardly end.
        ends = sorted(c for c in ways if c in '"}],')
        char = data.draw(st.sampled_from(ends * 3 + sorted(ways)))
        walk, text = ways[char], text + char
    if not walk.complete:
        return
    _check(json.loads(text))


_ALPHABET = '{}[]",: \\nuamegtsobk0123456789-.efalrd'


def _check(found: Any) -> None:
    assert isinstance(found, dict)
    assert {"name", "age"} <= found.keys() <= set(PERSON["properties"])
    assert 1 <= len(found["name"]) <= 12
    assert isinstance(found["age"], int)
    assert 0 <= found["age"] <= 150
    assert len(found.get("tags", [])) <= 2
    assert all(tag in ("a", "ab", 3) for tag in found.get("tags", []))
    assert isinstance(found.get("note", ""), str | int | float)
    if found.get("boss") is not None:
        _check(found["boss"])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "a+"}, "'pattern'"),
        ({"type": "object", "patternProperties": {}}, "'patternProperties'"),
        ({"type": "array", "items": {"not": {}}}, "'not'"),
        ({"zebra-4711": 1}, "a keyword that JSON schema does not know"),
        ({"$ref": "#/$defs/missing"}, "leads nowhere"),
        ({"$ref": "https://example.org/schema"}, "into the schema itself"),
        ({"type": "zebra-4711"}, "type must be one of"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "nothing could fit"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "nothing could fit"),
        ({"enum": []}, "not empty"),
        ({"allOf": [{}, {}]}, "'allOf'"),
        ({"type": "object", "properties": {}, "required": ["x"]}, "does not declare"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(schema: dict[str, Any], words: str) -> None:
    """An unsupported keyword is named if JSON schema has it, and never repeated if not."""
    with pytest.raises(SchemaRefused, match=words.replace("(", r"\(")) as caught:
        of_schema(schema)
    assert "zebra" not in str(caught.value)


def test_a_schema_that_leads_to_itself_ends() -> None:
    """A reference in a circle, or very many ways to go on, is refused rather than followed."""
    circle = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    }
    assert Walk(of_schema(circle)).after("1") is None
    wide: dict[str, Any] = {"type": "null"}
    for _ in range(8):
        wide = {"anyOf": [wide, wide, wide]}
    with pytest.raises(SchemaRefused, match="too many ways"):
        Walk(of_schema(wide))


@settings(max_examples=100, deadline=None)
@given(
    value=st.dictionaries(
        st.text(min_size=1, max_size=4).filter(str.isprintable),
        st.recursive(
            st.none() | st.booleans() | st.integers(-9999, 9999) | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_any_object_can_be_written(value: dict[str, Any]) -> None:
    """The grammar of ``json_object`` lets every object through."""
    text = json.dumps(value, ensure_ascii=False)
    walk = Walk(ANY_OBJECT).after(text)
    assert walk is not None
    assert walk.complete


def _prefixes(text: str) -> Iterator[str]:
    return (text[:end] for end in range(len(text)))


def test_every_beginning_can_go_on() -> None:
    """No beginning of a fitting text is refused or complete."""
    text = json.dumps(FITTING[3], ensure_ascii=False)
    for prefix in _prefixes(text):
        walk = Walk(of_schema(PERSON)).after(prefix)
        assert walk is not None
        assert not walk.complete
