"""A department's own adapter answers the department's callers, and nobody else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api.channels import Channel
from api.engines.base import Classes, GenerationRequest, Message, Vectors
from api.engines.switching import SwitchingEngine
from api.engines.transformers_local import TransformersEngine
from api.errors import EngineError, UnknownModel
from api.releases import Releases
from api.server import BackgroundServer
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease, personal_id
from tests.api import service_kit
from tests.api.echo import EchoEngine
from tests.api.service_kit import Factory, Service
from tests.api.test_chat import URL, events, streamed

CONFIG = AdapterConfig(rank=4, alpha=8, targets=("q_proj", "v_proj"), last_layers=1)
POLICY = (
    service_kit.POLICY
    + """
[principals.payroll]
department = "hr"
[principals.ledger]
department = "finance"
[principals.portal]
"""
)
PRINCIPALS = ("payroll", "ledger", "portal")
BODY = {
    "model": "intramural",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 12,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def trainer(tiny_llama_dir: Path) -> LoraTrainer:
    """Knows how adapters are named."""
    return LoraTrainer(tiny_llama_dir, name="tiny")


def drawn(trainer: LoraTrainer, seed: int, only: str = "lora") -> dict[str, Any]:
    """Tensors that change the model a lot."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(scale=2.0, size=array.shape).astype(np.float32)
        for name, array in trainer.initial_adapter(CONFIG, 0).items()
        if only in name
    }


