"""A node that is killed while it really trains never releases what its ledger has not charged."""

import multiprocessing
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from federation_kit import POLICY, Node, request_for

from policies.load import parse_policy
from privacy.dp.adapter import AdapterConfig
from privacy.dp.trainer import LoraTrainer
from privacy.exchange import RoundReply
from privacy.ledger.ledger import Ledger, verify_ledger

FORK = multiprocessing.get_context("fork")
KILLS = 20
ROUNDS = 3


def life(node: Node, trainer: LoraTrainer, released: Path) -> None:
    """Answer all rounds; what would leave the node is noted, durably, before the next round."""
    agent, ledger = node.open()
    plan_fields = request_for(node.policy)
    config = AdapterConfig(
        plan_fields.rank, int(plan_fields.alpha), plan_fields.targets, plan_fields.last_layers
    )
    adapter = trainer.initial_adapter(config, 0)
    with released.open("a") as file:
        for number in range(1, ROUNDS + 1):
            request = request_for(node.policy, number=number, base_model_digest=trainer.base_digest)
            reply = agent.handle(request, adapter)
            assert isinstance(reply, RoundReply), reply
            file.write(f"{number} {reply.receipt.digest}\n")
            file.flush()
            os.fsync(file.fileno())
    ledger.close()


@pytest.mark.e2e
def test_charged_is_never_less_than_released_through_twenty_kills(
    tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """SIGKILL at twenty random moments of a training run, then a restart that completes it.

    After every kill the ledger verifies, each released receipt is that of one charged round, and a
    round that was released once is never released otherwise. The moments are drawn anew each time;
    a failure prints them.
    """
    text = POLICY.format(target=2.0, more="").encode()
    policy = parse_policy(text.replace(b"epsilon = 8.0", b"epsilon = 1000.0", 1), "toml")
    trainer = LoraTrainer(tiny_llama_dir)
    # One undisturbed life elsewhere tells how long a life takes.
    began = time.monotonic()
    rehearsal = FORK.Process(
        target=life,
        args=(Node(tmp_path / "rehearsal", "hr", policy, trainer), trainer, tmp_path / "none"),
    )
    rehearsal.start()
    rehearsal.join()
    assert rehearsal.exitcode == 0
    duration = time.monotonic() - began

    node = Node(tmp_path / "hr", "hr", policy, trainer)
    released = tmp_path / "released"
    moments = [random.SystemRandom().uniform(0, duration) for _ in range(KILLS)]
    killed = 0
    for moment in moments:
        child = FORK.Process(target=life, args=(node, trainer, released))
        child.start()
        child.join(moment)
        if child.is_alive():
            child.kill()
            killed += 1
        child.join()
        check(node, released, moments)
    assert killed, moments
    last = FORK.Process(target=life, args=(node, trainer, released))
    last.start()
    last.join()
    assert last.exitcode == 0
    check(node, released, moments)
    assert {line.split()[0] for line in released.read_text().splitlines()} == {"1", "2", "3"}


def check(node: Node, released: Path, moments: list[float]) -> None:
    """The invariant, as an auditor would find it after a restart."""
    lines = {tuple(line.split()) for line in given(released)}
    assert max(Counter(number for number, _ in lines).values(), default=0) <= 1, moments
    if not node.ledger_path.exists():
        assert not lines, moments
        return
    report = verify_ledger(node.ledger_path, node.key.verify_key)
    assert report.ok, (report.faults, moments)
    with Ledger(node.ledger_path, node.key) as ledger:
        entries = ledger.history("hr")
    charged = Counter(str(e.round) for e in entries if e.kind == "reserve")
    committed = {e.receipt_digest for e in entries if e.kind == "commit"}
    for number, digest in lines:
        assert charged[number] >= 1, moments
        assert digest in committed, moments


def given(released: Path) -> list[str]:
    """What was noted as released; a line that a kill cut short was not."""
    if not released.exists():
        return []
    return [line for line in released.read_text().splitlines(True) if line.endswith("\n")]
