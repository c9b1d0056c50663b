"""The SuperNode's wrapper when Flower gives up."""

import os
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


LOSES_ITS_HEART = """
import importlib, threading
from flwr.supercore.exit import register_signal_handlers
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.telemetry import EventType
flower = importlib.import_module("flwr.supernode.cli.flower_supernode")
def refused():
    raise RuntimeError("The SuperLink does not recognize this SuperNode.")
def goes_on():
    register_signal_handlers(EventType.RUN_SUPERNODE_LEAVE, "SuperNode terminated gracefully.")
    HeartbeatSender(refused).start()
    threading.Event().wait()
flower.flower_supernode = goes_on
importlib.import_module("client.supernode").main()
"""


@pytest.mark.parametrize("end", ["return", "raise OSError"])
def test_a_supernode_that_gave_up_is_gone(end: str) -> None:
    """Its process ends although threads of Flower's go on, so that the supervisor starts another."""
    done = subprocess.run(
        [sys.executable, "-c", GIVES_UP.format(end=end)], timeout=120, check=False
    )
    assert done.returncode == 1


def test_a_supernode_without_its_heartbeat_ends() -> None:
    """Flower's thread dies of an answer that it does not expect; the hub would see the node offline."""
    done = subprocess.run(
        [sys.executable, "-c", LOSES_ITS_HEART],
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.returncode == 0
    assert "RuntimeError" in done.stderr
    assert "terminated gracefully" in done.stderr
    assert "recognize" not in done.stderr
