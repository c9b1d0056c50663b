"""The node agent: it owns a department's units, policy, ledger and key, and answers rounds.

It knows neither Flower nor sockets. Everything that the hub may learn is in the returned
:class:`~privacy.exchange.RoundReply` or :class:`~privacy.exchange.Decline`; nothing else leaves.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from client.checks import WatchedUnits, check_update, mismatch
from client.errors import AgentMisconfigured
from client.frozen import FrozenFactors
from client.gate import Gate
from client.personal import LEDGER_SUFFIX, PersonalAdapters
from client.state import Question, ReplyStore
from policies.decisions import RoundFacts, decide_round
from policies.model import Budget, Policy
from privacy.crashpoints import reached
from privacy.dp.adapter_config import Adapter, AdapterConfig
from privacy.dp.encode import Unit
from privacy.dp.errors import DpError
from privacy.dp.plan import DpPlan
from privacy.errors import BudgetExceeded, ExchangeInvalid
from privacy.exchange import (
    Array,
    Decline,
    RoundReply,
    RoundRequest,
    adapter_digest,
    check_tensors,
)
from privacy.ledger.history import LedgerHistory, composed
from privacy.ledger.ledger import Ledger, Reservation
from privacy.receipts import Receipt
from privacy.signing import SigningKey

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class Trainer(Protocol):
    """What the agent needs of :class:`privacy.dp.trainer.LoraTrainer`."""

    @property
    def base_digest(self) -> str:
        """Digest of the base model in memory."""
        ...

    def initial_adapter(self, config: AdapterConfig, seed: int) -> Adapter:
        """Tensors of the right names and shapes."""
        ...

    def train(
        self,
        adapter: Adapter,
        units: Sequence[Unit],
        plan: DpPlan,
        learning_rate: float,
        config: AdapterConfig,
        progress: Progress | None = None,
    ) -> Adapter:
        """The trained tensors, noised.

        What it learns of the units it reads from ``units``, in this call.
        """
        ...


class NodeAgent:
    """Answers rounds for one department; see :class:`client.port.Agent` for what it promises.

    ``policy`` is the department's own copy. ``gate`` sees each round first. ``units`` are scrubbed
    and encoded, the examples of one unit of privacy together. ``state_dir`` keeps given replies.
    ``progress`` sees (step, steps) locally. Rounds take turns: the ledger, the model and the reply
    store are used by one round at a time.

    Raises :class:`~client.errors.AgentMisconfigured` where the parts do not fit together.
    """

    def __init__(
        self,
        *,
        department: str,
        policy: Policy,
        gate: Gate,
        units: Sequence[Unit],
        trainer: Trainer,
        ledger: Ledger,
        key: SigningKey,
        state_dir: Path,
        code_digest: str,
        progress: Progress | None = None,
    ) -> None:
        if department not in policy.departments:
            known = ", ".join(policy.departments)
            raise AgentMisconfigured(f"no department {department!r}; the policy names {known}")
        self.department = department
        self._policy = policy
        self._gate = gate
        self._budget: Budget = policy.budget_of(department)
        self._units = units
        self._trainer = trainer
        self._ledger = ledger
        self._key = key
        self._replies = ReplyStore(state_dir, key.verify_key)
        self._frozen = FrozenFactors(state_dir)
        self.personal = PersonalAdapters(state_dir)
        self._code_digest = code_digest
        self._progress = progress
        self._lock = threading.Lock()
        self._shapes = lru_cache(maxsize=8)(self._tensor_shapes)
        self._check_units()

    def handle(
        self, request: RoundRequest, adapter: Mapping[str, Array], manifest: str | None = None
    ) -> RoundReply | Decline:
        """Answer one round; see :meth:`client.port.Agent.handle`. Never raises an ``Exception``."""
        with self._lock:
            try:
                declined = self._gate.check(request, manifest)
                return self._answer(request, adapter) if declined is None else declined
            except Exception as error:
                # The text of an unforeseen error may quote what it stumbled over, so neither the
                # hub nor the log gets it: the log has its type and place, the hub that it happened.
                _log_place(f"round {request.round} of run {request.run_id}", error)
                return Decline(
                    code="unavailable",
                    reason=f"department {self.department!r} could not answer; its own log says why",
                )

    def _answer(self, request: RoundRequest, adapter: Mapping[str, Array]) -> RoundReply | Decline:
        config = _config(request)
        adapter = self._frozen.complete(request.run_id, adapter, config)
        fault = self._fault(request, adapter)
        if fault is not None:
            return Decline(code="invalid_request", reason=fault[:500])
        question = Question.of(request, adapter)
        given = self._replies.load(question)
        # A reply that was paid for is only given again; handing it out twice costs nothing more.
        count = self._policy.training.events_per_round
        cost = [] if given is not None else [request.event()] * count
        spent = self._ledger.read().events(self.department, self._budget.block)
        decision = decide_round(
            self._policy,
            self.department,
            request_facts=_facts(request),
            epsilon_after=composed([*spent, *cost], self._budget.delta),
        )
        if not decision:
            return Decline.model_validate({"code": decision.code, "reason": decision.reason[:500]})
        if given is None:
            answer = self._spend(request, adapter, question)
        else:
            self._settle(given)
            answer = given
        if isinstance(answer, RoundReply):
            # The hub may leave the frozen tensors out once it has this node's first reply.
            self._frozen.keep(request.run_id, adapter, config)
        return answer

    def _spend(
        self, request: RoundRequest, adapter: Mapping[str, Array], question: Question
    ) -> RoundReply | Decline:
        personal: Reservation | None = None
        try:
            # First, so that the receipt's epsilon has both charges of the round in it.
            if self._policy.training.personal:
                personal = self._reserve(request, LEDGER_SUFFIX)
            reservation = self._reserve(request)
        except BudgetExceeded as error:
            self._void_unread(personal)
            return Decline(code="budget_exhausted", reason=str(error)[:500])
        # A crash from here on leaves the reservation, which counts as spent, and no reply.
        reached("agent.after-reserve")
        units = WatchedUnits(self._units)
        try:
            update = self._train(request, adapter, units)
        except Exception as error:
            _log_place(f"training of round {request.round} of run {request.run_id}", error)
            # A crash before or within the void leaves the reservation, which counts as spent.
            if not units.read:
                refused = isinstance(error, DpError)
                self._ledger.void(
                    reservation, "refused_before_reading" if refused else "failed_before_reading"
                )
            self._void_unread(personal)
            # The same words in either case: how far training came may depend on the records.
            return Decline(
                code="unavailable", reason=f"training failed at department {self.department!r}"
            )
        reached("agent.after-train")
        receipt = Receipt(
            run_id=request.run_id,
            round=request.round,
            department=self.department,
            block=reservation.block,
            event=request.event(),
            epsilon=reservation.epsilon,
            lifetime_epsilon=reservation.lifetime_epsilon,
            delta=self._budget.stated_delta,
            unit=request.unit,
            policy_digest=self._policy.digest,
            code_digest=self._code_digest,
            adapter_before=question.adapter_digest,
            adapter_after=adapter_digest(update),
            key_id=self._key.key_id,
        ).sign(self._key)
        reply = RoundReply(update, receipt)
        # Commit, then publish. A crash before this write: nothing has left, the budget is spent. A
        # crash after it: asked again, the node finds the reply and gives the very same bytes.
        self._replies.save(question, reply)
        # A crash before the commit leaves a reservation with a stored reply. It counts as spent
        # either way; the receipt's digest is noted when the round is asked for again.
        self._ledger.commit(reservation, receipt.digest)
        reached("agent.after-commit")
        if personal is not None:
            self._train_personal(request, adapter, personal)
        return reply

    def _train_personal(
        self, request: RoundRequest, adapter: Mapping[str, Array], reservation: Reservation
    ) -> None:
        """The round of the personal adapter. Nothing of it, nor whether it failed, leaves."""
        units = WatchedUnits(self._units)
        try:
            start = self.personal.composed(request.run_id, adapter)
            trained = self._train(request, start, units)
        except Exception as error:
            _log_place(f"personal round {request.round} of run {request.run_id}", error)
            if not units.read:
                self._void_unread(reservation)
            return
        kept = self.personal.keep(request.run_id, adapter, trained)
        # A crash before: it is charged, and not noted as released, although the service may use it.
        self._ledger.commit(reservation, adapter_digest(kept))

    def _reserve(self, request: RoundRequest, suffix: str = "") -> Reservation:
        return self._ledger.reserve(
            self.department,
            f"{request.run_id}{suffix}",
            request.round,
            request.event(),
            self._policy.digest,
            self._budget,
        )

    def _void_unread(self, reservation: Reservation | None) -> None:
        """Give back the charge of a personal round that read no unit."""
        if reservation is not None:
            self._ledger.void(reservation, "failed_before_reading")

    def _train(
        self, request: RoundRequest, adapter: Mapping[str, Array], units: Sequence[Unit]
    ) -> dict[str, Array]:
        config = _config(request)
        update = dict(
            self._trainer.train(
                adapter, units, request.plan(), request.learning_rate, config, self._progress
            )
        )
        check_update(adapter, update, config)
        return update

    def _fault(self, request: RoundRequest, adapter: Mapping[str, Array]) -> str | None:
        """What makes the request impossible to answer, in public words, or None."""
        if request.base_model_digest != self._trainer.base_digest:
            return (
                f"the run is for base model {request.base_model_digest[:12]}, this node holds "
                f"{self._trainer.base_digest[:12]}"
            )
        if request.expected_delta != self._budget.stated_delta:
            return (
                f"expected_delta={request.expected_delta!r} is not the delta={self._budget.delta} "
                f"of department {self.department!r}"
            )
        if request.max_tokens != self._policy.training.max_tokens:
            return (
                f"max_tokens={request.max_tokens} is not the policy's training.max_tokens="
                f"{self._policy.training.max_tokens}, under which the records were encoded"
            )
        declared = self._policy.departments[self.department].declared_units
        if request.declared_units != declared:
            return (
                f"declared_units={request.declared_units} is not the policy's {declared} for "
                f"department {self.department!r}"
            )
        if request.alpha != int(request.alpha):
            return f"alpha={request.alpha!r} must be a whole number"
        try:
            check_tensors(adapter)
            shapes = self._shapes(_config(request))
        except (ExchangeInvalid, DpError) as error:
            return str(error)
        return mismatch(adapter, shapes)

    def _tensor_shapes(self, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
        tensors = self._trainer.initial_adapter(config, 0)
        return {name: tensor.shape for name, tensor in tensors.items()}

    def _settle(self, reply: RoundReply) -> None:
        """Note a stored reply in the ledger, where a crash came between the two writes."""
        receipt = reply.receipt.receipt
        history = self._ledger.read()
        noted = {entry.receipt_digest for entry in history.entries}
        if (
            reply.receipt.digest not in noted
            and (index := _unsettled(history, receipt)) is not None
        ):
            reservation = Reservation(
                index=index,
                department=receipt.department,
                block=receipt.block,
                run_id=receipt.run_id,
                round=receipt.round,
                event=receipt.event,
                epsilon=receipt.epsilon,
                lifetime_epsilon=receipt.lifetime_epsilon,
                delta=self._budget.delta,
                budget=self._budget.epsilon,
            )
            self._ledger.commit(reservation, reply.receipt.digest)

    def _check_units(self) -> None:
        count = len(self._units)
        if not count:
            raise AgentMisconfigured(f"department {self.department!r} has no example to train on")
        if not self._budget.protects(count):
            # Said locally only: the message holds the true count.
            raise AgentMisconfigured(
                f"delta={self._budget.delta} must be below 1/{count}, one over the number of "
                f"units of department {self.department!r}; lower departments."
                f"{self.department}.delta in the policy"
            )


def _config(request: RoundRequest) -> AdapterConfig:
    return AdapterConfig(
        rank=request.rank,
        alpha=int(request.alpha),
        targets=tuple(request.targets),
        last_layers=request.last_layers,
        factors=request.factors,
    )


def _facts(request: RoundRequest) -> RoundFacts:
    return RoundFacts(
        policy_digest=request.policy_digest,
        run_id=request.run_id,
        round=request.round,
        rounds=request.rounds,
        steps=request.steps,
        sampling_rate=request.sampling_rate,
        noise_multiplier=request.noise_multiplier,
        clipping_norm=request.clipping_norm,
        clipping=request.clipping,
        noise_bands=request.noise_bands,
        unit=request.unit,
        examples_per_unit=request.examples_per_unit,
        factors=request.factors,
    )


def _unsettled(history: LedgerHistory, receipt: Receipt) -> int | None:
    """The reservation that a stored reply's receipt was made under, while nothing settles it."""
    for entry in history.charged(receipt.department, receipt.block):
        whose = (entry.run_id, entry.round, entry.event, entry.epsilon)
        of = (receipt.run_id, receipt.round, receipt.event, receipt.epsilon)
        if whose == of and entry.index not in history.settled:
            return entry.index
    return None


def _log_place(what: str, error: Exception) -> None:
    """Log where an error arose and its type, not its text: that may quote what it stumbled over."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    _log.error("%s failed: %s at %s", what, type(error).__name__, place)
