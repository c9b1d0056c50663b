"""The tasks of :mod:`benchmarks.utility`: public data dealt out to departments, and how it is scored.

Nothing here was chosen on data that is scored: each task has a stand-in, other public data on which
learning rates were tried.
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

from intramural.assets import asset_path
from privacy.dp.accounting import calibrate_noise, epsilon
from privacy.dp.adapter import Adapter, AdapterConfig
from privacy.dp.encode import Example, LabelledExample, Unit, encode_completion
from privacy.dp.events import MechanismEvent
from privacy.dp.plan import DpPlan, Optimiser, PublicPlan, mechanism_event
from privacy.dp.trainer import LoraTrainer

DELTA = 1e-5
MAX_TOKENS = 64
CHOICE_SEED = 20_000
"""Deals rows to departments and draws subsets, the same for every setting and seed."""


@dataclass(frozen=True)
class Recipe:
    """All that is public of a run; ``clipping_norm`` is without meaning in a public one."""

    config: AdapterConfig
    rounds: int
    local_steps: int
    sampling_rate: float
    expected_batch_size: float
    learning_rate: float
    clipping_norm: float = 1.0
    optimiser: Optimiser = "adam"

    @property
    def steps(self) -> int:
        """Noised steps of the whole run."""
        return self.rounds * self.local_steps

    def plan(self, noise_multiplier: float | None) -> DpPlan | PublicPlan:
        """One round of one department; None: without clipping and noise."""
        if noise_multiplier is None:
            return PublicPlan(
                self.sampling_rate, self.local_steps, self.expected_batch_size, self.optimiser
            )
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
            return [
                mechanism_event(
                    sampling_rate=self.sampling_rate,
                    steps=self.steps,
                    noise_multiplier=noise,
                    expected_batch_size=self.expected_batch_size,
                    clipping="flat",
                    bands=1,
                )
            ]

        noise = calibrate_noise(events, target, DELTA)
        return noise, epsilon(events(noise), DELTA)


@dataclass(frozen=True)
class Task:
    """A task made ready: departments' units, and a score of an adapter on the test split."""

    name: str
    metric: str
    trainer: LoraTrainer
    departments: Mapping[str, Sequence[Unit]]
    score: Callable[[AdapterConfig, Adapter | None], float]
    recipe: Recipe
    note: str


