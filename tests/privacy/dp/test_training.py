"""What training promises: noise, bounds, movement, refusal."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.dp import descent as descent_module
from privacy.dp import session as session_module
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.clipping import clip_and_sum
from privacy.dp.correlated import banded_coefficients
from privacy.dp.descent import Descent
from privacy.dp.encode import Example, LabelledExample, Unit, encode_chat, encode_completion
from privacy.dp.errors import AdapterMismatch, InvalidExample, InvalidPlan, TrainingFailed
from privacy.dp.plan import DpPlan, PublicPlan
from privacy.dp.randomness import gaussian_noise, poisson_sample, secure_generator
from privacy.dp.trainer import LoraTrainer

TARGETS = ("q_proj", "v_proj")
CONFIG = AdapterConfig(4, 8, TARGETS, last_layers=1)
EXAMPLES = [Example((5, 6, 7, 8), 2), Example((9, 10, 11), 1), Example((12, 13), 1)]
UNITS: list[Unit] = [(example,) for example in EXAMPLES]


@pytest.fixture(scope="module")
def trainer(tiny_llama_dir: Path) -> LoraTrainer:
    return LoraTrainer(tiny_llama_dir)


def plan(**changes: float) -> DpPlan:
    values = {
        "sampling_rate": 0.5,
        "steps": 2,
        "noise_multiplier": 1.0,
        "clipping_norm": 0.5,
        "expected_batch_size": 2.0,
    }
    return DpPlan(**(values | changes))  # type: ignore[arg-type]


# --- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.1),
        ("sampling_rate", float("nan")),
        ("steps", 0),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", float("inf")),
        ("clipping_norm", -1.0),
        ("clipping_norm", float("nan")),
        ("expected_batch_size", 0.0),
    ],
)
def test_a_plan_out_of_bounds_is_refused_by_name(field: str, value: float) -> None:
    """No plan exists whose sampler, noise or bound is meaningless."""
    with pytest.raises(InvalidPlan, match=field):
        plan(**{field: value})


def test_the_event_says_what_the_mechanism_does() -> None:
    """The accounted event carries the very rate, noise and steps that are executed."""
    event = plan().event()
    assert (event.sampling_rate, event.noise_multiplier, event.steps) == (0.5, 1.0, 2)


# --- randomness -----------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize(("claimed", "holds"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_noise_has_the_claimed_deviation(claimed: float, holds: bool) -> None:
    """20,000 draws fit N(0, σ²) and not σ·2/3 or σ·3/2 (Kolmogorov–Smirnov, false alarms 1e-6)."""
    draws = gaussian_noise(20_000, 0.7, secure_generator())
    pvalue = stats.kstest(draws, "norm", args=(0, 0.7 * claimed)).pvalue
    assert bool(pvalue > 1e-6) is holds


@pytest.mark.statistical
def test_batch_sizes_are_binomial_and_may_be_empty() -> None:
    """Poisson sampling: sizes are Binomial(n, q) (χ², false alarms 1e-6), empty ones included."""
    rng, n, q = secure_generator(), 6, 0.3
    sizes = [len(poisson_sample(n, q, rng)) for _ in range(6000)]
    expected = stats.binom.pmf(range(n + 1), n, q) * len(sizes)
    observed = np.bincount(sizes, minlength=n + 1)
    # The two rarest sizes are counted together so that every cell expects more than five.
    observed = np.append(observed[:-2], observed[-2:].sum())
    expected = np.append(expected[:-2], expected[-2:].sum())
    assert observed[0] > 0
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-6


def test_no_stream_of_noise_is_ever_repeated() -> None:
    """Two generators share no draw, and neither is moved by a seeded global state."""
    np.random.seed(0)
    torch.manual_seed(0)
    first = secure_generator().standard_normal(100)
    np.random.seed(0)
    torch.manual_seed(0)
    assert not np.intersect1d(first, secure_generator().standard_normal(100)).size


# --- clipping -------------------------------------------------------------------------------------

finite = st.floats(-1e6, 1e6, width=32)


@given(
    st.lists(st.lists(finite, min_size=7, max_size=7), min_size=1, max_size=5),
    st.floats(1e-3, 1e3),
)
@settings(deadline=None)
def test_no_unit_contributes_more_than_the_bound(rows: list[list[float]], bound: float) -> None:
    """One unit's clipped norm over all tensors together is at most C (1 + 1e-6)."""
    for row in rows:
        tensors = [torch.tensor([row[:3]]), torch.tensor([row[3:]]).view(1, 2, 2)]
        total = clip_and_sum(tensors, bound).total
        norm = torch.cat([t.flatten() for t in total]).double().norm()
        assert float(norm) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_broken_gradient_contributes_zero_and_is_counted(bad: float) -> None:
    """NaN, infinity and overflow of one unit leave the others' sum as it would be without it."""
    good = torch.tensor([[0.3, 0.4, 0.0, 0.0]])
    broken = torch.full((1, 4), bad)
    clipped = clip_and_sum([torch.cat([good, broken])], 10.0)
    if np.isfinite(bad):  # huge but finite: bounded like any other
        assert clipped.non_finite == 0
        assert float((clipped.total[0] - good[0]).norm()) <= 10.0 * (1 + 1e-6)
    else:
        assert clipped.non_finite == 1
        assert torch.equal(clipped.total[0], good[0])


