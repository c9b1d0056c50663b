"""The gate before the agent: what nobody trusted has signed reaches neither budget nor records."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from federation_kit import (
    CODE_DIGEST,
    DEPARTMENTS,
    FakeTrainer,
    Federation,
    Node,
    first_adapter,
    make_policy,
    units,
)
from manifest_kit import ACCOUNT, draw, signed

from client.agent import NodeAgent
from client.agent_socket import AgentServer, SocketAgent
from client.gate import RunGate
from client.port import Agent
from policies.node import NodeLimits
from privacy.errors import KeyUnusable
from privacy.exchange import Decline, RoundReply
from privacy.ledger.ledger import Ledger
from privacy.manifest import SignedManifest
from privacy.signing import SigningKey
from server.errors import CheckpointUnusable, PlanInvalid, RoundFailed
from server.federation import run_federation
from server.rounds import RunPlan

POLICY = make_policy()
KEY = SigningKey.generate()
TRUSTED = {ACCOUNT: KEY.verify_key}
ADAPTER = first_adapter(POLICY)


def guarded(node: Node, ledger: Ledger, gate: RunGate) -> NodeAgent:
    return NodeAgent(
        department=node.department,
        policy=POLICY,
        gate=gate,
        units=units(),
        trainer=node.trainer,
        ledger=ledger,
        key=node.key,
        state_dir=node.replies,
        code_digest=CODE_DIGEST,
    )


Open = Callable[[RunGate], tuple[Agent, Ledger, FakeTrainer]]


@pytest.fixture(params=["in process", "behind its socket"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_agent(gate: RunGate) -> tuple[Agent, Ledger, FakeTrainer]:
            node = Node(tmp_path / "hr", "hr", POLICY)
            ledger = stack.enter_context(Ledger(node.ledger_path, node.key))
            agent: Agent = guarded(node, ledger, gate)
            if request.param != "in process":
                path = tmp_path / "run" / "agent.sock"
                agent = SocketAgent(stack.enter_context(AgentServer(agent, path)).path, timeout=60)
            return agent, ledger, node.trainer  # type: ignore[return-value]

        yield open_agent


def test_the_round_of_a_signed_manifest_is_answered(opened: Open) -> None:
    """A trusted account's manifest and its own request: budget is spent and a reply comes."""
    agent, ledger, _ = opened(RunGate("hr", lambda: TRUSTED))
    manifest = signed(POLICY, KEY)
    answer = agent.handle(manifest.manifest.request(1, "hr"), ADAPTER, manifest.to_json())
    assert isinstance(answer, RoundReply)
    assert len(ledger.history("hr")) == 2


def _unsigned() -> str | None:
    return None


def _altered() -> str:
    return signed(POLICY, KEY).to_json().replace('"clipping_norm":0.5', '"clipping_norm":0.6')


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_unsigned, "manifest_missing"),
        (lambda: "{}", "manifest_invalid"),
        (_altered, "manifest_invalid"),
        (lambda: signed(POLICY, SigningKey.generate()).to_json(), "manifest_invalid"),
        (lambda: signed(POLICY, KEY, account="bob").to_json(), "account_not_trusted"),
        (lambda: signed(POLICY, KEY, departments=("finance",)).to_json(), "manifest_mismatch"),
        (lambda: signed(POLICY, KEY).to_json(), "manifest_mismatch"),  # of another run
    ],
)
def test_what_nobody_trusted_signed_is_declined_before_anything(
    opened: Open, text: Callable[[], str | None], code: str
) -> None:
    """Unsigned, altered, signed by others or for another run: a code, no charge, no training."""
    agent, ledger, trainer = opened(RunGate("hr", lambda: TRUSTED))
    answer = agent.handle(draw(POLICY).request(1, "hr"), ADAPTER, text())
    assert isinstance(answer, Decline)
    assert answer.code == code
    assert ledger.history("hr") == ()
    assert trainer.plans == []


@pytest.mark.parametrize("field", ["noise_multiplier", "clipping_norm", "steps", "learning_rate"])
def test_request_that_is_not_the_manifests_is_declined(opened: Open, field: str) -> None:
    """One field of the request changed under a good manifest: declined by its name."""
    agent, ledger, _ = opened(RunGate("hr", lambda: TRUSTED))
    manifest = signed(POLICY, KEY)
    request = manifest.manifest.request(1, "hr")
    value = getattr(request, field)
    altered = request.model_copy(update={field: value + 1 if field == "steps" else value / 2})
    answer = agent.handle(altered, ADAPTER, manifest.to_json())
    assert isinstance(answer, Decline)
    assert answer.code == "manifest_mismatch"
    assert field in answer.reason
    assert ledger.history("hr") == ()


