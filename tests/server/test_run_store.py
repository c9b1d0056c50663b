"""The plan of a run and its checkpoint."""

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
from federation_kit import FakeTrainer, first_adapter, make_policy

from privacy.dp.accounting import epsilon
from privacy.dp.events import PoissonGaussian
from privacy.exchange import adapter_digest
from server.errors import CheckpointUnusable, PlanInvalid
from server.events import NodeDeclined
from server.rounds import RunPlan, RunStore

POLICY = make_policy()
BASE = FakeTrainer.base_digest


def test_noise_is_calibrated_for_the_whole_run() -> None:
    """All rounds together cost at most the target, and a thousandth less noise would cost more."""
    plan = RunPlan.from_policy(POLICY, BASE)
    steps = plan.rounds * plan.steps

    def cost(noise: float) -> float:
        return epsilon([PoissonGaussian(plan.sampling_rate, noise, steps)], 1e-5)

    assert cost(plan.noise_multiplier) <= 4.0 < cost(plan.noise_multiplier - 1e-3)


def test_noise_is_calibrated_for_the_smallest_delta() -> None:
    """The strictest department's delta decides; each is asked with its own."""
    policy = make_policy(tail="\n[departments.law]\ndelta = 1e-7\n")
    plan = RunPlan.from_policy(policy, BASE)
    assert plan.noise_multiplier > RunPlan.from_policy(POLICY, BASE).noise_multiplier
    assert plan.request(1, "law").expected_delta == 1e-7
    assert plan.request(1, "hr").expected_delta == 1e-5


def test_same_round_is_the_same_request() -> None:
    """A repeated round can be recognised by its bytes."""
    plan = RunPlan.from_policy(POLICY, BASE)
    assert plan.request(2, "hr").to_json() == plan.request(2, "hr").to_json()
    assert plan.request(2, "hr").to_json() != plan.request(3, "hr").to_json()


def test_run_that_cannot_be_planned_names_why() -> None:
    """An impossible figure is refused before anything starts."""
    with pytest.raises(PlanInvalid, match="base_model_digest"):
        RunPlan.from_policy(POLICY, "no digest")


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    """Plan, round, tensors and declines survive, bit by bit."""
    store = RunStore(tmp_path)
    plan = RunPlan.from_policy(POLICY, BASE)
    state = store.begin(plan, first_adapter(POLICY))
    decline = NodeDeclined("hr", 1, "no_reply", "it did not answer before the deadline")
    adapter = {name: tensor + 1 for name, tensor in state.adapter.items()}
    state = state.advanced(adapter, (), (decline,))
    store.save(state)
    loaded = RunStore(tmp_path).load()
    assert loaded is not None
    assert (loaded.plan, loaded.round, loaded.declines) == (plan, 1, (decline,))
    assert adapter_digest(loaded.adapter) == adapter_digest(adapter)


def test_resumed_run_keeps_its_run_id(tmp_path: Path) -> None:
    """Nodes must recognise a repeated round, so the stored run id wins over a newly drawn one."""
    store = RunStore(tmp_path)
    first = store.begin(RunPlan.from_policy(POLICY, BASE), first_adapter(POLICY))
    second = store.begin(RunPlan.from_policy(POLICY, BASE), first_adapter(POLICY))
    assert first.plan.run_id == second.plan.run_id


def test_changed_plan_refuses_to_resume_and_names_what_changed(tmp_path: Path) -> None:
    """A checkpoint goes on under the policy and model that it began with, or not at all."""
    store = RunStore(tmp_path)
    store.begin(RunPlan.from_policy(POLICY, BASE), first_adapter(POLICY))
    changed = make_policy(target=2.0)
    with pytest.raises(CheckpointUnusable, match=r"target_epsilon was 4.0 and is 2.0") as caught:
        store.begin(RunPlan.from_policy(changed, BASE), first_adapter(POLICY))
    assert "policy_digest" in str(caught.value)
    assert "choose another folder" in str(caught.value)


def test_other_initial_adapter_refuses_to_resume(tmp_path: Path) -> None:
    """The same terms over another starting point are another run."""
    store = RunStore(tmp_path)
    plan = RunPlan.from_policy(POLICY, BASE)
    store.begin(plan, first_adapter(POLICY))
    other = {name: tensor + 1 for name, tensor in first_adapter(POLICY).items()}
    with pytest.raises(CheckpointUnusable, match="initial adapter"):
        store.begin(plan, other)


def test_no_changed_byte_of_a_checkpoint_changes_the_run(tmp_path: Path) -> None:
    """A damaged file is refused, unless the damage changes nothing that is read."""
    store = RunStore(tmp_path)
    plan = RunPlan.from_policy(POLICY, BASE)
    store.begin(plan, first_adapter(POLICY))
    whole = store.path.read_bytes()
    refused = 0
    for place in np.linspace(0, len(whole) - 1, 60, dtype=int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        store.path.write_bytes(bytes(damaged))
        try:
            state = store.load()
        except CheckpointUnusable:
            refused += 1
            continue
        assert state is not None
        assert (state.plan, state.round) == (plan, 0)
        assert adapter_digest(state.adapter) == adapter_digest(first_adapter(POLICY))
    assert refused > 50


def test_cut_checkpoint_is_found(tmp_path: Path) -> None:
    """A file that lost its end is damaged, not an earlier state."""
    store = RunStore(tmp_path)
    store.begin(RunPlan.from_policy(POLICY, BASE), first_adapter(POLICY))
    store.path.write_bytes(store.path.read_bytes()[:-1])
    with pytest.raises(CheckpointUnusable, match="damaged"):
        store.load()


def _hold(folder: Path, holding, done) -> None:
    with RunStore(folder).exclusive():
        holding.set()
        done.wait(60)


def test_second_hub_is_kept_out(tmp_path: Path) -> None:
    """Two processes never carry the same run; when the first ends, however, the folder is free."""
    context = multiprocessing.get_context("fork")
    holding, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, holding, done))
    process.start()
    assert holding.wait(60)
    with pytest.raises(CheckpointUnusable, match="another run"), RunStore(tmp_path).exclusive():
        pass
    process.kill()
    process.join()
    with RunStore(tmp_path).exclusive():
        pass


def test_reader_beside_the_hub_sees_one_checkpoint_or_the_other(tmp_path: Path) -> None:
    """Whoever looks at a run while its file is replaced never takes parts of two checkpoints."""
    store = RunStore(tmp_path)
    state = store.begin(RunPlan.from_policy(POLICY, BASE), first_adapter(POLICY))
    other = state.advanced({name: tensor + 1 for name, tensor in state.adapter.items()}, (), ())
    ending = threading.Event()

    def replace_again_and_again() -> None:
        while not ending.is_set():
            store.save(other)
            store.save(state)

    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    try:
        seen = {loaded.round for _ in range(300) if (loaded := RunStore(tmp_path).load())}
    finally:
        ending.set()
        writer.join()
    assert seen <= {0, 1}
