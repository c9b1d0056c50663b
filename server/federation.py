"""One federated run from its plan to its last checkpoint, over any Flower grid.

The deployed hub and the simulation in one process call the same function.
"""

from collections.abc import Mapping
from pathlib import Path

from flwr.serverapp import Grid

from policies.model import Policy
from privacy.exchange import Array
from privacy.manifest import SignedManifest
from server.coordinator import Coordinator
from server.enrolment import Enrolment
from server.errors import CheckpointUnusable, PlanInvalid
from server.events import OnEvent, RunBegan, ignore
from server.rounds import RunPlan, RunResult, RunStore
from server.strategy import DepartmentRounds

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
    manifest: SignedManifest | None = None,
) -> RunResult:
    """Run the plan's rounds, going on after the last checkpoint in ``checkpoint_dir``.

    Each completed round is durable before the next begins. A run that was interrupted asks its
    open round again under the same run id; nodes that had answered give the same bytes without a
    second charge. A run that is already complete is returned as it is.

    ``manifest`` goes with each request; deployed nodes, and simulated ones, decline without. Its
    deadline and its k of n hold for each round.

    Raises:
        PlanInvalid: the plan was made under another policy, or is not the manifest's.
        EnrolmentInvalid: a department is enrolled that the policy does not name.
        CheckpointUnusable: the stored run is damaged, in use, or was planned differently.
        RoundFailed: too few departments contributed; the checkpoint of the round before stands.
    """
    if plan.policy_digest != policy.digest:
        raise PlanInvalid(
            f"the plan was made under policy {plan.policy_digest[:12]}, "
            f"the policy given is {policy.digest[:12]}; plan the run again"
        )
    if manifest is not None:
        if plan != RunPlan.of(manifest.manifest):
            raise PlanInvalid(f"the plan is not that of the manifest {manifest.manifest.run_id}")
        reply_timeout = manifest.manifest.round_seconds
    enrolment.check(policy)
    store = RunStore(checkpoint_dir)
    with store.exclusive():
        state = store.begin(plan, initial_adapter)
        if manifest is not None and state.plan.run_id != plan.run_id:
            raise CheckpointUnusable(
                f"the run in {checkpoint_dir} is {state.plan.run_id}, the manifest is of "
                f"{plan.run_id}; choose another folder"
            )
        on_event(RunBegan(state.plan.run_id, state.round, state.plan.rounds))
        if not state.finished:
            coordinator = Coordinator(
                state, policy=policy, enrolment=enrolment, store=store, on_event=on_event
            )
            rounds = DepartmentRounds(
                coordinator,
                enrolment,
                manifest=None if manifest is None else manifest.to_json(),
                enough=None if manifest is None else manifest.manifest.enough,
            )
            rounds.run(grid, timeout=reply_timeout)
            state = coordinator.state
    return state.result()
