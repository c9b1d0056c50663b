"""The plan of a run and its checkpoint: what is fixed before round 1, and what each round adds.

Both are public. The module knows neither Flower nor models.
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from policies.model import Policy, rounded_down
from privacy.canonical import canonical_json, digest
from privacy.crashpoints import reached
from privacy.dp.adapter_config import AdapterConfig
from privacy.dp.pricing import run_noise
from privacy.errors import PrivacyError
from privacy.exchange import Array, RoundRequest, adapter_digest
from privacy.files import write_atomic
from privacy.joining import now_text
from privacy.manifest import RunManifest, RunTerms
from privacy.receipts import SignedReceipt
from privacy.store.lock import FileLock
from server.aggregation.optimisers import Moments
from server.errors import CheckpointUnusable, PlanInvalid
from server.events import NodeDeclined

_FILE = "checkpoint.safetensors"
_LOCK = "checkpoint.lock"
_MOMENTS = "server_optimiser/"
_RECEIPTS = "receipts"


class RunPlan(RunTerms):
    """A run's terms and its id; all of it public."""

    run_id: str

    @classmethod
    def from_policy(
        cls, policy: Policy, base_model_digest: str, *, run_id: str | None = None
    ) -> Self:
        """The run that ``policy.training`` describes; ``run_id`` is drawn where none is given.

        Raises:
            PlanInvalid: no noise gives the target epsilon, or a field is out of its bounds.
        """
        training = policy.training
        deltas = {name: policy.budget_of(name).stated_delta for name in policy.departments}
        target = rounded_down(policy.run_epsilon())
        try:
            noise = run_noise(policy, training, target)
            plan = cls(
                run_id=run_id or f"run-{uuid.uuid4().hex[:20]}",
                rounds=training.rounds,
                steps=training.local_steps,
                sampling_rate=training.sampling_rate,
                noise_multiplier=noise,
                clipping_norm=training.clipping_norm,
                clipping=training.clipping,
                noise_bands=training.noise_bands,
                optimiser=training.optimiser,
                learning_rate=training.learning_rate,
                rank=training.rank,
                alpha=training.alpha,
                targets=training.targets,
                last_layers=training.last_layers,
                factors=training.factors,
                max_tokens=training.max_tokens,
                unit=policy.privacy.unit,
                examples_per_unit=policy.examples_per_unit(),
                declared_units={n: d.declared_units for n, d in policy.departments.items()},
                minimum_nodes=training.minimum_nodes,
                seed=training.seed,
                target_epsilon=target,
                deltas=deltas,
                base_model_digest=base_model_digest,
                policy_digest=policy.digest,
                aggregation=training.aggregation,
                faulty_nodes=training.faulty_nodes,
                server_optimiser=training.server_optimiser,
                server_learning_rate=training.server_learning_rate,
                server_momentum=training.server_momentum,
                maximum_update_norm=training.maximum_update_norm,
            )
            plan.request(1, next(iter(deltas)))
        except (PrivacyError, ValueError) as error:
            raise PlanInvalid(f"no run can be planned under this policy: {error}") from None
        return plan

    @classmethod
    def of(cls, manifest: RunManifest) -> Self:
        """The run that a manifest describes."""
        terms = {name: getattr(manifest.terms, name) for name in RunTerms.model_fields}
        return cls(run_id=manifest.run_id, **terms)

    @property
    def terms(self) -> dict[str, Any]:
        """The plan without its run id: what must be unchanged for a run to be resumed."""
        return self.model_dump(mode="json", exclude={"run_id"})

    @property
    def digest(self) -> str:
        """SHA-256 of the whole plan, run id included."""
        return digest(self.model_dump(mode="json"))

    def adapter_config(self) -> AdapterConfig:
        """The shape of the run's adapter."""
        return AdapterConfig(self.rank, self.alpha, self.targets, self.last_layers, self.factors)

    def request(self, round_number: int, department: str) -> RoundRequest:
        """What ``department`` is asked in a round; the same call gives the same request.

        Raises:
            ExchangeInvalid: a field is out of its bounds.
        """
        return self.request_under(self.run_id, round_number, department)


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    ``plan`` is the stored one, with the run id that the receipts name; ``finished_at`` is the UTC
    time of the last checkpoint, the same whenever the finished run is asked for.
    """

    plan: RunPlan
    adapter: Mapping[str, Array]
    receipts: tuple[SignedReceipt, ...]
    declines: tuple[NodeDeclined, ...]
    rounds: int
    finished_at: str


@dataclass(frozen=True)
class RunState:
    """A run after ``round`` completed rounds (0: none yet).

    ``initial_digest`` identifies the adapter that the run began with, ``at`` is the UTC time at
    which the last round was completed (of the beginning, before that), ``receipts`` are those of
    the contributions that went into ``adapter``, in order of round and department. ``moments``
    are those of the server optimiser, for its next step.
    """

    plan: RunPlan
    round: int
    adapter: Mapping[str, Array]
    initial_digest: str
    at: str
    receipts: tuple[SignedReceipt, ...] = ()
    declines: tuple[NodeDeclined, ...] = ()
    moments: Moments = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every round of the plan is complete."""
        return self.round >= self.plan.rounds

    def result(self) -> RunResult:
        """What the run has come to."""
        return RunResult(self.plan, self.adapter, self.receipts, self.declines, self.round, self.at)

    def advanced(
        self,
        adapter: Mapping[str, Array],
        receipts: tuple[SignedReceipt, ...],
        declines: tuple[NodeDeclined, ...],
        moments: Moments | None = None,
    ) -> "RunState":
        """The state after one more round."""
        return replace(
            self,
            round=self.round + 1,
            adapter=adapter,
            at=now_text(),
            receipts=self.receipts + receipts,
            declines=self.declines + declines,
            moments=moments or {},
        )


