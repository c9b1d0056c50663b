"""The Flower ClientApp: it translates a message into a request, and the agent's answer back.

It touches no record, no ledger and no model; those belong to the agent, which the department
installed. Flower starts a new process for each message, so this module loads neither torch nor the
agent's code.

Message in: ``request`` and ``manifest`` (ConfigRecord, each with one field ``json``) and ``adapter``
(ArrayRecord). Message out:
``update`` (ArrayRecord) and ``receipt`` (ConfigRecord, ``json``), or ``decline`` (ConfigRecord, ``json``).
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.agent_socket import SocketAgent
from client.errors import AgentError, AgentUnavailable
from client.port import Agent
from privacy.errors import ExchangeInvalid
from privacy.exchange import Array, Decline, RoundReply, RoundRequest, check_tensors

_log = logging.getLogger(__name__)
Connect = Callable[[Context], Agent]

SOCKET_SETTING = "agent-socket"
SOCKET_VARIABLE = "INTRAMURAL_AGENT_SOCKET"


def make_client_app(connect: Connect) -> ClientApp:
    """A ClientApp whose rounds are answered by the agent that ``connect`` finds for a context."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(_answer(message, context, connect), reply_to=message)

    return client_app


def connect_by_socket(context: Context) -> Agent:
    """The agent at the node config's ``agent-socket`` or at ``INTRAMURAL_AGENT_SOCKET``.

    Raises:
        AgentUnavailable: neither is set.
    """
    path = context.node_config.get(SOCKET_SETTING) or os.environ.get(SOCKET_VARIABLE)
    if not path:
        raise AgentUnavailable(
            f"no agent socket: set {SOCKET_SETTING} in the node config or {SOCKET_VARIABLE}"
        )
    return SocketAgent(Path(str(path)))


def _answer(message: Message, context: Context, connect: Connect) -> RecordDict:
    try:
        request, adapter, manifest = _read(message)
    except ExchangeInvalid as error:
        return _write(Decline(code="invalid_request", reason=str(error)[:500]))
    try:
        return _write(connect(context).handle(request, adapter, manifest))
    except Exception as error:
        # Flower would send the error's text to the hub. Paths and settings of the node are its own
        # business, and an unforeseen error may quote anything: the hub learns that it is away.
        told = error if isinstance(error, AgentError) else type(error).__name__
        _log.error("the node agent did not answer: %s", told)
        return _write(Decline(code="unavailable", reason="the node's agent did not answer"))


def _read(message: Message) -> tuple[RoundRequest, dict[str, Array], str | None]:
    content = message.content
    arrays = content.get("adapter")
    if "request" not in content or not isinstance(arrays, ArrayRecord):
        raise ExchangeInvalid("a round's message has the records 'request' and 'adapter'")
    text = _json(content, "request")
    manifest = _json(content, "manifest") if "manifest" in content else None
    try:
        adapter = {name: array.numpy() for name, array in arrays.items()}
    except (TypeError, ValueError, EOFError):
        raise ExchangeInvalid("the record 'adapter' holds something that is no array") from None
    check_tensors(adapter)
    return RoundRequest.from_json(text), adapter, manifest


def _json(content: RecordDict, name: str) -> str:
    record = content[name]
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        raise ExchangeInvalid(f"the record {name!r} has the one field 'json', a text")
    return text


def _write(answer: RoundReply | Decline) -> RecordDict:
    if isinstance(answer, Decline):
        return RecordDict({"decline": ConfigRecord({"json": answer.to_json()})})
    update = {name: FlowerArray(answer.update[name]) for name in sorted(answer.update)}
    return RecordDict(
        {
            "update": ArrayRecord(update),
            "receipt": ConfigRecord({"json": answer.receipt.to_json()}),
        }
    )


app = make_client_app(connect_by_socket)
