"""Redaction as a service, budgets, models, health, metrics and the description of the API."""

import json
import re

import pytest

from privacy.dp.accounting import epsilon
from privacy.dp.events import PoissonGaussian
from privacy.ledger.history import spent_report
from privacy.ledger.ledger import Ledger, read_ledger
from privacy.signing import SigningKey
from tests.api.echo import EchoEngine
from tests.api.service_kit import CARD, EMAIL, PHONE, PROMPT, SECRETS, Factory, Service
from tests.api.test_chat import URL, chat


def test_redact_a_text(service: Service) -> None:
    """Text in, placeholders out; spans count characters of the text that was sent."""
    text = f"你好 🙂 {EMAIL} 和 {CARD}"
    body = service.client().post("/v1/redact", json={"text": text}).json()
    assert body["text"] == "你好 🙂 <EMAIL_ADDRESS_1> 和 <CREDIT_CARD_1>"
    assert body["messages"] is None
    found = {text[one["start"] : one["end"]]: one["type"] for one in body["entities"]}
    assert found == {EMAIL: "EMAIL_ADDRESS", CARD: "CREDIT_CARD"}
    assert {one["action"] for one in body["entities"]} == {"replace"}
    assert body["counts"] == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1}
    assert service.echo.seen == []
    assert service.entries()[-1].data["operation"] == "redact"


def test_redact_a_conversation(service: Service) -> None:
    """Messages share placeholders; each entity names its message."""
    messages = [
        {"role": "user", "content": f"I am {EMAIL}"},
        {"role": "assistant", "content": f"Hello {EMAIL}, is it {PHONE}?"},
    ]
    body = service.client().post("/v1/redact", json={"messages": messages}).json()
    assert body["messages"] == [
        {"role": "user", "content": "I am <EMAIL_ADDRESS_1>"},
        {"role": "assistant", "content": "Hello <EMAIL_ADDRESS_1>, is it <PHONE_NUMBER_1>?"},
    ]
    assert [one["message"] for one in body["entities"]] == [0, 1, 1]


@pytest.mark.parametrize(
    "body", [{}, {"text": "a", "messages": [{"role": "user", "content": "b"}]}]
)
def test_redact_wants_one_of_two(service: Service, body: object) -> None:
    """Neither or both is a 400 that says so."""
    answer = service.client().post("/v1/redact", json=body)
    assert answer.status_code == 400
    assert "either" in answer.json()["error"]["message"]


