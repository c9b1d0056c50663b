"""The tasks of :mod:`benchmarks.utility`: public data dealt out to departments, and how it is scored.

Each task has a stand-in, other public data on which learning rates were tried.
"""

import gzip
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.text_scores import bleu, rouge_l
from intramural.assets import asset_path
from privacy.dp.accounting import calibrate_noise, epsilon
from privacy.dp.adapter import Adapter, AdapterConfig, attached
from privacy.dp.encode import Example, LabelledExample, Unit, encode_completion
from privacy.dp.events import MechanismEvent
from privacy.dp.plan import DpPlan, Optimiser, PublicPlan
from privacy.dp.trainer import LoraTrainer

Scores = Mapping[str, float]
"""By metric; the first is the one that recipes were tuned by."""

DELTA = 1e-5
MAX_TOKENS = 64
CHOICE_SEED = 20_000
"""Deals rows to departments and draws subsets, the same for every setting and seed."""


@dataclass(frozen=True)
class Recipe:
    """All that is public of a run; ``clipping_norm`` is without meaning in a public one.

    ``server_momentum``: of the average over departments (FedAvgM, Hsu et al. 2019,
    arXiv 1909.06335, section 3); post-processing of what the departments send.
    """

    config: AdapterConfig
    rounds: int
    local_steps: int
    sampling_rate: float
    expected_batch_size: float
    learning_rate: float
    clipping_norm: float = 1.0
    optimiser: Optimiser = "adam"
    server_momentum: float = 0.0

    def plan(self, noise_multiplier: float | None) -> DpPlan | PublicPlan:
        """One round of one department; None: without clipping and noise."""
        if noise_multiplier is None:
            return PublicPlan(
                self.sampling_rate, self.local_steps, self.expected_batch_size, self.optimiser
            )
        return self._private_plan(noise_multiplier)

    def _private_plan(self, noise_multiplier: float) -> DpPlan:
        return DpPlan(
            self.sampling_rate,
            self.local_steps,
            noise_multiplier,
            self.clipping_norm,
            self.expected_batch_size,
            optimiser=self.optimiser,
        )

    def noise_for(self, target: float) -> tuple[float, float]:
        """Noise multiplier of a whole run within ``target``, and the epsilon that it then has."""

        def events(noise: float) -> list[MechanismEvent]:
            return [self._private_plan(noise).event()] * self.rounds

        noise = calibrate_noise(events, target, DELTA)
        return noise, epsilon(events(noise), DELTA)


@dataclass(frozen=True)
class Task:
    """A task made ready: departments' units, and a score of an adapter on the test split."""

    name: str
    trainer: LoraTrainer
    departments: Mapping[str, Sequence[Unit]]
    score: Callable[[AdapterConfig, Adapter | None], Scores]
    recipe: Recipe
    note: str


def rows_of(folder: Path, name: str, split: str) -> list[dict[str, Any]]:
    """Rows of one split of ``name``.jsonl.gz."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [row for row in map(json.loads, lines) if row["split"] == split]


def shuffled(rows: Sequence[Any]) -> list[Any]:
    """In an order that depends on their number alone."""
    return [rows[i] for i in np.random.default_rng(CHOICE_SEED).permutation(len(rows))]


def classifier(encoder: Path, labels: int) -> LoraTrainer:
    """The encoder with a new head, which reads the mean of a text's states."""
    return LoraTrainer(encoder, name="all-MiniLM-L6-v2", labels=labels, pooling="mean")


def labelled(
    trainer: LoraTrainer, rows: Sequence[dict[str, Any]], labels: Sequence[str]
) -> list[LabelledExample]:
    """Rows with the place of their label among ``labels``."""
    place = {label: index for index, label in enumerate(labels)}
    texts = [row["text"] for row in rows]
    encoded = trainer.tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return [
        LabelledExample(tuple(ids), place[row["label"]])
        for ids, row in zip(encoded, rows, strict=True)
    ]


def accuracy(
    trainer: LoraTrainer, test: Sequence[LabelledExample]
) -> Callable[[AdapterConfig, Adapter | None], Scores]:
    """Share of ``test`` whose likeliest label is its own."""

    def score(config: AdapterConfig, adapter: Adapter | None) -> Scores:
        with trainer.session(config, adapter) as session:
            found = session.predictions(test)
        right = [guess == example.label for guess, example in zip(found, test, strict=True)]
        return {"accuracy": statistics.fmean(right)}

    return score


INTENTS = Recipe(
    AdapterConfig(1, 1, (), 0, "B", ("classifier",)),
    rounds=20,
    local_steps=1,
    sampling_rate=0.5,
    expected_batch_size=1250.0,
    learning_rate=16.0,
    optimiser="sgd",
    server_momentum=0.9,
)
"""The head alone, by one step a round: each round is then one step of DP-SGD over all departments."""


def intents(folder: Path, encoder: Path, *, quick: bool) -> Task:
    """CLINC150 by its six departments; out-of-scope rows belong to none and are left out."""
    train = [row for row in rows_of(folder, "clinc150", "train") if row["department"] != "none"]
    test = [row for row in rows_of(folder, "clinc150", "test") if row["department"] != "none"]
    recipe = INTENTS
    if quick:
        recipe = replace(recipe, rounds=5, expected_batch_size=125.0)
        train, test = shuffled(train)[:1500], shuffled(test)[:300]
    labels = sorted({row["label"] for row in train + test})
    trainer = classifier(encoder, len(labels))
    departments = {
        name: [
            (example,)
            for example in labelled(trainer, [r for r in train if r["department"] == name], labels)
        ]
        for name in sorted({row["department"] for row in train})
    }
    return Task(
        "intents",
        trainer,
        departments,
        accuracy(trainer, labelled(trainer, test, labels)),
        recipe,
        f"CLINC150, {len(train)} training and {len(test)} test rows, {len(labels)} intents; "
        f"chance {1 / len(labels):.4f}",
    )


