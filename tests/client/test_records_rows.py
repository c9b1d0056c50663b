"""A record: what each shape of row becomes, and the reason where it becomes none."""

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import DataSourceError
from client.records import Message, Record
from client.rows import ColumnMap, record_of

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many days off?"},
    {"role": "assistant", "content": "Thirty."},
]


def read(values: dict[str, Any], **columns: str) -> Record | str:
    return record_of(values, ColumnMap(columns), 3)


def test_the_four_shapes() -> None:
    """Each shape of row becomes a record of its kind, the line kept."""
    assert read({"text": "a"}) == Record("text", "", "a", line=3)
    assert read({"prompt": "a", "completion": "b"}) == Record("completion", "a", "b", line=3)
    assert read({"text": "a", "label": "b"}) == Record("label", "a", "b", line=3)
    chat = read({"messages": CHAT})
    assert isinstance(chat, Record)
    assert (chat.kind, chat.prompt, chat.completion) == ("chat", "", "Thirty.")
    assert chat.messages is not None
    assert chat.messages[0] == Message("system", "Be brief.")
    assert len(chat.messages) == 3


def test_other_columns_are_not_looked_at() -> None:
    """Columns without a meaning may hold anything."""
    assert read({"text": "a", "id": 7, "slots": {"x": None}}) == Record("text", "", "a", line=3)


@pytest.mark.parametrize(("given_id", "kept"), [("a1", "a1"), (7, "7"), (" ", None), (None, None)])
def test_subject_id(given_id: object, kept: str | None) -> None:
    """A subject id is a text or a whole number; an empty one is none."""
    record = read({"text": "a", "subject_id": given_id})
    assert isinstance(record, Record)
    assert record.subject_id == kept


def test_label_rows_in_instruction_form() -> None:
    """A label row is learned as an instruction, with the space and the end of its line on the label's side."""
    record = Record("label", "Where is my card?", "card_arrival", subject_id="s", line=9)
    assert record.as_completion() == Record(
        "completion", "Text: Where is my card?\nLabel:", " card_arrival\n", subject_id="s", line=9
    )


def test_other_records_are_completions_already() -> None:
    """Texts, completions and chats are learned as they are."""
    for values in ({"text": "a"}, {"prompt": "a", "completion": "b"}, {"messages": CHAT}):
        record = read(values)
        assert isinstance(record, Record)
        assert record.as_completion() is record


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "has none of: messages; prompt and completion; text and label; text"),
        ({"body": "SECRET"}, "has none of: messages; prompt and completion; text and label; text"),
        ({"text": ""}, "text is empty"),
        ({"text": " \n"}, "text is empty"),
        ({"text": None}, "text is empty"),
        ({"text": 3}, "text is a number, not a text"),
        ({"text": ["SECRET"]}, "text is a list, not a text"),
        ({"text": b"SECRET"}, "text is bytes, not a text"),
        ({"text": object()}, "text is of another kind, not a text"),
        ({"text": "SECRET\0"}, "text holds a NUL character"),
        ({"text": "SECRET\ud800"}, "text holds half of a surrogate pair"),
        ({"text": "SECRET", "label": None}, "label is empty"),
        ({"text": "SECRET", "label": ""}, "label is empty"),
        ({"text": "SECRET", "label": True}, "label is true or false, not a text"),
        ({"text": "SECRET", "label": 1.5}, "label is a number, not a text"),
        ({"label": "SECRET"}, "has label, but no text"),
        ({"prompt": "SECRET"}, "has prompt, but no completion"),
        ({"completion": "SECRET"}, "has completion, but no prompt"),
        ({"prompt": "", "completion": ""}, "prompt and completion are empty"),
        ({"prompt": "SECRET", "completion": 1}, "completion is a number, not a text"),
        ({"text": "SECRET", "subject_id": 1.5}, "subject_id is a number, not a text"),
        ({"text": "SECRET", "subject_id": "a\0"}, "subject_id holds a NUL character"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "[]"}, "messages is empty"),
        ({"messages": "SECRET"}, "messages is not valid JSON (column 1)"),
        ({"messages": {"role": "user"}}, "messages is an object, not a list of messages"),
        ({"messages": ["SECRET"]}, "messages[0] is a text, not an object with role and content"),
        (
            {"messages": [{"role": "SECRET", "content": "a"}]},
            "messages[0] has no role out of system, user, assistant, tool",
        ),
        (
            {"messages": [{"content": "SECRET"}]},
            "messages[0] has no role out of system, user, assistant, tool",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content is null, not a text"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content is empty"),
        (
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]},
            "messages[0] calls a tool; only texts can be learned",
        ),
        ({"messages": CHAT[:2]}, "messages does not end with a message of the assistant"),
        ({"messages": CHAT[2:]}, "messages has no message of a user"),
    ],
)
def test_reasons(values: dict[str, Any], reason: str) -> None:
    """Each way of being faulty has its own reason, and none quotes the row."""
    found = read(values)
    assert found == reason
    assert "SECRET" not in str(found)


