"""A department's own adapter: trained beside the shared one, charged to the same ledger, never sent."""

import stat
from pathlib import Path

import numpy as np
import pytest
from federation_kit import SECRET, FakeTrainer, Federation, Node, first_adapter, make_policy

from client.frozen import FrozenFactors
from policies.errors import PolicyError
from policies.load import parse_policy
from privacy import crashpoints
from privacy.composition import added
from privacy.dp.accounting import epsilon
from privacy.exchange import Decline, RoundReply, RoundRequest, adapter_digest
from server.federation import run_federation
from server.rounds import RunPlan

POLICY = make_policy(more="personal = true")
ADAPTER = first_adapter(POLICY)


def request(number: int = 1) -> RoundRequest:
    return RunPlan.from_policy(POLICY, FakeTrainer.base_digest, run_id="run-1").request(
        number, "hr"
    )


def answered(node: Node, number: int = 1, adapter=ADAPTER) -> RoundReply:
    agent, ledger = node.open()
    with ledger:
        reply = agent.handle(request(number), adapter)
    assert isinstance(reply, RoundReply)
    return reply


def charges(node: Node) -> list[tuple[str, int, str]]:
    agent, ledger = node.open()
    with ledger:
        assert agent.department == "hr"
        return [(e.run_id, e.round, e.kind) for e in ledger.history("hr")]


def personal(node: Node) -> dict[str, np.ndarray]:
    agent, ledger = node.open()
    with ledger:
        return dict(agent.personal.read("run-1"))


def test_round_is_charged_twice_and_the_receipt_says_both(tmp_path: Path) -> None:
    """The ledger has an event for each adapter, and the receipt's epsilon is that of the two."""
    node = Node(tmp_path, "hr", POLICY)
    reply = answered(node)
    assert charges(node) == [
        ("run-1.personal", 1, "reserve"),
        ("run-1", 1, "reserve"),
        ("run-1", 1, "commit"),
        ("run-1.personal", 1, "commit"),
    ]
    assert reply.receipt.receipt.epsilon == epsilon([request().event()] * 2, 1e-5)


def test_nothing_personal_is_in_the_reply(tmp_path: Path) -> None:
    """The reply has the shared tensors alone, and they are not those of the personal adapter."""
    node = Node(tmp_path, "hr", POLICY)
    reply = answered(node)
    kept = personal(node)
    assert reply.update.keys() == kept.keys() == {n for n in ADAPTER if "lora_B" in n}
    told = reply.receipt.to_json()
    assert adapter_digest(kept) not in told
    assert "personal" not in told
    assert all(not np.allclose(reply.update[n] - ADAPTER[n], kept[n]) for n in kept)


def test_the_file_is_for_the_node_alone(tmp_path: Path) -> None:
    """Only the node's own user can read the personal adapter."""
    node = Node(tmp_path, "hr", POLICY)
    answered(node)
    (file,) = node.replies.glob("*.personal")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_each_round_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """Round 2 trains what is served: the new shared B with the personal P of round 1 on top."""
    seen = []

    class Watching(FakeTrainer):
        def train(self, adapter, *given, **named):
            seen.append({name: tensor.copy() for name, tensor in adapter.items()})
            return super().train(adapter, *given, **named)

    node = Node(tmp_path, "hr", POLICY, Watching())
    answered(node)
    first = personal(node)
    moved = {n: t + np.float32(0.5) if "lora_B" in n else t for n, t in ADAPTER.items()}
    answered(node, 2, moved)
    shared_1, personal_1, shared_2, personal_2 = seen
    assert adapter_digest(shared_1) == adapter_digest(personal_1) == adapter_digest(ADAPTER)
    assert adapter_digest(shared_2) == adapter_digest(moved)
    for name, tensor in personal_2.items():
        expected = moved[name] + first[name] if name in first else moved[name]
        assert np.array_equal(tensor, expected)


def test_round_asked_again_trains_no_second_time(tmp_path: Path) -> None:
    """The stored reply is given again; the personal adapter stays, and nothing more is charged."""
    node = Node(tmp_path, "hr", POLICY)
    first = answered(node)
    before, kept = charges(node), personal(node)
    again = answered(node)
    assert again.receipt == first.receipt
    assert charges(node) == before
    assert adapter_digest(personal(node)) == adapter_digest(kept)


def test_failed_personal_round_costs_no_reply(tmp_path: Path, caplog) -> None:
    """The shared update is answered; the charge stands, as records were read, and no text leaks."""

    class Second(FakeTrainer):
        def train(self, *given, **named):
            if self.plans:
                self.fail = RuntimeError(SECRET)
            return super().train(*given, **named)

    node = Node(tmp_path, "hr", POLICY, Second())
    reply = answered(node)
    assert reply.update
    assert charges(node)[-1] == ("run-1", 1, "commit")
    assert personal(node) == {}
    assert SECRET not in caplog.text


def test_failed_shared_round_gives_the_personal_charge_back(tmp_path: Path) -> None:
    """Where the shared training failed, the personal one never began and is not paid for."""
    node = Node(tmp_path, "hr", POLICY, FakeTrainer(fail=RuntimeError("no")))
    agent, ledger = node.open()
    with ledger:
        assert isinstance(agent.handle(request(), ADAPTER), Decline)
        assert ledger.spent("hr", 1e-5) == epsilon([request().event()], 1e-5)


