"""The run manifest: all that is decided before the first round, signed by a hub account.

It is content-addressed: the run's id is a digest of it, so nothing of a run can change under its id.
It travels with each round's message; a node answers a request only where it is exactly what the
manifest says. Everything in it is public.
"""

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from policies.model import Aggregation, ServerOptimiser, least_cohort
from privacy.canonical import canonical_json, digest, parse_canonical
from privacy.errors import CanonicalError, ExchangeInvalid, PrivacyError, SignatureInvalid
from privacy.exchange import Digest, Name, RoundRequest
from privacy.signing import SigningKey, VerifyKey, decode_base64

MAX_SKEW = timedelta(minutes=5)
"""How far the clocks of hub and node may differ, as at joining."""

_RUN_DIGITS = 20
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")

Code = Literal["manifest_invalid", "account_not_trusted", "manifest_expired", "manifest_mismatch"]


class ManifestInvalid(PrivacyError):
    """A manifest that nobody may follow.

    Attributes:
        code: for programs, one of :data:`Code`.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RunTerms(_Part):
    """What the rounds of a run are: mechanism, adapter, aggregation, and the public sizes.

    ``noise_multiplier`` is calibrated for the whole run: ``rounds`` rounds of ``steps`` steps cost
    each department at most ``target_epsilon`` at its own of ``deltas`` (department -> delta).
    """

    version: Literal[1] = 1
    rounds: int = Field(ge=1)
    steps: int = Field(ge=1)
    sampling_rate: float
    noise_multiplier: float
    clipping_norm: float
    clipping: Literal["flat", "automatic", "adaptive"]
    noise_bands: int
    optimiser: Literal["adam", "sgd"]
    learning_rate: float
    rank: int
    alpha: int
    targets: Annotated[tuple[str, ...], Field(strict=False)]
    last_layers: int | None
    factors: Literal["B", "AB"]
    max_tokens: int
    unit: Literal["record", "subject"]
    examples_per_unit: int
    declared_units: dict[str, int]
    minimum_nodes: int = Field(ge=1)
    seed: int
    target_epsilon: float
    deltas: dict[str, float]
    base_model_digest: str
    policy_digest: str
    aggregation: Aggregation = "mean"
    faulty_nodes: int = Field(default=1, ge=0)
    server_optimiser: ServerOptimiser = "none"
    server_learning_rate: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    maximum_update_norm: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _enough_nodes(self) -> Self:
        least = least_cohort(self.aggregation, self.faulty_nodes)
        if self.minimum_nodes < least:
            raise ValueError(
                f"minimum_nodes={self.minimum_nodes} is below the {least} that aggregation="
                f"{self.aggregation!r} needs with faulty_nodes={self.faulty_nodes}"
            )
        return self

    def request_under(self, run_id: str, round_number: int, department: str) -> RoundRequest:
        """What ``department`` is asked in a round; the same call gives the same request.

        Raises:
            ExchangeInvalid: a field is out of its bounds.
        """
        return RoundRequest.from_json(
            canonical_json(
                {
                    "run_id": run_id,
                    "round": round_number,
                    "rounds": self.rounds,
                    "steps": self.steps,
                    "sampling_rate": self.sampling_rate,
                    "noise_multiplier": self.noise_multiplier,
                    "clipping_norm": self.clipping_norm,
                    "clipping": self.clipping,
                    "noise_bands": self.noise_bands,
                    "optimiser": self.optimiser,
                    "learning_rate": self.learning_rate,
                    "rank": self.rank,
                    "alpha": float(self.alpha),
                    "targets": list(self.targets),
                    "last_layers": self.last_layers,
                    "factors": self.factors,
                    "max_tokens": self.max_tokens,
                    "unit": self.unit,
                    "examples_per_unit": self.examples_per_unit,
                    "declared_units": self.declared_units[department],
                    "base_model_digest": self.base_model_digest,
                    "policy_digest": self.policy_digest,
                    "expected_delta": self.deltas[department],
                }
            )
        )


class RunManifest(_Part):
    """A run before its first round.

    Attributes:
        account: the hub account that signs.
        base_model: public name of the base model; ``terms.base_model_digest`` is what counts.
        terms: see :class:`RunTerms`; ``terms.minimum_nodes`` is the minimum cohort of a round.
        departments: the cohort, whom each round asks.
        enough: a round is closed once so many contributed; None waits for all, to the deadline.
        round_seconds: how long a round waits for answers.
        code_digest: of the hub's installed code.
        created, valid_until: UTC, RFC 3339; a node answers only in between.
        nonce: 32 hexadecimal digits, so that the same run planned twice is two runs.
    """

    type: ClassVar[str] = "intramural/run-manifest"

    version: Literal[1] = 1
    account: Name
    base_model: str = Field(min_length=1, max_length=200)
    terms: RunTerms
    departments: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000, strict=False)]
    enough: int | None = Field(default=None, ge=1)
    round_seconds: float = Field(gt=0, le=30 * 86400)
    code_digest: Digest
    created: str
    valid_until: str
    nonce: str = Field(pattern=r"\A[0-9a-f]{32}\z")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = set(self.departments) - (self.terms.declared_units.keys() & self.terms.deltas)
        if unknown:
            raise ValueError(f"departments without size or delta: {', '.join(sorted(unknown))}")
        if len(set(self.departments)) != len(self.departments):
            raise ValueError("departments names one twice")
        count, least = len(self.departments), self.terms.minimum_nodes
        if least > count:
            raise ValueError(f"minimum_nodes={least} is beyond the {count} departments asked")
        if self.enough is not None and not least <= self.enough <= count:
            raise ValueError(f"enough={self.enough} must lie from {least} to {count}")
        for name in ("created", "valid_until"):
            if not _TIME.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be a UTC time like 2026-01-31T12:00:00+00:00")
        if self.valid_until <= self.created:
            raise ValueError("valid_until must be later than created")
        try:
            for name in self.departments:
                self.terms.request_under("run-0", 1, name)
        except ExchangeInvalid as error:
            raise ValueError(str(error)) from None
        return self

    @classmethod
    def draw(
        cls,
        account: str,
        base_model: str,
        terms: RunTerms,
        departments: tuple[str, ...],
        *,
        code_digest: str,
        round_seconds: float,
        valid: timedelta,
        enough: int | None = None,
    ) -> Self:
        """A new manifest of this moment, with a nonce of its own.

        Raises:
            ManifestInvalid: ``manifest_invalid`` names every faulty field.
        """
        now = datetime.now(UTC)
        return cls._parse(
            {
                "account": account,
                "base_model": base_model,
                "terms": RunTerms(**{n: getattr(terms, n) for n in RunTerms.model_fields}),
                "departments": departments,
                "enough": enough,
                "round_seconds": float(round_seconds),
                "code_digest": code_digest,
                "created": now.isoformat(timespec="seconds"),
                "valid_until": (now + valid).isoformat(timespec="seconds"),
                "nonce": secrets.token_hex(16),
            }
        )

    @property
    def run_id(self) -> str:
        """``run-`` and the first 20 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return f"run-{digest(self.to_json())[:_RUN_DIGITS]}"

    def request(self, round_number: int, department: str) -> RoundRequest:
        """What ``department`` is asked in a round."""
        return self.terms.request_under(self.run_id, round_number, department)

    def check_time(self, now: datetime) -> None:
        """Return while the manifest is valid.

        Raises:
            ManifestInvalid: ``manifest_expired``.
        """
        early = datetime.fromisoformat(self.created) - MAX_SKEW
        if not early <= now < datetime.fromisoformat(self.valid_until):
            raise ManifestInvalid(
                "manifest_expired",
                f"the manifest is valid from {self.created} to {self.valid_until}; it is "
                f"{now.astimezone(UTC).isoformat(timespec='seconds')} here: start a new run",
            )

    def check_request(self, request: RoundRequest, department: str) -> None:
        """Return when ``request`` is what this manifest asks of ``department`` in its round.

        Raises:
            ManifestInvalid: ``manifest_mismatch`` names every field that differs.
        """
        if department not in self.departments:
            raise ManifestInvalid(
                "manifest_mismatch",
                f"department {department!r} is not in the cohort: {', '.join(self.departments)}",
            )
        expected = self.request(min(request.round, self.terms.rounds), department)
        differing = [
            name
            for name in RoundRequest.model_fields
            if getattr(expected, name) != getattr(request, name)
        ]
        if differing:
            raise ManifestInvalid(
                "manifest_mismatch",
                f"the request differs from the manifest of run {self.run_id} in "
                f"{', '.join(differing)}",
            )

    def to_json(self) -> dict[str, Any]:
        """The JSON object whose canonical bytes are signed."""
        return {"type": self.type, **self.model_dump(mode="json")}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            ManifestInvalid: ``manifest_invalid`` names every faulty field.
        """
        if not isinstance(value, dict) or value.get("type") != cls.type:
            raise ManifestInvalid("manifest_invalid", f"it is no {cls.type}")
        return cls._parse(canonical_json({k: v for k, v in value.items() if k != "type"}))

    @classmethod
    def _parse(cls, value: bytes | dict[str, Any]) -> Self:
        try:
            if isinstance(value, bytes):
                return cls.model_validate_json(value)
            return cls.model_validate(value)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise ManifestInvalid("manifest_invalid", f"run manifest: {faults}") from None


@dataclass(frozen=True)
class SignedManifest:
    """A manifest with an Ed25519 signature over its canonical JSON. Not verified until asked."""

    manifest: RunManifest
    signature: bytes

    @classmethod
    def sign(cls, manifest: RunManifest, key: SigningKey) -> Self:
        """Sign with the account's key."""
        return cls(manifest, key.sign(canonical_json(manifest.to_json())))

    def verify(self, trusted: Mapping[str, VerifyKey]) -> RunManifest:
        """The manifest, when the account that it names is trusted and its key signed these fields.

        Raises:
            ManifestInvalid: ``account_not_trusted`` or ``manifest_invalid``.
        """
        key = trusted.get(self.manifest.account)
        if key is None:
            known = ", ".join(sorted(trusted)) or "none"
            raise ManifestInvalid(
                "account_not_trusted",
                f"account {self.manifest.account!r} is not trusted here; trusted: {known}",
            )
        try:
            key.verify(self.signature, canonical_json(self.manifest.to_json()))
        except SignatureInvalid as error:
            raise ManifestInvalid(
                "manifest_invalid", f"manifest of account {self.manifest.account!r}: {error}"
            ) from None
        return self.manifest

    def to_json(self) -> str:
        """One line of canonical JSON, ``{"manifest":{…},"signature":"<base64>"}``."""
        signature = base64.b64encode(self.signature).decode()
        value = {"manifest": self.manifest.to_json(), "signature": signature}
        return canonical_json(value).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read :meth:`to_json`'s line; no other spelling is accepted.

        Raises:
            ManifestInvalid: ``manifest_invalid``.
        """
        data = text.encode(errors="replace") if isinstance(text, str) else text
        try:
            value = parse_canonical(data)
        except CanonicalError as error:
            raise ManifestInvalid("manifest_invalid", str(error)) from None
        if not isinstance(value, dict) or set(value) != {"manifest", "signature"}:
            raise ManifestInvalid(
                "manifest_invalid", "a signed manifest has the fields 'manifest' and 'signature'"
            )
        signature = decode_base64(str(value["signature"]), _Malformed, "the manifest's signature")
        signed = cls(RunManifest.from_json(value["manifest"]), signature)
        if signed.to_json().encode() != data:
            raise ManifestInvalid("manifest_invalid", "it is not in its canonical spelling")
        return signed


class _Malformed(ManifestInvalid):
    """Base64 that is none, in the words of :func:`privacy.signing.decode_base64`."""

    def __init__(self, message: str) -> None:
        super().__init__("manifest_invalid", message)
