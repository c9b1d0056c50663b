"""The bytes of a policy file: what cannot be read is told with its line, and nothing is guessed."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import PolicyError
from policies.load import load_policy, parse_policy
from policies.syntax import MAX_BYTES, parse_document


def attempt(content: bytes, format_: Any) -> object:
    """The table, or the faults."""
    try:
        return parse_document(content, format_, source="")
    except PolicyError as error:
        return error.faults


def refused(content: bytes | str, format_: Any) -> str:
    content = content.encode() if isinstance(content, str) else content
    with pytest.raises(PolicyError) as caught:
        parse_document(content, format_, source="p")
    return str(caught.value)


@pytest.mark.parametrize("name", ["policy.toml", "policy.yaml", "policy.YML"])
def test_endings(tmp_path: Path, name: str) -> None:
    """TOML and YAML are told apart by the file's ending."""
    toml = 'version = 1\norganisation = "x"\n[departments.hr]\n'
    path = tmp_path / name
    path.write_text(
        toml if name.endswith("toml") else "version: 1\norganisation: x\ndepartments: {hr: {}}"
    )
    assert load_policy(path).organisation == "x"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A wrong ending, a missing file, a directory and a strange name are faults like any other."""
    with pytest.raises(PolicyError, match=r"has the ending '.json'; a policy ends in .toml, .yaml"):
        load_policy(tmp_path / "policy.json")
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(tmp_path / "policy.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        load_policy(tmp_path / "folder.toml")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy("nul\0.toml")


@pytest.mark.parametrize("format_", ["toml", "yaml"])
def test_encoding_and_size(format_: str) -> None:
    """Text that is not UTF-8 is refused with its line; a huge file is not even parsed."""
    assert "is not UTF-8 (line 2)" in refused(b"# a\n\xff\n", format_)
    assert f"at most {MAX_BYTES:,}" in refused(b"#" * (MAX_BYTES + 1), format_)


def test_byte_order_mark() -> None:
    """A byte order mark before the text does no harm."""
    assert parse_document(b"\xef\xbb\xbfa = 1", "toml", source="") == {"a": 1}


def test_toml_faults() -> None:
    """A syntax error, a key given twice and absurd values are told with the line where known."""
    assert "is not valid TOML" in refused("a = 1\nb = = 2", "toml")
    assert "at line 2" in refused("a = 1\nb = = 2", "toml")
    assert "is not valid TOML" in refused("a = 1\na = 2", "toml")
    assert "cannot be read" in refused(f"a = {'9' * 5000}", "toml")
    assert "nested too deeply" in refused("a = " + "[" * 5000, "toml")


def test_yaml_faults() -> None:
    """YAML's traps are refused by line: twice the same key, aliases, tags, keys that are no text."""
    assert "at line 2, column" in refused("a: 1\n b: 2", "yaml")
    message = refused("a: 1\na: 2\nb: {c: 1, c: 2}\n3: x", "yaml")
    assert "line 2: the key 'a' is given twice" in message
    assert "line 3: the key 'c' is given twice" in message
    assert "line 4: the key 3 is not a text" in message
    assert "aliases are not accepted" in refused("a: &x 1\nb: *x", "yaml")
    assert "is not valid YAML" in refused("a: !!python/object/apply:os.system [true]", "yaml")
    assert "nested too deeply" in refused("a: " + "[" * 3000, "yaml")
    assert "cannot be read" in refused(f"a: {'9' * 5000}", "yaml")
    assert "must be a table" in refused("- a\n- b", "yaml")
    assert "is empty" in refused("# nothing\n", "yaml")
    assert "is not valid YAML" in refused("a: 1\n---\nb: 2", "yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", Decimal("1e-5")),
        ("1.5", Decimal("1.5")),
        (".5", Decimal("0.5")),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("<<", "<<"),
        ("1_000", "1_000"),
        ("'8'", "8"),
        (".inf", Decimal("inf")),
        ("-.INF", Decimal("-inf")),
    ],
)
def test_yaml_means_what_its_reader_sees(text: str, value: object) -> None:
    """Plain scalars follow YAML 1.2's core schema: `no` is a text, `1e-5` is a number."""
    found = parse_document(f"a: {text}".encode(), "yaml", source="")["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_department_called_no() -> None:
    """Norway's department keeps its name."""
    policy = parse_policy(b"version: 1\norganisation: x\ndepartments: {no: {delta: 1e-6}}", "yaml")
    assert policy.budget_of("no").delta == Decimal("1e-6")


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["toml", "yaml"]))
def test_any_bytes_are_a_table_or_a_policy_error(content: bytes, format_: Any) -> None:
    """No file, however broken, raises anything but a PolicyError."""
    found = attempt(content, format_)
    assert isinstance(found, dict) or found


@settings(deadline=None)
@given(
    st.text(alphabet="a1:-[]{}&*!|>'\"#,%@`? \n\t", max_size=60), st.sampled_from(["toml", "yaml"])
)
def test_any_punctuation_is_a_table_or_a_policy_error(text: str, format_: Any) -> None:
    """The same for texts made of the languages' own punctuation."""
    found = attempt(text.encode(), format_)
    assert isinstance(found, dict) or found
