"""Who gets in: what is wrong with a key is told to nobody, and limits hold."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api.keys import KeyStore
from api.server import BackgroundServer
from tests.api.service_kit import POLICY, Factory, Service


def test_bad_keys_all_get_the_same_answer(service: Service) -> None:
    """Missing, malformed, unknown, revoked, expired: one 401 for the caller, five reasons in the log."""
    now = datetime.now(UTC)
    revoked, key = service.keys.create("gone", "admin")
    service.keys.revoke(key.id)
    clock = service.keys._clock
    service.keys._clock = lambda: now - timedelta(hours=2)
    expired, _ = service.keys.create("old", "admin", now - timedelta(hours=1))
    service.keys._clock = clock
    good = service.tokens["admin"]
    unknown = good[:-1] + ("A" if good[-1] != "A" else "B")
    headers = {
        "key_missing": {},
        "key_malformed": {"Authorization": "Bearer sk-123"},
        "key_unknown": {"Authorization": f"Bearer {unknown}"},
        "key_revoked": {"Authorization": f"Bearer {revoked}"},
        "key_expired": {"Authorization": f"Bearer {expired}"},
    }
    client = service.client(None)
    bodies = set()
    for path in ("/v1/models", "/v1/nothing", "/v1", "/metrics"):
        for reason, header in headers.items():
            answer = client.get(path, headers=header)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            bodies.add(answer.text)
            if path != "/metrics":
                assert service.entries()[-1].data["outcome"] == reason
    assert len(bodies) == 1
    assert good not in repr(service.entries())


@pytest.mark.parametrize(
    "header", ["Basic {}", "Bearer  {} x", "{}", "Bearer", "bearer {}", "Bearer {}\t"]
)
def test_the_scheme_is_bearer(service: Service, header: str) -> None:
    """Only a bearer token is a key; the scheme's case and outer blanks do not matter."""
    value = header.format(service.tokens["app"])
    answer = service.client(None).get("/v1/models", headers={"Authorization": value})
    assert answer.status_code == (200 if header in ("bearer {}", "Bearer {}\t") else 401)


def test_revocation_by_another_process_holds_from_the_next_request(service: Service) -> None:
    """A second store on the same file stands for the command line beside the running service."""
    client = service.client()
    assert client.get("/v1/models").status_code == 200
    path = service.audit.place.parent
    with_cli = KeyStore(
        path / "keys.db", signing_key=service.signing_key, secret=path / "keys.secret"
    )
    (app,) = (key for key in with_cli.list() if key.role == "app")
    with_cli.revoke(app.id)
    with_cli.close()
    assert client.get("/v1/models").status_code == 401
    new, _ = service.keys.create("again", "app")
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {new}"})
    assert answer.status_code == 200


def test_a_role_without_a_policy_may_do_nothing(service: Service) -> None:
    """A key whose role left the policy authenticates and is refused everywhere."""
    token, _ = service.keys.create("someone", "former")
    client = service.client(None)
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "unknown_role"


def test_requests_per_minute_are_the_policys(make_service: Factory) -> None:
    """A key above its role's rate gets 429 with ``Retry-After``; other keys are not affected."""
    service = make_service(policy_text=POLICY.replace("= 1000", "= 3"))
    client = service.client()
    answers = [client.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert service.client("admin").get("/v1/models").status_code == 200
    assert service.entries()[3].data["outcome"] == "rate_limit_exceeded"


def test_strangers_cannot_fill_the_audit_log(make_service: Factory) -> None:
    """Beyond the limit, requests with bad keys get 429 without an entry; good keys get through."""
    service = make_service(failed_authentications_per_minute=3)
    stranger = service.client(None)
    codes = [stranger.get("/v1/models").status_code for _ in range(6)]
    assert codes == [401, 401, 401, 429, 429, 429]
    assert len(service.entries()) == 3
    assert service.client().get("/v1/models").status_code == 200


def test_unknown_routes_and_methods(service: Service) -> None:
    """404 and 405 in OpenAI's shape, recorded, and without a word of the path."""
    client = service.client()
    missing = client.get("/v1/chat/completions/secret-word")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert "secret-word" not in missing.text
    method = client.put("/v1/models")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "GET"
    assert [entry.data["status"] for entry in service.entries()] == [404, 405]
    assert service.client(None).get("/other").json()["error"]["code"] == "not_found"


def test_a_locked_key_store_still_lets_callers_in(service: Service) -> None:
    """While another process keeps the database locked, keys open and answers leave at once."""
    path = service.audit.place.parent / "keys.db"
    headers = {"Authorization": f"Bearer {service.tokens['app']}"}
    with BackgroundServer(service.app) as server, closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        for _ in range(60):  # more than there are threads
            answer = httpx.get(f"{server.base_url}/v1/models", headers=headers, timeout=10)
            assert answer.status_code == 200
        other.execute("ROLLBACK")
