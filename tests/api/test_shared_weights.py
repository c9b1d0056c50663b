"""Several releases over one base model: its weights are held once, and no answer is another's."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from api.engines.base import GenerationRequest, Message
from api.engines.settings import EngineSettings, LocalSettings
from api.engines.transformers_local import TransformersEngine
from api.engines.weights import SharedWeights
from intramural.serving import open_backend
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from privacy.release import VerifiedRelease
from tests.api import service_kit

CONFIG = AdapterConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"), last_layers=1)
HELLO = (Message("user", "Hello, who are you?"),)


@pytest.fixture(scope="module")
def releases(
    tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[VerifiedRelease]:
    """Three that change the model a lot, each in its own way."""
    trainer = LoraTrainer(tiny_llama_dir, name="tiny")
    folders = [tmp_path_factory.mktemp("release") for _ in range(3)]
    return service_kit.releases(folders, trainer, CONFIG, scale=2.0)


def held(engines: list[Any]) -> int:
    """Bytes of all weights, each storage once."""
    storages = {
        own.untyped_storage().data_ptr(): own.untyped_storage().nbytes()
        for engine in engines
        for own in engine._model.parameters()
    }
    return sum(storages.values())


def asked(engine: Any, **options: Any) -> Any:
    """A greedy answer."""
    (name,) = engine.models()
    return engine.generate(GenerationRequest(name, HELLO, max_tokens=20, temperature=0, **options))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapters", ["merged", "apart"])
def test_the_base_model_is_held_once(
    tiny_llama_dir: Path,
    releases: list[VerifiedRelease],
    adapters: Any,
    dtype: Any,
) -> None:
    """As the service opens them: a further release costs its adapter, or the matrices it changes."""
    settings = EngineSettings(local=LocalSettings(adapters=adapters, dtype=dtype))
    with open_backend(settings, lambda: tiny_llama_dir) as backend:
        first, *others = [backend.open(release) for release in releases]
    base = TransformersEngine(tiny_llama_dir, model_id="base", dtype=getattr(torch, dtype))
    size = base._model.dtype.itemsize
    changed = {"q_proj": (32, 32), "v_proj": (16, 32)}
    of_each = size * sum(
        CONFIG.rank * (rows + columns) if adapters == "apart" else rows * columns
        for rows, columns in changed.values()
    )
    assert held([first]) == held([base]) + (of_each if adapters == "apart" else 0)
    assert held([first, *others]) - held([first]) == 2 * of_each
    alone = [
        TransformersEngine(
            tiny_llama_dir, release, dtype=getattr(torch, dtype), merge=adapters == "merged"
        )
        for release in releases
    ]
    answers = [asked(engine) for engine in (first, *others)]
    assert answers == [asked(engine) for engine in alone]
    assert len({answer.text for answer in answers}) == 3


def test_an_adapter_apart_gives_what_a_merged_one_gives(
    tiny_llama_dir: Path, releases: list[VerifiedRelease]
) -> None:
    """W x + B A x is (W + B A) x: log-probabilities agree within 1e-3, in float32."""
    merged, apart = (
        TransformersEngine(tiny_llama_dir, releases[0], merge=merge) for merge in (True, False)
    )
    one, other = asked(merged, logprobs=0), asked(apart, logprobs=0)
    assert one.text == other.text
    for here, there in zip(one.logprobs, other.logprobs, strict=True):
        assert here.logprob == pytest.approx(there.logprob, abs=1e-3)


def test_releases_that_answer_at_once_do_not_mix(
    tiny_llama_dir: Path, releases: list[VerifiedRelease]
) -> None:
    """Callers of three releases at the same time get what each release says alone."""
    weights = SharedWeights()
    engines = [
        TransformersEngine(tiny_llama_dir, release, merge=False, weights=weights)
        for release in releases
    ]
    alone = [asked(engine) for engine in engines]
    found: list[Any] = [None] * 12

    def ask(number: int) -> None:
        found[number] = asked(engines[number % 3])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone * 4


def _forgotten() -> None:
    """Decoding threads end with their work and hold their model until then."""
    for thread in threading.enumerate():
        if thread.name == "intramural-decode":
            thread.join(60)
    gc.collect()


def test_weights_go_with_the_last_model_that_has_them(
    tiny_llama_dir: Path, releases: list[VerifiedRelease]
) -> None:
    """Sharing keeps nothing alive, and a release that came first may go first."""
    weights = SharedWeights()
    first, second = (
        TransformersEngine(tiny_llama_dir, release, weights=weights) for release in releases[:2]
    )
    common = weakref.ref(first._model.model.embed_tokens.weight)
    own = weakref.ref(first._model.model.layers[1].self_attn.q_proj.weight)
    before = asked(second)
    del first
    _forgotten()
    assert common() is not None
    assert own() is None
    assert asked(second) == before
    del second
    _forgotten()
    assert common() is None
