"""What every engine promises, checked on the local one over a tiny Llama, on the upstream one over
a mock server, and on the tests' echo."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from api.engines.base import (
    Engine,
    Finished,
    GenerationRequest,
    Message,
    TextDelta,
    Usage,
)
from api.errors import ContextTooLong, UnknownModel
from tests.api.echo import EchoEngine
from tests.api.upstream_kit import upstream

MODEL = "r-0123456789abcdef0123"
HELLO = (Message("system", "Be brief."), Message("user", "Hello, who are you?"))


@pytest.fixture(scope="module", params=["transformers", "echo", "upstream"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """One engine of each kind, serving ``MODEL``."""
    if request.param == "echo":
        return EchoEngine(MODEL)
    if request.param == "upstream":
        return upstream(MODEL)
    from api.engines.transformers_local import TransformersEngine

    path: Path = request.getfixturevalue("tiny_llama_dir")
    return TransformersEngine(path, model_id=MODEL)


def _collect(engine: Engine, request: GenerationRequest) -> tuple[list[TextDelta], Finished]:
    *deltas, last = engine.stream(request)
    assert isinstance(last, Finished)
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    return [delta for delta in deltas if isinstance(delta, TextDelta)], last


def test_names_its_models(engine: Engine) -> None:
    """An engine lists the ids that it answers for."""
    assert engine.models() == [MODEL]


def test_a_stream_is_deltas_and_one_finish_and_equals_the_whole_answer(engine: Engine) -> None:
    """Joined, a stream's non-empty deltas are the text of the whole answer, with the same usage."""
    request = GenerationRequest(MODEL, HELLO, max_tokens=12, temperature=0)
    deltas, finished = _collect(engine, request)
    whole = engine.generate(request)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert all(delta.text for delta in deltas)
    assert (finished.finish_reason, finished.usage) == (whole.finish_reason, whole.usage)


def test_usage_grows_along_a_stream(engine: Engine) -> None:
    """Each delta carries the tokens up to it, so an aborted stream can be accounted for."""
    deltas, finished = _collect(engine, GenerationRequest(MODEL, HELLO, max_tokens=12))
    counts = [delta.usage.completion_tokens for delta in deltas]
    assert counts == sorted(counts)
    assert all(0 < count <= finished.usage.completion_tokens for count in counts)
    assert {delta.usage.prompt_tokens for delta in deltas} <= {finished.usage.prompt_tokens}


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_bounds_the_answer(engine: Engine, max_tokens: int) -> None:
    """An answer never has more than ``max_tokens`` tokens; one cut there says ``length``."""
    result = engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=max_tokens, seed=3))
    assert 1 <= result.usage.completion_tokens <= max_tokens
    if result.finish_reason == "length":
        assert result.usage.completion_tokens == max_tokens


def test_a_stop_string_ends_the_answer_before_it(engine: Engine) -> None:
    """The answer ends before a stop string, says ``stop``, and does not spend the whole bound."""
    free = engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=24, temperature=0))
    stop = free.text[4:6]
    request = GenerationRequest(MODEL, HELLO, max_tokens=24, temperature=0, stop=(stop, "never"))
    result = engine.generate(request)
    assert result.text == free.text[: free.text.index(stop)]
    assert result.finish_reason == "stop"
    assert result.usage.completion_tokens < free.usage.completion_tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_equal_seeds_give_equal_answers(engine: Engine, temperature: float) -> None:
    """A request with a seed, or decoded greedily, has one answer."""
    request = GenerationRequest(MODEL, HELLO, max_tokens=16, temperature=temperature, seed=11)
    assert engine.generate(request) == engine.generate(request)


def test_plain_prompts_are_continued(engine: Engine) -> None:
    """A prompt without a conversation is answered too, and counted without a template."""
    chat = engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=4))
    plain = engine.generate(GenerationRequest(MODEL, prompt="Hello", max_tokens=4))
    assert 0 < plain.usage.prompt_tokens < chat.usage.prompt_tokens


def test_another_model_is_refused(engine: Engine) -> None:
    """A model that is not served raises ``UnknownModel``, streamed or not."""
    request = GenerationRequest("another", HELLO)
    with pytest.raises(UnknownModel):
        engine.generate(request)
    with pytest.raises(UnknownModel):
        list(engine.stream(request))


def test_the_context_is_a_bound(engine: Engine) -> None:
    """Too long a prompt, or too many tokens on top of it, raise with the figures; ``fit`` shortens."""
    with pytest.raises(ContextTooLong) as caught:
        list(engine.stream(GenerationRequest(MODEL, HELLO, max_tokens=10_000)))
    assert caught.value.max_tokens == 10_000
    assert 0 < caught.value.prompt_tokens < caught.value.limit < 10_000
    long = (Message("user", "word " * 2_000),)
    for fit in (False, True):
        with pytest.raises(ContextTooLong):
            list(engine.stream(GenerationRequest(MODEL, long, max_tokens=1, fit=fit)))
    room = caught.value.limit - caught.value.prompt_tokens
    request = GenerationRequest(MODEL, HELLO, max_tokens=10_000, fit=True, stop=("a", "e", "�"))
    assert engine.generate(request).usage.completion_tokens <= room


def test_closing_a_stream_frees_the_engine(engine: Engine) -> None:
    """A stream that is left early stops generating, and the next request is answered."""
    stream = engine.stream(GenerationRequest(MODEL, HELLO, max_tokens=200, temperature=0))
    first = next(stream)
    assert isinstance(first, TextDelta)
    close: Callable[[], None] = stream.close  # type: ignore[attr-defined]
    close()
    assert list(stream) == []
    assert engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=2)).usage.prompt_tokens > 0


def test_concurrent_requests_do_not_mix(engine: Engine) -> None:
    """Requests from several threads get the answers that they would get alone."""
    requests = [
        GenerationRequest(MODEL, (Message("user", f"Question {i}"),), max_tokens=8, seed=i)
        for i in range(4)
    ]
    alone = [engine.generate(request) for request in requests]
    together: list[object] = [None] * len(requests)

    def ask(index: int) -> None:
        together[index] = engine.generate(requests[index])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_usage_counts_are_plain(engine: Engine) -> None:
    """Usage is what the model was given and what it made, in whole tokens."""
    usage = engine.generate(GenerationRequest(MODEL, HELLO, max_tokens=3)).usage
    assert isinstance(usage, Usage)
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
