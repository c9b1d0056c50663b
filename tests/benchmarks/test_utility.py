"""The benchmark of utility runs on a small random model, and its figures are what they say."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import utility, utility_tasks
from benchmarks.text_scores import bleu, rouge_l
from benchmarks.utility import federated, half_width
from benchmarks.utility_tasks import INTENTS, generated
from privacy.dp.adapter import AdapterConfig
from tests.privacy.dp.families import make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few rows in the form of the public files."""
    rng = np.random.default_rng(0)

    def write(name: str, rows: list[dict[str, str]]) -> None:
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)

    def text() -> str:
        return "".join(rng.choice(list("abc "), 20))

    write(
        "clinc150",
        [
            {"split": s, "department": f"d{i % 2}", "label": f"l{i % 4}", "text": text()}
            for s, count in (("train", 80), ("test", 8))
            for i in range(count)
        ],
    )
    write(
        "e2e_nlg",
        [
            {"split": s, "input": f"name : {text()}", "output": text()}
            for s, count in (("train", 60), ("test", 3))
            for _ in range(count)
        ],
    )
    return tmp_path


@pytest.fixture
def encoder(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    """A random encoder without a head."""
    return make("bert", tmp_path / "encoder", tiny_llama_dir, labels=1)


def test_both_tasks_run_and_report(
    data: Path,
    encoder: Path,
    tiny_llama_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A quick run writes scores of every setting, with the epsilon that its noise costs."""
    monkeypatch.setattr(utility_tasks, "asset_path", lambda _: tiny_llama_dir)
    monkeypatch.setattr(utility_tasks, "NEW_TOKENS", 4)
    figures, picture = data / "figures.json", data / "figure.png"
    options = ["--quick", "--data", str(data), "--encoder", str(encoder)]
    utility.main([*options, "--json", str(figures), "--plot", str(picture)])
    results = json.loads(figures.read_text())["results"]
    found = {(r["task"], r["setting"]) for r in results}
    settings = ("untrained", "not private", "epsilon 8")
    assert found == {(t, s) for t in ("intents", "generation") for s in settings}
    for result in results:
        metrics = ["accuracy"] if result["task"] == "intents" else ["nats/token", "BLEU", "ROUGE-L"]
        assert list(result["scores"]) == metrics
        assert all(len(scores) == 1 for scores in result["scores"].values())
        if result["setting"] == "epsilon 8":
            assert 7.5 < result["epsilon"] <= 8
        else:
            assert result["epsilon"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "epsilon 8" in capsys.readouterr().out


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without data or encoder each task is left out, naming the option that would bring it."""
    utility.main(["--data", str(tmp_path)])
    out = capsys.readouterr().out
    assert "--encoder" in out
    assert "--data" in out


def test_momentum_of_the_server_carries_on_from_round_to_round(data: Path, encoder: Path) -> None:
    """Without noise, rounds of one step with momentum are steps of momentum descent on the mean."""
    task = utility_tasks.intents(data, encoder, quick=True)
    whole = replace(INTENTS, sampling_rate=1.0, expected_batch_size=40.0, learning_rate=0.5)
    one, two = (federated(task, replace(whole, rounds=n), None, 0) for n in (1, 2))
    start = task.trainer.initial_adapter(whole.config, 0)
    plain = federated(task, replace(whole, rounds=2, server_momentum=0.0), None, 0)
    for name, first in one.items():
        # The second rounds start at the same place, so they differ by the momentum alone.
        expected = 0.9 * (first - start[name])
        np.testing.assert_allclose(two[name] - plain[name], expected, atol=1e-5)


def test_greedy_texts_do_not_depend_on_what_is_padded_beside_them(tiny_llama_dir: Path) -> None:
    """A short input gives alone what it gives beside a long one."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    config = AdapterConfig(2, 4, ("q_proj",))
    inputs = ["ab", "a much longer input than the other"]
    together = generated(model, tokenizer, inputs, config, None)
    alone = [generated(model, tokenizer, [one], config, None)[0] for one in inputs]
    assert together == alone
    assert all(together)


def test_intervals_are_students() -> None:
    """Three runs have two degrees of freedom, one run has no interval."""
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert math.isnan(half_width([1.0]))


def test_bleu_is_that_of_its_definition() -> None:
    """Clipped counts over all references, brevity against the closest length."""
    assert bleu(["a b c d e"], [["x", "A b c d e"]]) == 1.0
    # 1-grams 4/5 (the second "a" is clipped), 2-grams 3/4, 3-grams 2/3, 4-grams 1/2.
    found = bleu(["a b c d a"], [["a b c d"]])
    assert found == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["a b c d"], [["a b c d e f"]]) == pytest.approx(math.exp(1 - 6 / 4))
    assert bleu(["a b c d", "x y z w"], [["a b c d"], ["q"]]) < 1
    assert bleu(["a b c"], [["a b c"]]) == 0.0  # no 4-gram at all


def test_rouge_l_is_that_of_its_definition() -> None:
    """The longest common subsequence over both lengths, the best of the references."""
    assert rouge_l(["a x b y"], [["a b", "q"]]) == pytest.approx(2 * 2 / (4 + 2))
    assert rouge_l(["a b", ""], [["a b"], ["c"]]) == 0.5
