"""Checkpoints are C2SP's, so other tools verify them."""

import base64
from pathlib import Path

import pytest
from proof_kit import fixed_key

from privacy.audit.checkpoint import Checkpoint, key_hash, open_note, verifier_text
from privacy.errors import AuditError
from privacy.signing import SigningKey, VerifyKey

ORIGIN = "example.org/audit"
GOLDEN = Path(__file__).parent / "golden" / "checkpoint.txt"


def test_a_note_signed_by_another_implementation_opens() -> None:
    """The example in the documentation of Go's golang.org/x/mod/sumdb/note."""
    public = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    key = VerifyKey(public[1:])
    note = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
        "\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert key_hash("PeterNeumann", key).hex() == "c74f20a3"
    assert verifier_text("PeterNeumann", key) == (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    )
    assert open_note(note, "PeterNeumann", key).startswith("If you think cryptography")


def test_the_form_of_a_checkpoint_is_fixed(key: SigningKey) -> None:
    """Others parse this text; its bytes do not change."""
    note = Checkpoint(ORIGIN, 12, bytes(range(32))).sign(key)
    assert note == GOLDEN.read_text(encoding="utf-8")
    assert Checkpoint.open(note, ORIGIN, key.verify_key) == Checkpoint(ORIGIN, 12, bytes(range(32)))


def test_a_checkpoint_with_any_byte_changed_does_not_open(key: SigningKey) -> None:
    """Text, key name, key hash and signature alike."""
    note = Checkpoint(ORIGIN, 12, bytes(32)).sign(key)
    for place in range(len(note)):
        changed = note[:place] + chr(ord(note[place]) ^ 1) + note[place + 1 :]
        with pytest.raises(AuditError):
            Checkpoint.open(changed, ORIGIN, key.verify_key)
    for cut in range(len(note)):
        with pytest.raises(AuditError):
            Checkpoint.open(note[:cut], ORIGIN, key.verify_key)


def test_a_checkpoint_of_another_log_or_key_does_not_open(key: SigningKey) -> None:
    """Both the name and the key are part of what is trusted."""
    note = Checkpoint(ORIGIN, 12, bytes(32)).sign(key)
    with pytest.raises(AuditError, match="no signature line"):
        Checkpoint.open(note, "example.org/other", key.verify_key)
    with pytest.raises(AuditError, match="another key"):
        Checkpoint.open(note, ORIGIN, fixed_key(8).verify_key)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "{", "x" * 300])
def test_an_origin_that_would_blur_the_note_is_refused(origin: str) -> None:
    """No spaces, plus signs or line breaks, and nothing that looks like JSON."""
    with pytest.raises(AuditError, match="origin="):
        Checkpoint(origin, 0, bytes(32))
