"""Releases: complete, signed, content-addressed, and saying what they guarantee."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proof_kit import fixed_key, flips, kill_at, offsets, points_of, receipt

from privacy.code_digest import code_digest, digest_of
from privacy.errors import ReleaseInvalid
from privacy.exchange import adapter_digest
from privacy.receipts import SignedReceipt
from privacy.release import KEY_FILE, VerifiedRelease, list_releases, publish, verify
from privacy.signing import SigningKey
from privacy.statement import ReleaseStatement

GOLDEN = Path(__file__).parent / "golden"
TENSORS = {
    "base_model.model.q_proj.lora_A.weight": np.eye(2, 4, dtype=np.float32),
    "base_model.model.q_proj.lora_B.weight": np.arange(8, dtype=np.float32).reshape(4, 2).T.T / 8,
}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "SmolLM2-135M"}
METRICS = {"accuracy": {"before": 0.25, "after": 0.75, "interval": [0.7, 0.8]}, "items": 120}
STATEMENT = ReleaseStatement(
    run_id="run-1",
    created="2026-01-31T12:00:00+00:00",
    base_model="SmolLM2-135M",
    base_model_digest="f" * 64,
    rounds=2,
    clipping_norm=0.5,
    factors="B",
    policy_digest="a" * 64,
    code_digest="b" * 64,
    accountant="PLD, discretisation 0.001 (dp-accounting)",
)
DEPARTMENTS = {"hr": fixed_key(11), "it": fixed_key(12)}


def receipts() -> list[SignedReceipt]:
    """Two departments' receipts of two rounds."""
    return [
        receipt(key, department=name, key_id=key.key_id, round=number, epsilon=1.25 * number).sign(
            key
        )
        for number in (1, 2)
        for name, key in DEPARTMENTS.items()
    ]


def release(out: Path, key: SigningKey, **changes: Any) -> VerifiedRelease:
    """Publish with some arguments changed."""
    arguments: dict[str, Any] = {
        "tensors": TENSORS,
        "adapter_config": CONFIG,
        "statement": STATEMENT,
        "receipts": receipts(),
        "metrics": METRICS,
        "key": key,
        "department_keys": {name: own.verify_key for name, own in DEPARTMENTS.items()},
    }
    return publish(out, **{**arguments, **changes})


def test_a_release_reads_back_what_was_published(tmp_path: Path, key: SigningKey) -> None:
    """Tensors, configuration, receipts, metrics and guarantee, with and without a given key."""
    published = release(tmp_path, key)
    for read in (verify(published.path), verify(published.path, key.verify_key)):
        assert read == published
        assert read.id.startswith("r-")
        tensors = read.tensors()
        assert all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)
        assert adapter_digest(tensors) == read.manifest["adapter_digest"]
        assert read.adapter_config == CONFIG
        assert read.metrics == METRICS
        assert len(read.receipts) == 4
        assert read.run["run_id"] == "run-1"


def test_the_guarantee_is_derived_from_the_receipts(tmp_path: Path, key: SigningKey) -> None:
    """Per department the cost after its last round; largest and sum over departments."""
    privacy = release(tmp_path, key).privacy
    assert {name: part["epsilon"] for name, part in privacy["departments"].items()} == {
        "hr": 2.5,
        "it": 2.5,
    }
    assert (privacy["largest_epsilon"], privacy["sum_epsilon"]) == (2.5, 5.0)
    assert (privacy["largest_delta"], privacy["sum_delta"]) == (1e-5, 2e-5)
    assert (privacy["unit"], privacy["adjacency"]) == ("record", "add_or_remove_one")


@pytest.mark.parametrize("name", ["manifest.json", "README.md", "receipts.jsonl", "manifest.sig"])
def test_the_form_of_a_release_is_fixed(name: str, tmp_path: Path, key: SigningKey) -> None:
    """Others parse these files; and the same content gives the same id on every machine."""
    published = release(tmp_path, key)
    assert (published.path / name).read_bytes() == (GOLDEN / f"release-{name}").read_bytes()


