"""One row as a record, or the reason why it is none.

Four shapes are known, looked for in this order: `messages` (a chat that ends with the assistant's
answer), `prompt` and `completion`, `text` and `label`, and `text` alone. Any other column is not
looked at. Reasons name columns and kinds of values, never a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from client.errors import DataSourceError
from client.formats import kind_of, parse_json

Kind = Literal["text", "completion", "chat", "label"]

SHAPES: Mapping[Kind, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "label": ("text", "label"),
    "text": ("text",),
}

CONTENT = ("messages", "prompt", "completion", "text", "label")
NAMES = (*CONTENT, "subject_id", "department", "split")
"""The column names that mean something to us."""

ROLES = ("system", "user", "assistant", "tool")

NO_COLUMNS = "has none of: messages; prompt and completion; text and label; text"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """One training example as its department wrote it.

    kind        prompt         completion                         messages
    text        ""             the text                           None
    completion  the prompt     the completion                     None
    label       the text       the label                          None
    chat        ""             the last message, the assistant's  the whole chat, last message included

    `line` is the line (in Parquet files: the row) that the record came from.
    """

    kind: Kind
    prompt: str
    completion: str
    messages: tuple[Message, ...] | None = None
    subject_id: str | None = None
    line: int = 0

    def map_text(self, change: Callable[[str], str]) -> Record:
        """The record with `change` applied to every text of it, the label included.

        The subject id is not a text of the record: see `map_subject`.
        """
        if self.messages is not None:
            messages = tuple(Message(m.role, change(m.content)) for m in self.messages)
            return replace(self, messages=messages, completion=messages[-1].content)
        prompt = change(self.prompt) if self.prompt else ""
        return replace(self, prompt=prompt, completion=change(self.completion))

    def map_subject(self, change: Callable[[str], str]) -> Record:
        """The record with `change` applied to its subject id, where it has one."""
        if self.subject_id is None:
            return self
        return replace(self, subject_id=change(self.subject_id))

    def as_completion(self) -> Record:
        """What a language model learns from: the same record, a label put in instruction form.

        A label row becomes the prompt "Text: …\\nLabel:" with the completion " label\\n". A chat
        keeps its messages, of which the last one is the completion. This is the one place that
        says so: training, scoring and serving agree by asking here.
        """
        if self.kind != "label":
            return self
        prompt, completion = label_prompt(self.prompt), label_completion(self.completion)
        return replace(self, kind="completion", prompt=prompt, completion=completion)

    def as_row(self) -> dict[str, object]:
        """The row that reads back as this record."""
        row: dict[str, object]
        if self.messages is not None:
            row = {"messages": [{"role": m.role, "content": m.content} for m in self.messages]}
        elif self.kind == "completion":
            row = {"prompt": self.prompt, "completion": self.completion}
        elif self.kind == "label":
            row = {"text": self.prompt, "label": self.completion}
        else:
            row = {"text": self.completion}
        if self.subject_id is not None:
            row["subject_id"] = self.subject_id
        return row


def label_prompt(text: str) -> str:
    """The prompt that asks for the label of a text."""
    return f"Text: {text}\nLabel:"


def label_completion(label: str) -> str:
    """The completion that answers `label_prompt`: a line of its own, ended by a newline.

    The space belongs to the label's first token. Whoever generates stops at the newline.
    """
    return f" {label}\n"


class _Faulty(Exception):
    """A row that is no record; the text is the reason."""


class ColumnMap:
    """Which column of the file stands for which of our names.

    A name that is not mapped stands for itself, unless its column is already used under another
    name. The mapped names also decide which shapes are looked for.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Raises DataSourceError where the mapping contradicts itself."""
        for name, column in columns.items():
            if name not in NAMES:
                close = difflib.get_close_matches(name, NAMES, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(NAMES)}"
                raise DataSourceError(f"no column can be mapped to {name!r}{hint}")
            if not column:
                raise DataSourceError(f"{name!r} is mapped to a column without a name")
        for column in columns.values():
            users = [name for name, used in columns.items() if used == column]
            if len(users) > 1:
                told = " and ".join(repr(user) for user in users)
                raise DataSourceError(f"{told} are mapped to the same column {column!r}; map one")
        self.mapped = dict(columns)
        taken = set(columns.values())
        self.columns = {name: name for name in NAMES if name not in taken} | self.mapped
        content = [name for name in columns if name in CONTENT]
        self.kinds = [kind for kind, shape in SHAPES.items() if set(content) <= set(shape)]
        if not self.kinds:
            raise DataSourceError(
                f"{' and '.join(content)} cannot be mapped together; a row is either messages, "
                "prompt and completion, text and label, or text"
            )

    def wanted(self) -> set[str]:
        """The file's columns that are looked at."""
        return set(self.columns.values())

    def has(self, values: Mapping[str, object], name: str) -> bool:
        column = self.columns.get(name)
        return column is not None and column in values

    def get(self, values: Mapping[str, object], name: str) -> object:
        column = self.columns.get(name)
        return None if column is None else values.get(column)

    def told(self, name: str) -> str:
        """The name for a reason: `text`, or `text (column 'body')` where it is mapped."""
        return f"{name} (column {self.mapped[name]!r})" if name in self.mapped else name