def test_an_all_zero_gradient_stays_zero() -> None:
    """Zero is neither divided by nor enlarged."""
    assert torch.equal(clip_and_sum([torch.zeros(2, 3)], 1.0).total[0], torch.zeros(3))


@given(st.lists(finite, min_size=4, max_size=4), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_automatic_clipping_bounds_every_unit_below_the_norm(
    row: list[float], bound: float
) -> None:
    """C / (norm + 0.01) times the gradient is shorter than C, zero gradients included."""
    total = clip_and_sum([torch.tensor([row])], bound, "automatic").total[0]
    assert float(total.double().norm()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_clipped_norm_of_real_gradients_stays_within_a_millionth(
    tiny_llama_dir: Path, dtype: torch.dtype
) -> None:
    """Norms are taken of the very numbers that are summed, whatever the base computes in."""
    trainer = LoraTrainer(tiny_llama_dir, dtype=dtype)
    chosen = plan(sampling_rate=1.0, clipping_norm=1e-3, noise_multiplier=1e-30)
    for unit in UNITS:
        step = captured_gradients(trainer, [unit], replace(chosen, steps=1))[0]
        norm = np.linalg.norm(step.astype(np.float64)) * chosen.expected_batch_size
        assert 1e-3 * (1 - 1e-6) <= norm <= 1e-3 * (1 + 1e-6)


# --- training -------------------------------------------------------------------------------------


def captured_gradients(
    trainer: LoraTrainer, units: Sequence[Unit], chosen: DpPlan
) -> list[np.ndarray]:
    """What the optimiser was given at each step, flattened."""
    seen: list[np.ndarray] = []

    class Spy(torch.optim.Adam):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            grads = [p.grad for g in self.param_groups for p in g["params"]]
            seen.append(torch.cat([g.flatten() for g in grads]).numpy().copy())
            super().step()

    with patch.object(descent_module.torch.optim, "Adam", Spy):
        trainer.train(trainer.initial_adapter(CONFIG, 0), units, chosen, 1e-3, CONFIG)
    return seen


@pytest.mark.statistical
@pytest.mark.parametrize(("claimed", "holds"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_an_empty_batch_takes_a_step_of_pure_noise(
    trainer: LoraTrainer, claimed: float, holds: bool
) -> None:
    """Without any unit the gradient is N(0, (σC/B)²); 2/3 and 3/2 of it are rejected (1e-6)."""
    chosen = plan(steps=20, noise_multiplier=1.3, clipping_norm=0.5, expected_batch_size=4.0)
    steps = captured_gradients(trainer, [], chosen)
    assert len(steps) == 20
    std = 1.3 * 0.5 / 4.0 * claimed
    pvalue = stats.kstest(np.concatenate(steps), "norm", args=(0, std)).pvalue
    assert bool(pvalue > 1e-6) is holds


def test_the_normaliser_is_public(trainer: LoraTrainer) -> None:
    """Twice the units in the batch give twice the sum: it is not divided by the batch's size."""
    chosen = plan(sampling_rate=1.0, steps=1, noise_multiplier=1e-9, clipping_norm=1e-3)
    once, twice = (captured_gradients(trainer, UNITS[:1] * n, chosen)[0] for n in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-9)
    assert np.linalg.norm(once) == pytest.approx(1e-3 / 2.0, rel=1e-4)


@pytest.mark.statistical
@pytest.mark.parametrize(("claimed", "holds"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_correlated_noise_has_the_deviation_of_its_event_once_it_is_undone(
    trainer: LoraTrainer, claimed: float, holds: bool
) -> None:
    """C applied to the steps gives independent N(0, (σC/B)²); 2/3 and 3/2 are rejected (1e-6)."""
    chosen = replace(plan(steps=6, noise_multiplier=1.3, sampling_rate=0.25), bands=3)
    steps = captured_gradients(trainer, [], chosen)
    column = banded_coefficients(3)
    undone = [sum(c * steps[t - j] for j, c in enumerate(column) if j <= t) for t in range(6)]
    std = 1.3 * 0.5 / 2.0 * claimed
    pvalue = stats.kstest(np.concatenate(undone), "norm", args=(0, std)).pvalue
    assert bool(pvalue > 1e-6) is holds


@pytest.mark.statistical
def test_noise_of_steps_coordinates_and_calls_is_independent(trainer: LoraTrainer) -> None:
    """Correlations over steps, neighbouring coordinates and calls fit zero (false alarms 1e-6 each)."""
    chosen = plan(steps=2)
    (a, b), (c, _) = (captured_gradients(trainer, [], chosen) for _ in range(2))
    for left, right in ((a, b), (a, c), (b, c), (a[:-1], a[1:])):
        assert stats.pearsonr(left, right).pvalue > 1e-6


def descent_over(plan_: DpPlan, units: Sequence[Unit], scale: float = 1.0) -> Descent:
    """A descent whose example i has the gradient scale · e_i, without any model."""
    place = {unit[k]: i for i, unit in enumerate(units) for k in range(len(unit))}

    def gradients(examples, weights):
        rows = torch.zeros(len(examples), max(1, len(units)))
        for row, example, weight in zip(rows, examples, weights, strict=True):
            row[place[example]] = scale * weight
        yield range(len(examples)), rows

    return Descent(torch.zeros(max(1, len(units))), gradients, units, plan_, 1.0)


def shown(descent: Descent) -> np.ndarray:
    """The gradient of the next step."""
    before = descent._flat.clone()
    descent.step()
    return (before - descent._flat).numpy()


def many_units(count: int) -> list[Unit]:
    return [(Example((3, 4 + i), 1),) for i in range(count)]


@pytest.mark.statistical
def test_every_unit_enters_a_step_independently_at_the_rate_of_the_plan() -> None:
    """Over steps each unit's count is Binomial(steps, rate) (χ² over units, false alarms 1e-6)."""
    units, steps, rate = many_units(200), 300, 0.3
    chosen = plan(sampling_rate=rate, noise_multiplier=1e-12, expected_batch_size=1.0)
    counts = np.zeros(200)
    for _ in range(steps):
        descent = descent_over(replace(chosen, optimiser="sgd"), units)
        counts += shown(descent) > 0.25
    z = (counts - steps * rate) / np.sqrt(steps * rate * (1 - rate))
    assert stats.chi2.sf(float((z**2).sum()), 200) > 1e-6
    assert stats.chi2.cdf(float((z**2).sum()), 200) > 1e-6


def test_with_bands_a_unit_takes_part_only_every_so_many_steps() -> None:
    """Participations of a unit lie a multiple of the bands apart, as the event claims."""
    units = many_units(120)
    chosen = replace(
        plan(sampling_rate=0.25, noise_multiplier=1e-12, expected_batch_size=1.0),
        bands=4,
        optimiser="sgd",
    )
    descent = descent_over(chosen, units)
    descent._optimiser = torch.optim.SGD([descent._flat], lr=1.0)
    took = np.array([shown(descent) > 0.25 for _ in range(12)])
    assert took.any(axis=0).all()  # probability 1 within a unit's own steps
    for unit in took.T:
        assert len({int(step) % 4 for step in np.flatnonzero(unit)}) == 1


@pytest.mark.statistical
def test_of_a_sampled_subject_so_many_examples_are_drawn_at_random() -> None:
    """Of 6 examples 2 enter, each equally often (χ², false alarms 1e-6); their mean is clipped once."""
    subject: Unit = tuple(Example((3, 4 + i), 1) for i in range(6))
    chosen = plan(sampling_rate=1.0, noise_multiplier=1e-12, clipping_norm=10.0)
    drawn = np.zeros(6)

    def gradients(examples, weights):
        assert list(weights) == [0.5, 0.5]
        for example in examples:
            drawn[example.input_ids[1] - 4] += 1
        yield range(2), torch.full((2, 1), 3.0) * torch.tensor(weights)[:, None]

    chosen = replace(chosen, examples_per_unit=2, optimiser="sgd", expected_batch_size=1.0)
    for _ in range(600):
        assert shown(Descent(torch.zeros(1), gradients, [subject], chosen, 1.0)) == pytest.approx(3)
    assert stats.chisquare(drawn).pvalue > 1e-6


def test_adaptive_clipping_finds_the_median_norm() -> None:
    """From ten times too small and too large, the norm comes within a third of the true one."""
    units = many_units(400)
    for start in (0.4, 40.0):
        chosen = replace(
            plan(sampling_rate=1.0, clipping_norm=start, expected_batch_size=400.0),
            clipping="adaptive",
        )
        rng = np.random.default_rng(0)
        norms = {u[0]: s for u, s in zip(units, rng.lognormal(np.log(4), 0.5, 400), strict=True)}

        def gradients(examples, weights, norms=norms):
            yield range(len(examples)), torch.tensor([[norms[e]] for e in examples])

        descent = Descent(torch.zeros(1), gradients, units, chosen, 1e-6)
        for _ in range(60):
            descent.step()
        assert 4 / 1.33 < descent.clipping_norm < 4 * 1.33


def test_broken_gradients_are_counted_and_contribute_nothing() -> None:
    """A unit with a NaN gradient is replaced by zero; the others' sum is as without it."""
    units = many_units(3)
    chosen = replace(plan(sampling_rate=1.0, noise_multiplier=1e-12), optimiser="sgd")

    def gradients(examples, weights):
        yield range(3), torch.tensor([[0.3], [float("nan")], [0.1]])

    descent = Descent(torch.zeros(1), gradients, units, chosen, 1.0)
    assert shown(descent) == pytest.approx(0.4 / 2.0)
    assert descent.replaced == 1


def test_examples_of_another_task_are_refused(trainer: LoraTrainer) -> None:
    """A language model does not learn from labels; the message names both kinds."""
    with pytest.raises(InvalidExample, match="LabelledExample"):
        trainer.train(
            trainer.initial_adapter(CONFIG, 0), [(LabelledExample((3,), 0),)], plan(), 1e-2, CONFIG
        )


def test_public_training_needs_no_plan_for_privacy(trainer: LoraTrainer) -> None:
    """A public plan descends on the plain mean gradient: no clipping, no noise, no event."""
    adapter = trainer.initial_adapter(CONFIG, 0)
    chosen = PublicPlan(1.0, 20, 3.0)
    trained = dict(adapter) | trainer.train(adapter, UNITS, chosen, 1e-2, CONFIG)
    assert sum(trainer.losses(EXAMPLES, CONFIG, trained)) < sum(
        trainer.losses(EXAMPLES, CONFIG, adapter)
    )
    assert not hasattr(chosen, "event")


def test_trained_tensors_move_and_frozen_ones_do_not(trainer: LoraTrainer) -> None:
    """What returns is B alone, finite and moved; A is not sent."""
    adapter = trainer.initial_adapter(CONFIG, 0)
    update = trainer.train(adapter, UNITS, plan(), 1e-2, CONFIG)
    assert update.keys() == {n for n in adapter if "lora_B" in n}
    assert all(np.isfinite(t).all() and np.abs(t).max() > 0 for t in update.values())


def test_two_trainings_from_one_adapter_differ(trainer: LoraTrainer) -> None:
    """Noise is fresh at every call: a repeated round is a new release, never the same draw."""
    adapter = trainer.initial_adapter(CONFIG, 0)
    one, two = (trainer.train(adapter, UNITS, plan(), 1e-2, CONFIG) for _ in range(2))
    assert all(not np.array_equal(one[n], two[n]) for n in one)


def test_the_base_model_is_left_as_it_was(trainer: LoraTrainer) -> None:
    """Training and scoring change no base tensor, leave no adapter and no trainable parameter."""
    before = {n: t.clone() for n, t in trainer._model.state_dict().items()}
    trainer.train(trainer.initial_adapter(CONFIG, 0), UNITS, plan(), 1e-2, CONFIG)
    after = trainer._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert not any(p.requires_grad for p in trainer._model.parameters())


def test_learning_lowers_the_loss_without_noise(trainer: LoraTrainer) -> None:
    """With negligible noise the steps descend: the sign and the scale of the update are right."""
    adapter = trainer.initial_adapter(CONFIG, 0)
    chosen = plan(sampling_rate=1.0, steps=20, noise_multiplier=1e-6, expected_batch_size=3.0)
    trained = dict(adapter) | trainer.train(adapter, UNITS, chosen, 1e-2, CONFIG)
    before = trainer.losses(EXAMPLES, CONFIG, adapter)
    after = trainer.losses(EXAMPLES, CONFIG, trained)
    assert sum(after) < sum(before)


def test_an_adapter_that_is_not_trained_is_noticed(
    trainer: LoraTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that takes no part in the pass is an error, not a silent zero (Opacus issue 820)."""

    def detached(model: object, units: Sequence[Example], *_: object) -> tuple[torch.Tensor, ...]:
        return torch.zeros((), requires_grad=True), torch.zeros(len(units))

    monkeypatch.setattr(session_module, "completion_loss", detached)
    with pytest.raises(TrainingFailed, match="no per-unit gradient"):
        trainer.train(
            trainer.initial_adapter(CONFIG, 0), UNITS, plan(sampling_rate=1.0), 1e-2, CONFIG
        )


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "type", "nan"])
def test_a_foreign_adapter_is_refused_before_training(trainer: LoraTrainer, fault: str) -> None:
    """An adapter of another model, rank or content is named and nothing is trained."""
    adapter = dict(trainer.initial_adapter(CONFIG, 0))
    name = min(adapter)
    if fault == "missing":
        del adapter[name]
    elif fault == "unknown":
        adapter["other.weight"] = adapter[name]
    elif fault == "shape":
        adapter[name] = adapter[name][:1]
    elif fault == "type":
        adapter[name] = adapter[name].astype(np.float64)  # type: ignore[assignment]
    else:
        adapter[name] = np.full_like(adapter[name], np.nan)
    with pytest.raises(AdapterMismatch, match="does not fit"):
        trainer.train(adapter, UNITS, plan(), 1e-2, CONFIG)
    trainer.train(trainer.initial_adapter(CONFIG, 0), UNITS, plan(), 1e-2, CONFIG)


def test_impossible_adapters_are_refused_by_name(trainer: LoraTrainer) -> None:
    """Targets that do not exist and too high a rank each say what is possible."""
    for config, words in [
        (AdapterConfig(4, 8, ("nowhere",)), "nowhere"),
        (AdapterConfig(64, 8, TARGETS), "at most 32"),
    ]:
        with pytest.raises(AdapterMismatch, match=words):
            trainer.initial_adapter(config, 0)


def test_initial_a_is_orthonormal_and_public(trainer: LoraTrainer) -> None:
    """A's rows are orthonormal, B is zero, and the seed alone decides."""
    adapter: Adapter = trainer.initial_adapter(CONFIG, 7)
    again = trainer.initial_adapter(CONFIG, 7)
    for name, array in adapter.items():
        assert np.array_equal(array, again[name])
        if "lora_A" in name:
            np.testing.assert_allclose(array @ array.T, np.eye(4), atol=1e-6)
        else:
            assert not array.any()


# --- encoding -------------------------------------------------------------------------------------


def test_a_completion_is_kept_whole_and_its_prompt_shortened(trainer: LoraTrainer) -> None:
    """Over the limit, the prompt loses its beginning; the completion never loses anything."""
    whole = encode_completion(trainer.tokenizer, "abcdef", "xyz", 100)
    short = encode_completion(trainer.tokenizer, "abcdef", "xyz", 6)
    assert len(short.input_ids) == 6
    assert short.input_ids == whole.input_ids[-6:]
    assert whole.input_ids[-1] == trainer.tokenizer.eos_token_id


def test_text_without_prompt_is_learned_from_its_first_token(trainer: LoraTrainer) -> None:
    """Plain text starts after a beginning-of-text token, so no token of it is context only."""
    example = encode_completion(trainer.tokenizer, "", "abc", 100)
    assert example.completion_start == 1
    assert example.input_ids[0] == trainer.tokenizer.bos_token_id


def test_a_chat_is_learned_from_its_last_message(trainer: LoraTrainer) -> None:
    """Only the last message is completion; what precedes it is context in the chat template."""
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]
    example = encode_chat(trainer.tokenizer, messages, 200)
    decoded = trainer.tokenizer.decode(list(example.input_ids[example.completion_start :]))
    assert decoded == "ok<|im_end|>\n"


def test_unusable_records_are_refused_without_their_text(trainer: LoraTrainer) -> None:
    """An empty or too long completion is refused; the message holds numbers, not the text."""
    with pytest.raises(InvalidExample, match="empty"):
        encode_completion(trainer.tokenizer, "a", "", 100)
    with pytest.raises(InvalidExample, match="max_tokens=5") as caught:
        encode_completion(trainer.tokenizer, "a", "secretsecret", 5)
    assert "secret" not in str(caught.value)
