"""What a department signs about one round: the mechanism, its cost so far, and the digests.

A receipt holds no count, loss or timing of private data. Both epsilons are functions of the
ledger's public mechanism events alone. ``docs/schemas/receipt.schema.json`` describes the line, and
``examples/verify_receipt.py`` checks it without any of this code.
"""

import base64
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from privacy.canonical import canonical_json, digest, parse_canonical
from privacy.dp.events import MechanismEvent, event_from_json
from privacy.errors import CanonicalError, EventInvalid, ReceiptInvalid, SignatureInvalid
from privacy.signing import SigningKey, VerifyKey, decode_base64

Unit = Literal["record", "subject"]
ADJACENCY = "add_or_remove_one"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BLOCK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One department's statement about one round of one run.

    Attributes:
        run_id, round: which round; rounds are counted from 1.
        department: who trained.
        block: the data block that it trained on.
        event: the mechanism event of this round.
        epsilon: cost of all that was spent on the block including this round, at ``delta``.
        lifetime_epsilon: cost of all that the department ever spent, over every block.
        delta: as the policy's text has it. The accountant uses the largest binary number that is not
            above it, so the guarantee holds at this delta.
        unit: what one addition or removal adds or removes; adjacency is always add-or-remove-one.
        policy_digest, code_digest: SHA-256 of the node's policy file and installed code.
        adapter_before, adapter_after: digests of the tensors received and of the noised update.
        key_id: the department's key.
    """

    type: ClassVar[str] = "intramural/receipt"
    version: ClassVar[int] = 1
    adjacency: ClassVar[str] = ADJACENCY

    run_id: str
    round: int
    department: str
    block: str
    event: MechanismEvent
    epsilon: float
    lifetime_epsilon: float
    delta: float
    unit: Unit
    policy_digest: str
    code_digest: str
    adapter_before: str
    adapter_after: str
    key_id: str

    def __post_init__(self) -> None:
        for name in ("run_id", "department"):
            if not _NAME.fullmatch(_text(self, name)):
                raise ReceiptInvalid(f"{name}={getattr(self, name)!r} is no name")
        if not _BLOCK.fullmatch(_text(self, "block")):
            raise ReceiptInvalid(f"block={self.block!r} is no name")
        for name in ("policy_digest", "code_digest", "adapter_before", "adapter_after"):
            if not _DIGEST.fullmatch(_text(self, name)):
                raise ReceiptInvalid(f"{name} must be 64 hexadecimal digits")
        if not re.fullmatch(r"[0-9a-f]{16}", _text(self, "key_id")):
            raise ReceiptInvalid("key_id must be 16 hexadecimal digits")
        if isinstance(self.round, bool) or not isinstance(self.round, int) or self.round < 1:
            raise ReceiptInvalid(f"round={self.round!r} must be a whole number of at least 1")
        for name in ("epsilon", "lifetime_epsilon", "delta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ReceiptInvalid(f"{name}={value!r} must be a number")
            object.__setattr__(self, name, float(value))
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ReceiptInvalid(f"epsilon={self.epsilon!r} must be finite and not negative")
        if not (math.isfinite(self.lifetime_epsilon) and self.lifetime_epsilon >= self.epsilon):
            raise ReceiptInvalid(
                f"lifetime_epsilon={self.lifetime_epsilon!r} must be finite and at least the "
                f"epsilon={self.epsilon!r} of one block"
            )
        if not 0 < self.delta < 1:
            raise ReceiptInvalid(f"delta={self.delta!r} must be between 0 and 1")
        if self.unit not in ("record", "subject"):
            raise ReceiptInvalid(f"unit={self.unit!r} must be 'record' or 'subject'")

    def to_json(self) -> dict[str, Any]:
        """The JSON object whose canonical bytes are signed."""
        return {
            "type": self.type,
            "version": self.version,
            "run_id": self.run_id,
            "round": self.round,
            "department": self.department,
            "block": self.block,
            "event": self.event.to_json(),
            "epsilon": self.epsilon,
            "lifetime_epsilon": self.lifetime_epsilon,
            "delta": self.delta,
            "unit": self.unit,
            "adjacency": self.adjacency,
            "policy_digest": self.policy_digest,
            "code_digest": self.code_digest,
            "adapter_before": self.adapter_before,
            "adapter_after": self.adapter_after,
            "key_id": self.key_id,
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            ReceiptInvalid: another type or version, a missing, unknown or impossible field.
        """
        if not isinstance(value, dict):
            raise ReceiptInvalid(f"a receipt is a JSON object, not {type(value).__name__}")
        fields = {field.name for field in dataclasses.fields(cls)}
        fields |= {"type", "version", "adjacency"}
        if set(value) != fields:
            wrong = sorted(set(value) ^ fields)
            raise ReceiptInvalid(f"a receipt lacks or adds the fields {wrong}")
        fixed = {"type": cls.type, "version": cls.version, "adjacency": cls.adjacency}
        for name, known in fixed.items():
            if value[name] != known or type(value[name]) is not type(known):
                raise ReceiptInvalid(f"{name}={value[name]!r} is unknown; known: {known!r}")
        rest = {name: item for name, item in value.items() if name not in fixed}
        try:
            rest["event"] = event_from_json(rest["event"])
        except EventInvalid as error:
            raise ReceiptInvalid(f"event: {error}") from None
        return cls(**rest)

    def sign(self, key: SigningKey) -> "SignedReceipt":
        """Sign with the key that ``key_id`` names.

        Raises:
            ReceiptInvalid: ``key`` is another one.
        """
        if key.key_id != self.key_id:
            raise ReceiptInvalid(f"the receipt names key {self.key_id}, this is {key.key_id}")
        return SignedReceipt(self, key.sign(canonical_json(self.to_json())))


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt with an Ed25519 signature over its canonical JSON. Not verified until asked."""

    receipt: Receipt
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 over receipt and signature, what the ledger's commit refers to."""
        return digest(self._object())

    def verify(self, key: VerifyKey) -> Receipt:
        """The receipt, when ``key`` signed exactly these fields.

        Raises:
            ReceiptInvalid: another key or a changed field.
        """
        if self.receipt.key_id != key.key_id:
            raise ReceiptInvalid(
                f"the receipt of {self.receipt.department!r} names key {self.receipt.key_id}, "
                f"expected {key.key_id}"
            )
        try:
            key.verify(self.signature, canonical_json(self.receipt.to_json()))
        except SignatureInvalid as error:
            raise ReceiptInvalid(
                f"receipt of {self.receipt.department!r}, run {self.receipt.run_id}, "
                f"round {self.receipt.round}: {error}"
            ) from None
        return self.receipt

    def to_json(self) -> str:
        """One line of canonical JSON, ``{"receipt":{…},"signature":"<base64>"}``."""
        return canonical_json(self._object()).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read :meth:`to_json`'s line; no other spelling is accepted.

        Raises:
            ReceiptInvalid: malformed.
        """
        data = text.encode(errors="replace") if isinstance(text, str) else text
        try:
            value = parse_canonical(data)
        except CanonicalError as error:
            raise ReceiptInvalid(str(error)) from None
        if not isinstance(value, dict) or set(value) != {"receipt", "signature"}:
            raise ReceiptInvalid("a signed receipt has the fields 'receipt' and 'signature'")
        if not isinstance(value["signature"], str):
            raise ReceiptInvalid("the receipt's signature must be base64 text")
        signature = decode_base64(value["signature"], ReceiptInvalid, "the receipt's signature")
        signed = cls(Receipt.from_json(value["receipt"]), signature)
        if signed.to_json().encode() != data:
            raise ReceiptInvalid("the receipt is not in its canonical spelling")
        return signed

    def _object(self) -> dict[str, Any]:
        return {
            "receipt": self.receipt.to_json(),
            "signature": base64.b64encode(self.signature).decode(),
        }


def _text(receipt: Receipt, name: str) -> str:
    value = getattr(receipt, name)
    if not isinstance(value, str):
        raise ReceiptInvalid(f"{name}={value!r} must be a string")
    return value
