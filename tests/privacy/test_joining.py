"""Tokens and sealed statements of joining."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.joining import (
    MAX_SKEW,
    EnrolmentToken,
    HubBundle,
    JoinRefused,
    NodeReport,
    check_clock,
    seal,
    unseal,
)
from privacy.signing import SigningKey

REPORT = NodeReport(
    department="hr", code_digest="a" * 64, policy_digest=None, clock="2026-01-01T00:00:00+00:00"
)


@given(secret=st.binary(min_size=16, max_size=16), ca=st.binary(min_size=32, max_size=32))
def test_a_token_comes_back_from_its_text(secret: bytes, ca: bytes) -> None:
    """Text and white space around it give the same secret and fingerprint."""
    token = EnrolmentToken(secret, ca)
    assert EnrolmentToken.parse(f" {token.text()}\n") == token


@given(st.text(max_size=100))
def test_other_texts_are_refused_as_no_token(text: str) -> None:
    """Whatever is pasted instead of a token gets a clear refusal, never another error."""
    with pytest.raises(JoinRefused) as refused:
        EnrolmentToken.parse(text)
    assert refused.value.code == "token_unknown"


def test_two_tokens_have_nothing_in_common_and_the_hub_keeps_no_secret() -> None:
    """128 fresh bits each; the digest that is stored does not contain them."""
    first, second = (EnrolmentToken.draw(bytes(32)) for _ in range(2))
    assert len(first.secret) == 16
    assert first.secret != second.secret
    assert first.secret.hex() not in first.digest


def test_a_statement_is_bound_to_its_signer() -> None:
    """The signer is returned, and another one than the expected is refused."""
    key, other = SigningKey.generate(), SigningKey.generate()
    sealed = seal(REPORT, key)
    assert unseal(NodeReport, sealed) == (REPORT, key.verify_key)
    with pytest.raises(JoinRefused) as refused:
        unseal(NodeReport, sealed, other.verify_key)
    assert refused.value.code == "signature_invalid"


def test_no_byte_of_a_statement_changes_unseen() -> None:
    """Every single changed byte is refused."""
    sealed = seal(REPORT, SigningKey.generate())
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(JoinRefused):
            unseal(NodeReport, changed)


def test_a_statement_is_not_taken_for_another_kind() -> None:
    """A node's report is no hub's bundle, whoever signed it."""
    with pytest.raises(JoinRefused) as refused:
        unseal(HubBundle, seal(REPORT, SigningKey.generate()))
    assert refused.value.code == "malformed"


def test_a_refusal_names_fields_and_quotes_no_value() -> None:
    """A malformed statement is told by its fields alone."""
    key = SigningKey.generate()
    sealed = seal(REPORT.model_copy(update={"department": "no such / name"}), key)
    with pytest.raises(JoinRefused, match="department") as refused:
        unseal(NodeReport, sealed)
    assert "no such" not in str(refused.value)
    assert base64.b64encode(b"no such").decode() not in str(refused.value)


@pytest.mark.parametrize(
    ("apart", "told"),
    [(timedelta(hours=1), "1.0 hours ahead"), (timedelta(minutes=-6), "6 minutes behind")],
)
def test_a_clock_that_is_off_is_told_by_how_much(apart: timedelta, told: str) -> None:
    """The message says how far and in which direction."""
    now = datetime.now(UTC)
    with pytest.raises(JoinRefused, match=told) as refused:
        check_clock((now + apart).isoformat(), now)
    assert refused.value.code == "clock_skew"


def test_a_clock_within_the_bound_is_accepted() -> None:
    """Up to five minutes either way, and no further."""
    now = datetime.now(UTC)
    for seconds in (-MAX_SKEW, 0.0, MAX_SKEW):
        check_clock((now + timedelta(seconds=seconds)).isoformat(), now)
    for text in ("yesterday", "2026-01-01T00:00:00"):
        with pytest.raises(JoinRefused):
            check_clock(text, now)