@pytest.fixture(scope="module")
def release(trainer: LoraTrainer, tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    """A release for the tiny Llama with an adapter of hr and one of finance."""
    shared = service_kit.release(
        tmp_path_factory.mktemp("shared"),
        tensors=drawn(trainer, 5),
        adapter_config=trainer.adapter_config_json(CONFIG),
        base_model_digest=trainer.base_digest,
    )
    own = {"hr": drawn(trainer, 6, "lora_B"), "finance": drawn(trainer, 7, "lora_B")}
    return replace(shared, personal=own)


@pytest.fixture(scope="module")
def expected(release: VerifiedRelease, tiny_llama_dir: Path) -> dict[str, str]:
    """What each principal is to read, from three engines that know of nobody else."""
    shared = replace(release, personal={})
    models = {"payroll": release.of("hr"), "ledger": release.of("finance"), "portal": shared}
    request = GenerationRequest(
        "x", (Message("user", "Hello, who are you?"),), max_tokens=12, temperature=0.0
    )
    found = {}
    for principal, model in models.items():
        engine = TransformersEngine(tiny_llama_dir, model)
        found[principal] = engine.generate(replace(request, model=model.id)).text
    assert len(set(found.values())) == 3
    return found


@pytest.fixture(scope="module")
def engine(release: VerifiedRelease, tiny_llama_dir: Path) -> Iterator[SwitchingEngine]:
    """Serves the release and both on top of it."""
    switching = SwitchingEngine(lambda one: TransformersEngine(tiny_llama_dir, one))
    switching.load(release)
    yield switching
    switching.unload(release.id)


@pytest.fixture
def service(make_service: Factory, release: VerifiedRelease, engine: SwitchingEngine) -> Service:
    """The service over it, with a key of each principal."""
    releases = Releases([release], channels=[Channel("intramural", release.id)])
    made = make_service(
        engine=engine, published=release, releases=releases, policy_text=POLICY,
        default_max_tokens=12,
    )  # fmt: skip
    for principal in PRINCIPALS:
        made.tokens[principal], _ = made.keys.create(principal, "app")
    return made


def said(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_each_caller_is_answered_by_its_own(
    service: Service, release: VerifiedRelease, expected: dict[str, str], principal: str
) -> None:
    """Text, body, header and audit entry: the release is named, and whose adapter is on top of it."""
    answer = service.client(principal).post(URL, json=BODY)
    department = {"payroll": "hr", "ledger": "finance"}.get(principal)
    assert said(answer) == expected[principal]
    assert answer.json()["model"] == answer.headers["x-intramural-release"] == release.id
    assert answer.headers.get("x-intramural-personal") == department
    data = service.entries()[-1].data
    assert (data["release"], data["personal"]) == (release.id, department or "")


def test_streams_are_too(service: Service, release: VerifiedRelease, expected: Any) -> None:
    """As whole answers, with both entries naming it."""
    answer = service.client("payroll").post(URL, json=BODY | {"stream": True})
    assert answer.headers["x-intramural-personal"] == "hr"
    assert [entry.data["personal"] for entry in service.entries()[-2:]] == ["hr", "hr"]
    assert streamed(events(answer.text)) == expected["payroll"]


def test_nobody_reaches_an_adapter_by_its_id(service: Service, release: VerifiedRelease) -> None:
    """It is no model's name: neither for another department nor for its own, nor in any list."""
    for principal in PRINCIPALS:
        client = service.client(principal)
        for department in ("hr", "finance"):
            own = personal_id(release.id, department)
            answer = client.post(URL, json=BODY | {"model": own})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        listed = client.get("/v1/models").json()["data"]
        assert [one["id"] for one in listed] == [release.id]
        assert listed[0]["intramural"]["personal"] is (principal != "portal")


def test_base_models_beside_open_no_way(
    make_service: Factory, release: VerifiedRelease, engine: SwitchingEngine
) -> None:
    """Where models that are no releases are served too, an adapter is still none of them."""
    service = make_service(
        engine=engine, published=release, policy_text=POLICY, serve_base_model=True
    )
    answer = service.client("app").post(URL, json=BODY | {"model": personal_id(release.id, "hr")})
    assert answer.status_code == 404


def test_grants_are_those_of_the_release(
    make_service: Factory, release: VerifiedRelease, engine: SwitchingEngine
) -> None:
    """Who may not use the release may not use it with an adapter on top."""
    text = POLICY.replace("[principals.payroll]", '[principals.payroll]\nreleases = ["r-none*"]')
    service = make_service(engine=engine, published=release, policy_text=text)
    service.tokens["payroll"], _ = service.keys.create("payroll", "app")
    answer = service.client("payroll").post(URL, json=BODY | {"model": release.id})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "release_not_allowed")
    assert service.entries()[-1].data["personal"] == ""


def test_departments_that_share_an_engine_are_never_mixed(
    service: Service, expected: dict[str, str]
) -> None:
    """Sixty requests of three callers at once, each with its own caller's text and name."""

    def ask(number: int) -> tuple[str, str, str | None]:
        principal = PRINCIPALS[number % 3]
        key = {"Authorization": f"Bearer {service.tokens[principal]}"}
        answer = client.post(f"{server.base_url}{URL}", json=BODY, headers=key)
        return principal, said(answer), answer.headers.get("x-intramural-personal")

    with (
        BackgroundServer(service.app) as server,
        httpx.Client(timeout=60) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        answers = list(pool.map(ask, range(60)))
    names = {"payroll": "hr", "ledger": "finance", "portal": None}
    assert all((text, name) == (expected[who], names[who]) for who, text, name in answers)
    answered = [entry.data for entry in service.entries() if entry.kind == "call"]
    assert sum(data["personal"] == "hr" for data in answered) == 20


class _Reader:
    """An encoder that tells which model it was asked for."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.asked: list[str] = []

    def models(self) -> list[str]:
        return [self._model]

    def generate(self, request: GenerationRequest) -> Any:
        raise NotImplementedError

    stream = generate

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        self.asked.append(model)
        return Vectors(tuple((1.0, 0.0) for _ in texts), 1)

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        self.asked.append(model)
        return Classes(("a", "b"), tuple((0.75, 0.25) for _ in texts), 1)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/classify"])
def test_models_that_read_do_the_same(
    make_service: Factory, release: VerifiedRelease, path: str
) -> None:
    """Vectors and classes come from the caller's own, and the entry says so."""
    made: dict[str, _Reader] = {}
    switching = SwitchingEngine(lambda one: made.setdefault(one.id, _Reader(one.id)))
    switching.load(release)
    service = make_service(engine=switching, published=release, policy_text=POLICY)
    for principal in ("payroll", "portal"):
        service.tokens[principal], _ = service.keys.create(principal, "app")
        answer = service.client(principal).post(path, json={"model": release.id, "input": "x"})
        assert answer.status_code == 200
        assert answer.json()["model"] == release.id
    own = personal_id(release.id, "hr")
    assert (made[own].asked, made[release.id].asked) == ([own], [release.id])
    assert [entry.data["personal"] for entry in service.entries()] == ["hr", ""]


def test_a_release_comes_and_goes_with_what_is_on_top(release: VerifiedRelease) -> None:
    """Unloaded with the release, once the last answer of either has ended; never half there."""
    closed: list[str] = []
    engine = SwitchingEngine(lambda one: EchoEngine(one.id), lambda name, one: closed.append(name))
    engine.load(release)
    engine.load(release)
    own = personal_id(release.id, "hr")
    assert engine.models() == [release.id]
    items = engine.stream(GenerationRequest(own, (Message("user", "hello"),)))
    engine.unload(release.id)
    assert closed == []
    with pytest.raises(UnknownModel):
        engine.stream(GenerationRequest(own, (Message("user", "hello"),)))
    list(items)
    assert closed == [release.id, personal_id(release.id, "finance"), own]


def test_one_that_cannot_be_loaded_keeps_the_release_away(release: VerifiedRelease) -> None:
    """Better no answer than one without the department's own; what was opened is closed."""
    closed: list[str] = []

    def fail(one: VerifiedRelease) -> EchoEngine:
        if one.id.endswith("+hr"):
            raise EngineError("out of memory")
        return EchoEngine(one.id)

    engine = SwitchingEngine(fail, lambda name, one: closed.append(name))
    with pytest.raises(EngineError, match="out of memory"):
        engine.load(release)
    assert engine.models() == []
    assert closed == [release.id, personal_id(release.id, "finance")]


def test_other_adapters_for_a_loaded_release_need_a_start(release: VerifiedRelease) -> None:
    """A release that answers is not taken for one with other adapters on top."""
    engine = SwitchingEngine(lambda one: EchoEngine(one.id))
    engine.load(replace(release, personal={}))
    with pytest.raises(EngineError, match="start the service anew"):
        engine.load(release)
