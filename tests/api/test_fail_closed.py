"""What cannot be established refuses the request: audit, redaction, ledger, engine."""

import logging
from collections.abc import Iterator, Sequence

import pytest

from api.engines.base import Finished, GenerationRequest, Item
from api.errors import EngineError
from api.keys import ApiKey, KeyStore
from privacy.audit.log import AuditLog
from privacy.errors import AuditUnavailable, StoreUnavailable, TamperedStore
from privacy.pii.entities import Span
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.patterns import PatternDetector
from tests.api.echo import EchoEngine
from tests.api.service_kit import EMAIL, PROMPT, SECRETS, Factory, Service
from tests.api.test_chat import URL, chat

ROUTES = [
    ("POST", URL, chat(PROMPT)),
    ("POST", URL, chat(PROMPT, stream=True)),
    ("POST", URL, chat(PROMPT, temperature=9)),
    ("POST", "/v1/completions", {"model": "intramural", "prompt": PROMPT}),
    ("POST", "/v1/redact", {"text": PROMPT}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/budgets", None),
    ("GET", "/v1/nothing", None),
]


class FailingDetector(PatternDetector):
    """Works ``good`` times, then fails with an exception that quotes the text."""

    def __init__(self, good: int = 0) -> None:
        super().__init__()
        self._good = good

    def detect(self, text: str) -> tuple[Span, ...]:
        """See the port."""
        return self.detect_many([text])[0]

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """See the port."""
        self._good -= len(texts)
        if self._good < 0:
            raise RedactionUnavailable(f"cannot look at {texts!r}")
        return super().detect_many(texts)


def test_without_the_key_store_nobody_is_let_in(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that cannot be read are no wrong keys: 503, try again, and an entry about it."""

    def lost(self: KeyStore, text: str, origin: str | None = None) -> ApiKey:
        raise StoreUnavailable("postgresql://10.0.0.7:5432/x cannot be reached")

    monkeypatch.setattr(KeyStore, "authenticate", lost)
    answer = service.client("admin").post(URL, json=chat(PROMPT))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "10.0.0.7" not in answer.text
    assert [entry.data["outcome"] for entry in service.entries()] == ["keys_unavailable"]


@pytest.mark.parametrize(("method", "url", "body"), ROUTES)
def test_without_an_audit_entry_there_is_no_answer(
    service: Service, method: str, url: str, body: object
) -> None:
    """Whatever the route and the outcome, a failed append leaves 503 and nothing of the answer."""
    service.audit.close()
    answer = service.client("admin").request(method, url, json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "audit_unavailable"
    assert set(answer.json()) == {"error"}
    assert not any(secret in answer.text for secret in SECRETS)
    assert "x-intramural-audit-index" not in answer.headers
    assert service.client(None).get("/readyz").json()["checks"]["audit"] == "failed"


def test_refusals_need_an_entry_too(service: Service) -> None:
    """Even a 401 is recorded, or withheld."""
    assert service.client(None).get("/v1/models").status_code == 401
    assert service.entries()[0].data["outcome"] == "key_missing"
    service.audit.close()
    assert service.client(None).get("/v1/models").status_code == 503


def test_a_stream_whose_end_cannot_be_recorded_does_not_finish(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sees an error and no ``[DONE]`` when the second entry fails."""
    append, left = AuditLog.append, [1]

    def failing(self: AuditLog, entry: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise AuditUnavailable("no space left")
        return append(self, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(AuditLog, "append", failing)
    text = service.client().post(URL, json=chat(PROMPT, stream=True)).text
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text
    assert "audit_unavailable" in text


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (URL, chat(PROMPT)),
        (URL, chat(PROMPT, stream=True)),
        ("/v1/completions", {"model": "intramural", "prompt": PROMPT}),
        ("/v1/redact", {"text": PROMPT}),
    ],
)
def test_without_redaction_nothing_reaches_the_engine(
    make_service: Factory, caplog: pytest.LogCaptureFixture, url: str, body: object
) -> None:
    """A failing detector is 503, and neither the engine nor a log sees the text."""
    caplog.set_level(logging.DEBUG)
    service = make_service(detector=FailingDetector())
    answer = service.client().post(url, json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "redaction_unavailable"
    assert service.echo.seen == []
    assert not any(secret in answer.text + caplog.text for secret in SECRETS)
    assert service.entries()[-1].data["outcome"] == "redaction_unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cannot_be_scanned_does_not_leave(
    make_service: Factory, stream: bool
) -> None:
    """When the detector fails on the answer, no text of it leaves."""
    service = make_service(detector=FailingDetector(good=1))
    answer = service.client().post(URL, json=chat(PROMPT, stream=stream))
    assert answer.status_code == (200 if stream else 503)
    assert "redaction_unavailable" in answer.text
    assert "You said" not in answer.text
    assert "[DONE]" not in answer.text
    assert service.entries()[-1].data["outcome"] == "redaction_unavailable"


class BrokenEngine(EchoEngine):
    """Says a little, then fails with an exception that quotes the prompt."""

    error: Exception = EngineError("the generation failed")

    def _run(
        self, request: GenerationRequest, answer: list[str], prompt_tokens: int, bound: int
    ) -> Iterator[Item]:
        for item in super()._run(request, answer, prompt_tokens, bound):
            if isinstance(item, Finished):
                raise self.error
            yield item


@pytest.mark.parametrize("error", [EngineError("gone"), RuntimeError(PROMPT)])
def test_an_engine_that_fails_is_an_error_without_text(
    make_service: Factory, published: object, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A whole answer becomes 5xx; a stream ends with an error event; the record says so."""
    caplog.set_level(logging.DEBUG)
    engine = BrokenEngine(published.id)  # type: ignore[attr-defined]
    engine.error = error
    service = make_service(engine=engine)
    client = service.client()
    whole = client.post(URL, json=chat(PROMPT))
    code = "engine_unavailable" if isinstance(error, EngineError) else "internal_error"
    assert whole.status_code == (503 if isinstance(error, EngineError) else 500)
    assert whole.json()["error"]["code"] == code
    stream = client.post(URL, json=chat("word " * 60, stream=True))
    assert stream.status_code == 200
    assert "[DONE]" not in stream.text
    assert f'"code":"{code}"' in stream.text
    outcomes = [entry.data["outcome"] for entry in service.entries()]
    assert outcomes == [code, "ok", code]
    assert service.entries()[-1].data["completion_tokens"] > 0
    assert not any(secret in caplog.text for secret in SECRETS)
    assert service.client().post(URL, json=chat(PROMPT)).status_code >= 500  # and does not hang


def test_code_that_fails_is_an_error_without_text(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expected is a plain 500: recorded, and logged by its type only."""

    def broken(self: object, text: str) -> str:
        raise ZeroDivisionError(EMAIL)

    monkeypatch.setattr(AuditLog, "text_digest", broken)
    answer = service.client().post(URL, json=chat(PROMPT))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert EMAIL not in caplog.text + answer.text
    assert service.entries()[-1].data["status"] == 500


def test_a_ledger_that_does_not_verify_shows_no_figures(make_service: Factory) -> None:
    """Budgets are shown from ledgers that verify, or not at all."""

    def ledgers() -> Sequence[object]:
        raise TamperedStore("entry 3 was changed")

    answer = make_service(ledgers=ledgers).client("compliance").get("/v1/budgets")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "ledger_unavailable"
