"""The redaction benchmark judges what it measured, and prompts are what it says they are."""

from benchmarks.redaction import PROMPT, Goal, goals_of, prompts, time_bulk, time_prompts
from privacy.pii.entities import Span


class Counting:
    """An arm that finds nothing and counts what it is asked."""

    def __init__(self) -> None:
        self.ones = 0
        self.texts = 0

    def one(self, text: str) -> list[Span]:
        self.ones += 1
        return []

    def many(self, texts: list[str]) -> list[list[Span]]:
        self.texts += len(texts)
        # CPU time, so that the rate is finite.
        sum(i * i for i in range(20_000))
        return [[] for _ in texts]


def test_prompts_have_their_length() -> None:
    """Every prompt has exactly the stated characters, and no text is used twice."""
    texts = [f"text {i} " + "x" * (i % 90) for i in range(200)]
    made = prompts(texts, 10)
    assert [len(prompt) for prompt in made] == [PROMPT] * 10
    assert len(set(made)) == 10


def test_every_arm_reads_the_same() -> None:
    """In both timings each arm reads every text, as often as the others."""
    arms = {"a": Counting(), "b": Counting()}
    taken = time_prompts(arms, ["one", "two", "three", "four"])  # type: ignore[arg-type]
    rates = time_bulk(arms, ["text"] * 300)  # type: ignore[arg-type]
    assert arms["a"].ones == arms["b"].ones
    assert arms["a"].texts == arms["b"].texts == 308
    assert {name: len(times) for name, times in taken.items()} == {"a": 4, "b": 4}
    assert all(rate > 0 for found in rates.values() for rate in found)


def test_goals_are_judged_by_their_bound() -> None:
    """At least and at most are told apart, the bound itself meets, and what is absent is not judged."""
    assert Goal("g", 0.93, 0.93).met
    assert Goal("g", 0.92, 0.93).met is False
    assert Goal("g", 5.0, 5.0, at_most=True).met
    assert Goal("g", 5.1, 5.0, at_most=True).met is False
    assert Goal("g", None, 1.0).met is None
    figures = {
        "prompt_cpu_ms": {"stock": {"p50": 20.0}, "ours": {"p50": 21.0}, "fast": {"p50": 4.0}},
        "chinese_characters_per_cpu_second": 39_999.0,
    }
    assert [goal.met for goal in goals_of(figures)] == [False, True, True, False]
