"""One federated run from its plan to its last checkpoint, over any Flower grid.

The deployed hub and the simulation in one process call the same function.
"""

from collections.abc import Mapping
from pathlib import Path

from flwr.serverapp import Grid

from policies.model import Policy
from privacy.exchange import Array
from server.coordinator import Coordinator
from server.enrolment import Enrolment
from server.errors import PlanInvalid
from server.events import OnEvent, RunBegan, ignore
from server.rounds import RunPlan, RunResult, RunState, RunStore
from server.strategy import DepartmentRounds, to_arrays

REPLY_TIMEOUT = 3600.0
"""Seconds that a round waits for its last answer."""


def run_federation(
    grid: Grid,
    plan: RunPlan,
    policy: Policy,
    enrolment: Enrolment,
    initial_adapter: Mapping[str, Array],
    checkpoint_dir: Path,
    on_event: OnEvent = ignore,
    *,
    reply_timeout: float = REPLY_TIMEOUT,
) -> RunResult:
    """Run the plan's rounds, going on after the last checkpoint in ``checkpoint_dir``.

    Each completed round is durable before the next begins. A run that was interrupted asks its
    open round again under the same run id; nodes that had answered give the same bytes without a
    second charge. A run that is already complete is returned as it is.

    Raises:
        PlanInvalid: the plan was made under another policy.
        EnrolmentInvalid: a department is enrolled that the policy does not name.
        CheckpointUnusable: the stored run is damaged, in use, or was planned differently.
        RoundFailed: too few departments contributed; the checkpoint of the round before stands.
    """
    if plan.policy_digest != policy.digest:
        raise PlanInvalid(
            f"the plan was made under policy {plan.policy_digest[:12]}, "
            f"the policy given is {policy.digest[:12]}; plan the run again"
        )
    enrolment.check(policy)
    store = RunStore(checkpoint_dir)
    with store.exclusive():
        state = store.begin(plan, initial_adapter)
        on_event(RunBegan(state.plan.run_id, state.round, state.plan.rounds))
        if not state.finished:
            state = _rounds(grid, state, policy, enrolment, store, on_event, reply_timeout)
    return state.result()


def _rounds(
    grid: Grid,
    state: RunState,
    policy: Policy,
    enrolment: Enrolment,
    store: RunStore,
    on_event: OnEvent,
    reply_timeout: float,
) -> RunState:
    coordinator = Coordinator(
        state, policy=policy, enrolment=enrolment, store=store, on_event=on_event
    )
    DepartmentRounds(coordinator, enrolment).start(
        grid,
        to_arrays(state.adapter),
        num_rounds=state.plan.rounds - state.round,
        timeout=reply_timeout,
    )
    return coordinator.state