def test_labels_may_be_whole_numbers() -> None:
    """A label that is a number is taken as its digits."""
    assert read({"text": "a", "label": 4}) == Record("label", "a", "4", line=3)
    assert read({"text": "a", "label": 0}) == Record("label", "a", "0", line=3)


def test_a_filled_shape_is_preferred() -> None:
    """Where columns of several shapes are there, the first shape that is filled is taken."""
    both = {"prompt": "a", "completion": "b", "text": "c"}
    assert read(both) == Record("completion", "a", "b", line=3)
    assert read({**both, "prompt": None, "completion": None}) == Record("text", "", "c", line=3)
    chat = read({**both, "messages": CHAT})
    assert isinstance(chat, Record)
    assert chat.kind == "chat"


def test_mapped_columns() -> None:
    """Our names can stand for the file's columns, which then have no other meaning."""
    assert read({"body": "a"}, text="body") == Record("text", "", "a", line=3)
    assert read({"body": "a", "topic": "b"}, text="body", label="topic") == Record(
        "label", "a", "b", line=3
    )
    assert read({"text": "a", "answer": "b"}, prompt="text", completion="answer") == Record(
        "completion", "a", "b", line=3
    )
    assert read({"text": "a", "department": "b"}, label="department") == Record(
        "label", "a", "b", line=3
    )


def test_a_mapping_chooses_the_shape() -> None:
    """Who maps text means the text, even where the row has a prompt as well."""
    row = {"prompt": "a", "completion": "b", "body": "c"}
    assert read(row, text="body") == Record("text", "", "c", line=3)
    assert read({"messages": CHAT, "q": "a", "completion": "b"}, prompt="q") == Record(
        "completion", "a", "b", line=3
    )


def test_reasons_name_the_mapped_column() -> None:
    """A reason names our column and the file's."""
    assert read({"body": 3}, text="body") == "text (column 'body') is a number, not a text"
    assert read({"q": "a"}, prompt="q") == "has prompt (column 'q'), but no completion"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"txt": "body"}, "no column can be mapped to 'txt'; did you mean 'text'"),
        ({"zzz": "body"}, "known: messages, prompt, completion, text, label, subject_id"),
        ({"text": ""}, "a column without a name"),
        ({"text": "a", "label": "a"}, "'text' and 'label' are mapped to the same column 'a'"),
        ({"text": "a", "prompt": "b"}, "text and prompt cannot be mapped together"),
        ({"messages": "a", "label": "b"}, "messages and label cannot be mapped together"),
    ],
)
def test_contradictory_mappings(columns: dict[str, str], words: str) -> None:
    """A mapping that cannot be meant is a usage error before any file is opened."""
    with pytest.raises(DataSourceError) as caught:
        ColumnMap(columns)
    assert words in str(caught.value)


def test_map_text_reaches_every_text() -> None:
    """Scrubbing sees prompt, completion, label and every message; roles and ids stay."""
    loud = str.upper
    assert Record("text", "", "a").map_text(loud) == Record("text", "", "A")
    assert Record("label", "a", "b", subject_id="s").map_text(loud) == Record(
        "label", "A", "B", subject_id="s"
    )
    chat = read({"messages": CHAT, "subject_id": "s"})
    assert isinstance(chat, Record)
    mapped = chat.map_text(loud)
    assert mapped.messages is not None
    assert [m.content for m in mapped.messages] == ["BE BRIEF.", "HOW MANY DAYS OFF?", "THIRTY."]
    assert [m.role for m in mapped.messages] == ["system", "user", "assistant"]
    assert mapped.completion == "THIRTY."
    assert mapped.subject_id == "s"
    assert mapped.map_subject(loud).subject_id == "S"
    assert Record("text", "", "a").map_subject(loud).subject_id is None


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).filter(str.strip)
turns = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
)
row_values = st.one_of(
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"text": texts, "label": texts}),
    st.fixed_dictionaries({"prompt": texts, "completion": texts}),
    st.builds(
        lambda before, question, answer: {
            "messages": [
                *before,
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        },
        st.lists(turns, max_size=3),
        texts,
        texts,
    ),
)


@settings(deadline=None)
@given(row_values)
def test_rows_survive(values: dict[str, Any]) -> None:
    """A row that is read and written again is the same row, and the last word stays the last."""
    record = read(values)
    assert isinstance(record, Record)
    assert record.as_row() == values
    assert pickle.loads(pickle.dumps(record)) == record
    if record.messages is not None:
        assert record.messages[-1] == Message("assistant", record.completion)
    seen: list[str] = []
    record.map_text(lambda text: seen.append(text) or text)  # type: ignore[func-returns-value]
    said = [m["content"] for m in values["messages"]] if record.messages else values.values()
    assert sorted(seen) == sorted(said)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["text", "label", "prompt", "completion", "messages", "subject_id", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), inner)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_row_is_a_record_or_a_reason(values: dict[str, Any]) -> None:
    """Whatever a row holds, nothing is raised."""
    found = read(values)
    assert isinstance(found, Record | str)
    assert found
