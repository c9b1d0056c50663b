"""The clipped sum equals a loop over single units in float64, however the batch is arranged."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import CAUSAL, CLASSIFIERS, FAMILIES, make
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from privacy.dp import adapter as adapters
from privacy.dp import descent as descent_module
from privacy.dp import one_pass
from privacy.dp import trainer as trainer_module
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.clipping import STABILITY
from privacy.dp.encode import AnyExample, Example, LabelledExample, Unit, encode_completion
from privacy.dp.errors import AdapterMismatch, DpError
from privacy.dp.plan import DpPlan
from privacy.dp.state_cache import StateCache
from privacy.dp.trainer import LoraTrainer

LABELS = 5
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A tiny model's folder by family and number of labels."""
    made: dict[tuple[str, int | None], Path] = {}

    def get(name: str, labels: int | None = None) -> Path:
        if (name, labels) not in made:
            path = tmp_path_factory.mktemp(name)
            made[name, labels] = make(name, path, tiny_llama_dir, labels=labels)
        return made[name, labels]

    return get


def units(count: int, *, labels: int | None = None, most: int = 1, seed: int = 0) -> list[Unit]:
    """Units of up to ``most`` random sequences of very different lengths, one of them twice."""
    rng = np.random.default_rng(seed)

    def one() -> AnyExample:
        length = int(rng.integers(4, 40))
        ids = tuple(rng.integers(3, 250, length).tolist())
        if labels is not None:
            return LabelledExample(ids, int(rng.integers(labels)))
        return Example(ids, int(rng.integers(1, length)))

    made = [tuple(one() for _ in range(int(rng.integers(1, most + 1)))) for _ in range(count - 1)]
    return [*made, made[0]]


def moved(adapter: Adapter, seed: int = 1) -> Adapter:
    """The adapter with a B that is not zero, so that gradients of A are not zero either."""
    rng = np.random.default_rng(seed)
    return {
        name: array + rng.normal(scale=0.1, size=array.shape).astype(np.float32)
        if "lora_B" in name
        else array
        for name, array in adapter.items()
    }


def plan(bound: float, **changes: Any) -> DpPlan:
    """A plan whose step of plain gradient descent shows the clipped sum, without visible noise."""
    base = DpPlan(0.5, 1, 1e-12, bound, 1.0, optimiser="sgd", examples_per_unit=8)
    return replace(base, **changes)


def clipped_sum(
    trainer: LoraTrainer,
    config: AdapterConfig,
    adapter: Adapter,
    given: Sequence[Unit],
    chosen: DpPlan,
) -> dict[str, np.ndarray]:
    """What one step of learning rate 1 subtracts, by tensor."""
    with trainer.session(config, adapter) as session:
        with session.descent(given, chosen, 1.0) as descent:
            descent.step(range(len(given)))
        after = adapters.read_adapter(session._model)
    return {
        name: adapter[name].astype(np.float64) - after[name]
        for name in after
        if config.is_trained(name)
    }


