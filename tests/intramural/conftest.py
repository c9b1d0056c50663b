"""Fixtures of the command line."""

from pathlib import Path

import pytest

from intramural.workspace import Workspace
from tests.intramural import cli_kit
from tests.intramural.cli_kit import Cli


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> Workspace:
    """A finished workspace that no test changes."""
    return cli_kit.build(tmp_path_factory.mktemp("workspace") / "w", tiny_llama_dir)


@pytest.fixture
def workspace(pristine: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, to change."""
    return cli_kit.copy(pristine, tmp_path / "workspace")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Calls the command line; no workspace is set by the surroundings."""
    monkeypatch.delenv("INTRAMURAL_WORKSPACE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return cli_kit.caller(capfd)
