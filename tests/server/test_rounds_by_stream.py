"""Answers as they arrive: what the hub makes of them, in which order, and how much it keeps."""

import tracemalloc
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from federation_kit import DEPARTMENTS, FakeTrainer, Federation, first_adapter, make_policy

from client.app import make_client_app
from privacy.exchange import RoundReply, adapter_digest
from server.coordinator import Coordinator, Failure
from server.errors import PlanInvalid, RoundFailed
from server.events import Event, NodeDeclined, NodeReplied, ignore
from server.federation import run_federation
from server.local_grid import LocalGrid
from server.rounds import RunPlan, RunState, RunStore
from server.strategy import PULL_AT_ONCE, DepartmentRounds

POLICY = make_policy()
ADAM = make_policy(more='server_optimiser = "adam"\nserver_learning_rate = 0.05')
MOMENTUM = make_policy(more='server_optimiser = "avgm"\nserver_momentum = 0.5')


def coordinator_for(
    federation: Federation, folder: Path, on_event=ignore
) -> tuple[Coordinator, RunState]:
    folder.mkdir(exist_ok=True)
    store = RunStore(folder)
    state = store.begin(federation.plan("run-1"), federation.adapter())
    coordinator = Coordinator(
        state,
        policy=federation.policy,
        enrolment=federation.enrolment,
        store=store,
        on_event=on_event,
    )
    return coordinator, state


def answers_of(federation: Federation, coordinator: Coordinator) -> dict[str, RoundReply]:
    requests = coordinator.requests(federation.ids.values())
    answers = {}
    for name, request in requests.items():
        agent = federation.agents[federation.ids[name]]
        answers[name] = agent.handle(request, coordinator.state.adapter)
    return answers


def test_order_of_arrival_changes_nothing_of_the_checkpoint(tmp_path: Path) -> None:
    """Adapter, receipts and declines are those of the answers, whoever is first."""
    states = []
    with Federation(tmp_path, POLICY) as federation:
        for place, order in enumerate(permutations(DEPARTMENTS)):
            coordinator, _ = coordinator_for(federation, tmp_path / str(place))
            answers = answers_of(federation, coordinator)  # each node repeats its stored reply
            for name in order:
                coordinator.take(name, answers[name])
            states.append(coordinator.finish())
    assert len({adapter_digest(state.adapter) for state in states}) == 1
    assert len({tuple(r.digest for r in state.receipts) for state in states}) == 1


def test_only_the_first_answer_of_whom_was_asked_counts(tmp_path: Path) -> None:
    """A second answer, one of a department that was not asked, or one after a decline is ignored."""
    events: list[Event] = []
    with Federation(tmp_path, POLICY) as federation:
        away = federation.ids.pop("it_support")
        coordinator, _ = coordinator_for(federation, tmp_path / "checkpoint", events.append)
        answers = answers_of(federation, coordinator)
        coordinator.take("it_support", answers["hr"])
        coordinator.take("hr", Failure("node_error", "its node went away"))
        coordinator.take("hr", answers["hr"])
        coordinator.take("finance", answers["finance"])
        coordinator.take("finance", answers["finance"])
        assert (coordinator.contributions, coordinator.waiting) == (1, ())
        state = coordinator.finish()
    assert away
    assert [r.receipt.department for r in state.receipts] == ["finance"]
    assert [(d.department, d.code) for d in state.declines] == [
        ("hr", "node_error"),
        ("it_support", "offline"),
    ]
    assert sum(isinstance(event, NodeReplied) for event in events) == 1
    assert sum(isinstance(event, NodeDeclined) for event in events) == 2
    update = answers["finance"].update
    assert all(np.array_equal(state.adapter[name], update[name]) for name in update)


def test_whoever_is_silent_is_named_at_the_end(tmp_path: Path) -> None:
    """Waiting shows who is still asked; finishing records them."""
    with Federation(tmp_path, POLICY) as federation:
        coordinator, _ = coordinator_for(federation, tmp_path / "checkpoint")
        answers = answers_of(federation, coordinator)
        coordinator.take("hr", answers["hr"])
        assert coordinator.waiting == ("finance", "it_support")
        state = coordinator.finish()
    assert {(d.department, d.code) for d in state.declines} == {
        ("finance", "no_reply"),
        ("it_support", "no_reply"),
    }


@pytest.mark.parametrize("policy", [POLICY, ADAM, MOMENTUM], ids=["none", "adam", "avgm"])
def test_resumed_run_takes_the_same_steps(tmp_path: Path, policy) -> None:
    """Stopped after each round and read from its checkpoint, a run ends with the same bytes."""
    with Federation(tmp_path, policy) as federation:
        straight, _ = coordinator_for(federation, tmp_path / "straight")
        while not straight.state.finished:
            for name, answer in answers_of(federation, straight).items():
                straight.take(name, answer)
            straight.finish()
        while True:
            # A new hub process: all that it knows is in the checkpoint.
            resumed, state = coordinator_for(federation, tmp_path / "resumed")
            if state.finished:
                break
            for name, answer in answers_of(federation, resumed).items():
                resumed.take(name, answer)
            resumed.finish()
    assert adapter_digest(state.adapter) == adapter_digest(straight.state.adapter)
    assert adapter_digest(state.moments) == adapter_digest(straight.state.moments)
    assert bool(state.moments) == (policy is not POLICY)