def oracle(
    base: Path,
    config: AdapterConfig,
    adapter: Adapter,
    given: Sequence[Unit],
    weigh: Callable[[float], float],
    labels: int | None = None,
    pooling: str = "model",
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Sums and norms by one float64 backward pass per example, without hooks, padding or batches."""
    if labels is None:
        model: Any = AutoModelForCausalLM.from_pretrained(base)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    if pooling == "mean":
        model.base_model.pooler = None
    peft_model = adapters.inject(model.requires_grad_(False).eval(), config)
    adapters.write_adapter(peft_model, adapter)
    peft_model.double()
    trained = {n: p for n, p in adapters.adapter_parameters(peft_model).items() if p.requires_grad}
    total = {name: np.zeros(p.shape) for name, p in trained.items()}
    norms = []
    for unit in given:
        gradient = [torch.zeros_like(p) for p in trained.values()]
        for example in unit:
            ids = torch.tensor([example.input_ids])
            if pooling == "mean":
                encoder = getattr(peft_model, peft_model.base_model_prefix)
                state = encoder(input_ids=ids).last_hidden_state[0].mean(0)
                logits = peft_model.classifier(state)
            else:
                logits = peft_model(input_ids=ids).logits[0]
            if isinstance(example, LabelledExample):
                loss = torch.nn.functional.cross_entropy(logits, torch.tensor(example.label))
            else:
                start = example.completion_start
                loss = torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[0, start:])
            for sum_, g in zip(
                gradient, torch.autograd.grad(loss, list(trained.values())), strict=True
            ):
                sum_ += g / len(unit)
        norm = float(torch.cat([g.flatten() for g in gradient]).norm())
        norms.append(norm)
        for name, g in zip(trained, gradient, strict=True):
            total[name] += g.numpy() * weigh(norm)
    return total, norms


def distance(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Relative L2 distance over all tensors together."""
    assert found.keys() == expected.keys()
    flat, true = (
        np.concatenate([d[n].ravel() for n in sorted(expected)]) for d in (found, expected)
    )
    return float(np.linalg.norm(flat - true) / np.linalg.norm(true))


def flat_clipping(bound: float) -> Callable[[float], float]:
    return lambda norm: min(1.0, bound / norm)


def compare(
    base: Path,
    config: AdapterConfig,
    given: Sequence[Unit],
    *,
    dtype: torch.dtype = torch.float32,
    labels: int | None = None,
    pooling: Any = "model",
) -> float:
    """Distance of the trainer's clipped sum from the oracle's, some units being clipped."""
    trainer = LoraTrainer(base, dtype=dtype, labels=labels, pooling=pooling)
    adapter = moved(trainer.initial_adapter(config, seed=3))
    _, norms = oracle(base, config, adapter, given, lambda _: 0.0, labels, pooling)
    bound = float(np.median(norms))
    expected, _ = oracle(base, config, adapter, given, flat_clipping(bound), labels, pooling)
    return distance(clipped_sum(trainer, config, adapter, given, plan(bound)), expected)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("last_layers", [None, 1])
@pytest.mark.parametrize("factors", ["B", "AB"])
def test_every_family_of_language_models_equals_the_oracle(
    folder: Folder, name: str, last_layers: int | None, factors: Any
) -> None:
    """Attention and MLP projections, padding, duplicates and the frozen prefix: 1e-5 in float32."""
    config = AdapterConfig(4, 8, FAMILIES[name].targets, last_layers, factors)
    assert compare(folder(name), config, units(9)) < 1e-5


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("last_layers", [None, 1])
def test_every_family_of_classifiers_equals_the_oracle(
    folder: Folder, name: str, last_layers: int | None
) -> None:
    """LoRA and a classification head that is trained whole, weights and bias."""
    family = FAMILIES[name]
    config = AdapterConfig(4, 8, family.targets, last_layers, "AB", trained_modules=(family.head,))
    base = folder(name, LABELS)
    assert compare(base, config, units(9, labels=LABELS), labels=LABELS) < 1e-5


@pytest.mark.parametrize("last_layers", [None, 1, 0])
@pytest.mark.parametrize("hooks", [False, True])
def test_a_head_that_reads_the_mean_equals_the_oracle(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, last_layers: int | None, hooks: bool
) -> None:
    """The mean of a row's own tokens, with the frozen prefix, the head alone, and either way."""
    if hooks:
        monkeypatch.setattr(one_pass, "covers", lambda _: False)
    config = AdapterConfig(4, 8, FAMILIES["bert"].targets, last_layers, "B", ("classifier",))
    base, given = folder("bert", LABELS), units(9, labels=LABELS)
    assert compare(base, config, given, labels=LABELS, pooling="mean") < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last_layers", [None, 1, 0])
def test_a_mean_depends_on_no_other_unit(
    folder: Folder, dtype: torch.dtype, last_layers: int | None
) -> None:
    """Alone or among longer and shorter rows: equal up to float32 rounding in either precision."""
    config = AdapterConfig(4, 8, FAMILIES["bert"].targets, last_layers, "B", ("classifier",))
    trainer = LoraTrainer(folder("bert", LABELS), dtype=dtype, labels=LABELS, pooling="mean")
    adapter = moved(trainer.initial_adapter(config, 0))
    given = units(20, labels=LABELS)
    for index in (0, 7, 13):
        alone = gradient_of(trainer, config, adapter, [given[index]], 0)
        among = gradient_of(trainer, config, adapter, given, index)
        assert float((alone - among).norm()) <= 1e-5 * float(alone.norm())


def test_the_mean_is_read_where_nothing_was_trained_to_be_read(
    folder: Folder, tmp_path: Path
) -> None:
    """A new head reads the mean, one that came with the model what it was trained on."""
    base = folder("bert", LABELS)
    new = LoraTrainer(base, dtype=torch.float32, labels=LABELS)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=LABELS)
    model.save_pretrained(tmp_path)
    for file in base.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    trained = LoraTrainer(tmp_path, dtype=torch.float32, labels=LABELS)
    config = AdapterConfig(4, 8, ("query",), 1, "B", ("classifier",))
    given = [unit[0] for unit in units(5, labels=LABELS)]
    for default, pooling in ((new, "mean"), (trained, "model")):
        source = base if default is new else tmp_path
        asked = LoraTrainer(source, dtype=torch.float32, labels=LABELS, pooling=pooling)  # type: ignore[arg-type]
        other = LoraTrainer(
            source,
            dtype=torch.float32,
            labels=LABELS,
            pooling="model" if pooling == "mean" else "mean",
        )
        adapter = default.initial_adapter(config, 0)
        found = default.losses(given, config, adapter)
        assert found == asked.losses(given, config, adapter)
        assert found != other.losses(given, config, adapter)


