"""A federation in one process, end to end over a tiny Llama, with everything but the PII models real."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.errors import RecordError
from client.records import DataSource
from intramural import node, simulation
from intramural.simulation import Display, SimulationOptions, SimulationResult, simulate
from intramural.workspace import Workspace
from privacy.ledger.ledger import read_ledger
from privacy.pii.patterns import PatternDetector
from privacy.release import verify
from privacy.signing import VerifyKey
from server.errors import PlanInvalid, RoundFailed
from server.events import RoundFinished

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


def change_data(options: SimulationOptions) -> SimulationOptions:
    return replace(options, data={**options.data, "legal": options.data["hr"]})


def change_unit(options: SimulationOptions) -> SimulationOptions:
    options.policy.write_text(POLICY.replace("[privacy]", '[privacy]\nunit = "subject"'))
    return options


@pytest.mark.parametrize(("change", "words"), [(change_data, "legal"), (change_unit, "subject")])
def test_what_cannot_be_run_is_refused_before_anything_is_spent(
    options: SimulationOptions,
    change: Callable[[SimulationOptions], SimulationOptions],
    words: str,
) -> None:
    """An unknown department or an untrained unit is named; no ledger and no policy is written."""
    with pytest.raises(PlanInvalid, match=words):
        run(change(options))
    assert not list(options.out.glob("policy.*"))
    assert not list(options.out.rglob("ledger.db"))


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
