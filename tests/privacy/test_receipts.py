"""Receipts: what a department signed, and nothing else, verifies."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from proof_kit import EVENT, fixed_key, receipt
from schema_kit import faults

from privacy.canonical import canonical_json
from privacy.dp import events
from privacy.dp.events import AdaptiveClipGaussian, BandedGaussian, MechanismEvent
from privacy.errors import ReceiptInvalid
from privacy.receipts import Receipt, SignedReceipt
from privacy.signing import SigningKey

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "receipt.json"
OTHER = {
    "run_id": "run-2",
    "round": 2,
    "department": "it",
    "block": "2",
    "event": dataclasses.replace(EVENT, steps=7),
    "epsilon": 2.4999999999999996,
    "lifetime_epsilon": 3.4999999999999996,
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
        {"lifetime_epsilon": 2.4},
        {"lifetime_epsilon": float("inf")},
        {"block": ""},
        {"block": "../x"},
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


SCHEMA = json.loads((ROOT / "docs" / "schemas" / "receipt.schema.json").read_text())
EVENTS: tuple[MechanismEvent, ...] = (
    EVENT,
    AdaptiveClipGaussian(0.25, 1.5, 6, 2.5),
    BandedGaussian(0.25, 1.5, 6, 3),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.mechanism)
@pytest.mark.parametrize("unit", ["record", "subject"])
def test_every_receipt_fits_the_published_schema(
    key: SigningKey, event: MechanismEvent, unit: str
) -> None:
    """Whatever the mechanism and the unit, the signed line is what the schema describes."""
    line = receipt(key, event=event, unit=unit).sign(key).to_json()
    assert list(faults(json.loads(line), SCHEMA, SCHEMA)) == []
    assert list(faults(json.loads(GOLDEN.read_text()), SCHEMA, SCHEMA)) == []


def test_the_schema_names_every_mechanism() -> None:
    """A mechanism that is added to the events must be added to the schema, and to the test above."""
    named = {option["$ref"].rpartition("/")[2] for option in _property("event")["oneOf"]}
    assert named == set(events._KNOWN) == {event.mechanism for event in EVENTS}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.mechanism)
def test_the_schema_refuses_what_the_reader_refuses(key: SigningKey, event: MechanismEvent) -> None:
    """Each field of receipt and event missing, of another type or out of bounds; and one more."""
    signed = json.loads(receipt(key, event=event).sign(key).to_json())
    for path in ((), ("receipt",), ("receipt", "event")):
        part = _at(signed, path)
        for name in (*part, "examples"):
            for value in (None, "", -1, 1.5, True, [], {}, "x" * 200, _MISSING):
                changed = json.loads(json.dumps(signed))
                if value is _MISSING:
                    _at(changed, path).pop(name, None)
                else:
                    _at(changed, path)[name] = value
                if changed == signed or (name, value) in ALLOWED:
                    continue
                assert list(faults(changed, SCHEMA, SCHEMA)), (path, name, value)
                with pytest.raises(ReceiptInvalid):
                    SignedReceipt.from_json(canonical_json(changed)).verify(key.verify_key)


ALLOWED = [("noise_multiplier", 1.5), ("count_noise_multiplier", 1.5), ("epsilon", 1.5)]
ALLOWED += [("lifetime_epsilon", 1.5)]  # below epsilon: no schema can compare two fields
_MISSING = object()


def _at(value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        value = value[name]
    found: dict[str, Any] = value
    return found


def _property(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["$defs"]["receipt"]["properties"][name]
    return found


def stand_alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The example as a stranger runs it: in isolated mode, so without the packages beside it."""
    command = [sys.executable, "-I", str(ROOT / "examples" / "verify_receipt.py")]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd="/"
    )


@pytest.fixture
def files(tmp_path: Path, key: SigningKey) -> tuple[Path, Path]:
    """Three receipts, and the public key that belongs to them."""
    lines = [receipt(key, round=n, event=e).sign(key).to_json() for n, e in enumerate(EVENTS, 1)]
    receipts, public = tmp_path / "receipts.jsonl", tmp_path / "hr.pub"
    receipts.write_text("".join(f"{line}\n" for line in lines))
    key.verify_key.save(public)
    return receipts, public


def test_a_stranger_can_verify_receipts(files: tuple[Path, Path]) -> None:
    """The example needs none of our code and prints one line for each receipt."""
    done = stand_alone(*files)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert first == (
        "receipt 1: hr, run run-1, round 1: epsilon 2.5 on block 1, lifetime 3.5, "
        "delta 1e-05, one record: signed"
    )
    source = (ROOT / "examples" / "verify_receipt.py").read_text()
    assert len(source.splitlines()) < 100
    assert "privacy" not in re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE)


CHANGES: dict[str, tuple[bytes, bytes]] = {
    "figure": (b'"round":2', b'"round":3'),
    "epsilon": (b'"epsilon":2.5,"event":{"count', b'"epsilon":2.4,"event":{"count'),
    "space": (b'{"receipt":{"adapter_after', b'{"receipt": {"adapter_after'),
    "spelling": (b'"lifetime_epsilon":3.5', b'"lifetime_epsilon":3.50'),
    "version": (b'"version":1},"signature', b'"version":2},"signature'),
    "no JSON": (b'{"receipt"', b'{"receipt'),
}


@pytest.mark.parametrize("change", [*CHANGES, "signature", "another key", "empty", "no key"])
def test_the_first_receipt_that_fails_is_named(files: tuple[Path, Path], change: str) -> None:
    """A changed byte, another spelling or another key: exit 1, and the line's number."""
    receipts, public = files
    lines = receipts.read_bytes().splitlines(keepends=True)
    if change in CHANGES:
        before, after = CHANGES[change]
        assert before in lines[1]
        lines[1] = lines[1].replace(before, after)
    elif change == "signature":
        place = lines[1].index(b'"signature":"') + 20
        lines[1] = lines[1][:place] + bytes([lines[1][place] ^ 1]) + lines[1][place + 1 :]
    elif change == "another key":
        fixed_key(8).verify_key.save(public)
    elif change == "empty":
        lines = []
    else:
        public.write_text("ed25519:AAAA\n")
    receipts.write_bytes(b"".join(lines))
    done = stand_alone(receipts, public)
    assert done.returncode == (2 if change == "no key" else 1)
    if change in ("empty", "no key"):
        assert done.stdout == ""
    else:
        number = 1 if change == "another key" else 2
        assert done.stderr.startswith(f"receipt {number} FAILS: ")
        assert len(done.stdout.splitlines()) == number - 1
    assert "Traceback" not in done.stderr
