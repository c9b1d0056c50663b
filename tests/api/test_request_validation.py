"""Bad requests: a 400 that names field, kind and bound, and nothing of what was sent."""

import itertools
import json
import string
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.service_kit import POLICY, Service
from tests.api.test_chat import URL, chat

SENTINEL = "zebra-4711"


@pytest.fixture(scope="module")
def shared(
    published: VerifiedRelease, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One service for all examples of a property."""
    folder: Path = tmp_path_factory.mktemp("validation")
    text = POLICY.replace("requests_per_minute = 1000", "requests_per_minute = 1000000")
    service = service_kit.build(folder, published, policy_text=text, max_body_bytes=4096)
    with ExitStack() as stack:
        stack.callback(service.keys.close)
        stack.callback(service.audit.close)
        yield service


@pytest.fixture(scope="module")
def client(shared: Service) -> TestClient:
    """With a key of the role app."""
    return shared.client()


TOOL = {"type": "function", "function": {"name": "look_up"}}
CASES = [
    ({"max_tokens": -4}, "max_tokens", "at least 1"),
    ({"max_tokens": 2**40}, "max_tokens", "at most 131072"),
    ({"max_tokens": "5"}, "max_tokens", "whole number, not string"),
    ({"max_tokens": True}, "max_tokens", "whole number, not boolean"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "differ"),
    ({"temperature": 3}, "temperature", "at most 2"),
    ({"temperature": "hot"}, "temperature", "a number, not string"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"seed": 2**64}, "seed", "below"),
    ({"messages": []}, "messages", "at least 1 items"),
    ({"messages": SENTINEL}, "messages", "an array, not string"),
    ({"messages": [{"role": SENTINEL, "content": "x"}]}, "messages[0].role", "'system'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "a string or an array"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "not null"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": SENTINEL}}]}
            ]
        },
        "messages[0].content[0].type",
        "'image_url' is not supported",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "name": SENTINEL * 9}]},
        "messages[0].name",
        "at most 64",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_calls": [SENTINEL]}]},
        "messages[0].tool_calls",
        "not supported",
    ),
    (
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages[0].tool_call_id",
        "required",
    ),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": ""}, "stop", "at least 1"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
    ({"tools": [TOOL, TOOL]}, "tools", "names must differ"),
    (
        {"tools": [{"type": "function", "function": {"name": f"{SENTINEL} x"}}]},
        "tools[0].function.name",
        "must match",
    ),
    ({"tool_choice": "required"}, "tool_choice", "tools is empty"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": SENTINEL}}},
        "tool_choice",
        "does not define",
    ),
    ({"n": 17}, "n", "at most 16"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
    ({"response_format": {"type": SENTINEL}}, "response_format.type", "'json_object'"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format",
        "needs a schema",
    ),
    ({"audio": {"voice": SENTINEL}}, "audio", "not supported"),
    ({"functions": [SENTINEL]}, "functions", "not supported"),
    ({"store": True}, "store", "not supported"),
    ({SENTINEL: 1}, None, "does not know"),
    ({"max_token": 1}, None, "did you mean 'max_tokens'"),
    ({"model": ""}, "model", "at least 1"),
]


@pytest.mark.parametrize(("change", "param", "words"), CASES, ids=itertools.count())
def test_a_fault_is_named_by_field_kind_and_bound(
    client: TestClient, shared: Service, change: dict[str, Any], param: str | None, words: str
) -> None:
    """400 in OpenAI's shape; ``param`` is the field; the value is not repeated; nothing is generated."""
    before = len(shared.echo.seen)
    answer = client.post(URL, json=chat("hello") | change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert SENTINEL not in answer.text
    assert len(shared.echo.seen) == before


def test_neutral_values_of_unsupported_fields_are_accepted(client: TestClient) -> None:
    """Clients that spell out OpenAI's defaults are served."""
    neutral = {
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "logprobs": False,
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "response_format": {"type": "text"},
        "store": False,
        "service_tier": "auto",
        "user": "u-1",
        "metadata": None,
        "temperature": None,
        "stop": None,
        "max_tokens": None,
    }
    assert client.post(URL, json=chat("hello") | neutral).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"null", "application/json", 400),
        (b"\xff\xfe\x00", "application/json", 400),
        (b"[" * 4000, "application/json", 400),
        (b'{"seed":' + b"1" * 4000 + b"}", "application/json", 400),
        (b'{"model":"m","temperature":NaN,"messages":[]}', "application/json", 400),
        (
            b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}',
            "application/json",
            400,
        ),
        (b"{}", "text/plain", 400),
        (b"model=x", "application/x-www-form-urlencoded", 400),
        (b" " * 5000, "application/json", 413),
    ],
)
def test_bodies_that_are_no_requests(
    client: TestClient, content: bytes, kind: str, status: int
) -> None:
    """Malformed, too deep, too large or of another type: an error body, never a 5xx."""
    answer = client.post(URL, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_is_measured_while_it_arrives(client: TestClient) -> None:
    """A body without a declared length is cut off at the limit."""
    parts = (b" " * 1000 for _ in range(100))
    answer = client.post(URL, content=parts, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just(SENTINEL),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "model",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "stream",
        "n",
        "tools",
        "stream_options",
        "logprobs",
        "user",
        "response_format",
    ]
) | st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(change=st.dictionaries(names, json_values, max_size=4))
def test_any_body_is_answered_or_refused_cleanly(
    client: TestClient, change: dict[str, Any]
) -> None:
    """Whatever JSON is sent: 200, 400 or 404, in the right shape, without repeating a bad value."""
    body = json.dumps(chat("hello") | change, ensure_ascii=True)
    answer = client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert SENTINEL not in answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}


@settings(max_examples=60, deadline=None)
@given(max_tokens=st.integers(-5, 300), temperature=st.floats(-1, 3, allow_nan=False))
def test_bounds_are_exact(client: TestClient, max_tokens: int, temperature: float) -> None:
    """A request is accepted exactly within the bounds (the role's 200 tokens, temperature 0 to 2)."""
    body = chat("hello", max_tokens=max_tokens, temperature=temperature)
    within = 1 <= max_tokens <= 200 and 0 <= temperature <= 2
    assert client.post(URL, json=body).status_code == (200 if within else 400)
