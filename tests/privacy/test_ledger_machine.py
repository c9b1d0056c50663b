"""Whatever is done to a ledger, in whatever order and however it is cut short: it never undercounts.

A model lives beside a real SQLite ledger. Two handles and short-lived processes reserve, commit and
void; a process is killed at a named crash point of any of them; handles are closed and opened
again. The model "releases" a round at the one moment at which the node does: it holds an
undisturbed reservation, and its result leaves. After every rule:

- each department's charged events contain every event that was released, as a multiset, by block;
- its epsilon, of each block and of its lifetime, is at least that of what was released;
- what was charged is no more than what was ever asked for;
- the file verifies.

It fails when a reservation is handed out that is not durable, when a void succeeds for a round that
was released or committed, when a crash loses a charge, when a handle prices a round without what
the other handle or a dead process charged, when a block's events are counted for another, and when
an entry is left that no verifier accepts.
"""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from proof_kit import FORK, SHA, fixed_key

from policies.model import Budget
from privacy import crashpoints
from privacy.dp.events import MechanismEvent, PoissonGaussian
from privacy.errors import BudgetExceeded, LedgerError
from privacy.ledger.entries import VOID_REASONS, VoidReason
from privacy.ledger.history import composed
from privacy.ledger.ledger import Ledger, Reservation, verify_ledger

DELTA = Decimal("1e-5")
DEPARTMENTS = ("hr", "it")
BLOCKS = ("1", "2")
EVENTS = (PoissonGaussian(0.1, 1.0, 2), PoissonGaussian(0.2, 1.5, 1))
BUDGET = Decimal("3.5")
KEY = fixed_key()

departments = st.sampled_from(DEPARTMENTS)
blocks = st.sampled_from(BLOCKS)
events = st.sampled_from(EVENTS)
handles = st.integers(0, 1)
reasons = st.sampled_from(VOID_REASONS)
points = st.sampled_from(
    [
        "store.opened",
        "store.migrated",
        "ledger.before-reserve",
        "ledger.reserved",
        "ledger.before-commit",
        "ledger.committed",
        "ledger.before-void",
        "ledger.voided",
        "store.before-seal",
        "files.before-rename",
        "store.sealed",
    ]
)


@dataclass
class Held:
    """A reservation that a node holds, and what the model knows of it."""

    reservation: Reservation
    released: bool = False
    settled: str = ""


Account = Counter[tuple[str, str, MechanismEvent]]


class LedgerMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-machine-"))
        self.path = self.folder / "ledger.db"
        self.handles = [Ledger(self.path, KEY), Ledger(self.path, KEY)]
        self.round = 0
        self.released: Account = Counter()
        self.asked: Account = Counter()

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()
        report = verify_ledger(self.path, KEY.verify_key)
        shutil.rmtree(self.folder)
        assert (report.ok, report.state) == (True, "closed"), report.faults

    @rule(target=held, handle=handles, department=departments, block=blocks, event=events)
    def reserve(self, handle: int, department: str, block: str, event: MechanismEvent) -> object:
        self.round += 1
        budget = Budget(BUDGET, DELTA, block)
        before = self.charged()
        own = [e for d, b, e in before.elements() if (d, b) == (department, block)]
        fits = budget.allows(composed([*own, event], DELTA))
        self.asked[department, block, event] += 1
        try:
            taken = self.handles[handle].reserve(department, "run", self.round, event, SHA, budget)
        except BudgetExceeded:
            assert not fits
            assert self.charged() == before
            return multiple()
        assert fits
        return Held(taken)

    @rule(one=held)
    def release(self, one: Held) -> None:
        """The result leaves the node: allowed to whoever holds a reservation that is not voided."""
        if one.settled != "void" and not one.released:
            one.released = True
            reservation = one.reservation
            self.released[reservation.department, reservation.block, reservation.event] += 1

    @rule(handle=handles, one=held)
    def commit(self, handle: int, one: Held) -> None:
        self.settle(one, "commit", lambda: self.handles[handle].commit(one.reservation, SHA))

    @rule(handle=handles, one=held, reason=reasons)
    def void(self, handle: int, one: Held, reason: VoidReason) -> None:
        """The node voids only what it knows not to be released; what is committed is, too."""
        if not one.released:
            self.settle(one, "void", lambda: self.handles[handle].void(one.reservation, reason))

    def settle(self, one: Held, how: str, action: Callable[[], None]) -> None:
        try:
            action()
        except LedgerError:
            assert one.settled
        else:
            assert not one.settled
            one.settled = how
            if how == "commit" and not one.released:
                self.release(one)

    @rule(one=held, reason=reasons, point=points, alone=st.booleans())
    def crash_while_settling(self, one: Held, reason: VoidReason, point: str, alone: bool) -> None:
        """A process is killed while it voids or commits: the settlement is there, or it is not."""
        if one.settled:
            return

        def work() -> None:
            with Ledger(self.path, KEY) as ledger:
                if one.released:
                    ledger.commit(one.reservation, SHA)
                else:
                    ledger.void(one.reservation, reason)

        self.kill(work, point, alone)
        found = self.handles[0].read().settled.get(one.reservation.index)
        one.settled = "" if found is None else found.kind

    @rule(department=departments, block=blocks, event=events, point=points, alone=st.booleans())
    def crash_while_reserving(
        self, department: str, block: str, event: MechanismEvent, point: str, alone: bool
    ) -> None:
        """A process is killed around its reservation, or it releases and is killed before it commits."""
        self.round += 1
        budget = Budget(BUDGET, DELTA, block)
        publication = self.folder / f"published-{self.round}"

        def work() -> None:
            with Ledger(self.path, KEY) as ledger:
                try:
                    taken = ledger.reserve(department, "run", self.round, event, SHA, budget)
                except BudgetExceeded:
                    return
                publication.touch()
                ledger.commit(taken, SHA)

        self.asked[department, block, event] += 1
        self.kill(work, point, alone)
        if publication.exists():
            self.released[department, block, event] += 1

    @rule(department=departments, block=blocks, event=events)
    def reserve_in_another_process(
        self, department: str, block: str, event: MechanismEvent
    ) -> None:
        """It reserves, releases and ends without a word; nobody here holds its reservation."""
        self.round += 1
        budget = Budget(BUDGET, DELTA, block)
        results = FORK.SimpleQueue()

        def work() -> None:
            with Ledger(self.path, KEY) as ledger:
                try:
                    ledger.reserve(department, "run", self.round, event, SHA, budget)
                except BudgetExceeded:
                    results.put(False)
                else:
                    results.put(True)

        process = FORK.Process(target=work)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        self.asked[department, block, event] += 1
        if results.get():
            self.released[department, block, event] += 1

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        self.handles[handle].close()
        self.handles[handle] = Ledger(self.path, KEY)

    @rule()
    def reopen_alone(self) -> None:
        """Nobody has it open for a moment, so that it is sealed, or recovered after a crash."""
        for handle in self.handles:
            handle.close()
        assert verify_ledger(self.path, KEY.verify_key).ok
        self.handles = [Ledger(self.path, KEY), Ledger(self.path, KEY)]

    @invariant()
    def charged_covers_released(self) -> None:
        """The invariant, once for what each handle sees."""
        for handle in self.handles:
            history = handle.read()
            charged = self.charged(handle)
            assert self.released <= charged <= self.asked
            for department in DEPARTMENTS:
                for block in (*BLOCKS, None):
                    own = [
                        event
                        for d, b, event in self.released.elements()
                        if d == department and block in (b, None)
                    ]
                    assert history.spent(department, DELTA, block) >= composed(own, DELTA)

    @invariant()
    def it_verifies(self) -> None:
        report = verify_ledger(self.path, KEY.verify_key)
        assert report.ok, report.faults

    def charged(self, handle: Ledger | None = None) -> Account:
        history = (handle or self.handles[0]).read()
        return Counter(
            (department, block, event)
            for department in DEPARTMENTS
            for block in BLOCKS
            for event in history.events(department, block)
        )

    def kill(self, work: Callable[[], None], point: str, alone: bool) -> None:
        """Run ``work`` in a process that gets SIGKILL at the first ``point`` that it passes, if any.

        ``alone``: nobody else has the ledger open, so that it also opens and seals it.
        """
        if alone:
            for handle in self.handles:
                handle.close()

        def child() -> None:
            crashpoints.install(
                lambda reached: os.kill(os.getpid(), signal.SIGKILL) if reached == point else None
            )
            work()

        process = FORK.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        if alone:
            self.handles = [Ledger(self.path, KEY), Ledger(self.path, KEY)]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
