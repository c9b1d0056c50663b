"""API keys: shown once, stored as keyed digests, bound to what they may do."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.errors import InvalidKey, KeyRequestInvalid
from api.keys import KeyStore
from privacy.errors import TamperedStore
from privacy.signing import SigningKey

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def signing_key() -> SigningKey:
    """Signs the seal."""
    return SigningKey.generate()


@pytest.fixture
def clock() -> Clock:
    """Stands at noon."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, signing_key: SigningKey, clock: Clock) -> KeyStore:
    """An empty store."""
    return open_store(tmp_path, signing_key, clock)


def open_store(folder: Path, signing_key: SigningKey, clock: Clock) -> KeyStore:
    """The store in the folder."""
    return KeyStore(
        folder / "keys.db", signing_key=signing_key, secret=folder / "secret", clock=clock
    )


def reason(store: KeyStore, text: str) -> str:
    """Why the key is refused."""
    with pytest.raises(InvalidKey) as caught:
        store.authenticate(text)
    assert text not in str(caught.value) or not text
    return caught.value.reason


def test_a_key_opens_until_it_is_revoked(store: KeyStore) -> None:
    """A created key authenticates as its principal and role; a revoked one no more."""
    text, key = store.create("crm", "app")
    assert text.startswith(f"im_{key.id}_")
    assert store.authenticate(text) == key
    revoked = store.revoke(key.id)
    assert revoked.revoked == NOW
    assert reason(store, text) == "revoked"
    assert store.revoke(key.id) == revoked
    assert store.list() == [revoked]


def test_a_key_expires(store: KeyStore, clock: Clock) -> None:
    """A key opens until, and not at, its expiry."""
    text, key = store.create("crm", "app", NOW + timedelta(hours=1))
    clock.now = NOW + timedelta(minutes=59, seconds=59)
    assert store.authenticate(text) == key
    clock.now = NOW + timedelta(hours=1)
    assert reason(store, text) == "expired"


def test_any_other_text_opens_nothing(store: KeyStore) -> None:
    """Missing, malformed and unknown keys, and every single changed character."""
    text, key = store.create("crm", "app")
    other, _ = store.create("erp", "app")
    assert reason(store, "") == "missing"
    assert reason(store, "sk-abc") == "malformed"
    assert reason(store, text + "\n") == "malformed"
    assert reason(store, f"im_{'0' * 16}_{text[-43:]}") == "unknown"
    assert reason(store, f"im_{key.id}_{other[-43:]}") == "unknown"
    for position in range(len(text) - 43, len(text)):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        assert reason(store, changed) == "unknown"


def test_no_file_holds_a_key(store: KeyStore, tmp_path: Path) -> None:
    """Neither the database nor any file beside it holds the secret part; the server secret is 0600."""
    text, _ = store.create("crm", "app")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    store.close()
    for path in tmp_path.iterdir():
        assert text[-43:].encode() not in path.read_bytes()


def test_keys_survive_and_share(
    store: KeyStore, tmp_path: Path, signing_key: SigningKey, clock: Clock
) -> None:
    """Two stores on one file see each other's keys at once; a closed store opens again."""
    second = open_store(tmp_path, signing_key, clock)
    text, key = second.create("crm", "app")
    assert store.authenticate(text) == key
    second.close()
    store.close()
    assert open_store(tmp_path, signing_key, clock).authenticate(text) == key


def test_a_role_changed_in_the_database_makes_the_key_unknown(
    store: KeyStore, tmp_path: Path
) -> None:
    """Whoever can write the database cannot give a key another role, principal or expiry."""
    text, _ = store.create("crm", "app", NOW + timedelta(days=1))
    for column, value in (("role", "admin"), ("principal", "boss"), ("expires", "")):
        with sqlite3.connect(tmp_path / "keys.db") as connection:
            (before,) = connection.execute(f"SELECT {column} FROM key_events").fetchone()
            connection.execute(f"UPDATE key_events SET {column} = ?", (value,))
        assert reason(store, text) == "unknown"
        with sqlite3.connect(tmp_path / "keys.db") as connection:
            connection.execute(f"UPDATE key_events SET {column} = ?", (before,))
    assert store.authenticate(text).role == "app"


def test_a_removed_revocation_is_found(
    store: KeyStore, tmp_path: Path, signing_key: SigningKey, clock: Clock
) -> None:
    """A store that was changed while closed, by so much as one event, does not open."""
    _, key = store.create("crm", "app")
    store.revoke(key.id)
    store.close()
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("DELETE FROM key_events WHERE kind = 'revoked'")
    with pytest.raises(TamperedStore):
        open_store(tmp_path, signing_key, clock)


def test_another_server_secret_opens_nothing(
    store: KeyStore, tmp_path: Path, signing_key: SigningKey, clock: Clock
) -> None:
    """The database alone, without the secret file, authenticates nobody."""
    text, _ = store.create("crm", "app")
    store.close()
    (tmp_path / "secret").unlink()
    assert reason(open_store(tmp_path, signing_key, clock), text) == "unknown"


@pytest.mark.parametrize(
    ("principal", "role", "expires", "word"),
    [
        ("", "app", None, "principal"),
        ("a b", "app", None, "principal"),
        ("crm\n", "app", None, "principal"),
        ("x" * 65, "app", None, "principal"),
        ("crm", "App", None, "role"),
        ("crm", "app", NOW, "future"),
        ("crm", "app", datetime(2030, 1, 1), "time zone"),  # noqa: DTZ001
    ],
)
def test_bad_requests_for_keys_are_refused(
    store: KeyStore, principal: str, role: str, expires: datetime | None, word: str
) -> None:
    """A key that cannot be as asked is not made; the message says why."""
    with pytest.raises(KeyRequestInvalid, match=word):
        store.create(principal, role, expires)
    assert store.list() == []


def test_revoking_an_unknown_key_is_refused(store: KeyStore) -> None:
    """The way out is named."""
    with pytest.raises(KeyRequestInvalid, match="list"):
        store.revoke("0" * 16)


def test_a_secret_file_that_others_can_read_is_refused(
    tmp_path: Path, signing_key: SigningKey, clock: Clock
) -> None:
    """Wrong mode or length of the server secret is an error, never a weaker store."""
    (tmp_path / "secret").write_bytes(b"x" * 32)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(KeyRequestInvalid, match="0644"):
        open_store(tmp_path, signing_key, clock)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(KeyRequestInvalid, match="1 bytes"):
        open_store(tmp_path, signing_key, clock)