def test_moments_that_were_changed_on_disk_are_found(tmp_path: Path) -> None:
    """The optimiser's state is covered by a digest of its own."""
    store = RunStore(tmp_path)
    state = store.begin(RunPlan.from_policy(ADAM, FakeTrainer.base_digest), first_adapter(ADAM))
    moments = {"first/t": np.array([1.0, 2.0])}
    store.save(state.advanced(state.adapter, (), (), moments))
    loaded = store.load()
    assert loaded is not None
    assert loaded.moments["first/t"].tolist() == [1.0, 2.0]
    data = store.path.read_bytes()
    place = data.index(np.array([1.0, 2.0]).tobytes())
    store.path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    with pytest.raises(Exception, match="do not match their digests"):
        store.load()


def test_median_ignores_one_arbitrary_update(tmp_path: Path) -> None:
    """A department whose signed update is within its norm, and still far off, moves no value beyond
    the others'."""
    rules = 'aggregation = "median"\nminimum_nodes = 3\nmaximum_update_norm = 1000.0'
    with Federation(tmp_path, make_policy(more=rules)) as federation:
        wild = FakeTrainer()
        wild.train = lambda *given: {  # type: ignore[method-assign]
            name: np.full_like(tensor, 50) for name, tensor in given[0].items() if "lora_B" in name
        }
        federation.nodes["hr"].trainer = wild
        federation.ledgers["hr"].close()
        hr = federation.ids["hr"]
        federation.agents[hr], federation.ledgers["hr"] = federation.nodes["hr"].open()
        coordinator, _ = coordinator_for(federation, tmp_path / "checkpoint")
        answers = answers_of(federation, coordinator)
        for name, answer in answers.items():
            coordinator.take(name, answer)
        state = coordinator.finish()
    assert len(state.receipts) == 3
    for name, tensor in answers["finance"].update.items():
        limit = np.maximum(tensor, answers["it_support"].update[name])
        assert (state.adapter[name] <= limit).all()


def test_update_beyond_its_norm_costs_only_its_department(tmp_path: Path) -> None:
    """The round goes on without it, and the department is named with the norm."""
    with Federation(tmp_path, make_policy(more="maximum_update_norm = 0.001")) as federation:
        coordinator, _ = coordinator_for(federation, tmp_path / "checkpoint")
        for name, answer in answers_of(federation, coordinator).items():
            coordinator.take(name, answer)
        with pytest.raises(RoundFailed, match=r"hr: rejected: its norm=.* is beyond 0\.001"):
            coordinator.finish()


def test_plan_with_too_few_nodes_for_its_rule_is_refused() -> None:
    """Whoever makes a plan, its minimum cohort bears the faulty nodes that it names."""
    plan = RunPlan.from_policy(POLICY, FakeTrainer.base_digest)
    for change in ({"aggregation": "krum"}, {"aggregation": "median", "faulty_nodes": 4}):
        with pytest.raises(ValueError, match="minimum_nodes=1 is below the"):
            RunPlan.model_validate(plan.model_dump() | change)
    policy = POLICY.model_copy(
        update={"training": POLICY.training.model_copy(update={"aggregation": "krum"})}
    )
    with pytest.raises(PlanInvalid, match="minimum_nodes=1 is below the 5"):
        RunPlan.from_policy(policy, FakeTrainer.base_digest)


class Watched(LocalGrid):
    """A grid that remembers how many replies were pulled at a time, and can lose messages."""

    lose: tuple[int, ...] = ()

    def push_messages(self, messages):
        identifiers = super().push_messages(messages)
        return [
            None if m.metadata.dst_node_id in self.lose else i
            for m, i in zip(messages, identifiers, strict=True)
        ]

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        self.pulled = [*getattr(self, "pulled", []), len(replies)]
        return replies


def watched(federation: Federation) -> Watched:
    app = make_client_app(lambda context: federation.agents[context.node_id])
    return Watched(app, {node_id: {} for node_id in federation.ids.values()})


def test_request_that_could_not_be_sent_is_not_waited_for(tmp_path: Path) -> None:
    """Flower names no message that it could not push; that department is recorded at once."""
    with Federation(tmp_path, POLICY) as federation:
        grid = watched(federation)
        grid.lose = (federation.ids["hr"],)
        result = run_federation(
            grid,
            federation.plan(),
            POLICY,
            federation.enrolment,
            federation.adapter(),
            tmp_path / "checkpoint",
        )
    assert {(d.department, d.code, d.reason) for d in result.declines} == {
        ("hr", "node_error", "the request could not be sent to it")
    }
    assert max(grid.pulled) <= PULL_AT_ONCE


