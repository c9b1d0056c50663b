"""API keys: shown once, stored as keyed digests, bound to what they may do."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.errors import InvalidKey, KeyRequestInvalid
from api.keys import KeyStore
from api.keys_scope import Scope
from privacy.errors import TamperedStore
from privacy.signing import SigningKey
from tests.postgres_kit import Places

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
def store(places: Places, signing_key: SigningKey, clock: Clock) -> Iterator[KeyStore]:
    """An empty store, in either database."""
    with closing(open_store(places, signing_key, clock)) as opened:
        yield opened


def open_store(places: Places, signing_key: SigningKey, clock: Clock) -> KeyStore:
    """The store."""
    return KeyStore(
        places("keys"), signing_key=signing_key, secret=places.folder / "secret", clock=clock
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
    store: KeyStore, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """Two stores on one file see each other's keys at once; a closed store opens again."""
    second = open_store(places, signing_key, clock)
    text, key = second.create("crm", "app")
    assert store.authenticate(text) == key
    second.close()
    store.close()
    assert open_store(places, signing_key, clock).authenticate(text) == key


def test_a_role_changed_in_the_database_makes_the_key_unknown(
    store: KeyStore, places: Places
) -> None:
    """Whoever can write the database cannot give a key another role, principal or expiry."""
    text, _ = store.create("crm", "app", NOW + timedelta(days=1))
    places.tamper(places("keys"), "key_events")
    for column, value in (("role", "admin"), ("principal", "boss"), ("expires", "")):
        ((before,),) = places.sql(places("keys"), f"SELECT {column} FROM key_events")
        places.sql(places("keys"), f"UPDATE key_events SET {column} = '{value}'")
        assert reason(store, text) == "unknown"
        places.sql(places("keys"), f"UPDATE key_events SET {column} = '{before}'")
    assert store.authenticate(text).role == "app"


def test_a_removed_revocation_is_found(
    store: KeyStore, tmp_path: Path, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """A store that was changed while closed, by so much as one event, does not open."""
    _, key = store.create("crm", "app")
    store.revoke(key.id)
    store.close()
    remove = "DELETE FROM key_events WHERE kind = 'revoked'"
    places.tamper(places("keys"), "key_events", remove)
    with pytest.raises(TamperedStore):
        open_store(places, signing_key, clock)


def test_another_server_secret_opens_nothing(
    store: KeyStore, tmp_path: Path, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """The database alone, without the secret file, authenticates nobody."""
    text, _ = store.create("crm", "app")
    store.close()
    (tmp_path / "secret").unlink()
    assert reason(open_store(places, signing_key, clock), text) == "unknown"


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
    tmp_path: Path, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """Wrong mode or length of the server secret is an error, never a weaker store."""
    (tmp_path / "secret").write_bytes(b"x" * 32)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(KeyRequestInvalid, match="0644"):
        open_store(places, signing_key, clock)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(KeyRequestInvalid, match="1 bytes"):
        open_store(places, signing_key, clock)


def test_rotation_overlaps(store: KeyStore, clock: Clock) -> None:
    """The old key works for the overlap and not longer, the new one at once, with the same scope."""
    scope = Scope.of(["chat"], ["r-1*"], ["10.2.0.0/16"])
    text, old = store.create("crm", "app", name="crm", scope=scope)
    other, _ = store.create("crm", "app", name="other")
    second, new, retired = store.rotate("crm", timedelta(hours=24))
    assert (new.name, new.principal, new.role, new.scope) == ("crm", "crm", "app", scope)
    assert [key.id for key in retired] == [old.id]
    for seconds, works in ((24 * 3600 - 1, True), (24 * 3600, False)):
        clock.now = NOW + timedelta(seconds=seconds)
        assert store.authenticate(second, "10.2.3.4").id == new.id
        if works:
            assert store.authenticate(text, "10.2.3.4").id == old.id
        else:
            with pytest.raises(InvalidKey, match="expired"):
                store.authenticate(text, "10.2.3.4")
    assert store.authenticate(other).name == "other"


def test_rotation_never_lengthens_a_life(store: KeyStore, clock: Clock) -> None:
    """A key that ends before the overlap does still ends then; no overlap ends it at once."""
    text, _ = store.create("crm", "app", NOW + timedelta(hours=1), name="crm")
    second, _, (retired,) = store.rotate("crm", timedelta(hours=24))
    assert retired.expires == NOW + timedelta(hours=1)
    _, third, both = store.rotate("crm", timedelta(0))
    assert len(both) == 2
    assert reason(store, text) == reason(store, second) == "expired"
    clock.now = NOW + timedelta(hours=2)
    assert [key.id for key in store.list() if key.state(clock.now) == "active"] == [third.id]


def test_what_cannot_be_rotated_is_refused(store: KeyStore) -> None:
    """An unknown or revoked key, and a negative overlap; nothing changes then."""
    _, key = store.create("crm", "app", name="crm")
    with pytest.raises(KeyRequestInvalid, match="overlap"):
        store.rotate("crm", timedelta(seconds=-1))
    with pytest.raises(KeyRequestInvalid, match="'erp'"):
        store.rotate("erp", timedelta(0))
    store.revoke(key.id)
    with pytest.raises(KeyRequestInvalid, match="list"):
        store.rotate("crm", timedelta(0))
    assert len(store.list()) == 1


def test_a_name_stands_for_one_key_at_a_time(store: KeyStore) -> None:
    """A second active key of a name is refused; once it is revoked, the name is free."""
    _, key = store.create("crm", "app", name="crm")
    with pytest.raises(KeyRequestInvalid, match="rotate"):
        store.create("crm", "app", name="crm")
    store.revoke(key.id)
    store.create("crm", "app", name="crm")


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("10.2.3.4", True),
        ("::ffff:10.2.3.4", True),
        ("2001:db8::7", True),
        ("10.3.0.1", False),
        ("::1", False),
        ("", False),
        (None, False),
        ("testclient", False),
    ],
)
def test_networks_bind(store: KeyStore, origin: str | None, admitted: bool) -> None:
    """A key is good from its networks only; from an unknown address it opens nothing."""
    text, key = store.create(
        "crm", "app", scope=Scope.of(networks=["10.2.0.0/16", "2001:db8::/32"])
    )
    if admitted:
        assert store.authenticate(text, origin).id == key.id
    else:
        with pytest.raises(InvalidKey) as caught:
            store.authenticate(text, origin)
        assert (caught.value.reason, caught.value.key_id) == ("origin", key.id)


