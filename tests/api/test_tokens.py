"""Tokens of issuers: what opens, what does not, and keys that come and go."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from api.errors import HttpError, InvalidCredential
from api.jwks import Jwks, KeysUnavailable, fetch_url, parse_keys
from api.tokens import TokenVerifier
from policies.grants import Caller
from policies.load import parse_policy
from tests.api.service_kit import POLICY, Factory

ISSUER = "https://login.example.org/realms/main"
NOW = 1_800_000_000
SECTION = """
[access.issuers.corp]
issuer = "https://login.example.org/realms/main"
audience = "intramural"
jwks = "https://login.example.org/keys"
algorithms = ["RS256", "ES256", "EdDSA"]
role_claim = "realm_access.roles"
department_claim = "department"

[access.issuers.corp.roles]
"llm-admins" = "admin"
"llm-users" = "app"
"""
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa-1"})
EC = ECKey.generate_key("P-256", parameters={"kid": "ec-1"})
OKP = OKPKey.generate_key("Ed25519", parameters={"kid": "okp-1"})


class World:
    """An issuer and a clock in the test's hands."""

    def __init__(self, section: str = SECTION) -> None:
        self.now = float(NOW)
        self.keys: list[Key] = [RSA, EC, OKP]
        self.down = False
        self.fetched = 0
        self.verifier = TokenVerifier(
            parse_policy((POLICY + section).encode(), "toml"),
            fetch=self.fetch,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def fetch(self, url: str, seconds: float) -> bytes:
        """The key set, where the issuer is up."""
        assert url == "https://login.example.org/keys"
        self.fetched += 1
        if self.down:
            raise OSError("connection refused")
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()

    def token(
        self, key: Key = RSA, algorithm: str = "RS256", header: Any = None, **claims: Any
    ) -> str:
        """A good token, except for what is given; None leaves a claim out."""
        good = {
            "iss": ISSUER,
            "aud": "intramural",
            "sub": "ada",
            "exp": int(self.now) + 600,
            "iat": int(self.now),
            "realm_access": {"roles": ["llm-users"]},
            "department": "hr",
        }
        full = {name: value for name, value in (good | claims).items() if value is not None}
        head = {"alg": algorithm, "kid": key.kid, **(header or {})}
        return jwt.encode(head, full, key, algorithms=[algorithm])

    def outcome(self, token: str) -> str:
        """Why a token is refused."""
        with pytest.raises(InvalidCredential) as caught:
            self.verifier.authenticate(token)
        assert token not in str(caught.value)
        return caught.value.outcome


@pytest.fixture
def world() -> World:
    """The usual one."""
    return World()


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (OKP, "EdDSA")], ids=["rsa", "ec", "okp"]
)
def test_a_good_token_is_its_principal(world: World, key: Key, algorithm: str) -> None:
    """Principal, role and department come from the claims, under the issuer's own name."""
    caller = world.verifier.authenticate(world.token(key, algorithm))
    assert caller == Caller("corp:ada", "app", "token:corp:ada", "hr")


def test_roles_map_in_the_order_of_the_policy(world: World) -> None:
    """Of several roles the policy's first counts; a claim that maps to none opens nothing."""
    both = world.token(realm_access={"roles": ["other", "llm-users", "llm-admins"]})
    assert world.verifier.authenticate(both).role == "admin"
    for roles in ({"roles": ["other"]}, {}, "llm-users", None, {"roles": {"llm-users": 1}}):
        assert world.outcome(world.token(realm_access=roles)) == "token_role"


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({"iss": "https://evil.example.org"}, "token_issuer"),
        ({"iss": ISSUER + "/"}, "token_issuer"),
        ({"iss": None}, "token_issuer"),
        ({"aud": "other"}, "token_audience"),
        ({"aud": "other intramural"}, "token_audience"),
        ({"aud": None}, "token_audience"),
        ({"aud": ["other"]}, "token_audience"),
        ({"exp": NOW - 31}, "token_expired"),
        ({"exp": None}, "token_claims"),
        ({"exp": "soon"}, "token_claims"),
        ({"exp": True}, "token_claims"),
        ({"nbf": NOW + 31}, "token_claims"),
        ({"iat": NOW + 31}, "token_claims"),
        ({"sub": None}, "token_subject"),
        ({"sub": ""}, "token_subject"),
        ({"sub": "a\nb"}, "token_subject"),
        ({"sub": ["ada"]}, "token_claims"),
    ],
)
def test_wrong_claims_open_nothing(world: World, claims: Any, outcome: str) -> None:
    """Issuer and audience are exact, an expiry is required, times hold within the leeway."""
    assert world.outcome(world.token(**claims)) == outcome


