"""Generated conversations for the round trip: who is in them, what is said, and a model that answers.

People share surnames and first names, their addresses hold their names, Chinese stands beside
English, callers write placeholders of their own, and tools are called with values and numbers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from policies.model import Action
from privacy.pii.leaks import surviving
from privacy.pii.placeholders import bare
from privacy.pii.session import RedactionSession
from tests.privacy.pii.fakes import ToldDetector

VALUES: Final[Mapping[str, str]] = {
    "Ruth Baker": "PERSON",
    "Ruth Miller": "PERSON",
    "Thomas Baker": "PERSON",
    "Ruth": "PERSON",
    "RUTH BAKER": "PERSON",
    "Jean-Luc O'Neill": "PERSON",
    "王磊": "PERSON",
    "王芳": "PERSON",
    "李小龙": "PERSON",
    "ruth.baker@corp.test": "EMAIL_ADDRESS",
    "Ruth Baker <ruth.baker@corp.test>": "EMAIL_ADDRESS",
    "wang@corp.test": "EMAIL_ADDRESS",
    "+44 191 496 0063": "PHONE_NUMBER",
    "13812345678": "PHONE_NUMBER",
    "138 1234 5678": "PHONE_NUMBER",
    "4111 1111 1111 1111": "CREDIT_CARD",
    "北京市海淀区中关村大街1号": "ADDRESS",
    '12 "High" Street\\Flat 3': "ADDRESS",
    "11010519491231002X": "NATIONAL_ID",
    "1980-03-12": "DATE_OF_BIRTH",
}
"""Everything personal that a conversation may hold."""

_LOOK_ALIKES: Final = (
    "<PERSON_1>",
    "< person_2 >",
    "[PERSON_1]",
    "PERSON_3",
    "PERSON_1's",
    "&lt;PERSON_1&gt;",
    r"\u003cPERSON_2\u003e",
    "【PHONE_NUMBER_1】",
    "<TEXT_1>",
    "<PERSON>",
    "<PERSON_1.1>",
    "<PERSON_HASH:0123456789abcdef>",
)
_WORDS: Final = (
    "met ",
    " called",
    "'s",
    ", ",
    "。",
    "请",
    "和",
    "**",
    "`",
    "<",
    ">",
    "_1",
    "\n",
    "1",
    "{",
    "\\",
)
_PIECES: Final = (
    st.sampled_from(sorted(VALUES))
    | st.sampled_from(_LOOK_ALIKES)
    | st.sampled_from(_WORDS)
    | st.text(max_size=3)
)
_TEXTS: Final = st.lists(_PIECES, max_size=10).map(" ".join) | st.lists(_PIECES, max_size=8).map(
    "".join
)
_JSON: Final = st.recursive(
    _TEXTS | st.integers(-9, 9) | st.just(13812345678) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _message(role: str, **fields: Any) -> dict[str, Any]:
    return {"role": role, **fields}


def _called(arguments: Any) -> dict[str, Any]:
    source = json.dumps({"q": arguments}, ensure_ascii=False)
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": source}}
    return _message("assistant", content=None, tool_calls=[call])


_MESSAGES: Final = (
    _TEXTS.map(lambda text: _message("user", content=text))
    | _TEXTS.map(lambda text: _message("assistant", content=text))
    | st.lists(_TEXTS, min_size=1, max_size=2).map(
        lambda texts: _message("user", content=[{"type": "text", "text": text} for text in texts])
    )
    | _JSON.map(_called)
    | _JSON.map(
        lambda value: _message(
            "tool", tool_call_id="call_1", content=json.dumps([value], ensure_ascii=False)
        )
    )
)
CONVERSATIONS: Final = st.lists(_MESSAGES, min_size=1, max_size=6)
"""Messages of a request."""

KEYS: Final = st.binary(min_size=16, max_size=16)
"""Keys of a session, so that what fails can be repeated."""


@dataclass(frozen=True)
class Rewording:
    """How a model may write a placeholder, and what its value must then look like."""

    write: Callable[[str], str]
    value: Callable[[str], str] = lambda value: value


REWORDINGS: Final[Sequence[Rewording]] = (
    Rewording(lambda p: p),
    Rewording(str.lower),
    Rewording(lambda p: p.replace("_", " ").title()),
    Rewording(lambda p: f"< {p[1:-1]} >"),
    Rewording(lambda p: f"[{p[1:-1]}]"),
    Rewording(lambda p: f"({p[1:-1]})"),
    Rewording(lambda p: f"{{{p[1:-1]}}}"),
    Rewording(lambda p: f"《{p[1:-1]}》"),
    Rewording(lambda p: f"【{p[1:-1]}】"),
    Rewording(lambda p: bare(p)),
    Rewording(lambda p: f"**{p}**", lambda v: f"**{v}**"),
    Rewording(lambda p: f"`{p}`", lambda v: f"`{v}`"),
    Rewording(lambda p: f"{p}'s", lambda v: f"{v}'s"),
    Rewording(lambda p: f"{p}s", lambda v: f"{v}s"),
    Rewording(lambda p: p.replace("_", r"\_")),
)


def round_trip(
    messages: Sequence[Mapping[str, Any]], action: Action, rewording: Rewording, key: bytes
) -> tuple[RedactionSession, dict[str, Any]]:
    """Redact a request, let a model echo and reword it, restore, and check all that is promised.

    Raises:
        AssertionError: a value is left, a message does not come back, or two values swap.
    """
    session = RedactionSession(ToldDetector(VALUES), lambda _: action, key=key)
    body = {"model": "m", "messages": list(messages)}
    redacted = session.redact_request(body)
    shown = "\n".join(_strings(redacted))
    assert not surviving(VALUES, shown), "a value was left in the request"
    for before, after in zip(messages, redacted["messages"], strict=True):
        assert session.restore_response(after) == before, "a message does not come back"
    if action == "replace":
        placeholders = dict(session.values)
        said = " | ".join(rewording.write(placeholder) for placeholder in placeholders)
        meant = " | ".join(rewording.value(value) for value in placeholders.values())
        assert session.restore(said) == meant, "a value stands in the place of another"
    return session, redacted


def _strings(value: Any) -> list[str]:
    """Every text of a body, JSON in texts included as it reads once it is parsed."""
    if isinstance(value, str):
        found = [value]
        if value[:1] in ("{", "["):
            try:
                found += _strings(json.loads(value))
            except ValueError:
                return found
        return found
    if isinstance(value, Mapping):
        return [text for pair in value.items() for one in pair for text in _strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [str(value)]
