"""``intramural policy``."""

import hashlib
from pathlib import Path

from tests.intramural.cli_kit import POLICY, Cli


def written(folder: Path, text: str = POLICY) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_good_policy_passes_with_its_digest(cli: Cli, tmp_path: Path) -> None:
    """A valid policy ends with 0, and its digest is that of the file."""
    file = written(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    done = cli("policy", "check", file)
    assert done.code == 0
    assert digest in done.out
    value = cli("policy", "check", file, "--json").json
    assert value["valid"] is True
    assert value["digest"] == digest
    assert value["departments"] == ["finance", "hr"]


def test_every_fault_is_named_by_its_key(cli: Cli, tmp_path: Path) -> None:
    """A faulty policy ends with 1 and lists all faults, also as JSON."""
    file = written(tmp_path, POLICY.replace("rank = 2", "rank = 0\nrounds_ = 3"))
    done = cli("policy", "check", file)
    assert (done.code, done.out) == (1, "")
    assert "training.rank" in done.err
    assert "training.rounds_" in done.err
    value = cli("policy", "check", file, "--json")
    assert value.code == 1
    assert value.json["valid"] is False
    assert {fault["key"] for fault in value.json["faults"]} == {"training.rank", "training.rounds_"}


def test_rule_for_an_unknown_kind_of_personal_data_is_a_fault(cli: Cli, tmp_path: Path) -> None:
    """A rule that no detector can follow would protect nobody, so it is refused."""
    file = written(tmp_path, POLICY.replace("IBAN_CODE", "IBAN_COD"))
    done = cli("policy", "check", file)
    assert done.code == 1
    assert "pii.entities.IBAN_COD" in done.err
    assert "IBAN_CODE" in done.err


def test_warnings_do_not_fail(cli: Cli, tmp_path: Path) -> None:
    """What is allowed but probably not meant is said, and the policy passes."""
    file = written(tmp_path, POLICY.replace("epsilon = 8.0", "epsilon = 50.0"))
    done = cli("policy", "check", file)
    assert done.code == 0
    assert "warning: privacy.epsilon" in done.out
    assert cli("policy", "check", file, "--json").json["warnings"][0]["key"] == "privacy.epsilon"


def test_missing_policy_file_is_told(cli: Cli, tmp_path: Path) -> None:
    """A file that is not there is an error with its name, not a traceback."""
    done = cli("policy", "check", tmp_path / "none.toml")
    assert done.code == 1
    assert "none.toml" in done.err


def test_show_fills_in_the_defaults(cli: Cli, tmp_path: Path) -> None:
    """`policy show` tells what is in force, in 80 columns, defaults included."""
    file = written(tmp_path)
    done = cli("policy", "show", file)
    assert done.code == 0
    for part in ("finance", "IBAN_CODE: redact", "kept for 183 days", "compliance"):
        assert part in done.out
    assert all(len(line) <= 80 and line == line.rstrip() for line in done.out.splitlines())
    value = cli("policy", "show", file, "--json").json
    assert value["budgets"]["hr"]["epsilon"] == 4.0
    assert value["budgets"]["finance"] == {
        "epsilon": 8.0,
        "delta": 1e-5,
        "block": "1",
        "unit": "record",
        "declared_units": 500,
        "title": "Money",
        "run_epsilon": 3.0,
    }
    assert value["policy"]["training"]["rank"] == 2


def test_show_one_department(cli: Cli, tmp_path: Path) -> None:
    """--department shows that one; an unknown one is an error that names the known."""
    file = written(tmp_path)
    assert "finance" not in cli("policy", "show", file, "--department", "hr").out
    done = cli("policy", "show", file, "--department", "sales")
    assert done.code == 1
    assert "finance, hr" in done.err


def test_show_takes_the_policy_of_the_workspace(cli: Cli, tmp_path: Path) -> None:
    """Without a file the workspace's policy is shown; a workspace without one is told."""
    assert cli("policy", "show", "--workspace", tmp_path).code == 1
    written(tmp_path)
    assert cli("policy", "show", "--workspace", tmp_path).code == 0
