"""The run keeper: every ending of Flower's run leads on, to the release or to a person."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from federation_kit import first_adapter, make_policy
from manifest_kit import ACCOUNT, draw

from client.bundle import is_own
from intramural.deployment.runs import ATTEMPTS, SILENT, Keeper
from privacy.audit.entries import AuditEntry
from privacy.errors import AuditUnavailable
from privacy.manifest import SignedManifest
from privacy.signing import SigningKey
from server.flower_control import ControlUnavailable
from server.flower_runs import Phase
from server.rounds import RunPlan
from server.runs import RunFolder

POLICY = make_policy()
KEY = SigningKey.generate()


@dataclass
class FakeFlower:
    """Flower's control API as the keeper sees it: runs that are where the test puts them."""

    phases: dict[int, Phase] = field(default_factory=dict)
    configs: list[Mapping[str, str]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    away: bool = False

    def start(self, bundle: bytes, config: Mapping[str, str]) -> int:
        self._check()
        assert is_own(bundle)
        self.configs.append(config)
        self.phases[len(self.configs)] = "alive"
        return len(self.configs)

    def phase(self, run_id: int) -> Phase:
        self._check()
        return self.phases.get(run_id, "unknown")

    def stop(self, run_id: int) -> None:
        self._check()
        self.stopped.append(run_id)
        self.phases[run_id] = "failed"

    def _check(self) -> None:
        if self.away:
            raise ControlUnavailable("the SuperLink does not answer")


@dataclass
class Scene:
    """A hub with one stored run."""

    folder: Path
    flower: FakeFlower = field(default_factory=FakeFlower)
    entries: list[AuditEntry] = field(default_factory=list)
    now: float = 0.0
    trusted: dict[str, Any] = field(default_factory=lambda: {ACCOUNT: KEY.verify_key})
    audit_away: bool = False

    def append(self, entry: AuditEntry) -> None:
        if self.audit_away:
            raise AuditUnavailable("a test")
        self.entries.append(entry)

    def store(self) -> RunFolder:
        policy = self.folder / "policy.toml"
        policy.write_text("")
        signed = SignedManifest.sign(draw(POLICY), KEY)
        run = RunFolder.create(self.folder / "runs", signed, policy, self.folder)
        with run.keep() as kept:
            kept["wanted"] = "run"
        return run

    def keeper(self, hub: int = 1) -> Keeper:
        return Keeper(
            self.folder / "runs", self.flower, lambda: self.trusted, self, lambda _: None,
            hub=hub, clock=lambda: self.now,
        )  # fmt: skip

    def steps(self) -> list[str]:
        return [entry.data["step"] for entry in self.entries]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def advance(run: RunFolder) -> None:
    """Complete one more round in the run's checkpoint."""
    run.store.folder.mkdir(exist_ok=True)
    state = run.store.begin(RunPlan.of(run.signed().manifest), first_adapter(POLICY))
    run.store.save(state.advanced(state.adapter, (), ()))


def test_stored_run_is_submitted_once_and_on_record_before(scene: Scene) -> None:
    """One attempt, about this run id, with the entry first; further looks change nothing."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    with run.working():
        keeper.step()
    assert scene.flower.configs == [{"run-id": run.run_id}]
    assert scene.steps() == ["run_submitted"]
    assert run.keeping().standing == "running"


def test_nothing_starts_while_the_audit_log_is_away(scene: Scene) -> None:
    """Fail closed: without the entry there is no attempt."""
    run, keeper = scene.store(), scene.keeper()
    scene.audit_away = True
    with pytest.raises(AuditUnavailable):
        keeper.step()
    assert scene.flower.configs == []
    assert run.keeping().standing == "waiting"


def test_release_ends_the_run(scene: Scene) -> None:
    """Once the release is noted the run is finished, whatever Flower says, and never asked again."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    with run.keep() as kept:
        kept["release"] = "r-1"
    keeper.step()
    keeper.step()
    assert run.keeping().standing == "finished"
    assert scene.steps() == ["run_submitted", "run_finished"]


@pytest.mark.parametrize("phase", ["failed", "completed", "unknown"])
def test_ended_attempt_without_release_is_tried_again(scene: Scene, phase: Phase) -> None:
    """A Flower run that failed, ended early or was forgotten is followed by another, after a pause."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    scene.flower.phases[1] = phase
    if phase == "unknown":
        del scene.flower.phases[1]
    keeper.step()
    assert run.keeping().standing == "retrying"
    (interruption,) = run.keeping().interruptions
    assert interruption["round"] == 1
    keeper.step()
    assert len(scene.flower.configs) == 1, "not before the pause is over"
    scene.now += 60
    keeper.step()
    assert scene.flower.configs == [{"run-id": run.run_id}] * 2
    assert scene.steps() == ["run_submitted", "run_interrupted", "run_submitted"]


def test_attempts_without_a_round_come_to_an_end(scene: Scene) -> None:
    """A run that makes no progress is left to a person after a bounded number of attempts."""
    run, keeper = scene.store(), scene.keeper()
    for number in range(1, 3 * ATTEMPTS):
        scene.now += 3600
        keeper.step()
        scene.flower.phases[number] = "failed"
        keeper.step()
    assert len(scene.flower.configs) == ATTEMPTS
    assert run.keeping().standing == "failed"
    assert len(run.keeping().interruptions) == ATTEMPTS


def test_progress_resets_the_count_of_attempts(scene: Scene) -> None:
    """An attempt that completed a round is no failed one, and the next comes at once."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    scene.flower.phases[1] = "failed"
    keeper.step()
    scene.now += 3600
    keeper.step()
    advance(run)
    scene.flower.phases[2] = "failed"
    keeper.step()
    assert run.keeping().attempts == 0
    keeper.step()
    assert len(scene.flower.configs) == 3
    assert run.keeping().round == 1


def test_what_a_person_must_mend_is_not_tried_again(scene: Scene) -> None:
    """A hopeless ending fails the run at once, with its reason."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    with run.keep() as kept:
        kept.update(reason="the base model is another one", hopeless=True)
    scene.flower.phases[1] = "failed"
    keeper.step()
    scene.now += 3600
    keeper.step()
    assert (run.keeping().standing, run.keeping().reason) == (
        "failed",
        "the base model is another one",
    )
    assert len(scene.flower.configs) == 1


def test_attempt_of_an_earlier_hub_is_dead(scene: Scene) -> None:
    """After a restart of the hub its runs are stopped in Flower and go on without waiting for it."""
    run = scene.store()
    scene.keeper(hub=1).step()
    later = scene.keeper(hub=2)
    later.step()
    later.step()
    assert scene.flower.stopped == [1]
    assert len(scene.flower.configs) == 2
    assert run.keeping().attempts == 0
    assert "started again" in run.keeping().interruptions[0]["reason"]


def test_attempt_that_works_is_left_alone_by_a_new_keeper(scene: Scene) -> None:
    """A process that still works on the run is neither stopped nor doubled."""
    run = scene.store()
    scene.keeper(hub=1).step()
    with run.working():
        scene.keeper(hub=2).step()
    assert scene.flower.stopped == []
    assert len(scene.flower.configs) == 1


def test_alive_without_a_process_is_stopped_after_a_while(scene: Scene) -> None:
    """Flower's word that a run is alive counts only so long without a process of ours."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    keeper.step()
    scene.now += SILENT - 1
    keeper.step()
    assert scene.flower.stopped == []
    scene.now += 2
    keeper.step()
    assert scene.flower.stopped == [1]
    assert run.keeping().standing == "retrying"


def test_cancelled_run_is_stopped_and_stays(scene: Scene) -> None:
    """What was cancelled is stopped in Flower and not started again."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    with run.keep() as kept:
        kept["wanted"] = "stop"
    for _ in range(3):
        scene.now += 3600
        keeper.step()
    assert scene.flower.stopped == [1]
    assert run.keeping().standing == "cancelled"
    assert len(scene.flower.configs) == 1


@pytest.mark.parametrize("fault", ["untrusted", "expired", "altered"])
def test_run_that_nobody_may_start_is_never_submitted(scene: Scene, fault: str) -> None:
    """The keeper verifies the manifest before each attempt: signature, account, time, content."""
    run = scene.store()
    if fault == "untrusted":
        scene.trusted.clear()
    if fault == "altered":
        path = run.root / "manifest.json"
        path.write_text(path.read_text().replace('"steps":2', '"steps":3'))
    if fault == "expired":
        manifest = draw(POLICY).model_copy(
            update={
                "created": "2020-01-01T00:00:00+00:00",
                "valid_until": "2020-01-02T00:00:00+00:00",
            }
        )
        run = RunFolder(run.root.parent / manifest.run_id)
        signed = SignedManifest.sign(manifest, KEY)
        RunFolder.create(run.root.parent, signed, scene.folder / "policy.toml", scene.folder)
        with run.keep() as kept:
            kept["wanted"] = "run"
    scene.keeper().step()
    assert {"run-id": run.run_id} not in scene.flower.configs
    assert run.keeping().standing == "failed"


def test_damaged_folder_keeps_no_other_run(scene: Scene) -> None:
    """A run whose files are damaged is told of; the others go on."""
    damaged, sound = scene.store(), scene.store()
    (damaged.root / "keeper.json").write_text("[]")
    scene.keeper().step()
    assert scene.flower.configs == [{"run-id": sound.run_id}]


def test_two_runs_go_on_side_by_side(scene: Scene) -> None:
    """Each run has an attempt of its own; one's end is not the other's."""
    first, second = scene.store(), scene.store()
    keeper = scene.keeper()
    keeper.step()
    assert {c["run-id"] for c in scene.flower.configs} == {first.run_id, second.run_id}
    mine = run_of(scene, second)
    scene.flower.phases[mine] = "failed"
    keeper.step()
    assert second.keeping().standing == "retrying"
    assert first.keeping().standing == "running"


def run_of(scene: Scene, run: RunFolder) -> int:
    return scene.flower.configs.index({"run-id": run.run_id}) + 1


def test_superlink_that_is_away_changes_nothing(scene: Scene) -> None:
    """While Flower does not answer, a running run stays as it is."""
    run, keeper = scene.store(), scene.keeper()
    keeper.step()
    scene.flower.away = True
    with pytest.raises(ControlUnavailable):
        keeper.step()
    assert run.keeping().standing == "running"
    assert run.keeping().interruptions == ()
