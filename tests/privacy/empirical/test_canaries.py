"""Canaries: harmless, secret where they must be, and the same for the whole of a run."""

from pathlib import Path

import pytest
from scipy import stats
from transformers import AutoTokenizer

from privacy.empirical.canaries import WORDS, CanarySet, load_scores, save_scores
from privacy.empirical.errors import CanariesUnusable


def test_a_run_keeps_its_canaries(tmp_path: Path) -> None:
    """A resumed run finds the set that it began with, coins included."""
    path = tmp_path / "canaries" / "run.json"
    first = CanarySet.load_or_draw(path, 30)
    assert CanarySet.load_or_draw(path, 30) == first == CanarySet.load(path)
    assert CanarySet.load_or_draw(tmp_path / "other.json", 30) != first


def test_only_the_node_can_read_them(tmp_path: Path) -> None:
    """Coins and scores are written for their owner alone, and refused once others could read."""
    path, scores = tmp_path / "run.json", tmp_path / "scores.json"
    CanarySet.load_or_draw(path, 3)
    save_scores(scores, [0.5, 0.25, -1.0], "a" * 64)
    assert {p.stat().st_mode & 0o777 for p in (path, scores)} == {0o600}
    path.chmod(0o644)
    scores.chmod(0o640)
    with pytest.raises(CanariesUnusable, match="chmod 600"):
        CanarySet.load(path)
    with pytest.raises(CanariesUnusable, match="0640"):
        load_scores(scores, "a" * 64)


def test_what_is_printed_of_a_set_does_not_tell_its_coins() -> None:
    """Two sets that differ only in their coins print alike."""
    texts = ("acorn anchor", "apple arrow")
    assert repr(CanarySet(texts, (True, False))) == repr(CanarySet(texts, (False, True)))


@pytest.mark.statistical
def test_coins_are_fair_and_texts_differ() -> None:
    """Of 20,000 coins about half fall each way, at a false-alarm rate of 1e-6; no text comes twice."""
    drawn = CanarySet.draw(20_000)
    low, high = stats.binom.interval(1 - 1e-6, 20_000, 0.5)
    assert low <= sum(drawn.included) <= high
    assert len(set(drawn.texts)) == 20_000
    assert {word for text in drawn.texts for word in text.split()} == set(WORDS)


def test_a_canary_is_one_unit_within_the_longest_sequence(tiny_llama_dir: Path) -> None:
    """Each included canary becomes one unit of one example, the others none; none is too long."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    drawn = CanarySet.draw(40)
    examples = drawn.examples(tokenizer, max_tokens=24)
    assert max(len(example.input_ids) for example in examples) == 24
    wanted = [(e,) for e, coin in zip(examples, drawn.included, strict=True) if coin]
    assert drawn.units(examples) == wanted


def test_another_size_than_the_policys_is_refused(tmp_path: Path) -> None:
    """A set drawn under another policy is not passed off as the run's."""
    CanarySet.load_or_draw(tmp_path / "run.json", 3)
    with pytest.raises(CanariesUnusable, match="holds 3 canaries"):
        CanarySet.load_or_draw(tmp_path / "run.json", 4)


@pytest.mark.parametrize("content", ["", "[]", '{"texts": ["a"], "included": [1]}', '{"texts": 1}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    """Nothing is guessed from a file that is not what was written."""
    path = tmp_path / "run.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(CanariesUnusable):
        CanarySet.load(path)


def test_scores_belong_to_one_adapter(tmp_path: Path) -> None:
    """Scores of another adapter are not used, and the error says how to get the right ones."""
    save_scores(tmp_path / "scores.json", [0.5], "a" * 64)
    assert load_scores(tmp_path / "scores.json", "a" * 64) == [0.5]
    with pytest.raises(CanariesUnusable, match="run the same command again"):
        load_scores(tmp_path / "scores.json", "b" * 64)
