"""Every route, every role, every kind of credential: allowed exactly as the policy says.

The table is made from the application's own routes, so a route without a rule fails here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute

from api.keys_scope import Scope
from policies.model import DEFAULT_ROLES, Operation
from tests.api.service_kit import POLICY, Factory, Service, build

OPEN = {"/healthz", "/readyz", "/docs", "/docs/style.css"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
PLENTY = (
    POLICY.replace("requests_per_minute = 1000", "requests_per_minute = 100000")
    + "\n".join(
        f"\n[roles.{name}]\nrequests_per_minute = 100000" for name in DEFAULT_ROLES if name != "app"
    )
    + """

[roles.nothing]
operations = []

[principals.elsewhere]
department = "finance"
releases = ["r-of-finance*"]

[principals.dismissed]
enabled = false
"""
)


def routes(service: Service) -> Iterator[APIRoute]:
    """All routes that the application answers, those of included routers too."""

    def walk(found: list[Any]) -> Iterator[APIRoute]:
        for route in found:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                yield from walk(inner.routes)
            elif isinstance(route, APIRoute):
                yield route

    yield from walk(service.app.routes)


def rules(route: APIRoute) -> list[str]:
    """The operations that the route's dependencies state."""
    return [
        call.operation
        for dependency in route.dependant.dependencies
        if hasattr(call := dependency.call, "operation")
    ]


def guarded(service: Service) -> list[tuple[str, str, str]]:
    """Method, path and operation of every route that is not open."""
    return [
        (method, path(route), rules(route)[0])
        for route in routes(service)
        if route.path not in OPEN
        for method in route.methods
    ]


def path(route: APIRoute) -> str:
    """A path that the route matches."""
    return route.path.replace("{model}", "intramural").replace("{release}", "r-none")


@pytest.fixture
def plenty(make_service: Factory) -> Service:
    """A service whose limits are out of the way."""
    return make_service(policy_text=PLENTY, failed_authentications_per_minute=1_000_000)


def test_every_route_has_exactly_one_rule(plenty: Service) -> None:
    """Each route states one operation of the policy, or is named here as open to all."""
    for route in routes(plenty):
        found = rules(route)
        assert len(found) == (0 if route.path in OPEN else 1), route.path
        assert set(found) <= set(get_args(Operation))
    assert {route.path for route in routes(plenty)} >= OPEN


def test_every_role_gets_exactly_what_the_policy_says(plenty: Service) -> None:
    """For every route and role: 403 where the role has not the operation, else never 401 or 403."""
    for role, grants in plenty.policy.roles.items():
        client = plenty.client(role)
        for method, url, operation in guarded(plenty):
            answer = client.request(method, url)
            if operation in grants.operations:
                assert answer.status_code not in (401, 403), (role, url, answer.text)
                assert answer.status_code < 500
            else:
                assert answer.status_code == 403, (role, url, answer.text)
                assert answer.json()["error"]["code"] == "operation_not_allowed"


@pytest.fixture
def bad(plenty: Service, tmp_path: Path) -> dict[str, str]:
    """Credentials that open nothing, by what is wrong with them, for the most powerful role."""
    now = datetime.now(UTC)
    revoked, key = plenty.keys.create("gone", "admin")
    plenty.keys.revoke(key.id)
    clock = plenty.keys._clock
    plenty.keys._clock = lambda: now - timedelta(hours=2)
    expired, _ = plenty.keys.create("old", "admin", now - timedelta(hours=1))
    plenty.keys._clock = clock
    here, _ = plenty.keys.create("far", "admin", scope=Scope.of(networks=["192.0.2.0/24"]))
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = build(other_folder, plenty.release)
    foreign = other.tokens["admin"]
    other.keys.close()
    other.audit.close()
    good = plenty.tokens["admin"]
    return {
        "none": "",
        "wrong": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "malformed": "sk-123",
        "expired": expired,
        "revoked": revoked,
        "another organisation's": foreign,
        "from another network": here,
        "a token where there is no issuer": "eyJhbGciOiJub25lIn0.e30.",
    }


