"""A federation in one process, end to end over a tiny Llama, with everything but the PII models real."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.errors import RecordError
from client.records import DataSource
from intramural import node, simulation
from intramural.auditing import ClaimRefuted, NoCanaries
from intramural.errors import WorkspaceInUse
from intramural.simulation import Display, SimulationOptions, SimulationResult, simulate
from intramural.workspace import NodePaths, Workspace
from policies.model import Policy
from privacy.audit.reader import read_log
from privacy.dp.encode import Unit
from privacy.empirical.canaries import CanarySet, save_scores
from privacy.exchange import adapter_digest
from privacy.ledger.ledger import read_ledger
from privacy.pii.patterns import PatternDetector
from privacy.release import verify
from privacy.signing import VerifyKey
from privacy.store.lock import FileLock
from server.errors import PlanInvalid, RoundFailed
from server.events import RoundFinished
from server.rounds import RunResult

POLICY = """\
version = 1
organisation = "Example"
[departments.hr]
declared_units = 20
[departments.finance]
declared_units = 20
[privacy]
epsilon = 9.0
[training]
rounds = 2
local_steps = 1
sampling_rate = 0.5
target_epsilon = 4.0
max_tokens = 128
"""


@pytest.fixture
def options(
    tmp_path: Path, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> SimulationOptions:
    """Two departments of twelve records each; patterns stand in for the PII models."""
    monkeypatch.setattr(simulation, "detector_for", lambda _: PatternDetector())
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    for name in ("hr", "finance"):
        rows = [
            {"text": f"{name} note {i}, write to p{i}@example.org", "label": "ab"[i % 2]}
            for i in range(12)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    public = [{"text": f"public note {i}", "label": "ab"[i % 2]} for i in range(6)]
    (tmp_path / "public.jsonl").write_text("".join(json.dumps(r) + "\n" for r in public))
    return SimulationOptions(
        policy=policy,
        data={n: DataSource(tmp_path / f"{n}.jsonl", n) for n in ("hr", "finance")},
        model=tiny_llama_dir,
        model_name="tiny",
        out=tmp_path / "out",
        evaluation=DataSource(tmp_path / "public.jsonl"),
    )


def events(workspace: Workspace, department: str) -> int:
    """Rounds that the department's ledger has charged."""
    paths = workspace.node(department)
    return len(read_ledger(paths.ledger, VerifyKey.load(paths.public_key)).events(department))


def run(options: SimulationOptions) -> SimulationResult:
    return simulate(options)


def spend_it_all(options: SimulationOptions) -> None:
    """Run after run; a budget of 9 cannot pay for six of them."""
    for _ in range(6):
        run(replace(options, new_run=True))


def test_the_release_states_what_the_ledgers_hold(options: SimulationOptions) -> None:
    """The published epsilon of each department is the one its own ledger composes."""
    result = run(options)
    verified = verify(result.release.path)
    for part in result.departments:
        assert verified.privacy["departments"][part.name]["epsilon"] == pytest.approx(part.epsilon)
        assert 0 < part.epsilon <= 4.0
        assert part.budget == 9.0
    assert result.evaluation is not None
    assert result.evaluation.accuracy is not None
    assert result.evaluation.accuracy.items == 6


def test_records_are_scrubbed_before_anything_learns_from_them(options: SimulationOptions) -> None:
    """No address of a record is in the scrubbed file, or anywhere else in the workspace."""
    result = run(options)
    for path in result.workspace.root.rglob("*"):
        if path.is_file():
            assert b"@example.org" not in path.read_bytes(), path.name
    assert {d.department: d.findings["EMAIL_ADDRESS"] for d in result.data} == {
        "finance": 12,
        "hr": 12,
    }


