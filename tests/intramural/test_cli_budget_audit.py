"""`intramural budget audit`: what canaries prove, told to those whom it concerns."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from intramural.workspace import Workspace
from policies.load import load_policy
from privacy.dp.accounting import epsilon
from privacy.empirical.bound import one_run_audit
from privacy.empirical.canaries import CanarySet, save_scores
from privacy.exchange import adapter_digest
from privacy.receipts import SignedReceipt
from privacy.release import verify
from server.rounds import RunPlan, RunState, RunStore
from tests.intramural.cli_kit import EVENT, ROUNDS, Cli

FOLDER = "0123456789abcdef-1"
DELTA = 1e-5
CLAIM = epsilon([EVENT] * ROUNDS, DELTA)
Scores = Callable[[Sequence[bool]], list[float]]


def perfect(included: Sequence[bool]) -> list[float]:
    """Scores of an attack that is always right."""
    return [float(coin) for coin in included]


def useless(included: Sequence[bool]) -> list[float]:
    """Scores that know nothing."""
    return [0.0] * len(included)


@pytest.fixture
def state(workspace: Workspace) -> RunState:
    """The checkpoint of the workspace's finished run, which had no canaries."""
    release = verify(next(workspace.releases.iterdir()))
    plan = RunPlan.from_policy(
        load_policy(workspace.root / "policy.toml"),
        release.run["base_model_digest"],
        run_id=release.run["run_id"],
    )
    lines = (release.path / "receipts.jsonl").read_text().splitlines()
    made = RunState(
        plan,
        ROUNDS,
        release.tensors(),
        "0" * 64,
        "2026-01-02T03:04:05+00:00",
        tuple(SignedReceipt.from_json(line) for line in lines),
    )
    keep(workspace, made)
    return made


def keep(workspace: Workspace, state: RunState, folder: str = FOLDER) -> None:
    """Store the checkpoint of a run."""
    (workspace.checkpoints / folder).mkdir(parents=True, exist_ok=True)
    RunStore(workspace.checkpoints / folder).save(state)


def add_canaries(workspace: Workspace, state: RunState, **scores: Scores) -> None:
    """Canaries of each department, scored as by the attack that is named for it."""
    for name, attack in scores.items():
        node = workspace.node(name)
        canaries = CanarySet.load_or_draw(node.canaries(FOLDER), 400)
        digest = adapter_digest(state.adapter)
        save_scores(node.canary_scores(FOLDER), attack(canaries.included), digest)


