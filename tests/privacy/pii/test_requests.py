"""Whole requests and answers in OpenAI's form: every text is looked at, no machinery is touched."""

import copy
import json
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.model import Action
from privacy.pii.bodies import MOST_DEPTH, MOST_PIECES
from privacy.pii.entities import Span
from privacy.pii.errors import CannotRedact, LimitExceeded, RefusedEntity
from privacy.pii.session import RedactionSession
from tests.privacy.pii.conversations import VALUES
from tests.privacy.pii.fakes import ToldDetector

ARGUMENTS = (
    '{"who": "Ruth Baker",\n "phone": 13812345678, "n": 3, "王磊": ["\\u738b\\u82b3", 1.50]}'
)
SCHEMA = {
    "type": "object",
    "properties": {
        "who": {"type": "string", "enum": ["Ruth Baker", "王磊"], "description": "as Ruth Miller"},
        "phone": {"type": "integer", "default": 13812345678},
        "born": {"type": "string", "examples": ["1980-03-12"], "pattern": "^[0-9-]+$"},
    },
    "required": ["who"],
}
BODY = {
    "model": "intramural",
    "user": "u-4711",
    "seed": 7,
    "temperature": 0.5,
    "stream": True,
    "messages": [
        {"role": "system", "content": "You help Ruth Baker."},
        {
            "role": "user",
            "name": "Ruth_Baker",
            "content": [
                {"type": "text", "text": "I am Ruth Baker, not Ruth Miller"},
                {"type": "text", "text": "u-4711 is me, <PERSON_1> is not"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "Not for Ruth Miller",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "find_person", "arguments": ARGUMENTS},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"phone": 13812345678, "n": 1}'},
        {"role": "function", "name": "find_person", "content": '{"who": "Ruth Baker'},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "find_person",
                "description": "Finds 王磊",
                "parameters": SCHEMA,
                "strict": True,
            },
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "find_person"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "person", "strict": True, "schema": SCHEMA},
    },
    "metadata": {"owner": "Ruth Miller", "ruth.baker@corp.test": "x"},
    "stop": ["王磊"],
    "prediction": {"type": "content", "content": "Dear Ruth Baker"},
    "unheard_of": {"id": "13812345678", "status": "Ruth Miller", "deep": [{"n": 13812345678}]},
}


def session(action: Action = "replace") -> RedactionSession:
    """A session that is told what is personal."""
    return RedactionSession(ToldDetector(VALUES), lambda _: action)


def test_every_text_of_a_request_is_redacted() -> None:
    """Nothing personal is left anywhere, and one person has one number in all places."""
    given_body = copy.deepcopy(BODY)
    redacted: Any = session().redact_request(given_body)
    assert given_body == BODY
    shown = json.dumps(redacted, ensure_ascii=False)
    assert not [value for value in (*VALUES, "u-4711") if value in shown]
    system, user, assistant, tool, function = redacted["messages"]
    assert system["content"] == "You help <PERSON_1>."
    assert user["name"] == "PERSON_1"
    assert user["content"][0]["text"] == "I am <PERSON_1>, not <PERSON_2>"
    assert user["content"][1]["text"] == "<USER_HANDLE_1> is me, <TEXT_1> is not"
    assert assistant["refusal"] == "Not for <PERSON_2>"
    assert assistant["tool_calls"][0]["function"]["arguments"] == (
        '{"who": "<PERSON_1>",\n "phone": "<PHONE_NUMBER_1>", "n": 3, "<PERSON_3>": ["<PERSON_4>", 1.50]}'
    )
    assert tool["content"] == '{"phone": "<PHONE_NUMBER_1>", "n": 1}'
    assert function["content"] == '{"who": "<PERSON_1>'
    assert redacted["stop"] == ["<PERSON_3>"]
    assert redacted["metadata"] == {"owner": "<PERSON_2>", "<EMAIL_ADDRESS_1>": "x"}
    schema = redacted["tools"][0]["function"]["parameters"]
    assert schema["properties"]["who"]["enum"] == ["<PERSON_1>", "<PERSON_3>"]
    assert schema["properties"]["phone"]["default"] == "<PHONE_NUMBER_1>"


