"""The file that brings a department's own adapter to its service: it fits one release, and no forger's."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import PersonalInvalid
from privacy.exchange import read_tensors, write_tensors
from privacy.personal import opened, sealed, wanted_release
from privacy.release import VerifiedRelease, personal_id
from privacy.signing import SigningKey
from tests.api import service_kit

B = "base_model.model.x.lora_B.weight"
A = "base_model.model.x.lora_A.weight"
SHARED = {A: np.ones((2, 3), np.float32), B: np.full((4, 2), 0.5, np.float32)}
OWN = {B: np.arange(8, dtype=np.float32).reshape(4, 2)}


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    """The receipt keys of two departments."""
    return {"hr": SigningKey.generate(), "finance": SigningKey.generate()}


@pytest.fixture(scope="module")
def release(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, SigningKey]
) -> VerifiedRelease:
    """A release that both took part in."""
    return service_kit.release(tmp_path_factory.mktemp("r"), tensors=SHARED, keys=keys)


@pytest.fixture
def file(release: VerifiedRelease, keys: dict[str, SigningKey]) -> bytes:
    """What the node of hr wrote."""
    return sealed(release, "hr", OWN, keys["hr"])


def changed(file: bytes, **fields: Any) -> bytes:
    """The file with another statement under the same signature."""
    line, _, body = file.partition(b"\n")
    head = parse_canonical(line)
    head["personal"] |= fields
    return canonical_json(head) + b"\n" + body


def test_it_comes_back_as_it_was(file: bytes, release: VerifiedRelease) -> None:
    """Department and every bit of the tensors; and it says which release it is for."""
    department, tensors = opened(file, release)
    assert department == "hr"
    assert tensors.keys() == OWN.keys()
    assert tensors[B].tobytes() == OWN[B].tobytes()
    assert wanted_release(file) == release.id


def test_on_top_of_a_release_it_is_added(file: bytes, release: VerifiedRelease) -> None:
    """What answers the department is B + P over the release's A, under an id of its own."""
    own = replace(release, personal={"hr": opened(file, release)[1]}).of("hr")
    assert own.id == personal_id(release.id, "hr") != release.id
    np.testing.assert_array_equal(own.tensors()[B], SHARED[B] + OWN[B])
    np.testing.assert_array_equal(own.tensors()[A], SHARED[A])
    assert own.personal == {}
    np.testing.assert_array_equal(release.tensors()[B], SHARED[B])


def test_every_changed_byte_is_noticed(file: bytes, release: VerifiedRelease) -> None:
    """Flipped anywhere, in statement, signature or tensors, the file is refused by its own error."""
    for place in range(0, len(file), 3):
        damaged = bytearray(file)
        damaged[place] ^= 1
        with pytest.raises(PersonalInvalid):
            opened(bytes(damaged), release)
    for cut in (0, 10, len(file) // 2, len(file) - 1):
        with pytest.raises(PersonalInvalid):
            opened(file[:cut], release)


@pytest.mark.parametrize(
    "fields",
    [
        {"department": "finance"},
        {"department": "legal"},
        {"department": 3},
        {"run_id": "run-2"},
        {"release": "r-" + "0" * 20},
        {"base_model_digest": "1" * 64},
        {"adapter": "1" * 64},
        {"key_id": "0" * 16},
        {"type": "intramural/receipt"},
        {"version": 2},
        {"more": 1},
    ],
)
def test_a_statement_cannot_be_bent(
    file: bytes, release: VerifiedRelease, fields: dict[str, Any]
) -> None:
    """Another department, run, release, model, adapter, key, type or version is refused."""
    with pytest.raises(PersonalInvalid):
        opened(changed(file, **fields), release)


def test_only_the_departments_key_signs(
    release: VerifiedRelease, keys: dict[str, SigningKey]
) -> None:
    """Finance cannot make one for hr, nor can a stranger; neither at the node nor in a service."""
    for key in (keys["finance"], SigningKey.generate()):
        with pytest.raises(PersonalInvalid, match="another key"):
            sealed(release, "hr", OWN, key)
    with pytest.raises(PersonalInvalid, match="no receipt of department 'legal'"):
        sealed(release, "legal", OWN, keys["hr"])


def test_a_forged_signature_is_refused(file: bytes, release: VerifiedRelease) -> None:
    """The statement is right, the signature somebody else's."""
    line, _, body = file.partition(b"\n")
    head = parse_canonical(line)
    statement = canonical_json(head["personal"])
    head["signature"] = base64.b64encode(SigningKey.generate().sign(statement)).decode()
    with pytest.raises(PersonalInvalid, match="signature"):
        opened(canonical_json(head) + b"\n" + body, release)


def test_it_fits_no_release_of_the_same_run_but_its_own(
    file: bytes, release: VerifiedRelease, keys: dict[str, SigningKey], tmp_path: Path
) -> None:
    """Bound to the id, which is the digest of all that was published."""
    other = service_kit.release(tmp_path, tensors={**SHARED, B: SHARED[B] + 1}, keys=keys)
    assert other.run["run_id"] == release.run["run_id"]
    with pytest.raises(PersonalInvalid, match=f"for release {release.id}, not for {other.id}"):
        opened(file, other)


@pytest.mark.parametrize(
    "tensors",
    [
        {"base_model.model.y.lora_B.weight": OWN[B]},
        {B: np.ones((4, 3), np.float32)},
        {A: SHARED[A]},
        {B: OWN[B] * np.float32(np.nan)},
        {},
    ],
)
def test_tensors_that_do_not_fit_are_not_signed(
    release: VerifiedRelease, keys: dict[str, SigningKey], tensors: Any
) -> None:
    """Unknown names, other shapes, the frozen A, numbers that are none, and nothing at all."""
    with pytest.raises(PersonalInvalid, match=r"tensor|adapter"):
        sealed(release, "hr", tensors, keys["hr"])


def test_equal_tensors_give_equal_bytes() -> None:
    """Whatever their order and memory layout."""
    views = {B: np.asfortranarray(OWN[B]), A: SHARED[A]}
    assert write_tensors({A: SHARED[A], B: OWN[B]}) == write_tensors(views)
    np.testing.assert_array_equal(read_tensors(write_tensors(views))[B], OWN[B])