def test_clock_skew_is_borne(world: World) -> None:
    """Half a minute of difference between two clocks, as the policy says, refuses nobody."""
    for claims in (
        {"exp": NOW - 29},
        {"nbf": NOW + 29},
        {"iat": NOW + 29},
        {"aud": ["x", "intramural"]},
    ):
        assert world.verifier.authenticate(world.token(**claims)).principal == "corp:ada"


def encoded(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_algorithm_confusion(world: World) -> None:
    """Neither "none", nor the public key as a shared secret, nor a key of another family."""
    body = world.token().split(".")[1]
    assert world.outcome(f"{encoded({'alg': 'none'})}.{body}.AA") == "token_algorithm"
    assert world.outcome(f"{encoded({'alg': 'none'})}.{body}.") == "token_malformed"
    shared = OctKey.generate_key(512)
    forged = jwt.encode(
        {"alg": "HS256", "kid": "rsa-1"}, {"iss": ISSUER, "aud": "intramural"}, shared
    )
    assert world.outcome(forged) == "token_algorithm"
    assert world.outcome(world.token(EC, "ES256", {"kid": "rsa-1"})) == "token_key"
    # Allowed for this key type in general, not by this policy.
    assert world.outcome(world.token(RSA, "PS256")) == "token_algorithm"


def test_a_key_in_the_token_is_never_believed(world: World) -> None:
    """jwk, jku and x5u of the header are not looked at, and nothing is fetched for them."""
    mine = OKPKey.generate_key("Ed25519", parameters={"kid": "mine"})
    for header in (
        {"jwk": mine.as_dict(private=False)},
        {"jku": "https://evil.example.org/keys"},
        {"x5u": "https://evil.example.org/cert"},
    ):
        assert world.outcome(world.token(mine, "EdDSA", header)) == "token_key"
        forged = world.token(mine, "EdDSA", {**header, "kid": "okp-1"})
        assert world.outcome(forged) == "token_signature"


def test_a_changed_token_opens_nothing(world: World) -> None:
    """No part of a token can be exchanged."""
    head, body, signature = world.token().split(".")
    other = world.token(realm_access={"roles": ["llm-admins"]}).split(".")[1]
    assert world.outcome(f"{head}.{other}.{signature}") == "token_signature"
    critical = world.token().split(".")
    critical[0] = encoded({"alg": "RS256", "kid": "rsa-1", "crit": ["exp"], "exp": 1})
    assert world.outcome(".".join(critical)) in ("token_signature", "token_malformed")
    for text in ("a.b", "a.b.c.d", "..", "ey.ey.!", "x" * 20_000 + ".a.b", f"{head}.{body}."):
        assert world.outcome(text) == "token_malformed"
    for part in ("[]", "1", "nothing"):
        broken = base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode()
        assert world.outcome(f"{head}.{broken}.{signature}").startswith("token_")


def test_an_id_token_of_another_kind_is_refused(world: World) -> None:
    """A JWT that says it is something else (a logout token, say) is no access token."""
    assert world.outcome(world.token(header={"typ": "logout+jwt"})) == "token_type"
    assert world.verifier.authenticate(world.token(header={"typ": "at+jwt"})).role == "app"


def test_keys_rotate(world: World) -> None:
    """A token under a new key opens at once; one under a withdrawn key no more."""
    old, new = RSA, RSAKey.generate_key(2048, parameters={"kid": "rsa-2"})
    world.verifier.authenticate(world.token(old))
    assert world.fetched == 1
    world.keys = [new]
    world.now += 6  # unknown ids cost the issuer at most one request in five seconds
    assert world.verifier.authenticate(world.token(new)).principal == "corp:ada"
    assert world.fetched == 2
    assert world.outcome(world.token(old)) == "token_key"


def test_made_up_key_ids_do_not_reach_the_issuer(world: World) -> None:
    """However many unknown key ids are sent, the issuer is asked once in five seconds."""
    for number in range(50):
        token = world.token(RSA, header={"kid": f"made-up-{number}"})
        assert world.outcome(token) == "token_key"
    assert world.fetched == 1


def test_an_unreachable_issuer_is_borne_until_the_keys_are_too_old(world: World) -> None:
    """Known keys count until their maximum age, then every token is refused with 503."""
    world.verifier.authenticate(world.token())
    world.down = True
    world.now += 3600
    assert world.verifier.authenticate(world.token()).principal == "corp:ada"
    assert world.fetched == 2
    world.now += 1
    with pytest.raises(HttpError) as caught:
        world.verifier.authenticate(world.token())
    assert (caught.value.status, caught.value.code) == (503, "identity_unavailable")
    assert "Retry-After" in caught.value.headers
    world.down = False
    world.now += 6
    assert world.verifier.authenticate(world.token()).principal == "corp:ada"


def test_an_issuer_that_never_answered_lets_nobody_in(world: World) -> None:
    """Without keys there is no answer but 503, and the issuer is not asked for each request."""
    world.down = True
    for _ in range(20):
        with pytest.raises(HttpError) as caught:
            world.verifier.authenticate(world.token())
        assert caught.value.code == "identity_unavailable"
    assert world.fetched == 1


def test_keys_that_cannot_be_used_are_left_out() -> None:
    """Shared secrets, encryption keys, short RSA keys and unreadable ones never verify anything."""
    good = RSA.as_dict(private=False)
    bad: list[Any] = [
        OctKey.generate_key(256).as_dict(private=True),
        {**good, "kid": "enc", "use": "enc"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "unheard-of", "kid": "new"},
        "text",
        {
            "kty": "RSA",
            "kid": "short",
            "n": base64.urlsafe_b64encode(b"\xff" * 64).decode(),
            "e": "AQAB",
        },
    ]
    assert set(parse_keys(json.dumps({"keys": [*bad, good]}).encode())) == {"rsa-1"}
    for content in (
        b"",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": []}',
        json.dumps({"keys": bad}).encode(),
    ):
        with pytest.raises(ValueError):
            parse_keys(content)


def test_a_key_file_is_read_again(tmp_path: Any) -> None:
    """A key set in a file rotates like one at a URL."""
    file = tmp_path / "keys.json"
    write: Callable[[Key], None] = lambda key: file.write_text(  # noqa: E731
        json.dumps({"keys": [key.as_dict(private=False)]})
    )
    issuer = World().verifier._policy.access.issuers["corp"]
    issuer = issuer.model_copy(update={"jwks": str(file)})
    now = [0.0]
    keys = Jwks("corp", issuer, clock=lambda: now[0])
    write(RSA)
    assert keys.find("rsa-1") is not None
    write(EC)
    now[0] = 301.0
    assert keys.find("ec-1") is not None
    assert keys.find("rsa-1") is None
    file.unlink()
    now[0] = 3902.0
    with pytest.raises(KeysUnavailable, match=r"access\.issuers\.corp"):
        keys.find("ec-1")


def test_tokens_open_the_service(make_service: Factory) -> None:
    """Over HTTP: the token's role decides, its principal stands in the audit log, once."""
    world = World()
    import time

    world.now = time.time()
    service = make_service(policy_text=POLICY + SECTION, fetch_keys=world.fetch)
    client = service.client(None)
    token = world.token()
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    entry = service.entries()[-1]
    assert (entry.actor, entry.data["principal"], entry.data["role"]) == (
        "token:corp",
        "corp:ada",
        "app",
    )
    assert (
        client.get("/v1/budgets", headers={"Authorization": f"Bearer {token}"}).status_code == 403
    )
    expired = world.token(exp=int(world.now) - 100)
    refused = client.get("/v1/models", headers={"Authorization": f"Bearer {expired}"})
    assert refused.status_code == 401
    assert service.entries()[-1].data["outcome"] == "token_expired"
    assert token not in repr(service.entries())


def test_only_the_policys_url_is_fetched_and_redirects_are_not_followed() -> None:
    """A key set behind a redirect is none: no caller and no answer leads the service elsewhere."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    asked = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/secret")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ValueError, match="302"):
            fetch_url(f"http://127.0.0.1:{server.server_port}/keys", 5.0)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == ["/keys"]
