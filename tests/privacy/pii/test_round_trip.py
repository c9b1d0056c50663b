"""Requests come back as they were, whatever is said, called, echoed, reworded or cut in pieces."""

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.model import Action
from privacy.pii.session import RedactionSession
from tests.privacy.pii.conversations import (
    CONVERSATIONS,
    KEYS,
    REWORDINGS,
    VALUES,
    Rewording,
    round_trip,
)
from tests.privacy.pii.fakes import ToldDetector

MANY = int(os.environ.get("INTRAMURAL_ROUND_TRIPS", "100"))
"""How many conversations; the full check takes 10,000."""


@settings(max_examples=MANY, deadline=None)
@given(CONVERSATIONS, st.sampled_from(REWORDINGS), KEYS)
def test_conversations_come_back_and_nobody_swaps(
    messages: list[dict[str, Any]], rewording: Rewording, key: bytes
) -> None:
    """No value is shown, every message returns byte for byte, every reworded name is its own."""
    round_trip(messages, "replace", rewording, key)


@pytest.mark.parametrize("action", ["hash", "encrypt", "pseudonym"])
@settings(max_examples=max(40, MANY // 10), deadline=None)
@given(CONVERSATIONS, KEYS)
def test_other_reversible_actions_come_back_too(
    action: Action, messages: list[dict[str, Any]], key: bytes
) -> None:
    """Digests, tokens and surrogates are restored as exactly as placeholders."""
    round_trip(messages, action, REWORDINGS[0], key)


@settings(max_examples=MANY, deadline=None)
@given(
    CONVERSATIONS,
    st.sampled_from(["replace", "pseudonym", "hash"]),
    st.lists(st.integers(1, 25), max_size=60),
    KEYS,
)
def test_cuts_change_nothing(
    messages: list[dict[str, Any]], action: Action, sizes: list[int], key: bytes
) -> None:
    """Characters, bytes and chunk objects, cut anywhere, restore to what the whole restores to."""
    session, redacted = round_trip(messages, action, REWORDINGS[0], key)
    answer = "\n".join(str(message["content"]) for message in redacted["messages"])
    # Lone surrogates have no UTF-8 form.
    answer = answer.encode("utf-8", "replace").decode()
    whole = session.restore(answer)
    stream, out, at = session.stream_restorer(), "", 0
    longest = session.longest_held
    for size in [*sizes, len(answer)]:
        out += stream.feed(answer[at : at + size])
        at += size
        assert stream.held <= longest
    assert out + stream.flush() == whole
    data, passed, at = answer.encode(), b"", 0
    restorer = session.byte_restorer()
    for size in [*sizes, len(data)]:
        passed += restorer.feed(data[at : at + size])
        at += size
    assert (passed + restorer.flush()).decode() == whole


def test_every_cut_in_two_and_every_byte_alone() -> None:
    """All two-part cuts of an answer, and one byte at a time, give the same bytes."""
    session = RedactionSession(ToldDetector(VALUES))
    redacted = session.redact("王磊 met Ruth Baker (+44 191 496 0063) é 😀, <PERSON_1>")
    answer = f"{redacted} [PERSON_1]'s **PERSON_2** &lt;PERSON_1&gt; 《PERSON_2》 <PERSON_9> <PERS"
    data, whole = answer.encode(), session.restore(answer).encode()
    for cut in range(len(data) + 1):
        restorer = session.byte_restorer()
        left = restorer.feed(data[:cut]) + restorer.feed(data[cut:])
        assert left + restorer.flush() == whole
    restorer = session.byte_restorer()
    assert b"".join([restorer.feed(bytes([byte])) for byte in data]) + restorer.flush() == whole


def test_bytes_that_are_no_utf8_pass_unchanged() -> None:
    """Invalid UTF-8 beside a placeholder comes out as it went in."""
    session = RedactionSession(ToldDetector(VALUES))
    session.redact("Ruth Baker")
    restorer = session.byte_restorer()
    assert restorer.feed(b"\xff<PERSON_1>\xe4\xbd") + restorer.flush() == b"\xffRuth Baker\xe4\xbd"
