"""Redaction as a service: sealed tokens, batches, explanations; and what was used."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from api.sealing import SealBroken, Sealer
from privacy.pii.entities import Span
from privacy.pii.patterns import PatternDetector
from tests.api.service_kit import CARD, EMAIL, PHONE, POLICY, PROMPT, SECRETS, Factory, Service
from tests.api.test_chat import URL, chat


def test_a_token_brings_the_values_back(service: Service) -> None:
    """What redact took out, restore puts back, in any text; the token itself shows nothing."""
    client = service.client()
    redacted = client.post("/v1/redact", json={"text": PROMPT, "restorable": True}).json()
    assert not any(secret in json.dumps(redacted) for secret in SECRETS)
    body = {"token": redacted["token"], "text": f"Re: {redacted['text']}"}
    assert client.post("/v1/restore", json=body).json()["text"] == f"Re: {PROMPT}"
    assert service.entries()[-1].data["operation"] == "restore"
    assert redacted["token"] not in repr(service.entries())


@pytest.mark.parametrize("action", ["hash", "pseudonym", "encrypt", "replace"])
def test_every_reversible_action_is_restored(make_service: Factory, action: str) -> None:
    """Whatever stands for a value, the token leads back; another replica with the secret opens it."""
    service = make_service(policy_text=POLICY + f"[pii.prompt]\ndefault_action = '{action}'\n")
    client = service.client()
    redacted = client.post("/v1/redact", json={"texts": [PROMPT, EMAIL], "restorable": True}).json()
    assert not any(secret in text for text in redacted["texts"] for secret in SECRETS)
    body = {"token": redacted["token"], "texts": redacted["texts"]}
    assert client.post("/v1/restore", json=body).json()["texts"] == [PROMPT, EMAIL]
    replica = Sealer(service.keys.derive("restore tokens"))
    assert replica.open(redacted["token"], "test-app").keys() == {
        "placeholders",
        "literals",
        "numbers",
    }


def test_values_are_escaped_for_json(service: Service) -> None:
    """With ``json`` a restored value cannot end the string that it stands in."""
    client = service.client()
    odd = 'https://example.org/a?q=%22"'
    redacted = client.post("/v1/redact", json={"text": odd, "restorable": True}).json()
    source = json.dumps({"link": redacted["text"]})
    body = {"token": redacted["token"], "text": source, "json": True}
    assert json.loads(client.post("/v1/restore", json=body).json()["text"]) == {"link": odd}


def test_a_token_opens_for_its_principal_alone(service: Service) -> None:
    """Another principal, a changed or a foreign token: one answer that tells them not apart."""
    redacted = service.client().post("/v1/redact", json={"text": PROMPT, "restorable": True}).json()
    token = redacted["token"]
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    foreign, _ = Sealer(b"k" * 32).seal(
        {"placeholders": {}, "literals": {}, "numbers": {}}, "test-app", 60
    )
    answers = set()
    for role, one in (("admin", token), ("app", changed), ("app", foreign), ("app", "zebra")):
        answer = service.client(role).post("/v1/restore", json={"token": one, "text": "x"})
        assert answer.status_code == 400
        answers.add(answer.text)
    assert len(answers) == 1
    assert "invalid_token" in answers.pop()


def test_a_token_expires() -> None:
    """It opens until its second and not from it on; the expiry cannot be changed."""
    now = [1000.0]
    sealer = Sealer(b"s" * 32, clock=lambda: now[0])
    token, expires = sealer.seal({"a": "b"}, "me", 60)
    assert expires == 1060
    now[0] = 1059.9
    assert sealer.open(token, "me") == {"a": "b"}
    now[0] = 1060.0
    with pytest.raises(SealBroken, match="expired"):
        sealer.open(token, "me")
    with pytest.raises(SealBroken):
        sealer.open("imr1." + "A" * 10, "me")


def test_a_lifetime_above_the_roles_is_refused(service: Service) -> None:
    """The policy bounds how long a token opens."""
    body = {"text": EMAIL, "restorable": True, "expires_in": 3601}
    answer = service.client().post("/v1/redact", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "expires_in"
    assert service.client().post("/v1/redact", json=body | {"expires_in": 3600}).status_code == 200


def test_a_batch_shares_its_placeholders_and_explains_itself(service: Service) -> None:
    """Texts sent together have one set of placeholders; each finding says by what and why."""
    body = {"texts": [f"I am {EMAIL}", f"Ask {EMAIL} or {PHONE}", "nothing"]}
    answer = service.client().post("/v1/redact", json=body).json()
    assert answer["texts"] == [
        "I am <EMAIL_ADDRESS_1>",
        "Ask <EMAIL_ADDRESS_1> or <PHONE_NUMBER_1>",
        "nothing",
    ]
    assert answer["token"] is None
    assert [one["message"] for one in answer["entities"]] == [0, 1, 1]
    assert all(one["source"] for one in answer["entities"])
    assert "numbered placeholder" in answer["entities"][0]["explanation"]


class _Counting(PatternDetector):
    """Counts how often it looks at each text."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: Counter[str] = Counter()

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        self.looked.update(texts)
        return super().detect_many(texts)