def test_machinery_stays() -> None:
    """Roles, ids, names of functions, settings, schema keywords and property names are untouched."""
    redacted: Any = session().redact_request(BODY)
    for name in ("model", "seed", "temperature", "stream", "tool_choice"):
        assert redacted[name] == BODY[name]
    roles = [message["role"] for message in redacted["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "function"]
    call = redacted["messages"][2]["tool_calls"][0]
    assert (call["id"], call["type"], call["function"]["name"]) == (
        "call_1",
        "function",
        "find_person",
    )
    assert redacted["messages"][4]["name"] == "find_person"
    schema = redacted["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["who", "phone", "born"]
    assert schema["required"] == ["who"]
    assert schema["properties"]["born"]["pattern"] == "^[0-9-]+$"


def test_answers_are_restored_in_every_field() -> None:
    """Content, refusal and arguments come back; numbers are numbers, JSON stays JSON."""
    one = session()
    redacted: Any = one.redact_request({**BODY, "response_format": {"type": "text"}})
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": redacted["messages"][2] | {"content": "Dear [PERSON_1], **<PERSON_2>**"},
                "logprobs": {"content": [{"token": "<PER"}]},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3},
    }
    restored: Any = one.restore_response(answer)
    message = restored["choices"][0]["message"]
    assert message["content"] == "Dear Ruth Baker, **Ruth Miller**"
    assert message["refusal"] == "Not for Ruth Miller"
    assert message["tool_calls"][0]["function"]["arguments"] == ARGUMENTS.replace(
        "\\u738b\\u82b3", "王芳"
    )
    assert restored["choices"][0]["logprobs"] is None
    assert (restored["id"], restored["usage"]) == ("chatcmpl-1", {"prompt_tokens": 3})


def test_values_are_escaped_where_an_answer_is_json() -> None:
    """A value with quotes and a backslash does not break arguments or an answer in JSON."""
    street = '12 "High" Street\\Flat 3'
    one = session()
    one.redact_request(
        {
            "messages": [{"role": "user", "content": street}],
            "response_format": {"type": "json_object"},
        }
    )
    source = '{"street": "<ADDRESS_1>", "again": "\\u003cADDRESS_1\\u003e"}'
    call = {"function": {"name": "go", "arguments": source}}
    answer = {"choices": [{"message": {"content": source, "tool_calls": [call]}}]}
    message: Any = one.restore_response(answer)["choices"][0]["message"]
    for text in (message["content"], message["tool_calls"][0]["function"]["arguments"]):
        assert json.loads(text) == {"street": street, "again": street}


def test_escapes_in_json_hide_no_stand_in() -> None:
    """After an escaped line break, or with one inside, a surrogate in arguments is still restored."""
    told = ToldDetector({"Ruth\nBaker": "PERSON", "Ruth Miller": "PERSON"})
    source = json.dumps({"q": 'Ruth\nBaker\nRuth Miller\t"Ruth Miller"'})
    call = {"function": {"name": "f", "arguments": source}}
    for action in ("pseudonym", "hash", "replace"):
        one = RedactionSession(told, lambda _, action=action: action)  # type: ignore[misc]
        made: Any = one.redact_request({"messages": [{"role": "assistant", "tool_calls": [call]}]})
        shown = made["messages"][0]["tool_calls"][0]["function"]["arguments"]
        assert "Baker" not in shown
        assert one.restore_json(shown) == source
        for cut in range(len(shown)):
            stream = one.stream_restorer(json=True)
            assert stream.feed(shown[:cut]) + stream.feed(shown[cut:]) + stream.flush() == source
    bare = session()
    bare.redact("Ruth Baker")
    assert bare.restore_json('"\\nPERSON_1"') == '"\\nRuth Baker"'


def chunks(text: str, arguments: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A streamed answer: its text and then the arguments of a call, cut into pieces."""
    made: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
    for field, whole in (("content", text), ("arguments", arguments)):
        at = 0
        for size in [*sizes, len(whole)]:
            piece = whole[at : at + size]
            at += size
            call = {"index": 0, "function": {"arguments": piece}}
            made.append(
                {"delta": {"content": piece} if field == "content" else {"tool_calls": [call]}}
            )
    made.append({"delta": {}, "finish_reason": "tool_calls"})
    return [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "logprobs": None, **one}]}
        for one in made
    ]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30))
def test_chunks_restore_as_the_whole_answer(sizes: list[int]) -> None:
    """However a stream is cut into chunks, their joined texts are those of the whole answer."""
    one = session()
    redacted: Any = one.redact_request(BODY)
    arguments = redacted["messages"][2]["tool_calls"][0]["function"]["arguments"]
    text = "Dear <PERSON_1>, 请 PERSON_2's 【PERSON_3】 <PERSON_9> <PERS"
    restorer = one.chunk_restorer()
    made = [restorer.feed(chunk) for chunk in chunks(text, arguments, sizes)]
    deltas = [chunk["choices"][0]["delta"] for chunk in made]
    assert "".join(delta.get("content") or "" for delta in deltas) == one.restore(text)
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert "".join(call["function"]["arguments"] for call in calls) == one.restore_json(arguments)
    assert deltas[0]["role"] == "assistant"


class CueDetector(ToldDetector):
    """Finds a value only where the words before it say what it is."""

    def detect(self, text: str) -> tuple[Span, ...]:
        lead = "surname: "
        return (Span(0, len(text), "PERSON", 0.9),) if text.startswith(lead) else ()


def test_a_key_tells_what_its_value_is() -> None:
    """The key stands before a JSON value when it is looked at, and is no part of what is replaced."""
    call = {"function": {"name": "f", "arguments": '{"surname": "Rice", "dish": "Rice"}'}}
    body = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    one = RedactionSession(CueDetector({}))
    redacted: Any = one.redact_request(body)
    source = redacted["messages"][0]["tool_calls"][0]["function"]["arguments"]
    # Once it is known as a name it is one everywhere in the request.
    assert json.loads(source) == {"surname": "<PERSON_1>", "dish": "<PERSON_1>"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
def test_what_cannot_be_looked_into_is_refused(part: dict[str, Any]) -> None:
    """Images, sound, files and token ids are refused by their type, never passed on unseen."""
    with pytest.raises(CannotRedact, match=part["type"]):
        session().redact_request({"messages": [{"role": "user", "content": [part]}]})
    with pytest.raises(CannotRedact, match="token ids"):
        session().redact_request({"prompt": [[1, 2, 3]]})


def test_limits_are_stated() -> None:
    """Too deep or too many texts is a clear error that names the bound, in bodies and in arguments."""
    deep: Any = "x"
    for _ in range(MOST_DEPTH + 1):
        deep = [deep]
    with pytest.raises(LimitExceeded, match=f"deeper than {MOST_DEPTH}"):
        session().redact_request({"extra": deep})
    source = "[" * 100_000 + "]" * 100_000
    call = {"function": {"name": "f", "arguments": source}}
    with pytest.raises(LimitExceeded, match=f"deeper than {MOST_DEPTH}"):
        session().redact_request({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    with pytest.raises(LimitExceeded, match=f"{MOST_PIECES:,}"):
        session().redact_request({"extra": ["x"] * (MOST_PIECES + 1)})


def test_a_blocked_kind_refuses_the_request() -> None:
    """Also a kind that only a field gives away, and without naming the value."""
    one = RedactionSession(
        ToldDetector(VALUES), lambda entity: "block" if entity == "USER_HANDLE" else "replace"
    )
    with pytest.raises(RefusedEntity) as caught:
        one.redact_request({"user": "u-4711", "messages": []})
    assert caught.value.entity == "USER_HANDLE"
    assert "4711" not in str(caught.value)


def test_the_map_is_neither_shown_nor_stored() -> None:
    """No representation of a session or of its parts holds a value, and it cannot be pickled."""
    one = session("pseudonym")
    one.redact_request(BODY)
    parts = [
        one,
        *vars(one).values(),
        one.stream_restorer(),
        one.byte_restorer(),
        one.chunk_restorer(),
    ]
    kept = [part for part in parts if type(part).__module__.startswith("privacy")]
    assert len(kept) >= 5
    assert not any(value in repr(part) for part in kept for value in VALUES)
    with pytest.raises(TypeError, match="never stored"):
        pickle.dumps(one._map)


def test_later_turns_keep_their_stand_ins() -> None:
    """A value that comes again in a later call has the stand-in that it had."""
    for action in ("replace", "hash", "pseudonym", "encrypt"):
        one = session(action)
        first = one.redact("Ruth Baker, 13812345678")
        one.redact("Ruth Miller and 王磊")
        assert one.redact("Ruth Baker, 13812345678") == first
        assert one.restore(first) == "Ruth Baker, 13812345678"


@pytest.mark.parametrize("action", ["replace", "hash", "encrypt", "pseudonym"])
def test_a_number_and_a_text_of_equal_digits_come_back_as_what_they_were(action: Action) -> None:
    """What was a number in JSON is a number again, what was a text beside it stays a text."""
    one = session(action)
    source = '{"n": 13812345678, "t": "13812345678"}'
    call = {"function": {"name": "f", "arguments": source}}
    messages = [
        {"role": "user", "content": "13812345678"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    redacted: Any = one.redact_request({"messages": messages})
    assert "13812345678" not in json.dumps(redacted)
    assert [one.restore_response(message) for message in redacted["messages"]] == messages
