"""Content-addressed, signed releases: a PEFT adapter with its guarantee and the proof of it.

::

    <out>/release-key.pub
    <out>/releases/r-<20 hex>/
        adapter_model.safetensors   adapter_config.json   README.md
        receipts.jsonl              manifest.json         manifest.sig

The id is the SHA-256 of ``manifest.json``, which holds the digest of every other file.
"""

import base64
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.canonical import canonical_json, parse_canonical
from privacy.composition import added
from privacy.crashpoints import reached
from privacy.errors import (
    CanonicalError,
    ExchangeInvalid,
    KeyUnusable,
    ReceiptInvalid,
    ReleaseInvalid,
    SignatureInvalid,
)
from privacy.exchange import adapter_digest, read_tensors, write_tensors
from privacy.files import sync_directory, sync_file
from privacy.receipts import Receipt, SignedReceipt
from privacy.signing import SigningKey, VerifyKey, decode_base64
from privacy.statement import PrivacyStatement, ReleaseStatement, model_card

ADAPTER, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "README.md"
RECEIPTS, MANIFEST, SIGNATURE = "receipts.jsonl", "manifest.json", "manifest.sig"
KEY_FILE = "release-key.pub"
_FILES = (ADAPTER, CONFIG, CARD, RECEIPTS)
_TYPE = "intramural/release"
_VERSION = 1
# Larger than any LoRA adapter we know of; a verifier must not be made to read without end.
_LARGEST_FILE = 2 << 30