def test_each_text_is_looked_at_once(make_service: Factory) -> None:
    """Findings and the redacted text come from one look, also where a text is sent twice."""
    detector = _Counting()
    client = make_service(detector=detector).client()
    answer = client.post("/v1/redact", json={"texts": [PROMPT, EMAIL, PROMPT]}).json()
    assert [one["message"] for one in answer["entities"]] == [0, 0, 0, 1, 2, 2, 2]
    assert detector.looked == {PROMPT: 1, EMAIL: 1}


@pytest.mark.parametrize(
    "body",
    [
        {"token": "x"},
        {"token": "x", "text": "a", "texts": ["b"]},
        {"text": "a"},
        {"token": "", "text": "a"},
        {"token": "x", "texts": []},
    ],
)
def test_restore_wants_a_token_and_one_of_two(service: Service, body: Any) -> None:
    """Anything else is a 400 with the field."""
    assert service.client().post("/v1/restore", json=body).status_code == 400


def test_usage_is_summed_by_key_and_principal(service: Service) -> None:
    """Everybody sees its own; who may read the audit log sees all; streams count once, exactly."""
    app, admin = service.client("app"), service.client("admin")
    whole = app.post(URL, json=chat(PROMPT)).json()["usage"]
    app.post(URL, json=chat(PROMPT, stream=True))
    app.post(URL, json=chat(PROMPT, temperature=9))
    admin.post("/v1/redact", json={"text": CARD})
    own = app.get("/v1/usage").json()
    assert {line["principal"] for line in own["data"]} == {"test-app"}
    lines = {(line["operation"], line["release"]): line for line in own["data"]}
    answered = lines["chat", service.release.id]
    assert (answered["requests"], answered["errors"]) == (2, 0)
    assert answered["prompt_tokens"] == 2 * whole["prompt_tokens"]
    assert answered["completion_tokens"] == 2 * whole["completion_tokens"]
    assert own["total_tokens"] == 2 * whole["total_tokens"]
    assert sum(line["errors"] for line in own["data"]) == 1
    everybody = admin.get("/v1/usage", params={"days": 1}).json()
    assert {line["principal"] for line in everybody["data"]} == {"test-app", "test-admin"}
    # What was read once is not counted twice.
    again = app.get("/v1/usage").json()
    assert again["total_tokens"] == own["total_tokens"]
    assert again["requests"] == own["requests"] + 1
    assert admin.get("/v1/usage", params={"days": 0}).status_code == 400


def test_releases_are_listed_with_their_guarantee(service: Service) -> None:
    """Each verified release says what it guarantees and whether it is served."""
    client = service.client("compliance")
    (release,) = client.get("/v1/releases").json()["data"]
    assert (release["id"], release["object"], release["served"]) == (
        service.release.id,
        "release",
        True,
    )
    assert release["intramural"]["privacy"]["largest_epsilon"] == 3.25
    assert client.get(f"/v1/releases/{service.release.id}").json() == release
    missing = client.get("/v1/releases/r-0")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "release_not_found")
    assert service.client("app").get("/v1/releases").status_code == 403
