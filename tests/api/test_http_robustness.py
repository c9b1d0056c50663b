"""Bodies that nobody should send: an error in OpenAI's shape, never a traceback or a leak."""

import gzip
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bodies import deeper_than
from tests.api.service_kit import EMAIL, Factory, Service

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/redact", "/v1/restore")
JSON = {"Content-Type": "application/json"}


def nested(depth: int, sign: str = "[") -> bytes:
    """JSON of that depth."""
    close = {"[": "]", '{"a":': "}"}[sign]
    return (sign * depth + "1" + close * depth).encode()


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"{",
    "text": b'"hello"',
    "null": b"null",
    "array": b"[1, 2]",
    "deep arrays": nested(100_000),
    "deep objects": nested(50_000, '{"a":'),
    "deep without end": b"[" * 1_000_000,
    "deep inside": b'{"model": "intramural", "messages": ' + nested(5000) + b"}",
    "huge integer": b'{"model": "intramural", "messages": [], "max_tokens": ' + b"9" * 5000 + b"}",
    "large integer": b'{"model": "intramural", "prompt": "x", "seed": ' + b"9" * 400 + b"}",
    "huge exponent": b'{"model": "intramural", "prompt": "x", "temperature": 1e99999}',
    "nan": b'{"model": "intramural", "prompt": "x", "temperature": NaN}',
    "infinity": b'{"model": "intramural", "prompt": "x", "top_p": -Infinity}',
    "latin-1": '{"text": "é"}'.encode("latin-1"),
    "utf-16": '{"text": "x", "model": 5}'.encode("utf-16"),
    "broken utf-8": b'{"text": "\xff\xfe"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"text": "\\ud800", "prompt": "\\ud800", "model": "intramural"}',
    "surrogate in a name": b'{"\\ud800": 1}',
    "nul": b'{"text": "\\u0000", "text\\u0000": 1}',
    "twice": b'{"text": 1, "text": 2}',
    "wrong types": b'{"model": {}, "messages": {"a": 1}, "prompt": 5, "text": [], "input": 1.5}',
    "wrong inside": b'{"model": "intramural", "messages": [[], 5, null, {"role": []}]}',
    "many keys": json.dumps({f"k{n}": n for n in range(20_000)}).encode(),
}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_told_so(
    service: Service, caplog: pytest.LogCaptureFixture, url: str, name: str
) -> None:
    """4xx in OpenAI's shape, with nothing of what was sent, and no error of ours in the log."""
    caplog.set_level(logging.DEBUG)
    answer = service.client("admin").post(url, content=BODIES[name], headers=JSON)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    assert len(answer.text) < 2000
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert service.echo.seen == []


def test_compressed_bodies_are_refused(service: Service) -> None:
    """What could unpack to any size is not unpacked."""
    body = gzip.compress(b'{"text": "' + b"x" * 10_000_000 + b'"}')
    answer = service.client().post(
        "/v1/redact", content=body, headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "?"])
def test_other_content_types_are_refused(service: Service, kind: str) -> None:
    """A form that a browser would send across sites is not read as JSON."""
    answer = service.client().post(
        "/v1/redact", content=b'{"text": "hi"}', headers={"Content-Type": kind}
    )
    assert answer.status_code in (400, 415)


def test_no_header_or_query_reaches_a_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Paths, queries and headers may hold anything; the log has route templates only."""
    caplog.set_level(logging.DEBUG)
    client = service.client()
    for url in (f"/v1/models/{EMAIL}", f"/v1/models?q={EMAIL}", f"/{EMAIL}"):
        answer = client.get(url, headers={"X-Note": EMAIL, "X-Request-Id": EMAIL})
        assert EMAIL not in answer.text + str(answer.headers)
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("api", "uvicorn")]
    assert ours
    assert not any(EMAIL in record.getMessage() for record in ours)


def test_every_answer_has_the_security_headers(service: Service) -> None:
    """Also errors, pages and answers to strangers; no page may frame or sniff them."""
    for client, url in (
        (service.client(), "/v1/models"),
        (service.client(None), "/v1/models"),
        (service.client(None), "/docs"),
        (service.client(None), "/nothing"),
        (service.client(None), "/healthz"),
    ):
        headers = client.get(url).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=30,
)


def depth(value: Any) -> int:
    """How deep arrays and objects nest."""
    if isinstance(value, dict):
        return 1 + max((depth(each) for each in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(each) for each in value), default=0)
    return 0


@given(value=VALUES, limit=st.integers(0, 8), ascii_only=st.booleans())
def test_depth_is_what_a_parser_would_find(value: Any, limit: int, ascii_only: bool) -> None:
    """Brackets in strings do not count, escapes and all, and no real depth is missed."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert deeper_than(body, limit) == (depth(value) > limit)


def test_the_bound_is_exact(make_service: Factory) -> None:
    """As deep as allowed is parsed, one level more is not."""
    client = make_service(max_json_depth=20).client("admin")
    codes = [
        client.post("/v1/redact", content=nested(levels), headers=JSON).json()["error"]["code"]
        for levels in (20, 21)
    ]
    assert codes[0] != "too_deep"
    assert codes[1] == "too_deep"
