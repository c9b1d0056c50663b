"""The rounds over Flower: requests become messages, and replies answers, nothing more.

Message out: ``request`` and the run's ``manifest`` (ConfigRecord, each with one field ``json``) and
``adapter`` (ArrayRecord). Message in:
``update`` (ArrayRecord) and ``receipt`` (ConfigRecord, ``json``), or ``decline`` (ConfigRecord, ``json``).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, Decline, RoundReply
from privacy.receipts import SignedReceipt
from server.coordinator import LATE, NO_REPLY, Answer, Coordinator, Failure
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

UNSENT = Failure("node_error", "the request could not be sent to it")
PULL_AT_ONCE = 8
"""Replies in memory at the same time."""
POLL = 1.0
"""Seconds between two looks for replies."""


class DepartmentRounds:
    """Asks every connected department in each round; :class:`~server.coordinator.Coordinator` decides.

    Flower's own loop collects all replies of a round before it hands them on. This one pulls
    ``PULL_AT_ONCE`` at a time, and the coordinator keeps no update: the replies that wait are in the
    SuperLink's store, not in the hub's memory. Evaluation is on public data at the hub, so no
    evaluation message is ever sent.

    ``manifest``: the run's signed manifest, sent with each request; nodes decline without. ``enough``:
    a round ends once so many contributed (k of n); None waits for all, at most to the deadline.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        enrolment: Enrolment,
        *,
        manifest: str | None = None,
        enough: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._coordinator = coordinator
        self._enrolment = enrolment
        self._manifest = {} if manifest is None else {"manifest": ConfigRecord({"json": manifest})}
        self._enough = enough
        self._clock = clock
        self._pause = pause
        self._hold_frozen: set[str] = set()

    def run(self, grid: Grid, *, timeout: float) -> None:
        """The rounds that are left, each at most ``timeout`` seconds long.

        Raises:
            server.errors.RoundFailed: too few contributions.
        """
        while not self._coordinator.state.finished:
            self._coordinator.finish(self._ask(grid, timeout))

    def _ask(self, grid: Grid, timeout: float) -> Failure:
        """One round; why whoever has not answered by its end is left out."""
        deadline = self._clock() + timeout
        waiting = self._send(grid)
        while waiting:
            for some in batched(list(waiting), PULL_AT_ONCE):
                for reply in grid.pull_messages(some):
                    department = waiting.pop(reply.metadata.reply_to_message_id, None)
                    if department is not None:
                        self._take(department, self._read(department, reply))
            if not waiting:
                break
            if self._has_enough():
                return LATE
            if self._clock() >= deadline:
                break
            self._pause(POLL)
        return NO_REPLY

    def _has_enough(self) -> bool:
        return self._enough is not None and self._coordinator.contributions >= self._enough

    def _send(self, grid: Grid) -> dict[str, str]:
        """Send the requests of the next round; departments by the id of their message."""
        requests = self._coordinator.requests(grid.get_node_ids())
        adapter = self._coordinator.state.adapter
        config = self._coordinator.state.plan.adapter_config()
        # One record for many nodes: the grid stores its arrays once. Who took part in the round
        # before, of this process, has kept the frozen tensors and is sent the others alone.
        whole = to_arrays(adapter)
        trained = to_arrays({name: a for name, a in adapter.items() if config.is_trained(name)})
        messages = [
            Message(
                RecordDict(
                    {
                        "request": ConfigRecord({"json": request.to_json()}),
                        "adapter": trained if department in self._hold_frozen else whole,
                        **self._manifest,
                    }
                ),
                self._enrolment.by_department[department].node_id,
                MessageType.TRAIN,
                group_id=str(request.round),
            )
            for department, request in requests.items()
        ]
        identifiers = list(grid.push_messages(messages))
        # Flower names no message that it could not send, or none at all where all are too large.
        identifiers += [""] * (len(messages) - len(identifiers))
        sent = dict(zip(requests, identifiers, strict=True))
        for department, identifier in sent.items():
            if not identifier:
                self._coordinator.take(department, UNSENT)
        return {identifier: department for department, identifier in sent.items() if identifier}

    def _take(self, department: str, answer: Answer) -> None:
        if isinstance(answer, RoundReply):
            self._hold_frozen.add(department)
        else:
            self._hold_frozen.discard(department)
        self._coordinator.take(department, answer)

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


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items in their order, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