def test_signed_parameters_beyond_the_policy_are_declined_too(opened: Open) -> None:
    """A trusted signature does not loosen the department's own policy."""
    agent, ledger, _ = opened(RunGate("hr", lambda: TRUSTED))
    for changes, code in (
        ({"clipping_norm": 0.9}, "mechanism_not_allowed"),
        ({"noise_multiplier": 0.1}, "budget_exhausted"),
        ({"policy_digest": "0" * 64}, "policy_mismatch"),
        ({"base_model_digest": "0" * 64}, "invalid_request"),
    ):
        manifest = signed(POLICY, KEY, **changes)
        answer = agent.handle(manifest.manifest.request(1, "hr"), ADAPTER, manifest.to_json())
        assert isinstance(answer, Decline)
        assert answer.code == code
    assert ledger.history("hr") == ()


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"minimum_noise_multiplier": 99.0}, "noise_too_low"),
        ({"maximum_clipping_norm": 0.1}, "clipping_norm_too_high"),
        ({"minimum_cohort": 3}, "cohort_too_small"),
        ({"base_models": ["other"]}, "base_model_not_allowed"),
        ({"accounts": ["bob"]}, "account_not_allowed"),
        ({"hours": []}, "outside_allowed_hours"),
    ],
)
def test_the_departments_own_limits_decline(
    opened: Open, limits: dict[str, object], code: str
) -> None:
    """A run within the policy and beyond the node's limits is declined at no cost."""
    agent, ledger, _ = opened(RunGate("hr", lambda: TRUSTED, NodeLimits.read(limits)))
    manifest = signed(POLICY, KEY)
    answer = agent.handle(manifest.manifest.request(1, "hr"), ADAPTER, manifest.to_json())
    assert isinstance(answer, Decline)
    assert answer.code == code
    assert ledger.history("hr") == ()


def test_expired_manifest_is_declined() -> None:
    """After its time even the same question is not answered."""
    later = datetime.now(UTC) + timedelta(days=2)
    gate = RunGate("hr", lambda: TRUSTED, clock=lambda: later)
    manifest = signed(POLICY, KEY)
    declined = gate.check(manifest.manifest.request(1, "hr"), manifest.to_json())
    assert declined is not None
    assert declined.code == "manifest_expired"


def test_an_account_that_ended_signs_no_further_round() -> None:
    """Trust is asked anew each round."""
    trusted = dict(TRUSTED)
    gate = RunGate("hr", lambda: trusted)
    manifest = signed(POLICY, KEY)
    assert gate.check(manifest.manifest.request(1, "hr"), manifest.to_json()) is None
    trusted.clear()
    declined = gate.check(manifest.manifest.request(2, "hr"), manifest.to_json())
    assert declined is not None
    assert declined.code == "account_not_trusted"


def test_accounts_that_cannot_be_read_trust_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Fail closed: the hub learns that, and the node's own log learns why."""

    def unreadable() -> dict[str, object]:
        raise KeyUnusable("no public key at /home/hr/hub.pub")

    gate = RunGate("hr", unreadable)  # type: ignore[arg-type]
    manifest = signed(POLICY, KEY)
    declined = gate.check(manifest.manifest.request(1, "hr"), manifest.to_json())
    assert declined is not None
    assert declined.code == "account_not_trusted"
    assert "/home/hr" not in declined.reason
    assert "/home/hr" in caplog.text


class Guarded(Federation):
    """A federation whose nodes verify manifests as deployed ones do."""

    def __enter__(self) -> "Guarded":
        for name, node in self.nodes.items():
            self.ledgers[name] = Ledger(node.ledger_path, node.key)
            gate = RunGate(name, lambda: TRUSTED)
            self.agents[self.ids[name]] = guarded(node, self.ledgers[name], gate)
        return self


def federate(federation: Federation, folder: Path, manifest: SignedManifest | None, plan: RunPlan):
    return run_federation(
        federation.grid(), plan, POLICY, federation.enrolment, federation.adapter(), folder,
        manifest=manifest,
    )  # fmt: skip


def test_the_manifest_travels_with_every_round(tmp_path: Path) -> None:
    """Over Flower's messages, nodes that verify answer all rounds of a signed run."""
    manifest = signed(POLICY, KEY)
    with Guarded(tmp_path, POLICY) as federation:
        result = federate(federation, tmp_path / "c", manifest, RunPlan.of(manifest.manifest))
    assert result.rounds == POLICY.training.rounds
    assert {r.receipt.run_id for r in result.receipts} == {manifest.manifest.run_id}
    assert len(result.receipts) == 3 * POLICY.training.rounds


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (None, "manifest_missing"),
        (signed(POLICY, SigningKey.generate()), "manifest_invalid"),
        (signed(POLICY, KEY, clipping_norm=0.9), "mechanism_not_allowed"),
    ],
)
def test_every_node_declines_what_is_not_signed_or_weaker(
    tmp_path: Path, manifest: SignedManifest | None, code: str
) -> None:
    """No node answers such a run: the round fails, each is named with the code, nothing is charged."""
    with Guarded(tmp_path, POLICY) as federation:
        plan = federation.plan() if manifest is None else RunPlan.of(manifest.manifest)
        with pytest.raises(RoundFailed) as caught:
            federate(federation, tmp_path / "c", manifest, plan)
        assert {d.department: d.code for d in caught.value.declines} == dict.fromkeys(
            DEPARTMENTS, code
        )
        assert all(ledger.history(n) == () for n, ledger in federation.ledgers.items())


def test_hub_runs_no_other_plan_than_the_manifests(tmp_path: Path) -> None:
    """A plan, or a checkpoint, of another run is refused before anybody is asked."""
    first, second = signed(POLICY, KEY), signed(POLICY, KEY)
    with Guarded(tmp_path, POLICY) as federation:
        with pytest.raises(PlanInvalid, match="not that of the manifest"):
            federate(federation, tmp_path / "c", first, RunPlan.of(second.manifest))
        federate(federation, tmp_path / "c", first, RunPlan.of(first.manifest))
        with pytest.raises(CheckpointUnusable, match="choose another folder"):
            federate(federation, tmp_path / "c", second, RunPlan.of(second.manifest))
