"""The Flower ClientApp translates, and loads nothing else."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from federation_kit import SECRET, Node, first_adapter, make_policy, request_for
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from client.agent_socket import AgentServer
from client.app import SOCKET_VARIABLE, app, make_client_app
from client.errors import AgentUnavailable
from privacy.exchange import Decline
from server.local_grid import LocalGrid
from server.strategy import read_answer, to_arrays

POLICY = make_policy()


def ask(client_app, content: RecordDict, node_config=None):
    grid = LocalGrid(client_app, {5: node_config or {}})
    (reply,) = grid.send_and_receive([Message(content, 5, "train")])
    assert not reply.has_error()
    return read_answer(reply.content)


def round_message() -> RecordDict:
    return RecordDict(
        {
            "request": ConfigRecord({"json": request_for(POLICY).to_json()}),
            "adapter": to_arrays(first_adapter(POLICY)),
        }
    )


def test_app_reaches_the_agent_by_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app that Flower loads finds the agent by node config or by environment."""
    node = Node(tmp_path / "hr", "hr", POLICY)
    agent, ledger = node.open()
    with ledger, AgentServer(agent, tmp_path / "run" / "agent.sock") as server:
        by_config = ask(app, round_message(), {"agent-socket": str(server.path)})
        monkeypatch.setenv(SOCKET_VARIABLE, str(server.path))
        by_variable = ask(app, round_message())
    assert not isinstance(by_config, Decline)
    assert not isinstance(by_variable, Decline)
    assert by_variable.receipt == by_config.receipt
    by_config.receipt.verify(node.key.verify_key)
    for name, tensor in by_config.update.items():
        assert tensor.tobytes() == by_variable.update[name].tobytes()


def test_absent_agent_is_a_decline_that_tells_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub learns that the node's agent is away; where it should be stays in the node's log."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    unset = ask(app, round_message())
    away = ask(app, round_message(), {"agent-socket": str(tmp_path / "agent.sock")})
    for answer in (unset, away):
        assert isinstance(answer, Decline)
        assert answer.code == "unavailable"
        assert str(tmp_path) not in answer.reason
    assert SOCKET_VARIABLE in caplog.text
    assert "no agent answers at" in caplog.text


@pytest.mark.parametrize("error", [AgentUnavailable(SECRET), RuntimeError(SECRET)])
def test_no_error_text_reaches_the_hub(error: Exception) -> None:
    """Flower would send an exception's text; the app lets none through."""

    def connect(context):
        raise error

    logging.getLogger("client.app").disabled = True
    try:
        answer = ask(make_client_app(connect), round_message())
    finally:
        logging.getLogger("client.app").disabled = False
    assert isinstance(answer, Decline)
    assert SECRET not in answer.to_json()


def _never(context):
    raise AssertionError("a malformed message must not reach the agent")


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"request": ConfigRecord({"json": "{}"}), "adapter": ArrayRecord()}),
        RecordDict({"request": ConfigRecord({"json": 7}), "adapter": ArrayRecord()}),
        RecordDict({"request": ArrayRecord(), "adapter": ArrayRecord()}),
        RecordDict(
            {
                "request": ConfigRecord({"json": "{}"}),
                "adapter": ArrayRecord({"t": Array(np.array([np.nan], np.float32))}),
            }
        ),
        RecordDict(
            {
                "request": ConfigRecord({"json": "{}"}),
                "adapter": ArrayRecord({"t": Array("float32", (1,), "numpy.ndarray", b"junk")}),
            }
        ),
        RecordDict(
            {
                "request": ConfigRecord({"json": "{}"}),
                "adapter": ArrayRecord({"t": Array("float32", (1,), "pickle", b"junk")}),
            }
        ),
    ],
)
def test_malformed_message_is_declined_before_the_agent_is_asked(content: RecordDict) -> None:
    """A message that is no request of ours never reaches the department's agent."""
    answer = ask(make_client_app(_never), content)
    assert isinstance(answer, Decline)
    assert answer.code == "invalid_request"


def test_app_loads_neither_torch_nor_the_agent() -> None:
    """Flower starts a process for each message: it must hold a translation and a socket, no more."""
    code = (
        "import sys, client.app;"
        "bad = [m for m in ('torch', 'transformers', 'peft', 'pyarrow', 'sqlalchemy', 'client.agent',"
        " 'client.records', 'dp_accounting') if m in sys.modules]; print(bad); sys.exit(bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