def test_a_scope_changed_in_the_database_makes_the_key_unknown(
    store: KeyStore, places: Places
) -> None:
    """Whoever can write the database cannot widen a key."""
    text, _ = store.create("crm", "app", name="crm", scope=Scope.of(["chat"]))
    places.tamper(places("keys"), "key_events")
    for column, value in (("scope", ""), ("scope", '{"operations":["keys"]}'), ("name", "x")):
        ((before,),) = places.sql(places("keys"), f"SELECT {column} FROM key_events")
        places.sql(places("keys"), f"UPDATE key_events SET {column} = '{value}'")
        assert reason(store, text) == "unknown"
        places.sql(places("keys"), f"UPDATE key_events SET {column} = '{before}'")
    assert store.authenticate(text).name == "crm"


@pytest.mark.parametrize(
    ("options", "word"),
    [({"operations": ["fly"]}, "chat"), ({"networks": ["10.2.0.1/16"]}, "host bits")],
)
def test_a_scope_of_nothing_known_is_refused(options: dict[str, list[str]], word: str) -> None:
    """A scope that could never match is a mistake."""
    with pytest.raises(KeyRequestInvalid, match=word):
        Scope.of(**options)


def test_the_last_use_is_noted_to_the_minute(store: KeyStore, clock: Clock) -> None:
    """Within a minute a second use writes nothing; the chain of events is not touched."""
    _, key = store.create("crm", "app")
    assert store.list()[0].used is None
    store.note_use(key.id)
    clock.now = NOW + timedelta(seconds=59)
    store.note_use(key.id)
    assert store.list()[0].used == NOW
    clock.now = NOW + timedelta(seconds=61)
    store.note_use(key.id)
    assert store.list()[0].used == clock.now


def test_derived_secrets_differ_by_purpose_and_agree_between_replicas(
    store: KeyStore, tmp_path: Path, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """One server secret serves several purposes, none of which tells another."""
    again = open_store(places, signing_key, clock)
    assert store.derive("a") == again.derive("a")
    assert len({store.derive("a"), store.derive("b"), (tmp_path / "secret").read_bytes()}) == 3
    again.close()


def test_keys_of_an_earlier_version_still_open(
    store: KeyStore, tmp_path: Path, places: Places, signing_key: SigningKey, clock: Clock
) -> None:
    """A store without names and scopes is migrated: its chain verifies and its keys open."""
    text, key = store.create("crm", "app", NOW + timedelta(days=1))
    store.revoke(store.create("erp", "app")[1].id)
    places.tamper(
        places("keys"),
        "key_events",
        "ALTER TABLE key_events DROP COLUMN name",
        "ALTER TABLE key_events DROP COLUMN scope",
        "DROP TABLE key_uses",
        "UPDATE alembic_version SET version_num = '0001'",
        *(["DROP TRIGGER key_events_no_truncate ON key_events"] if places.cluster else []),
    )
    store.close()
    migrated = open_store(places, signing_key, clock)
    assert migrated.authenticate(text) == key
    assert [each.state(NOW) for each in migrated.list()] == ["active", "revoked"]
    migrated.close()
    open_store(places, signing_key, clock).close()


@pytest.mark.parametrize(
    "statement", ["UPDATE key_events SET role = 'admin'", "DELETE FROM key_events"]
)
def test_the_database_refuses_to_change_an_event(
    store: KeyStore, places: Places, statement: str
) -> None:
    """A role cannot be changed nor a revocation removed, by whatever program."""
    text, _ = store.create("crm", "app")
    with pytest.raises(Exception, match="the key store is append-only"):
        places.sql(places("keys"), statement)
    assert store.authenticate(text).role == "app"
