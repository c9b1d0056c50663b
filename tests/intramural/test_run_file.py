"""``run.toml``: what a run may ask for, and what the hub says that it costs."""

from pathlib import Path

import pytest
from federation_kit import FakeTrainer, make_policy

from intramural.run_file import RunFileInvalid, read_run_file, run_costs
from policies.model import Policy
from privacy.dp.accounting import epsilon
from privacy.joining import now_text
from privacy.receipts import Receipt
from server.members import Member

POLICY = make_policy(more="minimum_nodes = 2")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def faults(tmp_path: Path, text: str, policy: Policy = POLICY) -> dict[str, str]:
    with pytest.raises(RunFileInvalid) as caught:
        read_run_file(written(tmp_path, text), policy)
    return {fault.key: fault.message for fault in caught.value.faults}


def member(name: str, policy_digest: str) -> Member:
    now = now_text()
    return Member(name, 7, "ed25519:x", "ecdsa x", "c" * 64, policy_digest, now, now)


def receipt(event, epsilon_so_far: float) -> Receipt:
    return Receipt(
        run_id="run-0", round=1, department="hr", block="1", event=event, epsilon=epsilon_so_far,
        lifetime_epsilon=epsilon_so_far, delta=1e-5, unit="record", policy_digest="a" * 64,
        code_digest="a" * 64, adapter_before="a" * 64, adapter_after="a" * 64, key_id="0" * 16,
    )  # fmt: skip


def test_empty_file_is_the_policys_own_run(tmp_path: Path) -> None:
    """What is left out is the policy's: all departments, its cohort, its training section."""
    wish = read_run_file(written(tmp_path, ""), POLICY)
    assert wish.departments == tuple(POLICY.departments)
    assert wish.policy.training == POLICY.training
    plan = wish.plan(FakeTrainer.base_digest)
    assert plan.policy_digest == POLICY.digest


def test_run_may_ask_for_less(tmp_path: Path) -> None:
    """Fewer rounds, a smaller epsilon, a larger cohort and another strategy are a run's own choice."""
    text = """
departments = ["hr", "finance", "it_support"]
minimum_nodes = 3
round_deadline = "90s"
valid = "2d"
[training]
rounds = 2
target_epsilon = 1.5
clipping_norm = 0.25
[strategy]
server_optimiser = "adam"
"""
    wish = read_run_file(written(tmp_path, text), POLICY)
    plan = wish.plan(FakeTrainer.base_digest)
    assert (plan.rounds, plan.minimum_nodes, plan.server_optimiser) == (2, 3, "adam")
    assert wish.round_seconds == 90
    assert wish.valid.days == 2
    cost = epsilon([plan.request(1, "hr").event()] * 2, 1e-5)
    assert cost <= 1.5
    assert plan.policy_digest == POLICY.digest, "nodes follow the policy that they hold"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[training]\nrounds = 4", "training.rounds"),
        ("[training]\nlocal_steps = 3", "training.local_steps"),
        ("[training]\nsampling_rate = 0.2", "training.sampling_rate"),
        ("[training]\nclipping_norm = 0.6", "training.clipping_norm"),
        ("[training]\ntarget_epsilon = 4.1", "training.target_epsilon"),
        ('[training]\nfactors = "AB"', "training.factors"),
        ('[training]\nclipping = "automatic"', "training.clipping"),
        ("[training]\nnoise_bands = 2", "training.noise_bands"),
        ("[training]\nmax_tokens = 128", "training.max_tokens"),
        ("minimum_nodes = 1", "minimum_nodes"),
    ],
)
def test_run_is_never_weaker_than_the_policy(tmp_path: Path, text: str, key: str) -> None:
    """More, weaker or another mechanism than the policy is refused here already, by its key."""
    assert key in faults(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("departements = 1", "departements"),
        ('departments = ["law"]\nminimum_nodes = 2', "departments"),
        ("minimum_nodes = 4", "minimum_nodes"),
        ("enough = 1", "enough"),
        ("enough = 4", "enough"),
        ('round_deadline = "soon"', "round_deadline"),
        ("[training]\nrnds = 1", "training.rnds"),
        ('[training]\nrounds = "2"', "training.rounds"),
        ('[strategy]\naggregation = "krum"', "training.minimum_nodes"),
        ("[strategy]\nrounds = 1", "strategy.rounds"),
        (
            '[training]\naggregation = "mean"\n[strategy]\naggregation = "mean"',
            "strategy.aggregation",
        ),
        ("[[", ""),
    ],
)
def test_each_fault_is_told_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    """Whatever is unknown, malformed or contradicting is named."""
    assert key in faults(tmp_path, text)


def test_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is no run."""
    with pytest.raises(RunFileInvalid, match="No such file"):
        read_run_file(tmp_path / "none.toml", POLICY)


def test_cost_is_what_the_ledgers_will_say(tmp_path: Path) -> None:
    """Run, spent and after are composed epsilons at each department's delta."""
    wish = read_run_file(written(tmp_path, ""), POLICY)
    plan = wish.plan(FakeTrainer.base_digest)
    event = plan.request(1, "hr").event()
    members = {name: member(name, POLICY.digest) for name in POLICY.departments}
    spent = epsilon([event], 1e-5)
    costs = {c.name: c for c in run_costs(wish, plan, [receipt(event, spent)], members)}
    assert costs["finance"].spent == 0
    assert costs["finance"].after == costs["finance"].run == epsilon([event] * 3, 1e-5)
    assert costs["hr"].spent == spent
    assert costs["hr"].after == epsilon([event] * 4, 1e-5)
    assert all(cost.fits and cost.enrolled and not cost.approval for cost in costs.values())


def test_what_a_receipt_states_beyond_its_rounds_is_not_forgotten(tmp_path: Path) -> None:
    """A node that lost rounds states more than what reached the hub; the plan counts it."""
    wish = read_run_file(written(tmp_path, ""), POLICY)
    plan = wish.plan(FakeTrainer.base_digest)
    event = plan.request(1, "hr").event()
    members = {name: member(name, POLICY.digest) for name in POLICY.departments}
    costs = {c.name: c for c in run_costs(wish, plan, [receipt(event, 7.5)], members)}
    assert costs["hr"].spent == 7.5
    assert not costs["hr"].fits
    assert "larger epsilon" in costs["hr"].approval[0]


def test_approval_names_who_must_do_what(tmp_path: Path) -> None:
    """A department that is not enrolled, or follows another policy, is told with the way out."""
    wish = read_run_file(written(tmp_path, ""), POLICY)
    plan = wish.plan(FakeTrainer.base_digest)
    members = {"hr": member("hr", POLICY.digest), "finance": member("finance", "d" * 64)}
    costs = {c.name: c for c in run_costs(wish, plan, [], members)}
    assert costs["hr"].approval == ()
    assert "another policy" in costs["finance"].approval[0]
    assert costs["it_support"].approval == ("invite it: intramural hub invite it_support",)