def test_publishing_the_same_content_again_changes_nothing(tmp_path: Path, key: SigningKey) -> None:
    """The id follows from the content."""
    first = release(tmp_path, key)
    assert release(tmp_path, key) == first
    assert len(list((tmp_path / "releases").iterdir())) == 1
    other = release(tmp_path, key, metrics={})
    assert other.id != first.id
    assert [name for name, found in list_releases(tmp_path)] == sorted([first.id, other.id])


def test_a_release_with_any_byte_of_any_file_changed_does_not_verify(
    tmp_path: Path, key: SigningKey
) -> None:
    """Every file, the signature and the key file included; the file or signature is named."""
    published = release(tmp_path, key)
    for file in sorted(published.path.iterdir()):
        for place in flips(file, offsets(file.stat().st_size, seed=3, count=200)):
            with pytest.raises(ReleaseInvalid) as caught:
                verify(published.path)
            named = file.name in str(caught.value) or file.name.startswith("manifest")
            assert named, (file.name, place)
    key_file = tmp_path / KEY_FILE
    for place in flips(key_file, list(range(key_file.stat().st_size))):
        with pytest.raises(ReleaseInvalid):
            verify(published.path)
        assert verify(published.path, key.verify_key) == published, place
    assert verify(published.path) == published


@pytest.mark.parametrize(
    "change", ["truncated", "extended", "missing", "extra", "linked", "renamed", "folder gone"]
)
def test_a_release_with_files_cut_added_or_gone_does_not_verify(
    change: str, tmp_path: Path, key: SigningKey
) -> None:
    """For each of its files the change is found and the file named."""
    for name in [file.name for file in release(tmp_path / "x", key).path.iterdir()]:
        out = tmp_path / change / name
        path = release(out, key).path
        file = path / name
        if change == "truncated":
            file.write_bytes(file.read_bytes()[:-1])
        elif change == "extended":
            file.write_bytes(file.read_bytes() + b"\n")
        elif change == "missing":
            file.unlink()
        elif change == "extra":
            (path / f"{name}.bak").write_bytes(b"x")
        elif change == "linked":
            file.rename(out / name)
            file.symlink_to(out / name)
        elif change == "renamed":
            path = path.rename(path.with_name("r-" + "0" * 20))
        else:
            path = path.with_name("r-" + "1" * 20)
        with pytest.raises(ReleaseInvalid) as caught:
            verify(path)
        if change in ("missing", "extra", "linked"):
            assert name in str(caught.value)
        assert path.name in str(caught.value)


def test_a_release_signed_by_somebody_else_is_refused(tmp_path: Path, key: SigningKey) -> None:
    """Also when the forger replaced the key file, if the true key is known."""
    forged = release(tmp_path, fixed_key(8))
    assert verify(forged.path)
    with pytest.raises(ReleaseInvalid, match="signed by key"):
        verify(forged.path, key.verify_key)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(ReleaseInvalid, match="no trusted key"):
        verify(forged.path)
    (tmp_path / KEY_FILE).write_text(fixed_key(8).verify_key.public_text() + "\n")
    with pytest.raises(ReleaseInvalid, match="another key"):
        release(tmp_path, key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"receipts": []}, "unit of privacy"),
        ({"receipts": receipts() + receipts()[:1]}, "two receipts of 'hr' for round 1"),
        ({"department_keys": {}}, "no key is known"),
        (
            {"department_keys": {name: fixed_key(9).verify_key for name in DEPARTMENTS}},
            "names key",
        ),
        ({"tensors": {}}, "without any tensor"),
        ({"tensors": {"a": np.array([np.nan], np.float32)}}, "not finite"),
        ({"tensors": {"a": np.zeros(2)}}, "not float32"),
        ({"adapter_config": CONFIG | {"base_model_name_or_path": "/home/x/model"}}, "local path"),
        ({"adapter_config": CONFIG | {"targets": {"q"}}}, "set has no JSON form"),
        ({"metrics": {"loss": float("nan")}}, "nan"),
    ],
)
def test_what_cannot_be_vouched_for_is_not_published(
    changes: dict[str, Any], reason: str, tmp_path: Path, key: SigningKey
) -> None:
    """A faulty receipt, tensor, configuration or metric leaves nothing behind."""
    with pytest.raises(ReleaseInvalid, match=reason):
        release(tmp_path, key, **changes)
    assert list(list_releases(tmp_path)) == []