def rows_of(folder: Path, name: str, split: str) -> list[dict[str, Any]]:
    """Rows of one split of ``name``.jsonl.gz."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [row for row in map(json.loads, lines) if row["split"] == split]


def shuffled(rows: Sequence[Any]) -> list[Any]:
    """In an order that depends on their number alone."""
    return [rows[i] for i in np.random.default_rng(CHOICE_SEED).permutation(len(rows))]


def classifier(encoder: Path, labels: int, dtype: torch.dtype | None = None) -> LoraTrainer:
    """The encoder with a new head."""
    return LoraTrainer(encoder, name="all-MiniLM-L6-v2", labels=labels, dtype=dtype)


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
    encoder: Path, labels: int, test: Sequence[LabelledExample]
) -> Callable[[AdapterConfig, Adapter | None], float]:
    """Share of ``test`` whose likeliest label is its own; on a float32 model of its own."""
    scorer = classifier(encoder, labels, torch.float32)

    def score(config: AdapterConfig, adapter: Adapter | None) -> float:
        with scorer.session(config, adapter) as session:
            found = session.predictions(test)
        right = [guess == example.label for guess, example in zip(found, test, strict=True)]
        return statistics.fmean(right)

    return score


INTENTS = Recipe(
    # A new head needs far larger steps than an adapter; with one learning rate for both, a small
    # alpha keeps the adapter's small.
    AdapterConfig(8, 1, ("query", "value"), 1, "B", ("classifier",)),
    rounds=8,
    local_steps=3,
    sampling_rate=0.04,
    expected_batch_size=100.0,
    learning_rate=0.3,
)


THOROUGH = replace(INTENTS, rounds=16, sampling_rate=0.2, expected_batch_size=500.0)
"""Ten times the work: a larger batch under the same epsilon carries less noise for its signal."""


def intents(folder: Path, encoder: Path, recipe: Recipe, *, quick: bool) -> Task:
    """CLINC150 by its six departments; out-of-scope rows belong to none and are left out."""
    train = [row for row in rows_of(folder, "clinc150", "train") if row["department"] != "none"]
    test = [row for row in rows_of(folder, "clinc150", "test") if row["department"] != "none"]
    test = shuffled(test)[:1500]
    if quick:
        recipe = replace(recipe, rounds=2)
        train, test = shuffled(train)[:1500], test[:300]
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
        "accuracy",
        trainer,
        departments,
        accuracy(encoder, len(labels), labelled(trainer, test, labels)),
        recipe,
        f"CLINC150, {len(train)} training and {len(test)} test rows, {len(labels)} intents; "
        f"chance {1 / len(labels):.4f}",
    )


def banking(folder: Path, encoder: Path) -> Task:
    """The stand-in of ``intents``: half of BANKING77's labels, in three parts, training split.

    Of its rows 600 are held out and scored.
    """
    rows = shuffled(rows_of(folder, "banking77", "train"))
    labels = sorted({row["label"] for row in rows})[:39]
    rows = [row for row in rows if row["label"] in labels]
    trainer = classifier(encoder, len(labels))
    examples = labelled(trainer, rows, labels)
    held_out, train = examples[:600], examples[600:]
    departments = {
        str(part): [(example,) for example in train if example.label // 13 == part]
        for part in range(3)
    }
    recipe = replace(INTENTS, expected_batch_size=60.0)
    return Task(
        "intents",
        "accuracy",
        trainer,
        departments,
        accuracy(encoder, len(labels), held_out),
        recipe,
        f"BANKING77, training split, 39 labels, {len(train)} rows in three parts, 600 held out",
    )


GENERATION = Recipe(
    AdapterConfig(4, 8, ("q_proj", "v_proj"), 4),
    rounds=5,
    local_steps=2,
    sampling_rate=0.08,
    expected_batch_size=24.0,
    learning_rate=5e-2,
    clipping_norm=0.1,
)


def _texts(
    pairs: Sequence[tuple[str, str]],
    test: Sequence[tuple[str, str]],
    departments: int,
    recipe: Recipe,
    note: str,
) -> Task:
    trainer = LoraTrainer(asset_path("smollm2-135m-instruct"), name="SmolLM2-135M-Instruct")

    def encoded(some: Sequence[tuple[str, str]]) -> list[Example]:
        return [encode_completion(trainer.tokenizer, f"{a}\n", b, 96) for a, b in some]

    units: list[Unit] = [(example,) for example in encoded(pairs)]
    scored = encoded(test)

    def score(config: AdapterConfig, adapter: Adapter | None) -> float:
        return statistics.fmean(trainer.losses(scored, config, adapter))

    parts = {str(part): units[part::departments] for part in range(departments)}
    return Task("generation", "nats/token", trainer, parts, score, recipe, note)


def generation(folder: Path, *, quick: bool) -> Task:
    """E2E NLG: a part of it dealt out to three departments, one test row for each input."""
    sizes = (60, 10) if quick else (900, 100)
    train = shuffled(rows_of(folder, "e2e_nlg", "train"))[: sizes[0]]
    by_input = {row["input"]: row for row in rows_of(folder, "e2e_nlg", "test")}
    test = shuffled(list(by_input.values()))[: sizes[1]]
    pairs, scored = ([(r["input"], r["output"]) for r in rows] for rows in (train, test))
    recipe = replace(GENERATION, rounds=1) if quick else GENERATION
    note = f"E2E NLG, {len(pairs)} training and {len(scored)} test rows"
    return _texts(pairs, scored, 3, recipe, note)


def handbook(folder: Path) -> Task:
    """The stand-in of ``generation``: beginnings of a public handbook's sections, one department."""
    rows = shuffled(rows_of(folder, "handbook_18f", "all"))
    pairs = [(row["instruction"], row["output"][:160]) for row in rows]
    return _texts(pairs[40:340], pairs[:40], 1, GENERATION, "18F handbook, 300 rows, 40 held out")
