"""From a finished run to a verified release and a verified audit log."""

from pathlib import Path

import pytest
from federation_kit import DEPARTMENTS, SECRET, FakeTrainer, Federation, make_policy

from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog, read_log, verify_log
from privacy.errors import AuditUnavailable
from privacy.release import Release, verify
from privacy.signing import SigningKey
from server.federation import run_federation
from server.publish import BaseModel, audited, publish_run
from server.rounds import RunResult

POLICY = make_policy()
MODEL = BaseModel("tiny", {"peft_type": "LORA", "base_model_name_or_path": "tiny"})
KEY = SigningKey.generate()
ORIGIN = "example.org/audit"


class Sink:
    """An audit log in memory that refuses from a given entry on."""

    def __init__(self, refuse_from: int = 10_000) -> None:
        self.entries: list[AuditEntry] = []
        self.refuse_from = refuse_from

    def append(self, entry: AuditEntry) -> None:
        if len(self.entries) >= self.refuse_from:
            raise AuditUnavailable("the log is full")
        self.entries.append(entry)


def run(federation: Federation, folder: Path, audit) -> RunResult:
    return run_federation(
        federation.grid(),
        federation.plan(),
        POLICY,
        federation.enrolment,
        federation.adapter(),
        folder / "checkpoint",
        audited(audit, "0" * 64),
    )


def publish(result: RunResult, federation: Federation, folder: Path, audit) -> Release:
    return publish_run(
        result,
        base_model=MODEL,
        enrolment=federation.enrolment,
        metrics={"loss": {"before": 2.0, "after": 1.0}},
        out_dir=folder / "out",
        key=KEY,
        code_digest="c" * 64,
        audit=audit,
    )


def test_release_states_what_the_receipts_prove(tmp_path: Path) -> None:
    """Each department's epsilon in the release is the one its ledger holds; the whole verifies."""
    with Federation(tmp_path, POLICY) as federation:
        sink = Sink()
        result = run(federation, tmp_path, sink)
        release = publish(result, federation, tmp_path, sink)
        spent = {name: ledger.spent(name, 1e-5) for name, ledger in federation.ledgers.items()}
    verified = verify(release.path, KEY.verify_key)
    assert {n: p["epsilon"] for n, p in verified.privacy["departments"].items()} == spent
    assert verified.privacy["largest_epsilon"] == max(spent.values())
    assert verified.privacy["sum_epsilon"] == sum(spent.values())
    assert verified.run["run_id"] == result.plan.run_id
    assert len(verified.receipts) == 9
    for name, tensor in verified.tensors().items():
        assert tensor.tobytes() == result.adapter[name].tobytes()


def test_publishing_again_gives_the_same_release(tmp_path: Path) -> None:
    """An interrupted publication is repeated without a second release."""
    with Federation(tmp_path, POLICY) as federation:
        first = publish(run(federation, tmp_path, Sink()), federation, tmp_path, Sink())
        again = publish(run(federation, tmp_path, Sink()), federation, tmp_path, Sink())
    assert again.id == first.id
    assert len(list((tmp_path / "out/releases").iterdir())) == 1


def test_without_an_audit_entry_nothing_is_published(tmp_path: Path) -> None:
    """When the log takes nothing, no release appears."""
    with Federation(tmp_path, POLICY) as federation:
        result = run(federation, tmp_path, Sink())
        with pytest.raises(AuditUnavailable):
            publish(result, federation, tmp_path, Sink(refuse_from=0))
        assert not (tmp_path / "out").exists()
        with pytest.raises(AuditUnavailable):
            publish(result, federation, tmp_path, Sink(refuse_from=1))
        sink = Sink()
        release = publish(result, federation, tmp_path, sink)
    assert [entry.kind for entry in sink.entries] == ["run_step", "release"]
    assert sink.entries[-1].data["release"] == release.id


def test_run_stops_when_the_audit_log_does(tmp_path: Path) -> None:
    """No round goes on that the log does not know of."""
    sink = Sink(refuse_from=3)
    with Federation(tmp_path, POLICY) as federation:
        with pytest.raises(AuditUnavailable):
            run(federation, tmp_path, sink)
        result = run(federation, tmp_path, Sink())
        counts = {n: len(ledger.history(n)) for n, ledger in federation.ledgers.items()}
    assert result.rounds == 3
    assert counts == dict.fromkeys(DEPARTMENTS, 6), "resuming charges nothing twice"


def test_audit_log_tells_every_step_and_no_text(tmp_path: Path) -> None:
    """The real log holds beginning, rounds, receipts, declines and release, and it verifies."""
    trainers = {"hr": FakeTrainer(fail=RuntimeError(SECRET))}
    path = tmp_path / "audit.db"
    with (
        Federation(tmp_path, POLICY, trainers=trainers) as federation,
        AuditLog(path, KEY, ORIGIN) as log,
    ):
        publish(run(federation, tmp_path, log), federation, tmp_path, log)
    report = verify_log(path, KEY.verify_key)
    assert report.ok
    with read_log(path) as reader:
        entries = [stored.entry for stored in reader.entries()]
    steps = [entry.data.get("step", entry.kind) for entry in entries]
    per_round = ["round_started", "node_replied", "node_declined", "node_replied", "round_finished"]
    assert steps == ["run_began", *per_round * 3, "publishing", "release"]
    assert {entry.actor for entry in entries} == {"hub", *DEPARTMENTS}
    assert len({entry.data["run_id"] for entry in entries}) == 1
    assert SECRET.encode() not in path.read_bytes()