@pytest.mark.parametrize(
    "point", ["agent.after-reserve", "agent.after-train", "state.after-write", "agent.after-commit"]
)
def test_no_crash_undercounts(tmp_path: Path, point: str) -> None:
    """Stopped anywhere in the round, both reservations stand and count as spent."""
    node = Node(tmp_path, "hr", POLICY)
    agent, ledger = node.open()

    def stop(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    crashpoints.install(stop)
    try:
        with ledger, pytest.raises(KeyboardInterrupt):
            agent.handle(request(), ADAPTER)
    finally:
        crashpoints.install(None)
    _, ledger = node.open()
    with ledger:
        assert ledger.spent("hr", 1e-5) == epsilon([request().event()] * 2, 1e-5)


def test_whole_run_costs_its_target_with_both_adapters(tmp_path: Path) -> None:
    """The noise is calibrated for two events a round, so that the run's target holds."""
    with Federation(tmp_path, POLICY) as federation:
        result = run_federation(
            federation.grid(),
            federation.plan(),
            POLICY,
            federation.enrolment,
            federation.adapter(),
            tmp_path / "checkpoint",
        )
        spent = {ledger.spent(name, 1e-5) for name, ledger in federation.ledgers.items()}
        own = [agent.personal.read(result.plan.run_id) for agent in federation.agents.values()]
    assert result.declines == ()
    (cost,) = spent
    assert 3.9 < cost <= 4.0
    plain = RunPlan.from_policy(make_policy(), FakeTrainer.base_digest)
    assert result.plan.noise_multiplier > plain.noise_multiplier
    assert len({adapter_digest(tensors) for tensors in own}) == 3


def test_what_is_served_is_the_sum_of_both(tmp_path: Path) -> None:
    """On top of the shared adapter, the products B A of both add, in float64; the rank stays."""
    node = Node(tmp_path, "hr", POLICY)
    answered(node)
    own = personal(node)
    rng = np.random.default_rng(0)
    shared = {
        n: rng.standard_normal(t.shape).astype(np.float32) if "lora_B" in n else t
        for n, t in ADAPTER.items()
    }
    served = added(shared, own)
    for b in own:
        a = b.replace("lora_B", "lora_A")
        exact = (shared[b].astype(np.float64) + own[b]) @ ADAPTER[a].astype(np.float64)
        product = served[b].astype(np.float64) @ served[a].astype(np.float64)
        np.testing.assert_allclose(product, exact, atol=1e-6)
        assert served[a].shape == ADAPTER[a].shape


def test_personal_layers_need_a_frozen_a() -> None:
    """With A trained the two adapters would not share it; the policy is refused."""
    with pytest.raises(PolicyError, match=r"training\.personal"):
        make_policy(more='personal = true\nfactors = "AB"')
    assert parse_policy(b'version = 1\norganisation = "E"\n[departments.hr]\n', "toml")


# --- frozen factors -------------------------------------------------------------------------------

TRAINED = {name: tensor for name, tensor in ADAPTER.items() if "lora_B" in name}


def test_later_rounds_need_not_bring_the_frozen_factors(tmp_path: Path) -> None:
    """A restarted node completes the adapter from what the first round brought, bit by bit."""
    node = Node(tmp_path, "hr", make_policy())
    plan = RunPlan.from_policy(node.policy, FakeTrainer.base_digest, run_id="run-1")
    for number, adapter in ((1, ADAPTER), (2, TRAINED)):
        agent, ledger = node.open()
        with ledger:
            reply = agent.handle(plan.request(number, "hr"), adapter)
        assert isinstance(reply, RoundReply)
        assert reply.receipt.receipt.adapter_before == adapter_digest(ADAPTER)


@pytest.mark.parametrize("damage", [False, True])
def test_node_without_the_frozen_factors_declines_before_spending(
    tmp_path: Path, damage: bool
) -> None:
    """Never received, or damaged on disk: the round is declined with the tensor's name."""
    node = Node(tmp_path, "hr", make_policy())
    plan = RunPlan.from_policy(node.policy, FakeTrainer.base_digest, run_id="run-1")
    agent, ledger = node.open()
    with ledger:
        if damage:
            (node.replies / "run-1.frozen").write_bytes(b"IMA1 and no more")
        answer = agent.handle(plan.request(1, "hr"), TRAINED)
        assert isinstance(answer, Decline)
        assert answer.code == "invalid_request"
        assert "lora_A" in answer.reason
        assert ledger.history("hr") == ()


def test_frozen_factors_of_another_run_are_not_used(tmp_path: Path) -> None:
    """Each run has its own."""
    config = RunPlan.from_policy(make_policy(), FakeTrainer.base_digest).adapter_config()
    store = FrozenFactors(tmp_path)
    store.keep("run-1", ADAPTER, config)
    assert adapter_digest(store.complete("run-1", TRAINED, config)) == adapter_digest(ADAPTER)
    assert store.complete("run-2", TRAINED, config) == TRAINED
