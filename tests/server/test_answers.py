"""What a node sends is read with suspicion."""

import re
from decimal import Decimal

import numpy as np
import pytest
from federation_kit import Federation, make_policy
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from privacy.errors import ExchangeInvalid, ReceiptInvalid
from server.coordinator import Coordinator
from server.errors import RoundFailed
from server.events import ignore
from server.federation import run_federation
from server.rounds import RunStore
from server.strategy import read_answer

GOOD = ArrayRecord({"t": Array(np.ones(1, np.float32))})
POLICY = make_policy()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (RecordDict(), ExchangeInvalid),
        (RecordDict({"decline": ArrayRecord()}), ExchangeInvalid),
        (RecordDict({"decline": ConfigRecord({"json": '{"code":"because"}'})}), ExchangeInvalid),
        (RecordDict({"decline": ConfigRecord({"json": "{}"}), "update": GOOD}), ExchangeInvalid),
        (RecordDict({"update": GOOD, "receipt": ConfigRecord({"json": "{}"})}), ReceiptInvalid),
        (RecordDict({"update": GOOD, "receipt": ConfigRecord({"json": 7})}), ExchangeInvalid),
        (
            RecordDict({"update": ConfigRecord(), "receipt": ConfigRecord({"json": "{}"})}),
            ExchangeInvalid,
        ),
        (
            RecordDict(
                {
                    "update": ArrayRecord({"t": Array("float32", (1,), "numpy.ndarray", b"junk")}),
                    "receipt": ConfigRecord({"json": "{}"}),
                }
            ),
            ExchangeInvalid,
        ),
    ],
)
def test_malformed_answer_is_an_error_of_ours(content: RecordDict, error: type[Exception]) -> None:
    """Whatever a node sends, reading it gives an answer or one of two errors."""
    with pytest.raises(error):
        read_answer(content)


def test_malformed_answer_costs_only_its_department(tmp_path) -> None:
    """A node that answers with something else is recorded as rejected; the round goes on."""
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from client.app import make_client_app
    from server.local_grid import LocalGrid

    with Federation(tmp_path, POLICY) as federation:
        honest = make_client_app(lambda context: federation.agents[context.node_id])
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            if context.node_id == federation.ids["hr"]:
                return Message(RecordDict({"update": GOOD}), reply_to=message)
            return honest(message, context)

        result = run_federation(
            LocalGrid(app, {node_id: {} for node_id in federation.ids.values()}),
            federation.plan(),
            POLICY,
            federation.enrolment,
            federation.adapter(),
            tmp_path / "checkpoint",
        )
    assert {(d.department, d.code) for d in result.declines} == {("hr", "rejected")}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"epsilon": Decimal("0.5")}, "exceeds the budget of 0.5"),
        ({"block": "2"}, "its block='1' is not the policy's '2'"),
    ],
)
def test_receipt_that_the_budget_does_not_cover_is_rejected(
    tmp_path, change: dict[str, object], fault: str
) -> None:
    """A contribution that its department could not afford, or paid from another block, is none."""
    store = RunStore(tmp_path / "checkpoint")
    with Federation(tmp_path, POLICY) as federation, store.exclusive():
        state = store.begin(federation.plan(), federation.adapter())
        smaller = POLICY.model_copy(
            update={
                "departments": {
                    name: part.model_copy(update=change)
                    for name, part in POLICY.departments.items()
                }
            }
        )
        coordinator = Coordinator(
            state,
            policy=smaller,
            enrolment=federation.enrolment,
            store=store,
            on_event=ignore,
        )
        requests = coordinator.requests(federation.ids.values())
        for name, request in requests.items():
            agent = federation.agents[federation.ids[name]]
            coordinator.take(name, agent.handle(request, state.adapter))
        with pytest.raises(RoundFailed, match=re.escape(fault)):
            coordinator.finish()
