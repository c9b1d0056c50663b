"""One run, round after round: whom to ask what, which answers count, what is kept.

Plain Python between Flower and the checkpoint: it sees requests and answers, never a message. An
update goes into the round's combination as it arrives and is dropped, so that the hub needs no more
memory for a thousand nodes than for ten.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from policies.model import Policy
from privacy.dp.accounting import epsilon as composed_epsilon
from privacy.dp.events import MechanismEvent
from privacy.exchange import Decline, RoundReply, RoundRequest, adapter_digest
from privacy.receipts import Receipt, SignedReceipt
from server.aggregation.checks import (
    Shapes,
    apply_update,
    check_norm,
    trained_shapes,
    verify_reply,
)
from server.aggregation.combine import Combination, combination
from server.aggregation.optimisers import ServerOptimiser
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

NO_REPLY = Failure("no_reply", "it did not answer before the deadline")
LATE = Failure("late", "the round had enough contributions before it answered")


class Coordinator:
    """Carries a run's state from one checkpoint to the next.

    A round is :meth:`requests`, then :meth:`take` for each answer as it arrives, then
    :meth:`finish`.
    """

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
        self._events: dict[str, list[MechanismEvent]] = defaultdict(list)
        self._note(state.receipts)
        self._asked: dict[str, RoundRequest] = {}
        self._shapes: Shapes = {}
        self._sent_digest = ""
        self._combined: Combination = self._empty()
        self._receipts: dict[str, SignedReceipt] = {}
        self._declines: dict[str, NodeDeclined] = {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who was asked in this round and has not answered yet."""
        return tuple(d for d in self._asked if d not in self._receipts and d not in self._declines)

    @property
    def contributions(self) -> int:
        """How many answers of this round count so far."""
        return len(self._receipts)

    def requests(self, online: Iterable[int]) -> dict[str, RoundRequest]:
        """Begin the next round: what to ask each enrolled department that is online."""
        present = set(online)
        number = self.state.round + 1
        self._sent_digest = adapter_digest(self.state.adapter)
        self._shapes = trained_shapes(self.state.adapter, self.state.plan.adapter_config())
        self._combined, self._receipts, self._declines = self._empty(), {}, {}
        self._asked = {
            node.department: self.state.plan.request(number, node.department)
            for node in self._enrolment.nodes
            if node.node_id in present
        }
        self._on_event(RoundStarted(number, self.state.plan.rounds, tuple(self._asked)))
        for node in self._enrolment.nodes:
            if node.node_id not in present:
                self._decline(node.department, Failure("offline", "its node is not connected"))
        return dict(self._asked)

    def take(self, department: str, answer: Answer) -> None:
        """Verify an answer and add its update to the round's combination, keeping no more of it.

        Only the first answer of a department that was asked counts; others are ignored.
        """
        answered = department in self._receipts or department in self._declines
        if department not in self._asked or answered:
            return
        if not isinstance(answer, RoundReply):
            self._decline(department, answer)
            return
        try:
            receipt = self._verify(department, answer)
        except UpdateRejected as error:
            self._decline(department, Failure("rejected", error.fault))
            return
        self._combined.add(department, answer.update)
        self._receipts[department] = answer.receipt
        self._on_event(
            NodeReplied(
                self.state.round + 1,
                department,
                receipt.epsilon,
                receipt.delta,
                answer.receipt.digest,
            )
        )

    def finish(self, missing: Failure = NO_REPLY) -> RunState:
        """Close the round and store the checkpoint; whoever has not answered is left out.

        ``missing`` says why they are.

        Raises:
            RoundFailed: fewer contributions than the plan's ``minimum_nodes``; nothing is stored,
                so that the round can be asked again.
        """
        for department in self.waiting:
            self._decline(department, missing)
        plan, departments = self.state.plan, sorted(self._receipts)
        declines = tuple(self._declines[name] for name in sorted(self._declines))
        if len(departments) < plan.minimum_nodes:
            number = self.state.round + 1
            raise RoundFailed(number, plan.minimum_nodes, departments, declines)
        optimiser = ServerOptimiser(
            plan.server_optimiser, plan.server_learning_rate, plan.server_momentum
        )
        update, moments = optimiser.step(
            self.state.adapter, self._combined.result(), self.state.moments
        )
        receipts = tuple(self._receipts[name] for name in departments)
        adapter = apply_update(self.state.adapter, update)
        state = self.state.advanced(adapter, receipts, declines, moments)
        self._store.save(state)
        self.state = state
        self._note(receipts)
        self._on_event(
            RoundFinished(state.round, plan.rounds, tuple(departments), adapter_digest(adapter))
        )
        return state

    def _verify(self, department: str, reply: RoundReply) -> Receipt:
        request = self._asked[department]
        receipt = verify_reply(
            department,
            reply,
            request=request,
            sent_digest=self._sent_digest,
            shapes=self._shapes,
            key=self._enrolment.by_department[department].key,
        )
        check_norm(
            department,
            reply.update,
            self.state.adapter,
            request=request,
            maximum_norm=self.state.plan.maximum_update_norm,
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
        earlier = self._events[department]
        floor = composed_epsilon([*earlier, receipt.event], receipt.delta)
        if receipt.epsilon < floor * (1 - _UNDERSTATED):
            raise UpdateRejected(
                department,
                f"its epsilon={receipt.epsilon!r} is below the {floor!r} "
                "that its own rounds of this run cost",
            )
        return receipt

    def _empty(self) -> Combination:
        return combination(self.state.plan.aggregation, self.state.plan.faulty_nodes)

    def _note(self, receipts: Iterable[SignedReceipt]) -> None:
        for signed in receipts:
            self._events[signed.receipt.department].append(signed.receipt.event)

    def _decline(self, department: str, why: Decline | Failure) -> None:
        declined = NodeDeclined(department, self.state.round + 1, why.code, why.reason)
        self._declines[department] = declined
        self._on_event(declined)
