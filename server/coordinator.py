"""One run, round after round: whom to ask what, which answers count, what is kept.

Plain Python between Flower and the checkpoint: it sees requests and answers, never a message.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.model import Policy
from privacy.dp.accounting import epsilon as composed_epsilon
from privacy.exchange import Decline, RoundReply, RoundRequest, adapter_digest
from privacy.receipts import Receipt, SignedReceipt
from server.aggregate import Shapes, apply_update, mean_update, trained_shapes, verify_reply
from server.enrolment import Enrolment
from server.errors import RoundFailed, UpdateRejected
from server.events import NodeDeclined, NodeReplied, OnEvent, RoundFinished, RoundStarted
from server.rounds import RunState, RunStore

_UNDERSTATED = 1e-9


@dataclass(frozen=True)
class Failure:
    """No usable answer from a node: ``code`` as in :class:`~server.events.NodeDeclined`."""

    code: str
    reason: str


Answer = RoundReply | Decline | Failure


class Coordinator:
    """Carries a run's state from one checkpoint to the next."""

    def __init__(
        self,
        state: RunState,
        *,
        policy: Policy,
        enrolment: Enrolment,
        store: RunStore,
        on_event: OnEvent,
    ) -> None:
        self.state = state
        self._policy = policy
        self._enrolment = enrolment
        self._store = store
        self._on_event = on_event
        self._asked: dict[str, RoundRequest] = {}
        self._sent_digest = ""
        self._offline: list[NodeDeclined] = []

    def requests(self, online: Iterable[int]) -> dict[str, RoundRequest]:
        """What to ask each enrolled department that is online in the next round."""
        present = set(online)
        number = self.state.round + 1
        self._sent_digest = adapter_digest(self.state.adapter)
        self._asked = {
            node.department: self.state.plan.request(number, node.department)
            for node in self._enrolment.nodes
            if node.node_id in present
        }
        self._offline = [
            NodeDeclined(node.department, number, "offline", "its node is not connected")
            for node in self._enrolment.nodes
            if node.node_id not in present
        ]
        self._on_event(RoundStarted(number, self.state.plan.rounds, tuple(self._asked)))
        return dict(self._asked)

    def finish(self, answers: Mapping[str, Answer]) -> RunState:
        """Verify the answers of one round, average the contributions and store the checkpoint.

        ``answers`` by department; whoever was asked and is not in it did not answer.

        Raises:
            RoundFailed: fewer contributions than the plan's ``minimum_nodes``; nothing is stored,
                so that the round can be asked again.
        """
        number = self.state.round + 1
        shapes = trained_shapes(self.state.adapter, self.state.plan.adapter_config())
        accepted: dict[str, RoundReply] = {}
        declines: list[NodeDeclined] = []
        for missing in self._offline:
            self._decline(missing, declines)
        for department in self._asked:
            answer = answers.get(
                department, Failure("no_reply", "it did not answer before the deadline")
            )
            if isinstance(answer, RoundReply):
                try:
                    receipt = self._verify(department, answer, shapes)
                except UpdateRejected as error:
                    answer = Failure("rejected", error.fault)
                else:
                    accepted[department] = answer
                    self._on_event(
                        NodeReplied(
                            number,
                            department,
                            receipt.epsilon,
                            receipt.delta,
                            answer.receipt.digest,
                        )
                    )
                    continue
            self._decline(NodeDeclined(department, number, answer.code, answer.reason), declines)
        if len(accepted) < self.state.plan.minimum_nodes:
            raise RoundFailed(number, self.state.plan.minimum_nodes, sorted(accepted), declines)
        self._keep(accepted, tuple(declines))
        return self.state

    def _keep(self, accepted: Mapping[str, RoundReply], declines: tuple[NodeDeclined, ...]) -> None:
        # A fixed order of summation: the same contributions give the same bytes.
        departments = sorted(accepted)
        mean = mean_update((accepted[name].update, 1.0) for name in departments)
        receipts = tuple(accepted[name].receipt for name in departments)
        state = self.state.advanced(apply_update(self.state.adapter, mean), receipts, declines)
        self._store.save(state)
        self.state = state
        self._on_event(
            RoundFinished(
                state.round, state.plan.rounds, tuple(departments), adapter_digest(state.adapter)
            )
        )

    def _verify(self, department: str, reply: RoundReply, shapes: Shapes) -> Receipt:
        request = self._asked[department]
        receipt = verify_reply(
            department,
            reply,
            request=request,
            sent_digest=self._sent_digest,
            shapes=shapes,
            key=self._enrolment.by_department[department].key,
        )
        budget = self._policy.budget_of(department)
        if receipt.block != budget.block:
            raise UpdateRejected(
                department, f"its block={receipt.block!r} is not the policy's {budget.block!r}"
            )
        if not budget.allows(receipt.epsilon):
            raise UpdateRejected(
                department,
                f"its epsilon={receipt.epsilon!r} exceeds the budget of {budget.epsilon}",
            )
        earlier = [r.receipt.event for r in self._receipts_of(department)]
        floor = composed_epsilon([*earlier, receipt.event], receipt.delta)
        if receipt.epsilon < floor * (1 - _UNDERSTATED):
            raise UpdateRejected(
                department,
                f"its epsilon={receipt.epsilon!r} is below the {floor!r} "
                "that its own rounds of this run cost",
            )
        return receipt

    def _receipts_of(self, department: str) -> list[SignedReceipt]:
        return [r for r in self.state.receipts if r.receipt.department == department]

    def _decline(self, decline: NodeDeclined, declines: list[NodeDeclined]) -> None:
        declines.append(decline)
        self._on_event(decline)