@dataclass(frozen=True)
class VerifiedRelease:
    """A release whose every byte was found as signed. Its content is read from those bytes only.

    Attributes:
        id: ``r-`` and 20 hexadecimal digits.
        path: its folder.
        manifest: the signed manifest.
        receipts: the departments' receipts, verified against the keys in the manifest.
        adapter_config: PEFT's configuration.
        key_id: who signed.
        personal: tensors that departments add to those of the release, by department; put there by
            :mod:`privacy.personal`, which verified them.
    """

    id: str
    path: Path
    manifest: dict[str, Any]
    receipts: tuple[Receipt, ...]
    adapter_config: dict[str, Any]
    key_id: str
    _adapter: bytes
    personal: Mapping[str, Mapping[str, npt.NDArray[np.float32]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def privacy(self) -> dict[str, Any]:
        """The guarantee, see :meth:`PrivacyStatement.to_json`."""
        privacy: dict[str, Any] = self.manifest["privacy"]
        return privacy

    @property
    def run(self) -> dict[str, Any]:
        """The run, see :class:`ReleaseStatement`."""
        run: dict[str, Any] = self.manifest["run"]
        return run

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on public data."""
        metrics: dict[str, Any] = self.manifest["metrics"]
        return metrics

    def of(self, department: str) -> "VerifiedRelease":
        """What answers a department that has an adapter of its own: this release with it on top.

        It has an id of its own, ``<release>+<department>``, under which nothing is ever published.

        Raises:
            ReleaseInvalid: see :meth:`tensors`.
        """
        tensors = added(self.tensors(), self.personal[department])
        name = personal_id(self.id, department)
        return replace(self, id=name, _adapter=write_tensors(tensors), personal={})

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """The adapter's tensors by PEFT name.

        Raises:
            ReleaseInvalid: the signed file is no safetensors file of float32.
        """
        try:
            return read_tensors(self._adapter)
        except ExchangeInvalid as error:
            raise ReleaseInvalid(f"{self.id}: {ADAPTER}: {error}") from None


def personal_id(release: str, department: str) -> str:
    """The id of a release with a department's own adapter on top."""
    return f"{release}+{department}"


Release = VerifiedRelease
"""What publishing returns is what verifying the published files returned."""


def publish(
    out_dir: Path,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    adapter_config: Mapping[str, Any],
    statement: ReleaseStatement,
    receipts: Sequence[SignedReceipt],
    metrics: Mapping[str, Any],
    key: SigningKey,
    *,
    department_keys: Mapping[str, VerifyKey],
) -> Release:
    """Write, sign and publish a release; it appears complete or not at all.

    Args:
        out_dir: gets ``releases/<id>/`` and ``release-key.pub``.
        tensors: the adapter, float32, by PEFT name.
        adapter_config: PEFT's configuration; must hold no local path.
        statement: the public facts of the run.
        receipts: every receipt of the run.
        metrics: results on public data: numbers, texts, lists and mappings of them.
        key: the hub's.
        department_keys: whose receipts are accepted, by department.

    Returns:
        The release, read back and verified. Publishing the same content again returns it as it is.

    Raises:
        ReleaseInvalid: a receipt does not verify or belongs to another run, a tensor is not finite
            float32, a local path would be published, or another key publishes in ``out_dir``.
    """
    out_dir = Path(out_dir)
    verified = _verified_receipts(receipts, department_keys, statement)
    privacy = PrivacyStatement.of(
        verified, {name: own.public_text() for name, own in department_keys.items()}
    )
    try:
        content = {
            ADAPTER: write_tensors(tensors),
            CONFIG: canonical_json(dict(adapter_config)) + b"\n",
            CARD: model_card(statement, privacy, metrics).encode(),
            RECEIPTS: "".join(receipt.to_json() + "\n" for receipt in receipts).encode(),
        }
        manifest = canonical_json(
            {
                "type": _TYPE,
                "version": _VERSION,
                "run": statement.to_json(),
                "privacy": privacy.to_json(),
                "metrics": dict(metrics),
                "adapter_digest": adapter_digest(tensors),
                "files": {name: _fingerprint(data) for name, data in content.items()},
                "key_id": key.key_id,
            }
        )
    except (ExchangeInvalid, CanonicalError) as error:
        raise ReleaseInvalid(f"the release cannot be written: {error}") from None
    _refuse_paths({"adapter_config": dict(adapter_config), "run": statement.to_json()})
    content[MANIFEST] = manifest
    content[SIGNATURE] = _signature(manifest, key)
    _keep_key(out_dir, key.verify_key)
    return verify(_place(out_dir / "releases", _id(manifest), content), key.verify_key)


def verify(path: Path, trusted: VerifyKey | None = None) -> VerifiedRelease:
    """Read a release folder and check every byte of it.

    Args:
        path: ``…/releases/<id>``.
        trusted: who must have signed. None takes ``release-key.pub`` beside ``releases``, which
            shows a changed file, but not a forger who could also replace that key.

    Raises:
        ReleaseInvalid: names the file and what is wrong with it.
    """
    path = Path(path)
    key = trusted if trusted is not None else _key_beside(path)
    content = _read_folder(path)
    manifest_bytes = content[MANIFEST]
    key_id, signature = _parse_signature(path.name, content[SIGNATURE])
    if key_id != key.key_id:
        raise ReleaseInvalid(f"{path.name}: signed by key {key_id}, trusted is {key.key_id}")
    try:
        key.verify(signature, manifest_bytes)
    except SignatureInvalid as error:
        raise ReleaseInvalid(
            f"{path.name}: {MANIFEST} or {SIGNATURE} was changed: {error}"
        ) from None
    if path.name != _id(manifest_bytes):
        raise ReleaseInvalid(f"{path.name}: the manifest belongs to release {_id(manifest_bytes)}")
    try:
        manifest = parse_canonical(manifest_bytes)
        _check_manifest(path.name, manifest, content, key)
        receipts = _read_receipts(content[RECEIPTS], manifest)
        config = parse_canonical(content[CONFIG].removesuffix(b"\n"))
    except (CanonicalError, ReceiptInvalid, KeyUnusable) as error:
        raise ReleaseInvalid(f"{path.name}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ReleaseInvalid(f"{path.name}: {MANIFEST} lacks or misuses {error}") from None
    return VerifiedRelease(
        path.name, path, manifest, receipts, config, key.key_id, content[ADAPTER]
    )


def list_releases(
    out_dir: Path, trusted: VerifyKey | None = None
) -> Iterator[tuple[str, VerifiedRelease | ReleaseInvalid]]:
    """Every folder under ``out_dir/releases`` by id, each verified or with what is wrong."""
    folder = Path(out_dir) / "releases"
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue  # what a crash while publishing left
        try:
            yield path.name, verify(path, trusted)
        except ReleaseInvalid as error:
            yield path.name, error


def _verified_receipts(
    receipts: Sequence[SignedReceipt], keys: Mapping[str, VerifyKey], run: ReleaseStatement
) -> list[Receipt]:
    verified, seen = [], set()
    for signed in receipts:
        name = signed.receipt.department
        if name not in keys:
            raise ReleaseInvalid(f"no key is known for the receipt of department {name!r}")
        try:
            receipt = signed.verify(keys[name])
        except ReceiptInvalid as error:
            raise ReleaseInvalid(str(error)) from None
        if receipt.run_id != run.run_id:
            raise ReleaseInvalid(
                f"a receipt of {name!r} is of run {receipt.run_id}, not {run.run_id}"
            )
        if (name, receipt.round) in seen:
            raise ReleaseInvalid(f"two receipts of {name!r} for round {receipt.round}")
        seen.add((name, receipt.round))
        verified.append(receipt)
    return verified


def _refuse_paths(value: Any, where: str = "") -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_paths(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_paths(item, f"{where}[{index}]")
    elif isinstance(value, str) and value.startswith(("/", "~", "./", "../", "file:")):
        raise ReleaseInvalid(
            f"{where} holds a local path; name the model instead, a release says nothing of a machine"
        )


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _id(manifest: bytes) -> str:
    return "r-" + hashlib.sha256(manifest).hexdigest()[:20]


def _signature(manifest: bytes, key: SigningKey) -> bytes:
    signature = base64.b64encode(key.sign(manifest)).decode()
    return canonical_json({"key_id": key.key_id, "signature": signature}) + b"\n"


def _parse_signature(name: str, data: bytes) -> tuple[str, bytes]:
    try:
        if not data.endswith(b"\n"):
            raise ReleaseInvalid(f"{name}: {SIGNATURE} was cut")
        value = parse_canonical(data[:-1])
        if set(value) != {"key_id", "signature"}:
            raise ReleaseInvalid(f"{name}: {SIGNATURE} has other fields than key_id and signature")
        return value["key_id"], decode_base64(value["signature"], ReleaseInvalid, SIGNATURE)
    except (CanonicalError, TypeError) as error:
        raise ReleaseInvalid(f"{name}: {SIGNATURE} is malformed: {error}") from None


def _keep_key(out_dir: Path, key: VerifyKey) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / KEY_FILE
    if not path.exists():
        key.save(path)
    elif VerifyKey.load(path) != key:
        raise ReleaseInvalid(
            f"{path.name} holds another key than {key.key_id}; releases of two keys need two folders"
        )


def _key_beside(path: Path) -> VerifyKey:
    key_file = path.absolute().parent.parent / KEY_FILE
    try:
        data = key_file.read_bytes()
        key = VerifyKey.load(key_file)
    except (KeyUnusable, OSError) as error:
        raise ReleaseInvalid(
            f"{path.name}: no trusted key was given and {KEY_FILE} cannot be used: {error}"
        ) from None
    if data != key.public_text().encode() + b"\n":
        raise ReleaseInvalid(f"{path.name}: {KEY_FILE} was changed")
    return key


def _place(folder: Path, name: str, content: Mapping[str, bytes]) -> Path:
    """Write to a hidden folder, then rename: a crash before leaves nothing that is listed."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / name
    if final.exists():
        return final  # the same manifest; verifying it says whether the files still are
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
    try:
        for file, data in content.items():
            (temporary / file).write_bytes(data)
            sync_file(temporary / file)
        temporary.chmod(0o755)
        sync_directory(temporary)
        reached("release.before-rename")
        temporary.rename(final)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        raise
    sync_directory(folder)
    return final


def _read_folder(path: Path) -> dict[str, bytes]:
    if not path.is_dir() or path.is_symlink():
        raise ReleaseInvalid(f"there is no release at {path}")
    expected = {*_FILES, MANIFEST, SIGNATURE}
    present = {item.name for item in path.iterdir()}
    if present - expected:
        raise ReleaseInvalid(f"{path.name}: unexpected {', '.join(sorted(present - expected))}")
    if expected - present:
        raise ReleaseInvalid(f"{path.name}: missing {', '.join(sorted(expected - present))}")
    content = {}
    for name in sorted(expected):
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise ReleaseInvalid(f"{path.name}: {name} is no ordinary file")
        if file.stat().st_size > _LARGEST_FILE:
            raise ReleaseInvalid(f"{path.name}: {name} is larger than {_LARGEST_FILE} bytes")
        content[name] = file.read_bytes()
    return content


def _check_manifest(
    name: str, manifest: dict[str, Any], content: Mapping[str, bytes], key: VerifyKey
) -> None:
    if (manifest["type"], manifest["version"]) != (_TYPE, _VERSION):
        raise ReleaseInvalid(f"{name}: {MANIFEST} is of an unknown type or version")
    if manifest["key_id"] != key.key_id:
        raise ReleaseInvalid(f"{name}: {MANIFEST} names key {manifest['key_id']}")
    if set(manifest["files"]) != set(_FILES):
        raise ReleaseInvalid(f"{name}: {MANIFEST} lists other files than a release has")
    for file in _FILES:
        if manifest["files"][file] != _fingerprint(content[file]):
            raise ReleaseInvalid(f"{name}: {file} was changed: its digest is not the manifest's")


def _read_receipts(data: bytes, manifest: dict[str, Any]) -> tuple[Receipt, ...]:
    departments = manifest["privacy"]["departments"]
    receipts = []
    for line in data.splitlines():
        signed = SignedReceipt.from_json(line)
        name = signed.receipt.department
        if name not in departments:
            raise ReceiptInvalid(f"{RECEIPTS} names department {name!r}, {MANIFEST} does not")
        receipts.append(signed.verify(VerifyKey.parse(departments[name]["key"])))
    return tuple(receipts)
