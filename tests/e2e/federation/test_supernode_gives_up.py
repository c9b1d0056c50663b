"""The SuperNode's wrapper when Flower gives up."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

GIVES_UP = """
import importlib, threading
flower = importlib.import_module("flwr.supernode.cli.flower_supernode")
def gives_up():
    threading.Thread(target=threading.Event().wait).start()
    {end}
flower.flower_supernode = gives_up
importlib.import_module("client.supernode").main()
"""


@pytest.mark.parametrize("end", ["return", "raise OSError"])
def test_a_supernode_that_gave_up_is_gone(end: str) -> None:
    """Its process ends although threads of Flower's go on, so that the supervisor starts another."""
    done = subprocess.run(
        [sys.executable, "-c", GIVES_UP.format(end=end)], timeout=120, check=False
    )
    assert done.returncode == 1
