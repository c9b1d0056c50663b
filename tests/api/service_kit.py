"""A whole service on the echo engine and the pattern detector, with everything real around them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from api.engines.base import Engine
from api.jwks import Fetch
from api.keys import KeyStore
from api.limits import Rates
from api.settings import ServiceSettings
from api.tracing import Tracing
from policies.load import parse_policy
from policies.model import Policy
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog, read_log
from privacy.dp.events import PoissonGaussian
from privacy.ledger.history import Spend
from privacy.pii.detector import Detector
from privacy.pii.patterns import PatternDetector
from privacy.receipts import Receipt
from privacy.release import VerifiedRelease, publish
from privacy.signing import SigningKey
from privacy.statement import ReleaseStatement
from tests.api.echo import EchoEngine

if TYPE_CHECKING:
    from privacy.dp.adapter import AdapterConfig
    from privacy.dp.trainer import LoraTrainer

EMAIL = "ada.lovelace@example.org"
CARD = "4111 1111 1111 1111"
PHONE = "+44 20 7946 0958"
SECRETS = (EMAIL, CARD, PHONE)
PROMPT = f"Write to {EMAIL} or call {PHONE} about the card {CARD}."

POLICY = """
version = 1
organisation = "Example Ltd"

[departments.hr]
epsilon = 4.0
[departments.finance]

[pii.entities]
IP_ADDRESS = "block"
IBAN_CODE = "redact"

[roles.limited]
operations = ["chat"]
releases = ["r-none*"]

[roles.app]
requests_per_minute = 1000
max_tokens = 200
"""


def policy(text: str = POLICY) -> Policy:
    """The policy declared by a TOML text."""
    return parse_policy(text.encode(), "toml")


def release(
    folder: Path,
    *,
    tensors: dict[str, Any] | None = None,
    adapter_config: dict[str, Any] | None = None,
    base_model_digest: str = "0" * 64,
    keys: dict[str, SigningKey] | None = None,
    key: SigningKey | None = None,
) -> VerifiedRelease:
    """A release of two departments, published by ``key``; ``keys`` signed their receipts."""
    departments = keys or {"hr": SigningKey.generate(), "finance": SigningKey.generate()}
    event = PoissonGaussian(sampling_rate=0.25, noise_multiplier=1.5, steps=6)
    receipts = [
        Receipt(
            run_id="run-1",
            round=1,
            department=name,
            block="1",
            event=event,
            epsilon=epsilon,
            lifetime_epsilon=epsilon + 1,
            delta=1e-5,
            unit="record",
            policy_digest="a" * 64,
            code_digest="b" * 64,
            adapter_before="c" * 64,
            adapter_after="d" * 64,
            key_id=key.key_id,
        ).sign(key)
        for (name, key), epsilon in zip(departments.items(), (2.5, 3.25), strict=True)
    ]
    statement = ReleaseStatement(
        run_id="run-1",
        created="2026-01-02T03:04:05.000000+00:00",
        base_model="tiny",
        base_model_digest=base_model_digest,
        rounds=1,
        clipping_norm=0.5,
        factors="B",
        policy_digest="a" * 64,
        code_digest="b" * 64,
        accountant="PLD",
    )
    return publish(
        folder,
        tensors or {"base_model.model.x.lora_B.weight": np.ones((2, 2), np.float32)},
        adapter_config or {"peft_type": "LORA"},
        statement,
        receipts,
        {},
        key or SigningKey.generate(),
        department_keys={name: each.verify_key for name, each in departments.items()},
    )


SPENT = (
    Spend("finance", 3.25, 1e-5, Decimal("8.0"), 1, 1, "1", 3.25, ()),
    Spend("hr", 2.5, 1e-5, Decimal("4.0"), 1, 1, "1", 2.5, ()),
)


@dataclass
class Service:
    """A service under test; ``tokens`` holds a key of each role."""

    app: FastAPI
    engine: Engine
    audit: AuditLog
    keys: KeyStore
    signing_key: SigningKey
    release: VerifiedRelease
    policy: Policy
    tokens: dict[str, str] = field(default_factory=dict)

    def client(self, role: str | None = "app") -> TestClient:
        """A client in this process, with a key of the role."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def entries(self) -> list[AuditEntry]:
        """All audit entries so far."""
        with read_log(self.audit.place) as reader:
            return [stored.entry for stored in reader.entries()]

    @property
    def echo(self) -> EchoEngine:
        """The engine, where it is the echo."""
        if not isinstance(self.engine, EchoEngine):
            raise TypeError("another engine")
        return self.engine


Factory = Callable[..., Service]


def releases(
    folders: Sequence[Path], trainer: "LoraTrainer", config: "AdapterConfig", *, scale: float
) -> list[VerifiedRelease]:
    """A release of ``trainer``'s model in each folder, each changed in its own way by ``scale``."""
    made = []
    for seed, folder in enumerate(folders):
        rng = np.random.default_rng(seed)
        tensors = {
            name: array + rng.normal(scale=scale, size=array.shape).astype(np.float32)
            for name, array in trainer.initial_adapter(config, 0).items()
        }
        made.append(
            release(
                folder,
                tensors=tensors,
                adapter_config=trainer.adapter_config_json(config),
                base_model_digest=trainer.base_digest,
            )
        )
    return made


def build(
    folder: Path,
    published: VerifiedRelease,
    *,
    engine: Engine | None = None,
    detector: Detector | None = None,
    policy_text: str = POLICY,
    ledgers: Callable[[], Sequence[Spend]] = lambda: SPENT,
    releases: Any = None,
    rates: Rates | None = None,
    fetch_keys: Fetch | None = None,
    tracing: Tracing | None = None,
    **settings: Any,
) -> Service:
    """Open everything and wire it; the caller closes ``audit`` and ``keys``."""
    key = SigningKey.generate()
    declared = policy(policy_text)
    keys = KeyStore(folder / "keys.db", signing_key=key, secret=folder / "keys.secret")
    audit = AuditLog(folder / "audit.db", key, "example.org/audit")
    engine = engine or EchoEngine(published.id)
    app = create_app(
        ServiceSettings(**settings),
        engine=engine,
        detector=detector or PatternDetector(),
        audit=audit,
        keys=keys,
        policy=declared,
        releases=[published] if releases is None else releases,
        ledgers=ledgers,
        rates=rates,
        fetch_keys=fetch_keys,
        tracing=tracing,
    )
    service = Service(app, engine, audit, keys, key, published, declared)
    for role in declared.roles:
        service.tokens[role], _ = keys.create(f"test-{role}", role)
    return service
