"""What the hub relies on in a Flower grid, shown on the one that runs in this process."""

from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from server.local_grid import LocalGrid


class Recording:
    """A ClientApp that keeps what it was given and answers with it."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.app = ClientApp()

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            self.seen.append(message)
            if context.node_config.get("fail"):
                raise ValueError("the text of a record")
            count = int(context.state.config_records.get("n", ConfigRecord({"n": 0}))["n"])  # type: ignore[arg-type]
            context.state["n"] = ConfigRecord({"n": count + 1})
            content = RecordDict(
                {"arrays": message.content["arrays"], "n": ConfigRecord({"n": count})}
            )
            return Message(content, reply_to=message)


def message(node_id: int) -> Message:
    arrays = ArrayRecord({"t": Array(np.arange(4, dtype=np.float32))})
    return Message(RecordDict({"arrays": arrays}), node_id, "train", group_id="1")


@pytest.fixture
def recording() -> Iterator[Recording]:
    return Recording()


def test_nodes_and_hub_share_no_object(recording: Recording) -> None:
    """What a node gets was serialised: changing it cannot change what the hub holds."""
    grid = LocalGrid(recording.app, {5: {}})
    sent = message(5)
    (reply,) = grid.send_and_receive([sent])
    (received,) = recording.seen
    assert received.content["arrays"] is not sent.content["arrays"]
    assert reply.content["arrays"] is not received.content["arrays"]
    assert reply.content["arrays"]["t"].numpy().tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_reply_names_its_node_and_its_question(recording: Recording) -> None:
    """The hub can tell which node answered which message."""
    grid = LocalGrid(recording.app, {5: {}, 6: {}})
    sent = [message(5), message(6)]
    replies = grid.send_and_receive(sent)
    assert [r.metadata.src_node_id for r in replies] == [5, 6]
    assert [r.metadata.reply_to_message_id for r in replies] == [
        m.metadata.message_id for m in sent
    ]
    assert len({m.metadata.message_id for m in sent}) == 2


def test_error_of_one_node_is_a_reply_without_its_text(recording: Recording) -> None:
    """A node that raises becomes an error reply; the others are asked, and no text travels."""
    grid = LocalGrid(recording.app, {5: {"fail": True}, 6: {}})
    failed, fine = grid.send_and_receive([message(5), message(6)])
    assert failed.has_error()
    assert failed.error.reason == "ValueError"
    assert fine.has_content()


def test_dead_and_unknown_nodes_are_unavailable(recording: Recording) -> None:
    """A dead node is listed, and answers with Flower's code for an unavailable node."""
    phases: list[tuple[int, str]] = []
    grid = LocalGrid(
        recording.app, {5: {}}, dead=[5], on_node=lambda node, phase: phases.append((node, phase))
    )
    assert grid.get_node_ids() == [5]
    replies = grid.send_and_receive([message(5), message(9)])
    assert [r.error.code for r in replies] == [5, 5]
    assert recording.seen == []
    assert phases == [(5, "asked"), (5, "failed"), (9, "asked"), (9, "failed")]


def test_reply_is_pulled_once(recording: Recording) -> None:
    """Pushing and pulling are separate; a reply is handed out a single time."""
    grid = LocalGrid(recording.app, {5: {}})
    identifiers = grid.push_messages([message(5)])
    assert len(grid.pull_messages(identifiers)) == 1
    assert grid.pull_messages(identifiers) == []
    assert grid.pull_messages(["unknown"]) == []


def test_node_keeps_its_context_over_rounds(recording: Recording) -> None:
    """A node's Flower state survives from one message to the next, apart from other nodes'."""
    grid = LocalGrid(recording.app, {5: {}, 6: {}})
    grid.send_and_receive([message(5)])
    first, second = grid.send_and_receive([message(5), message(6)])
    assert first.content["n"]["n"] == 1  # type: ignore[index]
    assert second.content["n"]["n"] == 0  # type: ignore[index]