def test_redact_refuses_what_chat_refuses(service: Service) -> None:
    """An entity that the policy refuses is refused here too."""
    answer = service.client().post("/v1/redact", json={"text": "host 203.0.113.77"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "entity_refused")


def test_budgets_are_read_from_the_ledger(make_service: Factory, tmp_path: object) -> None:
    """What a ledger holds is what the compliance officer sees, newest state at each request."""
    key = SigningKey.generate()
    path = tmp_path / "ledger.db"  # type: ignore[operator]
    event = PoissonGaussian(sampling_rate=0.25, noise_multiplier=2.0, steps=4)
    budgets = {}
    service = make_service(ledgers=lambda: spent_report(read_ledger(path, key.verify_key), budgets))
    budgets |= {name: service.policy.budget_of(name) for name in service.policy.departments}
    with Ledger(path, key) as ledger:
        ledger.reserve("hr", "run-1", 1, event, "a" * 64, budgets["hr"])
    client = service.client("compliance")
    first = client.get("/v1/budgets").json()
    by_name = {one["department"]: one for one in first["data"]}
    spent = epsilon([event], budgets["hr"].accountant_delta)
    assert by_name["hr"] == {
        "object": "budget",
        "department": "hr",
        "block": "1",
        "epsilon": spent,
        "lifetime_epsilon": spent,
        "delta": 1e-5,
        "budget": 4.0,
        "remaining": 4.0 - spent,
        "unit": "record",
        "adjacency": "add_or_remove_one",
        "blocks": [
            {"block": "1", "epsilon": spent, "reservations": 1, "committed": 0, "voided": 0}
        ],
    }
    assert by_name["finance"]["epsilon"] == 0.0
    with Ledger(path, key) as ledger:
        ledger.reserve("finance", "run-1", 1, event, "a" * 64, budgets["finance"])
    second = client.get("/v1/budgets").json()
    assert second["largest_epsilon"] == pytest.approx(spent)
    assert second["sum_epsilon"] == pytest.approx(2 * spent)
    assert second["largest_lifetime_epsilon"] == pytest.approx(spent)
    assert second["sum_lifetime_epsilon"] == pytest.approx(2 * spent)


def test_models_say_what_they_guarantee(service: Service) -> None:
    """The release is listed with epsilon, delta, unit and adjacency; the alias leads to it."""
    client = service.client()
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == (service.release.id, "model")
    facts = model["intramural"]
    assert facts["aliases"] == ["intramural"]
    assert facts["privacy"]["departments"] == {
        "hr": {"epsilon": 2.5, "delta": 1e-5},
        "finance": {"epsilon": 3.25, "delta": 1e-5},
    }
    assert facts["privacy"]["unit"] == "record"
    assert facts["privacy"]["adjacency"] == "add_or_remove_one"
    assert (facts["privacy"]["largest_epsilon"], facts["privacy"]["sum_epsilon"]) == (3.25, 5.75)
    assert client.get("/v1/models/intramural").json() == model
    assert client.get(f"/v1/models/{service.release.id}").json() == model
    assert client.get("/v1/models/other").status_code == 404


def test_health_and_readiness(make_service: Factory) -> None:
    """A process without a model lives, and says that it is not ready; neither needs a key."""
    service = make_service(engine=EchoEngine(""))
    client = service.client(None)
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert {name for name, found in checks.items() if found != "ok"} == {"engine", "release"}
    assert {"audit", "detector", "disk", "accepting"} <= checks.keys()


def test_metrics_count_and_name_nobody(service: Service) -> None:
    """Requests, tokens and entities are counted; no label holds what a caller sent or is."""
    client = service.client()
    client.post(URL, json=chat(PROMPT))
    client.post(URL, json=chat(PROMPT, stream=True))
    client.get(f"/v1/{EMAIL}")
    text = service.client("compliance").get("/metrics").text
    assert 'intramural_requests_total{operation="chat",status="200"} 2.0' in text
    assert 'intramural_requests_total{operation="unknown",status="404"} 1.0' in text
    assert 'intramural_tokens_total{kind="completion"} 46.0' in text
    assert 'intramural_entities_total{entity="EMAIL_ADDRESS",where="request"} 2.0' in text
    assert not any(word in text for word in (*SECRETS, "test-app", "req_", service.release.id))
    assert client.get("/metrics").status_code == 403
    assert service.client(None).get("/metrics").status_code == 401


def test_the_description_asks_no_other_host(service: Service) -> None:
    """``/docs`` names every route, runs no script and loads nothing from elsewhere."""
    client = service.client(None)
    page = client.get("/docs")
    assert page.status_code == 200
    for path in service.app.openapi()["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "<script" not in page.text
    assert re.findall(r'(?:src|href)="(?!#)([^"]*)"', page.text) == [
        "/docs/style.css",
        "/openapi.json",
    ]
    assert "http" not in re.sub(r"https?://(?=\s)", "", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/docs/style.css").headers["content-type"].startswith("text/css")


def test_the_openapi_document_is_complete(service: Service) -> None:
    """Every guarded route states its key and the error shape; 422 is never answered."""
    document = service.client(None).get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"]
            assert "4XX" in operation["responses"]
            assert ("security" in operation) == (path not in ("/healthz", "/readyz"))
    assert json.dumps(document).count("zebra") == 0