def test_records_are_scrubbed_again_by_new_rules(
    options: SimulationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scrubbing is reused while nothing changed, and done anew once the code has changed."""
    opened: list[PatternDetector] = []

    def detector(_: object) -> PatternDetector:
        opened.append(PatternDetector())
        return opened[-1]

    monkeypatch.setattr(simulation, "detector_for", detector)
    run(options)
    run(options)
    assert len(opened) == 1
    monkeypatch.setattr(node, "code_digest", lambda: "another")
    run(options)
    assert len(opened) == 2


def test_a_public_record_that_cannot_be_used_is_told(options: SimulationOptions) -> None:
    """A held-out record too long for the run is skipped by file and line, never silently."""
    assert options.evaluation is not None
    source = options.evaluation.path
    too_long = json.dumps({"text": "short", "label": "x" * 400}) + "\n"
    source.write_text(source.read_text() + too_long)
    said: list[str] = []
    simulate(options, Display(stage=said.append))
    assert any("public.jsonl:7" in line and "max_tokens=128" in line for line in said)


def test_the_same_again_is_the_same_release_at_no_cost(options: SimulationOptions) -> None:
    """A complete run is published again, not trained again."""
    first = run(options)
    again = run(options)
    assert again.release.id == first.release.id
    assert events(first.workspace, "hr") == 2


def test_a_further_run_is_charged_to_the_same_ledger(options: SimulationOptions) -> None:
    """Another run in the workspace composes with the first, and the budget ends it."""
    first = run(options)
    second = run(replace(options, new_run=True))
    assert second.release.id != first.release.id
    assert events(first.workspace, "hr") == 4
    assert second.departments[0].epsilon > first.departments[0].epsilon
    third = run(replace(options, new_run=True))
    assert third.departments[0].epsilon <= 9.0
    with pytest.raises(RoundFailed, match="budget_exhausted"):
        spend_it_all(options)


def test_other_records_are_another_run(options: SimulationOptions) -> None:
    """A changed file is trained on and charged; the old run is not passed off as its result."""
    first = run(options)
    source = options.data["hr"].path
    source.write_text(source.read_text() + json.dumps({"text": "one more", "label": "a"}) + "\n")
    second = run(options)
    assert second.plan.run_id != first.plan.run_id
    assert events(first.workspace, "hr") == 4


def test_an_interrupted_run_goes_on_where_it_stopped(options: SimulationOptions) -> None:
    """Stopped after round 1, the same command finishes round 2 under the same run id."""
    seen: list[int] = []

    def stop(event: object) -> None:
        if isinstance(event, RoundFinished):
            seen.append(event.round)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(options, Display(event=stop))
    result = run(options)
    assert seen == [1]
    assert {r.round for r in result.release.receipts} == {1, 2}
    assert events(result.workspace, "hr") == 2


def test_what_cannot_be_run_is_refused_before_anything_is_spent(options: SimulationOptions) -> None:
    """A department unknown to the policy is named; no ledger and no policy is written."""
    with pytest.raises(PlanInvalid, match="legal"):
        run(replace(options, data={**options.data, "legal": options.data["hr"]}))
    assert not list(options.out.glob("policy.*"))
    assert not list(options.out.rglob("ledger.db"))


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[Unit]]:
    """The units that each department's agent was given, by department."""
    given: dict[str, Sequence[Unit]] = {}
    real = simulation.open_agent

    def spy(
        name: str,
        paths: NodePaths,
        policy: Policy,
        units: Sequence[Unit],
        *rest: Any,
        **named: Any,
    ) -> Any:
        given[name] = units
        return real(name, paths, policy, units, *rest, **named)

    monkeypatch.setattr(simulation, "open_agent", spy)
    return given


def test_a_subject_is_one_unit_with_all_its_records(
    options: SimulationOptions, trained_on: dict[str, Sequence[Unit]]
) -> None:
    """Under unit "subject" records are grouped; those that name nobody count one each, and it is said."""
    options.policy.write_text(POLICY.replace("[privacy]", '[privacy]\nunit = "subject"'))
    rows = [{"text": f"note {i}", "subject_id": f"person {i % 3}"} for i in range(9)]
    rows += [{"text": f"anonymous note {i}"} for i in range(2)]
    options.data["hr"].path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    said: list[str] = []
    result = simulate(options, Display(stage=said.append))
    assert sorted(len(unit) for unit in trained_on["hr"]) == [1, 1, 3, 3, 3]
    assert any(line.startswith("hr: 2 records name no subject") for line in said)
    assert {receipt.unit for receipt in result.release.receipts} == {"subject"}
    assert b"person" not in result.workspace.node("hr").scrubbed.read_bytes()


def test_a_new_block_holds_new_records_only(
    options: SimulationOptions, trained_on: dict[str, Sequence[Unit]]
) -> None:
    """What an earlier block has is left out of the next one and counted, whatever scrubbing does."""
    run(options)
    options.policy.write_text(
        POLICY.replace("[departments.hr]", '[departments.hr]\nblock = "2027"')
    )
    with pytest.raises(RecordError, match="belongs to a block before '2027'"):
        run(options)
    source = options.data["hr"].path
    source.write_text(source.read_text() + json.dumps({"text": "new", "label": "a"}) + "\n")
    result = run(options)
    left_out = {part.department: part.left_out for part in result.data}
    assert left_out["hr"]["earlier_block"] == 12
    assert "earlier_block" not in left_out["finance"]
    assert len(trained_on["hr"]) == 1


CANARIES = POLICY.replace("target_epsilon = 4.0", "target_epsilon = 2.0\ncanaries = 300")


def test_canaries_take_part_as_units_and_stay_the_same_for_a_run(
    options: SimulationOptions, trained_on: dict[str, Sequence[Unit]]
) -> None:
    """The included canaries are added to a department's units; the same run keeps the same ones."""
    options.policy.write_text(CANARIES)
    result = run(options)
    node = result.workspace.node("hr")
    (folder,) = result.workspace.checkpoints.iterdir()
    canaries = CanarySet.load(node.canaries(folder.name))
    assert len(canaries) == 300
    assert len(trained_on["hr"]) == 12 + sum(canaries.included)
    assert {d.department: d.records for d in result.data} == {"finance": 12, "hr": 12}
    for path in (node.root / "canaries").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert run(options).release.id == result.release.id
    assert CanarySet.load(node.canaries(folder.name)) == canaries


def test_the_audit_stays_with_the_departments(options: SimulationOptions) -> None:
    """The result has every department's audit below its claim, and the release has nothing of it."""
    options.policy.write_text(CANARIES)
    result = run(options)
    assert [audit.name for audit in result.audits] == ["finance", "hr"]
    for audit in result.audits:
        assert 0 <= audit.bound.epsilon <= audit.epsilon_run <= 2.0
        assert audit.epsilon_run == pytest.approx(audit.epsilon_history)
    assert result.evaluation is not None
    assert result.release.metrics == result.evaluation.to_json()
    for path in result.release.path.iterdir():
        assert b"canar" not in path.read_bytes()


def test_a_refuted_claim_is_not_published(
    options: SimulationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where canaries show more than the receipts claim, nothing is published, also when asked again."""
    options.policy.write_text(CANARIES)

    def give_away(workspace: Workspace, folder: str, result: RunResult, *rest: object) -> None:
        for name in workspace.departments():
            node = workspace.node(name)
            coins = CanarySet.load(node.canaries(folder)).included
            scores = [float(coin) for coin in coins]
            save_scores(node.canary_scores(folder), scores, adapter_digest(result.adapter))

    monkeypatch.setattr(simulation, "score_run", give_away)
    for _ in range(2):
        with pytest.raises(
            ClaimRefuted, match=r"finance: at least \d\.\d+ is proved, 2\.000 claimed"
        ):
            run(options)
    assert not list(options.out.glob("releases/*"))
    workspace = Workspace(options.out)
    with read_log(workspace.audit) as log:
        told = [stored.entry.data for stored in log.entries()]
    refused = [data["departments"] for data in told if data.get("step") == "claim_refuted"]
    assert refused == [["finance", "hr"]] * 2


def test_too_few_canaries_are_refused_before_anything_is_spent(options: SimulationOptions) -> None:
    """One canary proves nothing; that is said before a round is charged."""
    options.policy.write_text(CANARIES.replace("canaries = 300", "canaries = 1"))
    with pytest.raises(NoCanaries, match="canaries=1"):
        run(options)
    assert not [name for name in ("hr", "finance") if events_or_none(options, name)]


def events_or_none(options: SimulationOptions, department: str) -> int:
    """Rounds charged, none where there is no ledger."""
    workspace = Workspace(options.out)
    return events(workspace, department) if workspace.node(department).ledger.exists() else 0


def test_two_federations_do_not_run_in_one_workspace(options: SimulationOptions) -> None:
    """The second is refused before it charges anything; once the first ended, it may run."""
    (options.out / "hub").mkdir(parents=True)
    with FileLock(options.out / "hub" / "simulation.lock") as first:
        assert first.try_exclusive()
        with pytest.raises(WorkspaceInUse, match="another simulation runs"):
            run(options)
    assert not [name for name in ("hr", "finance") if events_or_none(options, name)]
    run(options)


def test_faulty_rows_are_told_and_refused_above_the_tolerance(options: SimulationOptions) -> None:
    """One faulty row of thirteen: refused by default, told by line where it is tolerated."""
    source = options.data["hr"].path
    source.write_text(source.read_text() + "{broken\n")
    with pytest.raises(RecordError, match=r"hr\.jsonl:13"):
        run(options)
    result = run(replace(options, tolerance=0.1))
    faults = {d.department: d.faults for d in result.data}
    assert [f.line for f in faults["hr"]] == [13]
    assert faults["finance"] == ()
