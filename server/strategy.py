"""The Flower strategy: it turns requests into messages and replies into answers, nothing more.

Message out: ``request`` (ConfigRecord, one field ``json``) and ``adapter`` (ArrayRecord). Message in:
``update`` (ArrayRecord) and ``receipt`` (ConfigRecord, ``json``), or ``decline`` (ConfigRecord, ``json``).
"""

from collections.abc import Iterable, Mapping

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, Decline, RoundReply
from privacy.receipts import SignedReceipt
from server.coordinator import Answer, Coordinator, Failure
from server.enrolment import Enrolment

_ERRORS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its node could not load the ClientApp",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "its ClientApp raised an error; its own log says which",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer was lost on the way",
    ErrorCode.MESSAGE_UNAVAILABLE: "its answer was lost on the way",
    ErrorCode.NODE_UNAVAILABLE: "its node went away",
    ErrorCode.INVALID_FAB: "its node refused the bundle",
    ErrorCode.CLIENT_APP_CRASHED: "its ClientApp crashed",
}


class DepartmentRounds(Strategy):
    """Asks every connected department in each round; :class:`~server.coordinator.Coordinator` decides.

    Flower counts rounds from 1 at every start; the coordinator's own number goes on where the
    checkpoint ended. Evaluation is on public data at the hub, so no evaluation message is sent.
    """

    def __init__(self, coordinator: Coordinator, enrolment: Enrolment) -> None:
        self._coordinator = coordinator
        self._enrolment = enrolment
        self._sent: dict[str, Message] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message for each department that is enrolled and connected."""
        requests = self._coordinator.requests(grid.get_node_ids())
        self._sent = {}
        messages = []
        for department, request in requests.items():
            content = RecordDict(
                {"request": ConfigRecord({"json": request.to_json()}), "adapter": arrays}
            )
            message = Message(
                content,
                self._enrolment.by_department[department].node_id,
                MessageType.TRAIN,
                group_id=str(request.round),
            )
            self._sent[department] = message
            messages.append(message)
        # A list: the grid goes through it twice.
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, None]:
        """Hand the answers over; the averaged adapter comes back, already in a checkpoint.

        Raises:
            server.errors.RoundFailed: too few contributions.
        """
        answers: dict[str, Answer] = {}
        departments = {
            message.metadata.message_id: department for department, message in self._sent.items()
        }
        for reply in replies:
            department = departments.get(reply.metadata.reply_to_message_id)
            if department is not None and department not in answers:
                answers[department] = self._read(department, reply)
        state = self._coordinator.finish(answers)
        return to_arrays(state.adapter), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: evaluating on a department's records would be an unaccounted release."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing was asked, nothing is aggregated."""
        return None

    def summary(self) -> None:
        """Nothing beyond what Flower logs: the events say more."""

    def _read(self, department: str, reply: Message) -> Answer:
        if reply.has_error():
            # The reason is text from the node's process and may quote anything: only its code stays.
            told = _ERRORS.get(reply.error.code, f"Flower reported error {reply.error.code}")
            return Failure("node_error", told)
        node_id = self._enrolment.by_department[department].node_id
        if reply.metadata.src_node_id != node_id:
            return Failure(
                "rejected", f"the answer came from node {reply.metadata.src_node_id}, not {node_id}"
            )
        try:
            return read_answer(reply.content)
        except (ExchangeInvalid, ReceiptInvalid) as error:
            return Failure("rejected", str(error))


def to_arrays(tensors: Mapping[str, Array]) -> ArrayRecord:
    """Tensors as Flower carries them, in the order of their names."""
    return ArrayRecord({name: FlowerArray(tensors[name]) for name in sorted(tensors)})


def read_answer(content: RecordDict) -> RoundReply | Decline:
    """A node's answer from a message's content.

    Raises:
        ExchangeInvalid, ReceiptInvalid: it is neither a reply nor a decline of ours.
    """
    if set(content) == {"decline"}:
        return Decline.from_json(_json(content, "decline"))
    if set(content) != {"update", "receipt"}:
        raise ExchangeInvalid("an answer has the records 'update' and 'receipt', or 'decline'")
    arrays = content["update"]
    if not isinstance(arrays, ArrayRecord):
        raise ExchangeInvalid("the record 'update' holds no arrays")
    try:
        update = {name: array.numpy() for name, array in arrays.items()}
    except (TypeError, ValueError, EOFError):
        raise ExchangeInvalid("the record 'update' holds something that is no array") from None
    return RoundReply(update, SignedReceipt.from_json(_json(content, "receipt")))


def _json(content: RecordDict, name: str) -> str:
    record = content[name]
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        raise ExchangeInvalid(f"the record {name!r} has the one field 'json', a text")
    return text