def test_a_mean_that_no_head_could_read_is_refused(folder: Folder) -> None:
    """A causal classifier answers at its last token: the message says what to use instead."""
    with pytest.raises(DpError, match="use pooling='model'"):
        LoraTrainer(folder("llama", LABELS), labels=LABELS, pooling="mean")


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_a_head_alone_equals_the_oracle(folder: Folder, name: str) -> None:
    """last_layers=0 trains the head over states that are computed once; nothing else moves."""
    config = AdapterConfig(4, 8, (), 0, "B", trained_modules=(FAMILIES[name].head,))
    assert compare(folder(name, LABELS), config, units(9, labels=LABELS), labels=LABELS) < 1e-5


def test_nothing_to_train_is_refused(tiny_llama_dir: Path) -> None:
    """No block and no module: the message names both."""
    config = AdapterConfig(4, 8, TARGETS, last_layers=0)
    with pytest.raises(AdapterMismatch, match=r"last_layers=0 without trained_modules"):
        LoraTrainer(tiny_llama_dir).initial_adapter(config, 0)


@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_in_bfloat16_the_sum_is_that_of_the_oracle_up_to_its_precision(
    folder: Folder, name: str
) -> None:
    """The base computes with 8 bits of mantissa; the clipped sum stays within 3 percent."""
    labels = LABELS if name == "bert" else None
    head = ("classifier",) if name == "bert" else ()
    config = AdapterConfig(4, 8, FAMILIES[name].targets, None, "B", head)
    given = units(9, labels=labels)
    assert compare(folder(name, labels), config, given, dtype=torch.bfloat16, labels=labels) < 0.03


@pytest.mark.parametrize("tokens", [40, 4096])
@pytest.mark.parametrize("unit_bytes", [1, 2**28])
def test_accumulation_and_subjects_equal_the_oracle(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tokens: int, unit_bytes: int
) -> None:
    """A subject's examples are averaged, then clipped once, in whatever portions they are computed."""
    monkeypatch.setattr(trainer_module, "MICRO_BATCH_TOKENS", tokens)
    monkeypatch.setattr(descent_module, "UNIT_BYTES", unit_bytes)
    config = AdapterConfig(4, 8, TARGETS)
    assert compare(folder("llama"), config, units(9, most=4)) < 1e-5


