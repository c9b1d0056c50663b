"""Answers that are decoded together are those that would be made alone."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from api.engines.base import EngineError, Finished, GenerationRequest, Message, TextDelta
from api.engines.batching import Batcher
from api.engines.sampling import Sampler
from api.engines.transformers_local import TransformersEngine

MODEL = "base"


@pytest.fixture(scope="module")
def engine(tiny_llama_dir: Path) -> TransformersEngine:
    """A tiny model."""
    return TransformersEngine(tiny_llama_dir, model_id=MODEL, batch=8)


def _request(number: int, **options: Any) -> GenerationRequest:
    words = "word " * (number * 3 % 17)
    messages = (Message("user", f"{words}Question {number}"),)
    return GenerationRequest(MODEL, messages, max_tokens=10 + number % 7, **options)


def _together(engine: TransformersEngine, requests: list[GenerationRequest]) -> list[Any]:
    answers: list[Any] = [None] * len(requests)

    def ask(index: int) -> None:
        answers[index] = engine.generate(requests[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}])
def test_a_batch_answers_as_each_alone(engine: TransformersEngine, options: dict[str, Any]) -> None:
    """Prompts of all lengths, more than fit into a batch: greedy and seeded answers stay the same."""
    requests = [_request(number, seed=number, **options) for number in range(20)]
    alone = [engine.generate(request) for request in requests]
    assert _together(engine, requests) == alone


class _Seen:
    """A model that notes the shape of what it is given, by the argument's name."""

    def __init__(self, model: Any, argument: str) -> None:
        self.config = model.config
        self.shapes: list[tuple[int, int]] = []
        self._model = model
        self._argument = argument

    def parameters(self) -> Any:
        return self._model.parameters()

    def __call__(self, **given: Any) -> Any:
        self.shapes.append(tuple(given[self._argument].shape))
        return self._model(**given)


class _Watched:
    """A row that takes the likeliest token, and keeps the scores that it saw."""

    def __init__(self, prompt: list[int], most: int, fails: bool = False) -> None:
        self.prompt = torch.tensor([prompt])
        self.most = len(prompt) + most
        self.scores: list[torch.Tensor] = []
        self.error: EngineError | None = None
        self.gone = threading.Event()
        self._count, self._fails = most, fails

    def cancelled(self) -> bool:
        return False

    def choose(self, scores: torch.Tensor) -> int | None:
        if self._fails and self.scores:
            raise EngineError("this one only")
        self.scores.append(scores)
        return None if len(self.scores) == self._count else int(scores.argmax())

    def ended(self, error: EngineError | None) -> None:
        self.error = error
        self.gone.set()


def test_scores_of_a_batch_are_within_their_bound(engine: TransformersEngine) -> None:
    """Padding is masked: each row's scores are within 1e-4 of those that it has alone."""
    prompts = [[5 + (i * j) % 200 for j in range(1 + 4 * i)] for i in range(6)]

    def scores(rows: int) -> list[list[torch.Tensor]]:
        batcher = Batcher(engine._model, rows=rows)
        watched = [_Watched(prompt, 6 + index) for index, prompt in enumerate(prompts)]
        for row in watched:
            batcher.submit([row])
        assert all(row.gone.wait(60) for row in watched)
        return [row.scores for row in watched]

    for alone, together in zip(scores(1), scores(6), strict=True):
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-4)


def test_a_row_that_fails_harms_no_other(engine: TransformersEngine) -> None:
    """An error of one answer ends that one; the others get all their tokens."""
    batcher = Batcher(engine._model, rows=3)
    rows = [_Watched([7, 8], 5), _Watched([9], 5, fails=True), _Watched([7, 8, 9], 5)]
    for row in rows:
        batcher.submit([row])
    assert all(row.gone.wait(60) for row in rows)
    assert [row.error is None for row in rows] == [True, False, True]
    assert [len(row.scores) for row in rows] == [5, 1, 5]


def test_a_full_batch_and_its_memory_are_bounds(engine: TransformersEngine) -> None:
    """No pass has more rows, or rows times longest row, than was set; nobody waits for ever."""
    model = _Seen(engine._model, "attention_mask")
    batcher = Batcher(model, rows=4, tokens=60)
    rows = [_Watched(list(range(5, 5 + length)), 8) for length in (3, 4, 30, 5, 6, 3, 70)]
    for row in rows:
        batcher.submit([row])
    assert all(row.gone.wait(60) for row in rows)
    assert all(len(row.scores) == 8 for row in rows)
    assert max(count for count, _ in model.shapes) > 1
    assert all(count <= 4 and (count == 1 or count * width <= 60) for count, width in model.shapes)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_several_answers_read_their_prompt_once(engine: TransformersEngine, rows: int) -> None:
    """Rows of one prompt, more than there is room for: one pass over it, each its own scores."""
    model = _Seen(engine._model, "input_ids")
    batcher = Batcher(model, rows=rows)
    prompt, other = list(range(5, 25)), [7, 8, 9]
    watched = [_Watched(prompt, 3 + number) for number in range(5)]
    batcher.submit([_Watched(other, 4)])
    batcher.submit(watched)
    batcher.submit([last := _Watched(other, 9)])
    assert all(row.gone.wait(60) for row in (*watched, last))
    assert [width for _, width in model.shapes if width > 1].count(len(prompt)) == 1
    alone = Batcher(engine._model, rows=1)
    for row in watched:
        alone.submit([single := _Watched(prompt, len(row.scores))])
        assert single.gone.wait(60)
        torch.testing.assert_close(row.scores, single.scores, rtol=0, atol=1e-4)


def test_n_answers_are_decoded_together(engine: TransformersEngine) -> None:
    """Items of all answers come in turns, usage grows to their sum, and closing ends them all."""
    request = GenerationRequest(MODEL, (Message("user", "go on"),), max_tokens=30, seed=3, n=4)
    items = list(engine.stream(request))
    order = [item.index for item in items]
    assert order != sorted(order)
    spent = [item.usage.completion_tokens for item in items]
    assert spent == sorted(spent)
    single = [engine.generate(replace(request, n=1, seed=3 + index)) for index in range(4)]
    assert spent[-1] == sum(one.usage.completion_tokens for one in single)
    left = engine.stream(replace(request, max_tokens=400, n=16))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert not engine._batcher._waiting


def test_whoever_leaves_makes_room(engine: TransformersEngine) -> None:
    """A stream that is closed, running or waiting, returns at once and the others go on."""
    long = [
        GenerationRequest(MODEL, (Message("user", "go on"),), max_tokens=300, seed=n, fit=True)
        for n in range(9)
    ]
    endless = [engine.stream(request) for request in long]
    first = next(endless[0])
    for items in endless:
        items.close()  # type: ignore[attr-defined]
    assert isinstance(first, TextDelta | Finished)
    assert engine.generate(_request(1, temperature=0)).usage.completion_tokens > 0


def test_the_nucleus_holds_its_mass_and_no_more() -> None:
    """With ``top_p`` only the fewest likeliest tokens that come to it are drawn."""
    scores = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    for top_p, allowed in ((0.5, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        sampler = Sampler(1.0, top_p, 5, (), torch.empty(1, 0, dtype=torch.long))
        drawn = {sampler(scores) for _ in range(400)}
        # The rarest token, 5 %, is missed in 400 draws with probability 1e-9.
        assert drawn == allowed