def record_of(values: Mapping[str, object], columns: ColumnMap, line: int) -> Record | str:
    """The row's record, or the reason why it is none."""
    try:
        kind = _kind(values, columns)
        subject_id = _subject_id(values, columns)
        if kind == "chat":
            messages = _messages(columns.get(values, "messages"), columns.told("messages"))
            return Record("chat", "", messages[-1].content, messages, subject_id, line)
        texts = [_text(values, columns, name) for name in SHAPES[kind]]
        prompt, completion = texts if len(texts) == 2 else ("", texts[0])
        return Record(kind, prompt, completion, None, subject_id, line)
    except _Faulty as fault:
        return str(fault)


def flat_text(value: object) -> str | None:
    """A value of a filter column as text; None where it is empty, null, or no text or number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _filled(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None and value != []


def _kind(values: Mapping[str, object], columns: ColumnMap) -> Kind:
    """The first shape whose every column holds something."""
    for kind in columns.kinds:
        # With a label column there, a row without a label is a fault and no plain text.
        if kind == "text" and columns.has(values, "label") and "label" in columns.kinds:
            continue
        if all(_filled(columns.get(values, name)) for name in SHAPES[kind]):
            return kind
    for kind in columns.kinds:
        if all(columns.has(values, name) for name in SHAPES[kind]):
            empty = [n for n in SHAPES[kind] if not _filled(columns.get(values, n))]
            told = " and ".join(columns.told(name) for name in empty)
            raise _Faulty(f"{told} {'is' if len(empty) == 1 else 'are'} empty")
    for kind in columns.kinds:
        there = [name for name in SHAPES[kind] if columns.has(values, name)]
        if there:
            absent = [columns.told(name) for name in SHAPES[kind] if name not in there]
            told = " and ".join(columns.told(name) for name in there)
            raise _Faulty(f"has {told}, but no {' and '.join(absent)}")
    raise _Faulty(NO_COLUMNS)


def _text(values: Mapping[str, object], columns: ColumnMap, name: str) -> str:
    value = columns.get(values, name)
    if name == "label" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _sound(value, columns.told(name))


def _sound(value: object, told: str) -> str:
    """A text that every later step can take. Raises _Faulty."""
    if not isinstance(value, str):
        raise _Faulty(f"{told} is {kind_of(value)}, not a text")
    if not value.strip():
        raise _Faulty(f"{told} is empty")
    if "\x00" in value:
        raise _Faulty(f"{told} holds a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Faulty(f"{told} holds half of a surrogate pair") from None
    return value


def _subject_id(values: Mapping[str, object], columns: ColumnMap) -> str | None:
    value = columns.get(values, "subject_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not _filled(value):
        return None
    return _sound(value, columns.told("subject_id")).strip()


def _messages(value: object, told: str) -> tuple[Message, ...]:
    """The chat, which may come as JSON text (in CSV it can come no other way)."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise _Faulty(f"{told} {error}") from None
    if not isinstance(value, list):
        raise _Faulty(f"{told} is {kind_of(value)}, not a list of messages")
    messages = tuple(_message(item, f"{told}[{index}]") for index, item in enumerate(value))
    if not messages:
        raise _Faulty(f"{told} is empty")
    if messages[-1].role != "assistant":
        raise _Faulty(f"{told} does not end with a message of the assistant")
    if all(message.role != "user" for message in messages):
        raise _Faulty(f"{told} has no message of a user")
    return messages


def _message(item: object, told: str) -> Message:
    if not isinstance(item, dict):
        raise _Faulty(f"{told} is {kind_of(item)}, not an object with role and content")
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _Faulty(f"{told} has no role out of {', '.join(ROLES)}")
    if item.get("tool_calls") or item.get("function_call"):
        raise _Faulty(f"{told} calls a tool; only texts can be learned")
    return Message(role, _sound(item.get("content"), f"{told}.content"))