def test_automatic_clipping_equals_the_oracle(folder: Folder) -> None:
    """Each unit is scaled by C / (norm + 0.01)."""
    config = AdapterConfig(4, 8, TARGETS)
    trainer = LoraTrainer(folder("llama"), dtype=torch.float32)
    adapter = moved(trainer.initial_adapter(config, 3))
    given = units(6)
    expected, _ = oracle(
        folder("llama"), config, adapter, given, lambda norm: 0.7 / (norm + STABILITY)
    )
    found = clipped_sum(trainer, config, adapter, given, plan(0.7, clipping="automatic"))
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_the_fast_path_equals_the_hooks_of_opacus(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without noise both ways give the same clipped sum, to 1e-5."""
    labels = LABELS if name == "bert" else None
    head = ("classifier",) if name == "bert" else ()
    config = AdapterConfig(4, 8, FAMILIES[name].targets, None, "AB", head)
    trainer = LoraTrainer(folder(name, labels), dtype=torch.float32, labels=labels)
    adapter = moved(trainer.initial_adapter(config, 3))
    given = units(7, labels=labels)
    fast = clipped_sum(trainer, config, adapter, given, plan(0.3))
    monkeypatch.setattr(one_pass, "covers", lambda _: False)
    assert distance(clipped_sum(trainer, config, adapter, given, plan(0.3)), fast) < 1e-5


@pytest.mark.parametrize(("quantisation", "tolerance"), [("int8", 0.01), ("int4", 1e-5)])
def test_a_quantised_base_gives_what_the_hooks_give_and_couples_no_units(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, quantisation: Any, tolerance: float
) -> None:
    """Quantised layers keep their own arithmetic, and no row moves another.

    In 8 bits activations are rounded to 1/127 of a row's largest, so that the two ways, whose norms
    round differently, may land on either side of such a step.
    """
    base = folder("llama-wide")
    config = AdapterConfig(4, 8, FAMILIES["llama-wide"].targets)
    trainer = LoraTrainer(base, dtype=torch.float32, quantisation=quantisation)
    assert trainer.base_digest == LoraTrainer(base).base_digest
    adapter = moved(trainer.initial_adapter(config, 3))
    given = units(5)
    alone = gradient_of(trainer, config, adapter, [given[2]], 0)
    among = gradient_of(trainer, config, adapter, given, 2)
    assert float((alone - among).norm()) <= 1e-5 * float(alone.norm())
    fast = clipped_sum(trainer, config, adapter, given, plan(0.3))
    monkeypatch.setattr(one_pass, "covers", lambda _: False)
    assert distance(clipped_sum(trainer, config, adapter, given, plan(0.3)), fast) < tolerance


def test_trained_embeddings_take_the_way_of_the_hooks(folder: Folder) -> None:
    """Embeddings are no linear layer; their per-unit gradients equal the oracle all the same."""
    config = AdapterConfig(4, 8, ("q_proj",), 1, "B", trained_modules=("embed_tokens",))
    assert compare(folder("llama"), config, units(5)) < 1e-5


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_scores_in_either_precision_what_it_learns_from(
    folder: Folder, name: str
) -> None:
    """Losses in bfloat16 are those of float32 up to its precision, and the predictions are labels."""
    config = AdapterConfig(4, 8, FAMILIES[name].targets, trained_modules=(FAMILIES[name].head,))
    examples = [u[0] for u in units(6, labels=LABELS)]
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        trainer = LoraTrainer(folder(name, LABELS), dtype=dtype, labels=LABELS)
        adapter = moved(trainer.initial_adapter(config, 3))
        found.append(trainer.losses(examples, config, adapter))
        with trainer.session(config, adapter) as session:
            assert set(session.predictions(examples)) <= set(range(LABELS))  # type: ignore[arg-type]
    np.testing.assert_allclose(found[1], found[0], rtol=0.03)


def test_embeddings_can_be_trained_in_bfloat16_models(folder: Folder) -> None:
    """The float32 embedding hands its states over in the base model's precision."""
    config = AdapterConfig(4, 8, ("q_proj",), None, "B", trained_modules=("embed_tokens",))
    given = units(5)
    assert compare(folder("llama"), config, given, dtype=torch.bfloat16) < 0.03


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("hooks", [False, True])
def test_gradient_checkpointing_changes_nothing_but_memory(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str, hooks: bool
) -> None:
    """Activations that are computed twice give the clipped sum that kept ones give."""
    if hooks:
        monkeypatch.setattr(one_pass, "covers", lambda _: False)
    config = AdapterConfig(4, 8, FAMILIES[name].targets)
    trainer = LoraTrainer(folder(name), dtype=torch.float32)
    again = LoraTrainer(folder(name), dtype=torch.float32, gradient_checkpointing=True)
    adapter = moved(trainer.initial_adapter(config, 3))
    kept, twice = (clipped_sum(t, config, adapter, units(5), plan(0.3)) for t in (trainer, again))
    assert distance(twice, kept) < 1e-5


def gradient_of(
    trainer: LoraTrainer, config: AdapterConfig, adapter: Adapter, given: Sequence[Unit], which: int
) -> torch.Tensor:
    """The flat gradient of one example of a batch, as it is before clipping."""
    examples = [unit[0] for unit in given]
    trainer.forget()
    with trainer.session(config, adapter) as session, session.descent(given, plan(1.0), 1.0) as d:
        for indices, rows in d._gradients(examples, [1.0] * len(examples)):
            if which in indices:
                found = rows[indices.index(which)].clone()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last_layers", [None, 1])
def test_a_units_gradient_depends_on_no_other_unit(
    tiny_llama_dir: Path, dtype: torch.dtype, last_layers: int | None
) -> None:
    """Alone, or among any others in any place: equal up to float32 rounding in either precision."""
    config = AdapterConfig(4, 8, TARGETS, last_layers)
    trainer = LoraTrainer(tiny_llama_dir, dtype=dtype)
    adapter = moved(trainer.initial_adapter(config, 0))
    given = units(40)
    for index in (0, 7, 21):
        alone = gradient_of(trainer, config, adapter, [given[index]], 0)
        among = gradient_of(trainer, config, adapter, given, index)
        backwards = gradient_of(trainer, config, adapter, given[::-1], len(given) - 1 - index)
        for other in (among, backwards):
            assert float((alone - other).norm()) <= 1e-5 * float(alone.norm())


def test_the_frozen_prefix_changes_nothing_but_the_cost(
    tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses from cached hidden states equal those of a full pass, kept within a bound or not."""
    config = AdapterConfig(4, 8, TARGETS, last_layers=1)
    cache = StateCache()
    trainer = LoraTrainer(tiny_llama_dir, dtype=torch.float32, cache=cache)
    unkept = LoraTrainer(tiny_llama_dir, dtype=torch.float32, cache=StateCache(bytes_bound=0))
    adapter = moved(trainer.initial_adapter(config, 0))
    given = [unit[0] for unit in units(12)]
    cached, again = (trainer.losses(given, config, adapter) for _ in range(2))
    assert len(cache) == 11
    without = unkept.losses(given, config, adapter)
    assert not len(unkept._cache)
    trainer.forget()
    assert not len(cache)
    monkeypatch.setattr(trainer_module, "prefix_length", lambda *_: 0)
    full = trainer.losses(given, config, adapter)
    for values in (cached, again, without):
        np.testing.assert_allclose(values, full, rtol=1e-5)


def test_kept_states_are_unreadable_and_nameless(tmp_path: Path) -> None:
    """The file has no name, holds no plain byte of a state, and ends with the bound."""
    cache = StateCache(tmp_path, bytes_bound=3 * (4096 + 16))
    states = [torch.full((16, 64), float(i)) for i in range(1, 5)]
    for i, state in enumerate(states):
        cache.put(i, state)
    assert not list(tmp_path.iterdir())
    assert cache._file is not None
    cache._file.seek(0)
    content = cache._file.read()
    assert len(content) == 3 * (4096 + 16)
    assert not any(state.numpy().tobytes()[:16] in content for state in states)
    assert [None if (s := cache.get(i)) is None else float(s[0, 0]) for i in range(4)] == [
        1.0,
        2.0,
        3.0,
        None,
    ]


def test_choosing_finds_the_likeliest_candidate(tiny_llama_dir: Path) -> None:
    """Sharing the prompt's cache gives the candidate that separate full passes give."""
    trainer = LoraTrainer(tiny_llama_dir, dtype=torch.float32)
    config = AdapterConfig(4, 8, TARGETS)
    adapter = moved(trainer.initial_adapter(config, 0), seed=5)
    prompts = ["Text: a\nLabel:", "Text: bb\nLabel:", "another, longer prompt:", "Text: cc\nLabel:"]
    candidates = [" x", " yes", " a longer one", " no"]
    chosen = trainer.choose(prompts, candidates, config, adapter, 128)
    for prompt, index in zip(prompts, chosen, strict=True):
        encoded = [encode_completion(trainer.tokenizer, prompt, c, 128) for c in candidates]
        assert index == int(np.argmin(trainer.losses(encoded, config, adapter)))