def banking(folder: Path, encoder: Path) -> Task:
    """The stand-in of ``intents``: BANKING77's training split, its labels in six parts.

    Of its rows 1500 are held out and scored.
    """
    rows = shuffled(rows_of(folder, "banking77", "train"))
    labels = sorted({row["label"] for row in rows})
    trainer = classifier(encoder, len(labels))
    examples = labelled(trainer, rows, labels)
    held_out, train = examples[:1500], examples[1500:]
    departments = {
        str(part): [(example,) for example in train if example.label % 6 == part]
        for part in range(6)
    }
    return Task(
        "intents",
        trainer,
        departments,
        accuracy(trainer, held_out),
        replace(INTENTS, expected_batch_size=700.0),
        f"BANKING77, training split, {len(labels)} labels, {len(train)} rows in six parts, "
        f"{len(held_out)} held out",
    )


GENERATION = Recipe(
    AdapterConfig(4, 8, ("q_proj", "v_proj"), 4),
    rounds=12,
    local_steps=1,
    sampling_rate=0.06,
    expected_batch_size=60.0,
    learning_rate=10.0,
    clipping_norm=0.1,
    optimiser="sgd",
    server_momentum=0.9,
)
MODEL = "smollm2-135m-instruct"
NEW_TOKENS = 64
TEXTS_AT_ONCE = 25


def _trainer() -> LoraTrainer:
    return LoraTrainer(asset_path(MODEL), name="SmolLM2-135M-Instruct")


def encoded(trainer: LoraTrainer, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Inputs with their completions; an input ends with its line."""
    return [encode_completion(trainer.tokenizer, f"{a}\n", b, 96) for a, b in pairs]


def dealt(examples: Sequence[Example], departments: int) -> dict[str, list[Unit]]:
    """Each example a unit, one after the other to each department."""
    units: list[Unit] = [(example,) for example in examples]
    return {str(part): units[part::departments] for part in range(departments)}


def generation(folder: Path, *, quick: bool) -> Task:
    """E2E NLG: a part of it dealt out to three departments, one test row for each input."""
    train_rows, test_rows, inputs = (60, 10, 2) if quick else (3000, 100, 50)
    recipe = GENERATION
    if quick:
        recipe = replace(recipe, rounds=1, sampling_rate=0.8, expected_batch_size=16.0)
    train = shuffled(rows_of(folder, "e2e_nlg", "train"))[:train_rows]
    by_input: dict[str, list[str]] = {}
    for row in rows_of(folder, "e2e_nlg", "test"):
        by_input.setdefault(row["input"], []).append(row["output"])
    test = shuffled(list(by_input.items()))[:test_rows]
    trainer = _trainer()
    scored = encoded(trainer, [(given, outputs[-1]) for given, outputs in test])
    model = AutoModelForCausalLM.from_pretrained(asset_path(MODEL), dtype=torch.bfloat16).eval()

    def score(config: AdapterConfig, adapter: Adapter | None) -> Scores:
        texts = generated(model, trainer.tokenizer, [a for a, _ in test[:inputs]], config, adapter)
        references = [outputs for _, outputs in test[:inputs]]
        return {
            "nats/token": statistics.fmean(trainer.losses(scored, config, adapter)),
            "BLEU": bleu(texts, references),
            "ROUGE-L": rouge_l(texts, references),
        }

    return Task(
        "generation",
        trainer,
        dealt(encoded(trainer, [(r["input"], r["output"]) for r in train]), 3),
        score,
        recipe,
        f"E2E NLG, {len(train)} training and {len(test)} test rows, texts for {inputs} inputs",
    )


def generated(
    model: PreTrainedModel,
    tokenizer: Any,
    inputs: Sequence[str],
    config: AdapterConfig,
    adapter: Adapter | None,
) -> list[str]:
    """What the model says after each input, by greedy decoding, to the end of its text."""
    end = tokenizer.eos_token_id
    texts: list[str] = []
    with attached(model, config, adapter) as tuned, torch.inference_mode():
        for start in range(0, len(inputs), TEXTS_AT_ONCE):
            given = [f"{text}\n" for text in inputs[start : start + TEXTS_AT_ONCE]]
            batch = tokenizer(
                given,
                add_special_tokens=False,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            )
            said = tuned.generate(
                **batch,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=end,
            )
            own = said[:, batch["input_ids"].shape[1] :]
            texts += tokenizer.batch_decode(own, skip_special_tokens=True)
    return texts


def handbook(folder: Path) -> Task:
    """The stand-in of ``generation``: beginnings of a public handbook's sections, one department."""
    rows = shuffled(rows_of(folder, "handbook_18f", "all"))
    pairs = [(row["instruction"], row["output"][:160]) for row in rows]
    trainer = _trainer()
    held_out, train = encoded(trainer, pairs[:40]), encoded(trainer, pairs[40:340])

    def score(config: AdapterConfig, adapter: Adapter | None) -> Scores:
        return {"nats/token": statistics.fmean(trainer.losses(held_out, config, adapter))}

    return Task(
        "generation",
        trainer,
        dealt(train, 1),
        score,
        replace(GENERATION, sampling_rate=0.2),
        f"18F handbook, {len(train)} rows, {len(held_out)} held out",
    )
