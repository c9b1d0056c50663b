"""Receipts: what a department signed, and nothing else, verifies."""

import dataclasses
from pathlib import Path

import pytest
from proof_kit import EVENT, fixed_key, receipt

from privacy.canonical import canonical_json
from privacy.errors import ReceiptInvalid
from privacy.receipts import Receipt, SignedReceipt
from privacy.signing import SigningKey

GOLDEN = Path(__file__).parent / "golden" / "receipt.json"
OTHER = {
    "run_id": "run-2",
    "round": 2,
    "department": "it",
    "event": dataclasses.replace(EVENT, steps=7),
    "epsilon": 2.4999999999999996,
    "delta": 1.1e-5,
    "unit": "subject",
    "policy_digest": "e" * 64,
    "code_digest": "e" * 64,
    "adapter_before": "e" * 64,
    "adapter_after": "e" * 64,
    "key_id": "e" * 16,
}


def test_the_list_of_changes_covers_every_field() -> None:
    """A field added to the receipt must be added to the test below."""
    assert set(OTHER) == {field.name for field in dataclasses.fields(Receipt)}


@pytest.mark.parametrize("field", OTHER)
def test_a_receipt_with_any_field_changed_no_longer_verifies(field: str, key: SigningKey) -> None:
    """Each field is under the signature."""
    signed = receipt(key).sign(key)
    assert signed.verify(key.verify_key) == receipt(key)
    changed = dataclasses.replace(signed.receipt, **{field: OTHER[field]})
    with pytest.raises(ReceiptInvalid):
        SignedReceipt(changed, signed.signature).verify(key.verify_key)


def test_a_receipt_with_any_byte_of_its_line_changed_is_refused(key: SigningKey) -> None:
    """Every bit of every byte, white space and number spelling included."""
    line = receipt(key).sign(key).to_json().encode()
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ReceiptInvalid):
            SignedReceipt.from_json(bytes(changed)).verify(key.verify_key)


def test_another_spelling_of_the_same_numbers_is_refused(key: SigningKey) -> None:
    """An integer where a float was signed is another text."""
    line = receipt(key, epsilon=2.0).sign(key).to_json()
    assert SignedReceipt.from_json(line).verify(key.verify_key).epsilon == 2.0
    with pytest.raises(ReceiptInvalid, match="canonical"):
        SignedReceipt.from_json(line.replace('"epsilon":2.0', '"epsilon":2'))


def test_the_wrong_key_neither_signs_nor_verifies(key: SigningKey) -> None:
    """A receipt belongs to the key that it names."""
    with pytest.raises(ReceiptInvalid, match="names key"):
        receipt(key).sign(fixed_key(8))
    with pytest.raises(ReceiptInvalid, match="expected"):
        receipt(key).sign(key).verify(fixed_key(8).verify_key)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0},
        {"round": True},
        {"epsilon": float("nan")},
        {"epsilon": -1.0},
        {"delta": 0.0},
        {"unit": "person"},
        {"policy_digest": "A" * 64},
        {"run_id": "../x"},
        {"department": 3},
    ],
)
def test_impossible_values_make_no_receipt(changes: dict[str, object], key: SigningKey) -> None:
    """What cannot be true cannot be signed."""
    with pytest.raises(ReceiptInvalid):
        receipt(key, **changes)


def test_unknown_versions_fields_and_mechanisms_are_refused(key: SigningKey) -> None:
    """A reader never guesses what a newer receipt means."""
    value = receipt(key).to_json()
    for changed in (
        {**value, "version": 2},
        {**value, "adjacency": "replace_one"},
        {**value, "examples": 12},
        {name: item for name, item in value.items() if name != "unit"},
        {**value, "event": {**value["event"], "mechanism": "laplace"}},
        [],
    ):
        with pytest.raises(ReceiptInvalid):
            Receipt.from_json(changed)


def test_the_form_of_a_receipt_is_fixed(key: SigningKey) -> None:
    """Others parse this line: it changes with a new version only."""
    signed = receipt(key).sign(key)
    assert signed.to_json() + "\n" == GOLDEN.read_text()
    assert SignedReceipt.from_json(GOLDEN.read_text().rstrip("\n")) == signed
    assert canonical_json(signed.receipt.to_json()).decode() in GOLDEN.read_text()
