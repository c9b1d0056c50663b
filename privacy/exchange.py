"""What crosses a department's wall: the hub's request, the node's decline or reply. Nothing else.

Both sides read and write these types, so a field that is not here cannot leave a node.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from privacy.canonical import canonical_json
from privacy.dp.errors import InvalidPlan
from privacy.dp.events import MechanismEvent
from privacy.dp.plan import DpPlan
from privacy.errors import ExchangeInvalid
from privacy.receipts import SignedReceipt

Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Name = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z")]
Array = npt.NDArray[np.float32]
DeclineCode = Literal[
    "budget_exhausted",
    "policy_mismatch",
    "unit_not_allowed",
    "mechanism_not_allowed",
    "unknown_department",
    "invalid_request",
    "unavailable",
    "manifest_missing",
    "manifest_invalid",
    "manifest_expired",
    "manifest_mismatch",
    "account_not_trusted",
    "account_not_allowed",
    "code_not_allowed",
    "base_model_not_allowed",
    "cohort_too_small",
    "too_many_rounds",
    "too_many_steps",
    "noise_too_low",
    "clipping_norm_too_high",
    "outside_allowed_hours",
]
"""Why a node gives nothing: :mod:`policies.decisions`, its manifest's faults, :mod:`policies.node`."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def to_json(self) -> str:
        """Canonical JSON that :meth:`from_json` reads back."""
        return canonical_json(self.model_dump(mode="json")).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read and validate a message.

        Raises:
            ExchangeInvalid: names every faulty field at once, never their values.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise ExchangeInvalid(f"{cls.__name__}: {faults}") from None


class RoundRequest(_Message):
    """The hub asks a node for one round. The node's own policy decides.

    Attributes:
        run_id, round, rounds: round ``round`` (from 1) of ``rounds``.
        steps: noisy steps of this round.
        sampling_rate: Poisson sampling probability of a unit per step.
        noise_multiplier: noise standard deviation over clipping norm.
        clipping_norm: L2 bound of one unit's gradient; with adaptive clipping its first value.
        clipping, noise_bands, optimiser: see :class:`privacy.dp.plan.DpPlan`.
        learning_rate: step size of the node's optimiser.
        rank, alpha, targets, last_layers, factors: the LoRA adapter; ``factors`` "B" freezes A.
        max_tokens: longest sequence, tokens.
        unit: unit of privacy.
        examples_per_unit: most examples that a sampled unit contributes to a step.
        declared_units: the department's public size, the normaliser of its gradients.
        base_model_digest: digest of the base model that the adapter belongs to.
        policy_digest: SHA-256 of the policy file the hub plans under.
        expected_delta: the delta the hub will state; a node with another one declines.
    """

    version: Literal[1] = 1
    run_id: Name
    round: int = Field(ge=1)
    rounds: int = Field(ge=1, le=100_000)
    steps: int = Field(ge=1, le=1_000_000)
    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(gt=0)
    clipping_norm: float = Field(gt=0)
    clipping: Literal["flat", "automatic", "adaptive"]
    noise_bands: int = Field(ge=1, le=1000)
    optimiser: Literal["adam", "sgd"]
    learning_rate: float = Field(gt=0)
    rank: int = Field(ge=1, le=1024)
    alpha: float = Field(gt=0)
    targets: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64, strict=False)]
    last_layers: int | None = Field(default=None, ge=1)
    factors: Literal["B", "AB"]
    max_tokens: int = Field(ge=2, le=1_000_000)
    unit: Literal["record", "subject"]
    examples_per_unit: int = Field(ge=1, le=1000)
    declared_units: int = Field(ge=1)
    base_model_digest: Digest
    policy_digest: Digest
    expected_delta: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.round > self.rounds:
            raise ValueError(f"round={self.round} is beyond rounds={self.rounds}")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets names a module twice")
        try:
            self.plan()
        except InvalidPlan as error:
            raise ValueError(str(error)) from None
        return self

    def plan(self) -> DpPlan:
        """What a node does to answer this request."""
        return DpPlan(
            sampling_rate=self.sampling_rate,
            steps=self.steps,
            noise_multiplier=self.noise_multiplier,
            clipping_norm=self.clipping_norm,
            # Both factors are public: the true number of units never enters.
            expected_batch_size=self.sampling_rate * self.declared_units,
            clipping=self.clipping,
            optimiser=self.optimiser,
            bands=self.noise_bands,
            examples_per_unit=self.examples_per_unit,
        )

    def event(self) -> MechanismEvent:
        """The mechanism event that answering this request would spend."""
        return self.plan().event()


class Decline(_Message):
    """A node's refusal: a code for programs, a reason for people, nothing about the data."""

    code: DeclineCode
    reason: str = Field(min_length=1, max_length=500)


@dataclass(frozen=True)
class RoundReply:
    """A node's contribution: the noised trained tensors (float32, by name) and the signed receipt."""

    update: dict[str, Array]
    receipt: SignedReceipt

    def __post_init__(self) -> None:
        check_tensors(self.update)


def check_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Return when every tensor is a finite float32 array.

    Raises:
        ExchangeInvalid: names the tensor and what is wrong; none at all is wrong too.
    """
    if not tensors:
        raise ExchangeInvalid("an adapter without any tensor")
    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise ExchangeInvalid(f"tensor {name!r} is {kind}, not float32")
        if not np.isfinite(tensor).all():
            raise ExchangeInvalid(f"tensor {name!r} holds values that are not finite")


def write_tensors(tensors: Mapping[str, Array]) -> bytes:
    """A safetensors file; equal tensors give equal bytes, whatever their order.

    Raises:
        ExchangeInvalid: see :func:`check_tensors`.
    """
    from safetensors.numpy import save

    check_tensors(tensors)
    # A strided view would be written as the memory behind it.
    data: bytes = save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})
    return data


def read_tensors(data: bytes) -> dict[str, Array]:
    """The tensors of a safetensors file, which can hold no code.

    Raises:
        ExchangeInvalid: it is none, or see :func:`check_tensors`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ExchangeInvalid(f"no safetensors file: {error}") from None
    check_tensors(tensors)
    return tensors


def adapter_digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over a set of tensors: names, dtypes, shapes and little-endian bytes, sorted by name.

    Every part is length-prefixed, so no two different sets share an encoding.
    """
    state = hashlib.sha256(b"intramural-adapter-v1\n")
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        tensor = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        header = json.dumps([name, tensor.dtype.str, list(np.shape(tensors[name]))]).encode()
        data = tensor.tobytes()
        state.update(len(header).to_bytes(8, "big") + header)
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()