def test_receipts_of_another_run_or_unit_are_refused(tmp_path: Path, key: SigningKey) -> None:
    """A guarantee is about one run and one unit."""
    hr = DEPARTMENTS["hr"]
    stranger = receipt(hr, key_id=hr.key_id, run_id="run-2").sign(hr)
    with pytest.raises(ReleaseInvalid, match="of run run-2"):
        release(tmp_path, key, receipts=[stranger])
    mixed = [*receipts(), receipt(hr, key_id=hr.key_id, round=3, unit="subject").sign(hr)]
    with pytest.raises(ReleaseInvalid, match="one unit of privacy"):
        release(tmp_path, key, receipts=mixed)


def test_a_kill_while_publishing_leaves_nothing_that_is_listed(
    tmp_path: Path, key: SigningKey
) -> None:
    """Complete or not at all; publishing again succeeds."""
    points = points_of(lambda: release(tmp_path / "dry", key))
    assert "release.before-rename" in points
    for number in range(len(points)):
        out = tmp_path / str(number)
        kill_at(number, lambda out=out: release(out, key))
        assert list(list_releases(out)) == []
        published = release(out, key)
        assert list(list_releases(out)) == [(published.id, published)]


def test_a_faulty_release_is_listed_with_its_fault(tmp_path: Path, key: SigningKey) -> None:
    """One bad release hides neither itself nor the others."""
    good, bad = release(tmp_path, key), release(tmp_path, key, metrics={})
    (bad.path / "README.md").write_text("better")
    found = dict(list_releases(tmp_path))
    assert found[good.id] == good
    assert isinstance(found[bad.id], ReleaseInvalid)
    assert "README.md was changed" in str(found[bad.id])


def test_strided_tensors_are_published_as_they_read(tmp_path: Path, key: SigningKey) -> None:
    """A transposed view is stored by its values, not by the memory behind it."""
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(release(tmp_path, key, tensors={"a": view}).tensors()["a"], view)


def test_the_model_card_can_be_read_by_machines_and_people(tmp_path: Path, key: SigningKey) -> None:
    """Front matter in YAML, then unit, adjacency, epsilon and delta in words."""
    import yaml

    card = (release(tmp_path, key).path / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "SmolLM2-135M"
    assert front["library_name"] == "peft"
    for fact in (
        "add or remove one record",
        "| hr | 1 | 2.5000 | 3.5000 | 1e-05 | 2 |",
        "at most 5.0000",
    ):
        assert fact in card
    json.loads((GOLDEN / "release-manifest.json").read_text())


def test_the_code_digest_sees_every_source_file(tmp_path: Path) -> None:
    """Content and name of each Python file count; other files and places do not."""
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a.py").write_text("x = 1\n")
        (tmp_path / name / "sub" / "b.py").write_text("y = 1\n")
    first = digest_of({"p": [tmp_path / "one"], "absent": []})
    assert first == digest_of({"p": [tmp_path / "two"]})
    (tmp_path / "two" / "notes.txt").write_text("n")
    assert first == digest_of({"p": [tmp_path / "two"]})
    (tmp_path / "two" / "sub" / "b.py").write_text("y = 2\n")
    changed = digest_of({"p": [tmp_path / "two"]})
    (tmp_path / "two" / "sub" / "b.py").rename(tmp_path / "two" / "sub" / "c.py")
    assert len({first, changed, digest_of({"p": [tmp_path / "two"]})}) == 3
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_printed_bounds_are_never_below_the_bound(tmp_path: Path, key: SigningKey) -> None:
    """The model card rounds epsilon up, not to the nearest."""
    hr = DEPARTMENTS["hr"]
    one = receipt(hr, key_id=hr.key_id, epsilon=2.50001).sign(hr)
    card = (release(tmp_path, key, receipts=[one]).path / "README.md").read_text()
    assert "| hr | 1 | 2.5001 |" in card
