"""The audit of dependencies: where it could not look, it says so, and fails nothing."""

import os
import subprocess
import sys

from docs_kit import ROOT


def test_without_a_service_nothing_is_audited_and_that_is_said() -> None:
    """A refused connection ends with 0 and the words that nothing was audited."""
    done = subprocess.run(
        [str(ROOT / ".ci" / "audit-deps")],
        env={**os.environ, "PYTHON": sys.executable, "OSV_URL": "http://127.0.0.1:1/v1/query"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "NOT audited" in done.stderr