def test_a_claim_that_stands_is_told_with_both_bounds(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """Each department has its claim, what was proved, how, and with what confidence."""
    add_canaries(workspace, state, hr=useless, finance=useless)
    done = cli("budget", "audit", "run-1", "--workspace", workspace.root, "--json")
    assert done.code == 0, done.err
    assert done.json["refuted"] == []
    assert done.json["confidence"] == 0.95
    assert [part["name"] for part in done.json["departments"]] == ["finance", "hr"]
    part = done.json["departments"][1]
    assert part["epsilon_run"] == pytest.approx(CLAIM)
    assert part["epsilon_history"] == pytest.approx(CLAIM)
    assert 0 <= part["epsilon_lower_bound"] < CLAIM < part["largest_provable"]
    assert (part["canaries"], part["delta"], part["unit"]) == (400, DELTA, "record")
    assert part["auc"]["low"] < 0.5 < part["auc"]["high"]
    shown = cli("budget", "audit", "--workspace", workspace.root)
    assert shown.code == 0
    assert "for one record added or removed" in shown.out


def test_a_refuted_claim_ends_with_1(cli: Cli, workspace: Workspace, state: RunState) -> None:
    """Only the department whose canaries are found is refuted, at the divided error."""
    add_canaries(workspace, state, hr=perfect, finance=useless)
    done = cli("budget", "audit", "latest", "--workspace", workspace.root, "--json")
    assert done.code == 1
    assert done.err.startswith("error: the claim of run run-1 is refuted: hr")
    assert done.json["refuted"] == ["hr"]
    coins = CanarySet.load(workspace.node("hr").canaries(FOLDER)).included
    expected = one_run_audit(perfect(coins), coins, DELTA, 0.975)
    assert done.json["departments"][1]["epsilon_lower_bound"] == expected.epsilon > CLAIM


def test_a_higher_confidence_proves_less(cli: Cli, workspace: Workspace, state: RunState) -> None:
    """The bound belongs to the confidence that was asked for."""
    add_canaries(workspace, state, hr=perfect, finance=perfect)
    bounds = []
    for confidence in (0.9, 0.999):
        done = cli("budget", "audit", "--workspace", workspace.root, "--confidence", confidence,
                   "--json")  # fmt: skip
        bounds.append(done.json["departments"][0]["epsilon_lower_bound"])
    assert bounds[0] > bounds[1] > 0


def test_report_and_picture_are_for_the_owner_alone(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """The report lies in the department's own folder, holds no coin, and like the picture is 0600."""
    add_canaries(workspace, state, hr=useless, finance=useless)
    picture = workspace.root / "audit.png"
    done = cli("budget", "audit", "--workspace", workspace.root, "--plot", picture, "--json")
    assert done.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = workspace.node("hr").canary_report(FOLDER)
    assert json.loads(report.read_bytes()) == {
        "run_id": "run-1", **done.json["departments"][1]
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in (picture, report)} == {0o600}
    assert "included" not in done.out
    assert "texts" not in done.out


def test_too_few_canaries_are_said_to_be_too_few(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """Where even perfect guesses could not refute the claim, the command says so."""
    for name in ("hr", "finance"):
        node = workspace.node(name)
        canaries = CanarySet.load_or_draw(node.canaries(FOLDER), 4)
        digest = adapter_digest(state.adapter)
        save_scores(node.canary_scores(FOLDER), perfect(canaries.included), digest)
    done = cli("budget", "audit", "--workspace", workspace.root)
    assert done.code == 0
    assert "cannot be refuted by so many canaries" in done.out


def test_a_run_without_canaries_says_how_to_get_them(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """Nothing to measure is a failure that names the policy key."""
    done = cli("budget", "audit", "run-1", "--workspace", workspace.root)
    assert done.code == 1
    assert "training.canaries" in done.err


def test_what_cannot_be_audited_is_named(cli: Cli, workspace: Workspace, state: RunState) -> None:
    """An unknown run lists the known ones; an unfinished one says how far it came."""
    done = cli("budget", "audit", "run-9", "--workspace", workspace.root)
    assert (done.code, "it has run-1" in done.err) == (1, True)
    keep(workspace, replace(state, round=1))
    done = cli("budget", "audit", "--workspace", workspace.root)
    assert (done.code, "completed 1 of 2 rounds" in done.err) == (1, True)


def test_latest_is_the_run_that_was_finished_last(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """`latest` goes by the time of the last round, not by the folder's name."""
    add_canaries(workspace, state, hr=useless, finance=useless)
    older = replace(state, plan=state.plan.model_copy(update={"run_id": "run-0"}),
                    at="2025-01-01T00:00:00+00:00")  # fmt: skip
    keep(workspace, older, "ffffffffffffffff-1")
    done = cli("budget", "audit", "--workspace", workspace.root, "--json")
    assert done.json["run_id"] == "run-1"


def test_scores_of_another_adapter_or_exposed_coins_are_refused(
    cli: Cli, workspace: Workspace, state: RunState
) -> None:
    """Scores must belong to the run's adapter, and coins that others could read prove nothing."""
    add_canaries(workspace, state, hr=useless, finance=useless)
    node = workspace.node("hr")
    save_scores(node.canary_scores(FOLDER), [0.0] * 400, "a" * 64)
    done = cli("budget", "audit", "--workspace", workspace.root)
    assert (done.code, "run the same command again" in done.err) == (1, True)
    node.canaries(FOLDER).chmod(0o644)
    done = cli("budget", "audit", "--workspace", workspace.root)
    assert (done.code, "chmod 600" in done.err) == (1, True)


@pytest.mark.parametrize("confidence", ["0", "1", "nan"])
def test_an_impossible_confidence_is_wrong_usage(cli: Cli, confidence: str) -> None:
    """A confidence outside of (0, 1) is named before anything is read."""
    done = cli("budget", "audit", "--confidence", confidence)
    assert done.code == 2
    assert "--confidence" in done.err
