"""A workspace with everything real in it but the people, and a way to call the command line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intramural.cli import main
from intramural.parts import open_audit
from intramural.workspace import Workspace
from policies.load import load_policy
from privacy.audit.entries import AuditEntry
from privacy.dp.events import PoissonGaussian
from privacy.ledger.ledger import Ledger
from privacy.receipts import Receipt
from privacy.release import publish
from privacy.signing import SigningKey
from privacy.statement import ReleaseStatement

POLICY = """version = 1
organisation = "Example Ltd"

[privacy]
epsilon = 8.0

[departments.finance]
title = "Money"

[departments.hr]
epsilon = 4.0

[training]
rounds = 2
local_steps = 2
sampling_rate = 0.2
target_epsilon = 3.0
rank = 2
targets = ["q_proj", "v_proj"]
last_layers = "all"

[pii.entities]
IBAN_CODE = "redact"
"""
EVENT = PoissonGaussian(sampling_rate=0.2, noise_multiplier=1.6, steps=2)
ROUNDS = 2


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


Cli = Callable[..., Result]


def caller(capfd: pytest.CaptureFixture[str]) -> Cli:
    """``run("keys", "list", "--json")`` as the console script would, in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


def copy(source: Workspace, target: Path) -> Workspace:
    """A workspace of one's own to change."""
    shutil.copytree(source.root, target)
    return Workspace(target)


def flip(path: Path, place: int | None = None) -> None:
    """Change one byte, in the middle unless said otherwise."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(bytes(data))


def build(root: Path, base_model: Path) -> Workspace:
    """Policy, two ledgers of two rounds, a release over ``base_model``, and an audit log."""
    from privacy.dp.adapter import AdapterConfig
    from privacy.dp.trainer import LoraTrainer

    workspace = Workspace(root)
    root.mkdir(parents=True)
    (root / "policy.toml").write_text(POLICY)
    policy = load_policy(root / "policy.toml")
    trainer = LoraTrainer(base_model, name="tiny")
    config = AdapterConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"))
    adapter = {
        name: tensor + np.float32(0.01)
        for name, tensor in trainer.initial_adapter(config, 0).items()
    }
    receipts, keys = [], {}
    for name in policy.departments:
        paths = workspace.node(name)
        key = SigningKey.load_or_create(paths.signing_key)
        key.verify_key.save(paths.public_key)
        keys[name] = key.verify_key
        with Ledger(paths.ledger, key) as ledger:
            for number in range(1, ROUNDS + 1):
                reservation = ledger.reserve(
                    name, "run-1", number, EVENT, policy.digest, policy.budget_of(name)
                )
                receipt = Receipt(
                    run_id="run-1",
                    round=number,
                    department=name,
                    block=reservation.block,
                    event=EVENT,
                    epsilon=reservation.epsilon,
                    lifetime_epsilon=reservation.lifetime_epsilon,
                    delta=float(reservation.delta),
                    unit="record",
                    policy_digest=policy.digest,
                    code_digest="b" * 64,
                    adapter_before="c" * 64,
                    adapter_after="d" * 64,
                    key_id=key.key_id,
                ).sign(key)
                ledger.commit(reservation, receipt.digest)
                receipts.append(receipt)
    statement = ReleaseStatement(
        run_id="run-1",
        created="2026-01-02T03:04:05.000000+00:00",
        base_model="tiny",
        base_model_digest=trainer.base_digest,
        rounds=ROUNDS,
        clipping_norm=0.5,
        factors="B",
        policy_digest=policy.digest,
        code_digest="b" * 64,
        accountant="PLD",
    )
    release = publish(
        root,
        adapter,
        trainer.adapter_config_json(config),
        statement,
        receipts,
        {"accuracy": {"before": 0.25, "after": 0.5}},
        SigningKey.load_or_create(workspace.hub_key),
        department_keys=keys,
    )
    with open_audit(workspace) as audit:
        for number in range(1, ROUNDS + 1):
            audit.append(AuditEntry.now("run_step", "hub", {"step": "round", "round": number}))
        audit.append(AuditEntry.now("release", "hub", {"release": release.id}))
    return workspace
