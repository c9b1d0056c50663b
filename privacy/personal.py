"""A department's own adapter on its way to the service that answers the department: one signed file.

A line of canonical JSON, ``{"personal":{…},"signature":"<base64>"}``, then the tensors as
safetensors. It is signed by the key that signs the department's receipts, and that key stands in
the release's signed manifest: a file fits one release, and whoever trusts the release needs nothing
else to judge it. Knows no folder.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import (
    CanonicalError,
    ExchangeInvalid,
    KeyUnusable,
    PersonalInvalid,
    SignatureInvalid,
)
from privacy.exchange import Array, adapter_digest, read_tensors, write_tensors
from privacy.release import VerifiedRelease
from privacy.signing import SigningKey, VerifyKey, decode_base64

LARGEST_FILE = 1 << 30
SUFFIX = ".personal"
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class PersonalStatement:
    """What the department signs; ``adapter`` is the digest of the tensors."""

    type: ClassVar[str] = "intramural/personal-adapter"
    version: ClassVar[int] = 1

    department: str
    run_id: str
    release: str
    base_model_digest: str
    adapter: str
    key_id: str

    @classmethod
    def of(
        cls, release: VerifiedRelease, department: str, tensors: Mapping[str, Array], key_id: str
    ) -> Self:
        """About these tensors for this release."""
        return cls(
            department,
            release.run["run_id"],
            release.id,
            release.run["base_model_digest"],
            adapter_digest(tensors),
            key_id,
        )

    def to_bytes(self) -> bytes:
        """The signed bytes."""
        return canonical_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The statement as an object."""
        return {"type": self.type, "version": self.version, **asdict(self)}


def sealed(
    release: VerifiedRelease, department: str, tensors: Mapping[str, Array], key: SigningKey
) -> bytes:
    """The file that brings a department's own adapter to a service.

    Args:
        release: of the run in which the adapter was trained.
        department: whose.
        tensors: what is added to those of the release, by the same names.
        key: signed the department's receipts.

    Raises:
        PersonalInvalid: the release has no receipt of this department and key, or the tensors do
            not fit it.
    """
    if _key_of(release, department) != key.verify_key:
        raise PersonalInvalid(
            f"{release.id}: the receipts of department {department!r} were signed by another key "
            f"than {key.key_id}, so the adapter could not be told from somebody else's"
        )
    try:
        body = write_tensors(tensors)
    except ExchangeInvalid as error:
        raise PersonalInvalid(f"the personal adapter of {department!r}: {error}") from None
    _check_fit(release, tensors)
    statement = PersonalStatement.of(release, department, tensors, key.key_id)
    signature = base64.b64encode(key.sign(statement.to_bytes())).decode()
    head = canonical_json({"personal": statement.to_json(), "signature": signature})
    return head + b"\n" + body


def opened(data: bytes, release: VerifiedRelease) -> tuple[str, dict[str, Array]]:
    """Department and tensors of a file for this release.

    Raises:
        PersonalInvalid: malformed, changed, for another release, or not signed by the key that
            signed the department's receipts in it.
    """
    told, signature, body = _parts(data)
    department: str = told["department"]
    if told["release"] != release.id:
        raise PersonalInvalid(
            f"the personal adapter is for release {told['release']}, not for {release.id}; ask the "
            "department for one of this release"
        )
    key = _key_of(release, department)
    try:
        tensors = read_tensors(body)
        statement = PersonalStatement.of(release, department, tensors, key.key_id)
        if told != statement.to_json():
            raise PersonalInvalid(
                f"the personal adapter of {department!r} was changed, or its statement says "
                f"something else than release {release.id}"
            )
        key.verify(signature, statement.to_bytes())
    except (ExchangeInvalid, SignatureInvalid) as error:
        raise PersonalInvalid(f"the personal adapter of {department!r}: {error}") from None
    _check_fit(release, tensors)
    return department, tensors


def wanted_release(data: bytes) -> str:
    """The id of the release that a file says it is for; not verified.

    Raises:
        PersonalInvalid: it says none.
    """
    name: str = _parts(data)[0]["release"]
    return name


def _parts(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Statement, signature and tensors of a file, none of them verified."""
    line, found, body = data.partition(b"\n")
    if not found or len(line) > _LONGEST_LINE:
        raise PersonalInvalid("this is no personal adapter: its first line is no statement")
    try:
        head = parse_canonical(line)
        told, signature = head["personal"], head["signature"]
        if not all(isinstance(told[name], str) for name in ("department", "release")):
            raise PersonalInvalid("this is no personal adapter: department or release is no text")
        return told, decode_base64(signature, PersonalInvalid, "the signature"), body
    except (CanonicalError, KeyError, TypeError) as error:
        raise PersonalInvalid(f"this is no personal adapter: {error}") from None


def _key_of(release: VerifiedRelease, department: str) -> VerifyKey:
    departments = release.privacy["departments"]
    if department not in departments:
        raise PersonalInvalid(
            f"{release.id} has no receipt of department {department!r}; it names "
            f"{', '.join(departments)}"
        )
    try:
        return VerifyKey.parse(departments[department]["key"])
    except KeyUnusable as error:
        raise PersonalInvalid(f"{release.id}: key of department {department!r}: {error}") from None


def _check_fit(release: VerifiedRelease, tensors: Mapping[str, Array]) -> None:
    shared = release.tensors()
    for name, tensor in tensors.items():
        if name not in shared or ".lora_A." in name:
            raise PersonalInvalid(f"tensor {name!r} is no trained one of release {release.id}")
        if tensor.shape != shared[name].shape:
            raise PersonalInvalid(
                f"tensor {name!r} has shape {tensor.shape}, in release {release.id} "
                f"{shared[name].shape}"
            )
