"""A hub and three departments as separate processes, made once for all tests of this folder."""

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_kit import Federation

SLOW = "INTRAMURAL_E2E_SLOW"
LONG = {"test_deployed_outages.py", "test_department_page.py"}


@pytest.fixture(scope="session")
def federation(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path
) -> Iterator[Federation]:
    """The deployed federation, from nothing to online by the commands that a user types."""
    made = Federation(tmp_path_factory.mktemp("federation") / "f", tiny_llama_dir)
    try:
        made.begin()
        yield made
    finally:
        made.close()


@pytest.fixture
def healthy(federation: Federation) -> Iterator[Federation]:
    """The federation with everybody online and no fault armed, before the test and after."""
    federation.heal()
    yield federation
    federation.disarm()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed leaves a federation behind that the next one must not build on."""
    report = yield
    found = getattr(item, "funcargs", {}).get("federation")
    if report.failed and isinstance(found, Federation):
        found.doubtful = True
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longer runs on demand."""
    if os.environ.get(SLOW):
        return
    skip = pytest.mark.skip(reason=f"takes minutes; set {SLOW}=1, or run: make e2e-federation")
    for item in items:
        if item.path.name in LONG:
            item.add_marker(skip)
