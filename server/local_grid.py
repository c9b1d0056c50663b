"""A Flower grid in this process: hub and nodes exchange real messages without a network.

Each message passes through Flower's wire format, so that nodes and hub share no object and nothing
is sent that the deployed grid could not send. Rounds take milliseconds besides the training itself.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Phase = Literal["asked", "answered", "failed"]
OnNode = Callable[[int, Phase], None]
_HUB = 1
_RUN = 1


class LocalGrid(Grid):
    """Runs ``client_app`` once for each message, in turn, with the node's own context.

    ``node_configs``: Flower's node config by node id. ``dead``: nodes that are listed as connected
    and never answer, as after a crash. ``on_node`` sees each node being asked and answering. An
    exception in one node becomes Flower's error reply; the others are asked all the same.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Mapping[int, UserConfig],
        *,
        run_config: UserConfig | None = None,
        dead: Collection[int] = (),
        on_node: OnNode | None = None,
    ) -> None:
        self._app = client_app
        self._dead = frozenset(dead)
        self._on_node = on_node or _ignore
        self._sent: dict[str, Message] = {}
        self._run = Run.create_empty(_RUN)
        self._contexts = {
            node_id: Context(
                run_id=_RUN,
                node_id=node_id,
                node_config=dict(config),
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for node_id, config in node_configs.items()
        }
        # Flower's messages take their sender from the identity of the process, which a deployed
        # ServerApp is given at its start.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN, _HUB, _HUB

    def set_run(self, run: Run) -> None:
        """Replace the description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The description of the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message from the hub to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Every node, the dead ones included: the hub learns of those by their silence."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take the messages; returns their ids. Nodes run when their replies are pulled."""
        identifiers = []
        for message in messages:
            identifier = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = identifier
            self._sent[identifier] = message
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the nodes of these messages to the end, in turn; the replies, each given once.

        As with a SuperLink, a reply that nobody pulls is not in the hub's memory.
        """
        return [
            _over_the_wire(self._deliver(self._sent.pop(i)))
            for i in list(message_ids)
            if i in self._sent
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push, then pull; a node takes as long as it takes, so ``timeout`` has no effect."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        context = self._contexts.get(node_id)
        self._on_node(node_id, "asked")
        if context is None or node_id in self._dead:
            self._on_node(node_id, "failed")
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "node unavailable"), reply_to=message)
        received = _over_the_wire(message)
        try:
            reply = self._app(received, context)
        except Exception as error:
            # As Flower does, though without the error's text, which may quote a record.
            self._on_node(node_id, "failed")
            failure = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__)
            return Message(failure, reply_to=received)
        self._on_node(node_id, "answered")
        return reply


def _over_the_wire(message: Message) -> Message:
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))


def _ignore(node_id: int, phase: Phase) -> None:
    """Watch nothing."""
