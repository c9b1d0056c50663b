"""The whole main job, once, on the real base model, as a newcomer runs it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intramural.demo.policy import QUICK
from intramural.demo.records import write_demo_data
from intramural.demo.run import CALLER, SEED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PERSONAL_IN_QUESTION = ("Nadia Brandt", "+44 20 7946 0958", "4111 1111 1111 1111")


def intramural(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it: another process, its output apart from its messages."""
    return subprocess.run(
        [Path(sys.executable).with_name("intramural"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Folder, JSON and messages of one ``intramural demo --quick --json``."""
    folder = tmp_path_factory.mktemp("demo")
    done = intramural("demo", "--quick", "--json", "--workdir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run", json.loads(done.stdout), done.stderr


def test_the_result_names_what_was_promised(demo: tuple[Path, dict[str, Any], str]) -> None:
    """One JSON object: release, spend within budget, metric, three views of a prompt, audit."""
    root, result, _ = demo
    assert (root / "releases" / result["release"] / "adapter_model.safetensors").is_file()
    assert [d["name"] for d in result["departments"]] == ["finance", "hr", "it_support"]
    for department in result["departments"]:
        assert 0 < department["epsilon"] <= 8.0 < department["budget"]
        assert department["delta"] == 1e-5
    assert result["audit"]["verified"] is True
    assert result["audit"]["entries"] > 0
    assert set(result["metric"]) >= {"name", "before", "after"}


def test_the_model_learned_from_departments_it_never_saw(
    demo: tuple[Path, dict[str, Any], str],
) -> None:
    """Held-out loss falls by more than its 95 % interval: the release learned under its budget."""
    _, result, _ = demo
    _, highest = result["evaluation"]["loss"]["change_95"]
    assert highest < 0


def test_the_model_saw_placeholders_and_the_application_its_own_values(
    demo: tuple[Path, dict[str, Any], str],
) -> None:
    """Name, number and card never reach the model; no placeholder reaches the application."""
    views = demo[1]["redaction"]
    assert CALLER in views["sent"]
    assert not any(value in views["seen_by_model"] for value in PERSONAL_IN_QUESTION)
    assert re.findall(r"<(PERSON|PHONE_NUMBER|CREDIT_CARD)_\d+>", views["seen_by_model"])
    assert "Nadia Brandt" in views["returned"]
    assert not re.search(r"<(PERSON|PHONE_NUMBER|CREDIT_CARD)_\d+>", views["returned"])


def test_no_raw_value_is_in_anything_but_the_departments_files(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """Hub, releases, audit log, service and every message hold none of the invented people's data."""
    root, result, messages = demo
    files = write_demo_data(tmp_path, QUICK.records, QUICK.held_out, SEED)
    values = {*files.personal_values, *PERSONAL_IN_QUESTION}
    assert len(values) > 500
    shown = messages + json.dumps(
        {k: v for k, v in result.items() if k != "redaction"}, ensure_ascii=False
    )
    searched = {"messages": shown.encode()}
    for folder in ("hub", "releases", "audit", "service"):
        for path in (root / folder).rglob("*"):
            if path.is_file():
                searched[str(path.relative_to(root))] = path.read_bytes()
    assert len(searched) > 10
    leaks = [name for name, data in searched.items() for v in values if v.encode() in data]
    assert not leaks


def test_scrubbed_records_hold_next_to_nothing(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """On the nodes too: at most 0.5 % of the values, the detector's stated miss rate, survive."""
    files = write_demo_data(tmp_path, QUICK.records, QUICK.held_out, SEED)
    scrubbed = [(demo[0] / "nodes" / name / "scrubbed.jsonl").read_text() for name in files.records]
    left = sum(any(value in text for text in scrubbed) for value in files.personal_values)
    assert left <= 0.005 * len(files.personal_values)


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("audit/audit.db", ("audit", "verify")),
        ("nodes/hr/ledger.db", ("budget", "verify")),
        ("releases/r-*/adapter_model.safetensors", ("release", "verify")),
        ("releases/r-*/README.md", ("release", "verify")),
        ("releases/r-*/manifest.json", ("release", "verify")),
    ],
)
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_a_changed_byte_is_found_and_named(
    demo: tuple[Path, dict[str, Any], str],
    tmp_path: Path,
    pattern: str,
    command: tuple[str, ...],
    place: float,
) -> None:
    """Wherever one byte is changed, the matching verify ends with 1 and names the file."""
    copy = tmp_path / "copy"
    shutil.copytree(demo[0], copy)
    path = next(copy.glob(pattern))
    untouched = intramural(*command, "--workspace", copy, cwd=tmp_path)
    assert untouched.returncode == 0, untouched.stderr
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x01
    path.write_bytes(data)
    found = intramural(*command, "--workspace", copy, cwd=tmp_path)
    assert found.returncode == 1
    assert path.name in found.stdout + found.stderr
    assert "Traceback" not in found.stderr