class RunStore:
    """The checkpoint of one run, one file in ``folder``, replaced atomically after each round."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / _FILE

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder against a second hub on this machine; released when the process ends.

        Raises:
            CheckpointUnusable: another process holds it, or the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK, mode=0o600)
        except OSError as error:
            raise CheckpointUnusable(
                f"the checkpoint folder {self.folder} cannot be used: {error.strerror}"
            ) from None
        with lock:
            if not lock.try_exclusive():
                raise CheckpointUnusable(
                    f"another run is using the checkpoint folder {self.folder}"
                )
            yield

    def begin(self, plan: RunPlan, initial_adapter: Mapping[str, Array]) -> RunState:
        """The stored run to go on with, or a new one, stored before its first round.

        A stored run keeps its own run id, so that nodes recognise a repeated round.

        Raises:
            CheckpointUnusable: the stored run had other terms; each that differs is named.
        """
        first = adapter_digest(initial_adapter)
        state = self.load()
        if state is None:
            state = RunState(plan, 0, dict(initial_adapter), first, now_text())
            # A crash before: no run exists. A crash after: the run exists at round 0 with this run
            # id, and no node was asked under any other.
            self.save(state)
            return state
        changed = _differences(state.plan.terms, plan.terms)
        if first != state.initial_digest:
            changed.append("the initial adapter is another one")
        if changed:
            raise CheckpointUnusable(
                f"the run in {self.folder} was planned differently: {'; '.join(changed)}. "
                "Finish it with the policy and model it began with, or choose another folder"
            )
        return state

    def save(self, state: RunState) -> None:
        """Replace the checkpoint: durable once this returns."""
        tensors: dict[str, npt.NDArray[Any]] = dict(state.adapter)
        tensors |= {f"{_MOMENTS}{name}": moment for name, moment in state.moments.items()}
        # Bytes beside the tensors: quoted into the metadata, a thousand nodes' receipts would be
        # in memory several times over.
        receipts = "\n".join(receipt.to_json() for receipt in state.receipts).encode()
        tensors[_RECEIPTS] = np.frombuffer(receipts, np.uint8)
        text = canonical_json(
            {
                "version": 1,
                "plan": state.plan.model_dump(mode="json"),
                "round": state.round,
                "at": state.at,
                "initial_digest": state.initial_digest,
                "adapter_digest": adapter_digest(state.adapter),
                "moments_digest": adapter_digest(state.moments),
                "receipts_sha256": hashlib.sha256(receipts).hexdigest(),
                "declines": [decline.to_json() for decline in state.declines],
            }
        )
        metadata = {"state": text.decode(), "sha256": hashlib.sha256(text).hexdigest()}
        reached("checkpoint.before-write")
        # A crash before: the last checkpoint stands, the round is asked again, and the nodes give
        # the bytes they gave. A crash after: the run goes on with the next round.
        write_atomic(self.path, save(tensors, metadata=metadata))
        reached("checkpoint.after-write")

    def load(self) -> RunState | None:
        """The stored state; None where there is none.

        Raises:
            CheckpointUnusable: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            return self._parse()
        except (OSError, SafetensorError, PrivacyError, ValueError, KeyError, TypeError) as error:
            raise CheckpointUnusable(
                f"the checkpoint {self.path} is damaged ({error}); "
                "restore it from a copy, or choose another folder to start a new run"
            ) from None

    def _parse(self) -> RunState:
        # Read at once: others look at a run whose hub replaces the file in the middle of it.
        data = self.path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        tensors = load(data)
        text = metadata["state"].encode()
        if hashlib.sha256(text).hexdigest() != metadata["sha256"]:
            raise ValueError("its state does not match its digest")
        value = json.loads(text)
        if value["version"] != 1:
            raise ValueError(f"version {value['version']!r} is unknown")
        moments = {
            name.removeprefix(_MOMENTS): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_MOMENTS)
        }
        receipts = tensors.pop(_RECEIPTS).tobytes()
        if hashlib.sha256(receipts).hexdigest() != value["receipts_sha256"]:
            raise ValueError("its receipts do not match their digest")
        found = [adapter_digest(tensors), adapter_digest(moments)]
        if found != [value["adapter_digest"], value["moments_digest"]]:
            raise ValueError("its tensors do not match their digests")
        return RunState(
            plan=RunPlan.model_validate_json(canonical_json(value["plan"])),
            round=value["round"],
            adapter=tensors,
            initial_digest=value["initial_digest"],
            at=value["at"],
            receipts=tuple(SignedReceipt.from_json(line) for line in receipts.splitlines()),
            declines=tuple(NodeDeclined(**item) for item in value["declines"]),
            moments=moments,
        )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} was {before[key]!r} and is {after[key]!r}"
        for key in before
        if before[key] != after[key]
    ]