class WithoutOne(LocalGrid):
    """A grid on which the reply of one node never comes."""

    silent: int

    def push_messages(self, messages):
        identifiers = super().push_messages(messages)
        silent = [m.metadata.dst_node_id == self.silent for m in messages]
        self.lost = {i for i, lost in zip(identifiers, silent, strict=True) if lost}
        return identifiers

    def pull_messages(self, message_ids):
        return super().pull_messages([i for i in message_ids if i not in self.lost])


def run_without_hr(folder: Path, enough: int | None = None) -> tuple[float, RunState]:
    """All rounds of 30 s at most, hr being silent: the seconds that passed, and the run's end."""
    now = [0.0]
    with Federation(folder, POLICY) as federation:
        app = make_client_app(lambda context: federation.agents[context.node_id])
        coordinator, _ = coordinator_for(federation, folder / "checkpoint")
        rounds = DepartmentRounds(
            coordinator,
            federation.enrolment,
            enough=enough,
            clock=lambda: now[0],
            pause=lambda seconds: now.__setitem__(0, now[0] + seconds),
        )
        grid = WithoutOne(app, {node_id: {} for node_id in federation.ids.values()})
        grid.silent = federation.ids["hr"]
        rounds.run(grid, timeout=30.0)
    return now[0], coordinator.state


def test_round_ends_at_its_deadline(tmp_path: Path) -> None:
    """Silent nodes are waited for until the deadline, by the given clock, and then named."""
    seconds, state = run_without_hr(tmp_path)
    assert seconds == pytest.approx(90.0)
    assert {(d.department, d.code) for d in state.declines} == {("hr", "no_reply")}
    assert len(state.declines) == 3


def test_round_ends_once_enough_contributed(tmp_path: Path) -> None:
    """With k of n, the round does not wait for who is late, and names them; the deadline is not
    reached."""
    seconds, state = run_without_hr(tmp_path, enough=2)
    assert seconds == 0.0
    assert {(d.department, d.code) for d in state.declines} == {("hr", "late")}
    assert len(state.declines) == 3


def test_hub_keeps_no_update(tmp_path: Path) -> None:
    """While answers come in, memory does not grow by what they carry."""
    size = 200_000

    class Big(FakeTrainer):
        def initial_adapter(self, config, seed: int) -> dict[str, np.ndarray]:
            stem = "base_model.model.layers.0.self_attn.q_proj"
            return {
                f"{stem}.lora_A.weight": np.ones((2, 4), np.float32),
                f"{stem}.lora_B.weight": np.zeros((size, 2), np.float32),
            }

    trainers: Mapping[str, FakeTrainer] = {name: Big() for name in DEPARTMENTS}
    with Federation(tmp_path, POLICY, trainers=trainers) as federation:
        store = RunStore(tmp_path)
        state = store.begin(federation.plan("run-1"), Big().initial_adapter(None, 0))
        coordinator = Coordinator(
            state, policy=POLICY, enrolment=federation.enrolment, store=store, on_event=ignore
        )
        requests = coordinator.requests(federation.ids.values())
        held = []
        tracemalloc.start()
        for name in DEPARTMENTS:
            agent = federation.agents[federation.ids[name]]
            coordinator.take(name, agent.handle(requests[name], state.adapter))
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    # Two updates of 1.6 MB each came after the first; the exact sum gained at most one part.
    assert held[2] - held[1] < 0.1 * size * 2 * 4


def test_frozen_factors_are_sent_until_a_node_has_them(tmp_path: Path) -> None:
    """Round 1 brings the whole adapter, later ones the trained tensors; a node that lost the others
    declines one round at no cost and is sent all again."""
    sent: list[dict[int, int]] = []

    class Sizes(LocalGrid):
        def push_messages(self, messages):
            sent.append({m.metadata.dst_node_id: len(m.content["adapter"]) for m in messages})
            if len(sent) == 2:
                (federation.nodes["hr"].replies / "run-1.frozen").unlink()
            return super().push_messages(messages)

    with Federation(tmp_path, POLICY) as federation:
        app = make_client_app(lambda context: federation.agents[context.node_id])
        result = run_federation(
            Sizes(app, {node_id: {} for node_id in federation.ids.values()}),
            federation.plan("run-1"),
            POLICY,
            federation.enrolment,
            federation.adapter(),
            tmp_path / "checkpoint",
        )
        charged = len(federation.ledgers["hr"].history("hr"))
    hr = federation.ids["hr"]
    assert [one.pop(hr) for one in sent] == [4, 2, 4]
    assert [set(one.values()) for one in sent] == [{4}, {2}, {2}]
    assert [(d.department, d.round, d.code) for d in result.declines] == [
        ("hr", 2, "invalid_request")
    ]
    assert charged == 4, "two rounds, each reserved and committed"
