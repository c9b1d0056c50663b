"""The bundle that Flower ships: an allow-list of code, which works beside the installed packages."""

import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files

from client.bundle import build_bundle, content_of, is_own

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle() -> zipfile.ZipFile:
    """The bundle that the keeper submits."""
    return zipfile.ZipFile(BytesIO(build_bundle()))


def test_source_tree_bundles_the_same_modules_and_no_data() -> None:
    """Built by Flower from a working copy, it has no data file, key or policy in it either."""
    files: dict[str, bytes | Path] = {"pyproject.toml": ROOT / "pyproject.toml"}
    for package in ("api", "client", "intramural", "policies", "privacy", "server"):
        for path in (ROOT / package).rglob("*.py"):
            files[path.relative_to(ROOT).as_posix()] = path
    for stray in ("data/hr.jsonl", "hr.csv", "client/records.jsonl", "keys.json", "policy.toml"):
        files[stray] = b"{}"
    data, _ = build_fab_from_files(files)
    assert set(content_of(data)) == set(content_of(build_bundle()))
    assert not is_own(data), "nodes take the installed version's own bundle alone"


PROBE = """
import json, sys
from flwr.supercore.object_ref import load_app
hub = load_app("server.app:app", RuntimeError, sys.argv[1])
node = load_app("client.app:app", RuntimeError, sys.argv[1])
import client.agent_socket, server.federation
print(json.dumps({
    "apps": [type(hub).__name__, type(node).__name__],
    "bundled": [sys.modules["client.app"].__file__, sys.modules["server.app"].__file__],
    "installed": [client.agent_socket.__file__, server.federation.__file__],
}))
"""


def test_bundled_apps_find_the_installed_packages(bundle: zipfile.ZipFile, tmp_path: Path) -> None:
    """Flower loads both apps from the bundle; all they import comes from where it is installed."""
    bundle.extractall(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "FLWR_HOME": str(tmp_path / "flwr"), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["apps"] == ["ServerApp", "ClientApp"]
    assert all(Path(path).is_relative_to(tmp_path / "bundle") for path in found["bundled"])
    assert not any(Path(path).is_relative_to(tmp_path / "bundle") for path in found["installed"])
