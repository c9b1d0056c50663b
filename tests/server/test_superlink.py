"""The control port's accounts, and what is on record of whoever comes to Flower's interfaces."""

import asyncio
import importlib
from base64 import b64encode
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.common.constant import ACCESS_TOKEN_KEY
from join_kit import Log

from privacy.signing import SigningKey
from server.accounts import AccountBook, AccountInvalid
from server.superlink import AccountTokens, Watched, key_id


@pytest.fixture
def book(tmp_path: Path) -> AccountBook:
    """Accounts in a file of their own."""
    return AccountBook(tmp_path / "accounts.json")


def add(book: AccountBook, name: str = "ada", valid: timedelta | None = None) -> str:
    """The token of a new account."""
    return book.add(name, SigningKey.generate().verify_key, valid)


def test_a_token_opens_its_account_until_it_is_removed(book: AccountBook) -> None:
    """It is found by its token alone, and by nothing from the moment of its removal."""
    token, other = add(book), add(book, "bob")
    found = book.by_token(token)
    assert found is not None
    assert found.name == "ada"
    for wrong in ("", token[:-1], token + "A", token.swapcase()):
        assert book.by_token(wrong) is None
    book.remove("ada")
    assert book.by_token(token) is None
    assert book.by_token(other) is not None


def test_an_account_ends_when_it_was_said_to(book: AccountBook) -> None:
    """Neither its token nor its signature counts afterwards."""
    token = add(book, valid=timedelta(hours=1))
    assert book.by_token(token) is not None
    assert book.by_token(token, datetime.now(UTC) + timedelta(hours=2)) is None
    past = add(book, "bob", valid=timedelta(seconds=-1))
    assert book.by_token(past) is None
    assert [account.name for account in book.trusted()] == ["ada"]


def test_the_file_holds_no_token_and_is_the_operators_alone(
    book: AccountBook, tmp_path: Path
) -> None:
    """Whoever reads a copy of it can open nothing."""
    token = add(book)
    path = tmp_path / "accounts.json"
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_names_are_checked_and_the_hubs_own_account_stays(book: AccountBook) -> None:
    """No second account of a name, no odd names, and nobody locks the hub out of itself."""
    add(book)
    book.set_internal("secret")
    for name in ("ada", "hub", "", "a/b", "x" * 65, "../up"):
        with pytest.raises(AccountInvalid):
            add(book, name)
    with pytest.raises(AccountInvalid, match="stays"):
        book.remove("hub")
    assert [account.name for account in book.trusted()] == ["ada"]


def test_flower_is_told_yes_only_for_an_active_account(book: AccountBook) -> None:
    """Flower's own question is answered by the accounts, also without any token."""
    token, plugin = add(book), AccountTokens(book)
    assert plugin.validate_tokens_in_metadata([(ACCESS_TOKEN_KEY, token)])[0]
    for metadata in ([], [(ACCESS_TOKEN_KEY, "wrong")], [("other", token)]):
        assert plugin.validate_tokens_in_metadata(metadata) == (False, None)


def test_the_pinned_flower_still_has_what_is_replaced() -> None:
    """The two names that the wrapper replaces are looked up by Flower at the call."""
    command = importlib.import_module("flwr.superlink.cli.flower_superlink")
    source = Path(str(command.__file__)).read_text()
    assert "authn_plugin = load_control_authn_plugin()" in source
    assert "fastapi_app = create_app(lifespan_config, SuperLinkLifespan)" in source
    assert callable(importlib.import_module("flwr.superlink.main").create_app)


class Flower:
    """An application that answers with one status, and remembers whether it was asked."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(
    flower: Flower, book: AccountBook, log: Log, path: str, **headers: str
) -> tuple[int, list[dict[str, Any]]]:
    """The status a caller gets, and the data of the entries that were made."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(Watched(flower, book, log)(scope, receive, send))
    return sent[0]["status"], [entry.data for entry in log.entries]


def test_a_start_is_on_record_before_it_happens(book: AccountBook) -> None:
    """With the account's name; and without a record there is no start."""
    token, flower, log = add(book), Flower(200), Log()
    bearer = f"Bearer {token}"
    status, entries = ask(flower, book, log, "/v1/control/start-run", authorization=bearer)
    assert (status, flower.asked) == (200, 1)
    assert entries == [{"step": "control", "call": "start-run", "account": "ada"}]
    log.broken = True
    status, _ = ask(flower, book, log, "/v1/control/start-run", authorization=bearer)
    assert (status, flower.asked) == (503, 1)


def test_looking_makes_no_entry(book: AccountBook) -> None:
    """The hub asks every few seconds who is online; the log is for what changes something."""
    token, log = add(book), Log()
    ask(Flower(200), book, log, "/v1/control/list-nodes", authorization=f"Bearer {token}")
    assert log.entries == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/control/start-run", 401),
        ("/v1/control/list-runs", 401),
        ("/v1/fleet/pull-messages", 401),
        ("/v1/fleet/activate-node", 412),
        ("/v1/runtime/acquire-task", 401),
        ("/v1/runtime/acquire-task", 415),
    ],
)
def test_whoever_is_turned_away_is_on_record(book: AccountBook, path: str, status: int) -> None:
    """Path, status and address, and for a node the id of the key that it showed."""
    log, key = Log(), b64encode(b"a public key").decode()
    told, entries = ask(Flower(status), book, log, path, flwr_public_key=key)
    assert told == status
    assert len(entries) == 1
    assert entries[0].items() >= {"step": "refused", "path": path, "status": status}.items()


def test_a_key_is_named_by_its_digest(book: AccountBook) -> None:
    """Two callers with one key can be recognised, and junk is no error."""
    assert key_id(b64encode(b"key").decode()) == key_id(b64encode(b"key").decode())
    assert key_id("no base64!") == "malformed"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/", "/v2/control/start-run"])
def test_there_is_nothing_outside_of_flowers_interfaces(book: AccountBook, path: str) -> None:
    """The pages that Flower's web framework adds are not served."""
    flower = Flower(200)
    assert ask(flower, book, Log(), path)[0] == 404
    assert flower.asked == 0
