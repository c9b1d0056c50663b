"""Check a department's receipts without installing Intramural; needs only ``cryptography``.

    python examples/verify_receipt.py receipts.jsonl hr.pub

Prints one line for each receipt that the key signed, and exits with 1 at the first that it did not.
Receipts of other departments fail too: take out the lines of the one whose key you hold. That each
round follows the one before, and what the figures mean, is for the reader to judge; the form of a
line is described by docs/schemas/receipt.schema.json.
"""

# ruff: noqa: T201 - what it prints is its result
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def canonical(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8: the bytes that are signed."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def read_key(path: Path) -> bytes:
    """The 32 raw bytes of a public key file, ``ed25519:<base64>``."""
    kind, _, text = path.read_text(encoding="ascii").strip().partition(":")
    raw = base64.b64decode(text, validate=True)
    if kind != "ed25519" or len(raw) != 32:
        raise ValueError(f"{path} holds no Ed25519 public key")
    return raw


def verify(line: bytes, key: bytes) -> dict[str, Any]:
    """The receipt of a line, when ``key`` signed exactly its bytes; raises ValueError otherwise."""
    signed = json.loads(line)
    # One spelling of a receipt is signed; in any other one a byte could change unseen.
    if canonical(signed) != line or not isinstance(signed, dict):
        raise ValueError("it is not canonical JSON")
    if set(signed) != {"receipt", "signature"} or not isinstance(signed["receipt"], dict):
        raise ValueError("it has not the two fields 'receipt' and 'signature'")
    receipt: dict[str, Any] = signed["receipt"]
    stated = tuple(receipt.get(name) for name in ("type", "version", "adjacency"))
    if stated != ("intramural/receipt", 1, "add_or_remove_one"):
        raise ValueError(f"type, version or adjacency is unknown: {stated}")
    signature = base64.b64decode(str(signed["signature"]), validate=True)
    if base64.b64encode(signature).decode() != signed["signature"]:
        raise ValueError("its signature is not in the canonical spelling of base64")
    key_id = hashlib.sha256(key).hexdigest()[:16]
    if receipt.get("key_id") != key_id:
        raise ValueError(f"it names key {receipt.get('key_id')}, not {key_id}")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, canonical(receipt))
    except InvalidSignature:
        raise ValueError(f"its signature was not made by key {key_id} over these bytes") from None
    return receipt


def main(arguments: list[str]) -> int:
    """The exit status: 0 sound, 1 a receipt fails, 2 wrong use or unreadable files."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        lines, key = Path(arguments[0]).read_bytes().splitlines(), read_key(Path(arguments[1]))
    except (OSError, ValueError) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    for number, line in enumerate(lines, 1):
        try:
            found = verify(line, key)
            told = (
                f"receipt {number}: {found['department']}, run {found['run_id']}, round "
                f"{found['round']}: epsilon {found['epsilon']} on block {found['block']}, lifetime "
                f"{found['lifetime_epsilon']}, delta {found['delta']}, one {found['unit']}: signed"
            )
        except (ValueError, KeyError, RecursionError) as error:
            print(f"receipt {number} FAILS: {error}", file=sys.stderr)
            return 1
        print(told)
    if not lines:
        print("no receipt at all", file=sys.stderr)
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