def test_no_bad_credential_opens_any_route(plenty: Service, bad: dict[str, str]) -> None:
    """For every route, known or not, and every method: one and the same 401."""
    client = plenty.client(None)
    targets = [(method, url) for method, url, _ in guarded(plenty)]
    targets += [(method, "/v1/no-such-route") for method in METHODS]
    targets += [(method, "/v1/chat/completions") for method in METHODS]
    bodies = set()
    for method, url in targets:
        for reason, text in bad.items():
            headers = {"Authorization": f"Bearer {text}"} if text else {}
            answer = client.request(method, url, headers=headers)
            assert answer.status_code == 401, (method, url, reason, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                bodies.add(answer.text)
    assert len(bodies) == 1


def test_a_grant_for_other_releases_opens_no_model(plenty: Service) -> None:
    """A principal of another department reaches no release but its own, by any route."""
    token, _ = plenty.keys.create("elsewhere", "app")
    client = plenty.client(None)
    client.headers["Authorization"] = f"Bearer {token}"
    name = plenty.release.id
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    answers = [
        client.post("/v1/chat/completions", json=body),
        client.post("/v1/completions", json={"model": name, "prompt": "hi"}),
        client.get(f"/v1/models/{name}"),
    ]
    for answer in answers:
        assert answer.status_code in (403, 404)
    assert client.get("/v1/models").json()["data"] == []
    assert plenty.echo.seen == []


def test_a_disabled_principal_may_do_nothing(plenty: Service) -> None:
    """The policy can dismiss a principal whatever credentials it still has."""
    token, _ = plenty.keys.create("dismissed", "admin")
    client = plenty.client(None)
    client.headers["Authorization"] = f"Bearer {token}"
    for method, url, _ in guarded(plenty):
        answer = client.request(method, url)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "principal_not_allowed"


def test_a_closed_list_of_principals_refuses_all_others(make_service: Factory) -> None:
    """With undeclared_principals = false, a valid key without a table opens nothing."""
    service = make_service(
        policy_text=POLICY
        + "\n[access]\nundeclared_principals = false\n[principals.test-app]\nkind = 'service'\n"
    )
    assert service.client("app").get("/v1/models").status_code == 200
    refused = service.client("admin").get("/v1/models")
    assert refused.json()["error"]["code"] == "principal_not_allowed"


@pytest.mark.parametrize("operation", get_args(Operation))
def test_a_scope_only_narrows(plenty: Service, operation: str) -> None:
    """A key of one operation does that and nothing else, and nothing that its role may not do."""
    for role in ("admin", "node"):
        token, _ = plenty.keys.create("narrow", role, scope=Scope.of([operation]))
        client = plenty.client(None)
        client.headers["Authorization"] = f"Bearer {token}"
        for method, url, needed in guarded(plenty):
            allowed = needed == operation and needed in plenty.policy.role(role).operations
            answer = client.request(method, url)
            assert (answer.status_code != 403) == allowed, (role, url, answer.text)


def test_unknown_routes_and_methods_with_a_key(plenty: Service) -> None:
    """404 for what is not there, 405 with Allow for what is: in OpenAI's shape, recorded."""
    client = plenty.client("admin")
    known = {}
    for method, url, _ in guarded(plenty):
        known.setdefault(url, set()).add(method)
    for url, methods in known.items():
        for method in set(METHODS) - methods - {"HEAD"}:
            answer = client.request(method, url)
            assert answer.status_code == 405, (method, url)
            assert set(answer.headers["allow"].replace(" ", "").split(",")) >= methods
            assert answer.json()["error"]["code"] == "method_not_allowed"
    for url in ("/v1/nothing", "/v1/../secret", "/v1//models", "/v1/models/", "/v1/%2e%2e/x"):
        answer = client.get(url)
        assert answer.status_code == 404, url
        assert answer.json()["error"]["code"] in ("not_found", "model_not_found")
        assert "secret" not in answer.text
