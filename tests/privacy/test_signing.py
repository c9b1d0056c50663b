"""Keys and signatures."""

from pathlib import Path

import pytest
from proof_kit import FORK, fixed_key

from privacy.errors import KeyUnusable, SignatureInvalid
from privacy.signing import SigningKey, VerifyKey


def test_a_key_is_created_once_and_private(tmp_path: Path) -> None:
    """The file has mode 0600 and gives the same key again."""
    path = tmp_path / "keys" / "node.key"
    first = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path).verify_key == first.verify_key
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def test_processes_that_race_end_with_one_key(tmp_path: Path) -> None:
    """Ten processes released at once all load the same key."""
    path, barrier, found = tmp_path / "k", FORK.Barrier(10), FORK.SimpleQueue()

    def create() -> None:
        barrier.wait()
        found.put(SigningKey.load_or_create(path).key_id)

    workers = [FORK.Process(target=create) for _ in range(10)]
    for worker in workers:
        worker.start()
    ids = {found.get() for _ in workers}
    for worker in workers:
        worker.join()
    assert ids == {SigningKey.load(path).key_id}


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message says the mode and the way out."""
    path = tmp_path / "k"
    SigningKey.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match=r"mode 0640.*chmod 600"):
        SigningKey.load(path)


def test_an_unusable_key_file_is_never_replaced(tmp_path: Path) -> None:
    """Creating beside a broken key raises and leaves it as it is."""
    path = tmp_path / "k"
    path.write_bytes(b"broken")
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="no unencrypted PEM"):
        SigningKey.load_or_create(path)
    assert path.read_bytes() == b"broken"
    with pytest.raises(KeyUnusable, match="no signing key"):
        SigningKey.load(tmp_path / "none")


def test_only_the_signer_over_the_same_bytes_verifies(key: SigningKey) -> None:
    """Another key, other bytes or a changed signature raise."""
    signature = key.sign(b"data")
    key.verify_key.verify(signature, b"data")
    for other in (
        (fixed_key(8).verify_key, signature, b"data"),
        (key.verify_key, signature, b"datb"),
        (key.verify_key, signature[:-1], b"data"),
        (key.verify_key, bytes(64), b"data"),
        (key.verify_key, b"", b"data"),
    ):
        with pytest.raises(SignatureInvalid):
            other[0].verify(other[1], other[2])


def test_rfc_8032_vector() -> None:
    """Public key and signature of RFC 8032 section 7.1, test 2."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert (
        key.verify_key.raw.hex()
        == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f")


def test_a_public_key_travels_as_one_line_of_text(key: SigningKey, tmp_path: Path) -> None:
    """Saved and parsed it is the same key; any other text is refused."""
    key.verify_key.save(tmp_path / "k.pub")
    assert VerifyKey.load(tmp_path / "k.pub") == key.verify_key
    assert len(key.key_id) == 16
    for wrong in ("", "ed25519:", "ed25519:AAAA", "rsa:AAAA", key.verify_key.public_text() + "="):
        with pytest.raises(KeyUnusable):
            VerifyKey.parse(wrong)


def test_derived_secrets_differ_by_purpose_and_key_and_show_nowhere(key: SigningKey) -> None:
    """One secret per key and purpose; the object's text shows the key id only."""
    secrets = {key.derive("a"), key.derive("b"), fixed_key(8).derive("a")}
    assert len(secrets) == 3
    assert key.derive("a") in secrets
    assert repr(key) == f"SigningKey(key_id={key.key_id!r})"
