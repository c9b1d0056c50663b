"""Which data block each unit of privacy belongs to, so that a new block holds only new units.

A budget is never reset. A policy may open a new block, with a budget of its own, for units that
did not exist before; this register is what makes "did not exist before" checkable on the node. It
holds no data: a unit is known by an HMAC-SHA256 under the node's own key.

The trap: a unit that was edited has another fingerprint and so counts as new, and a register that
was deleted knows nobody. Neither can be prevented here. The lifetime epsilon, which composes over
every block, is the bound that covers both; it stands beside the block's in every receipt.
"""

import fcntl
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from client.errors import AgentMisconfigured
from privacy.canonical import canonical_json
from privacy.crashpoints import reached
from privacy.files import write_atomic

_BLOCK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class BlockRegister:
    """A file of fingerprints by block, authenticated under the node's key. Processes may share it.

    ``key``: at least 32 secret bytes, for this purpose alone (see
    :meth:`privacy.signing.SigningKey.derive`). Nothing is created before the first claim.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        if len(key) < 32:
            raise AgentMisconfigured(f"the block register's key has {len(key)} bytes, not 32")
        self._path = Path(path)
        self._key = key

    def blocks(self) -> tuple[str, ...]:
        """The blocks that units were claimed for, sorted.

        Raises:
            AgentMisconfigured: see :meth:`claim`.
        """
        return tuple(sorted(set(self._read().values())))

    def claim(self, block: str, fingerprints: Sequence[bytes]) -> list[bool]:
        """Claim for ``block`` every unit that no block has yet: durable once this returns.

        Args:
            block: the policy's data block.
            fingerprints: one for each unit, at least 16 bytes: the same as long as the unit is the
                same, for example the SHA-256 over its scrubbed records in a fixed order.

        Returns:
            For each fingerprint whether its unit belongs to ``block``. False: it exists in another
            block, whose budget pays for it, and must be left out.

        Raises:
            AgentMisconfigured: a malformed name or fingerprint, or a register that is damaged or
                was written under another key; nothing is claimed then.
        """
        if not _BLOCK.fullmatch(block):
            raise AgentMisconfigured(f"block={block!r} is no name (letters, digits, '.', '_', '-')")
        if any(len(fingerprint) < 16 for fingerprint in fingerprints):
            raise AgentMisconfigured("a unit's fingerprint has fewer than 16 bytes")
        names = [self._mac(b"unit\n" + fingerprint) for fingerprint in fingerprints]
        with self._alone():
            owners = self._read()
            new = {name: block for name in names if name not in owners}
            if new:
                owners |= new
                # A crash before: nothing is claimed, and nothing was trained on. A crash after: the
                # units belong to the block, as they will when it asks again.
                reached("blocks.before-write")
                self._write(owners)
            return [owners[name] == block for name in names]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the register, which is replaced at every write. The system unlocks at any death.
        with self._path.with_name(self._path.name + ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, str]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            value = json.loads(data)
            body, mac = value["register"], value["hmac"]
            genuine = hmac.compare_digest(mac, self._mac(b"register\n" + canonical_json(body)))
            owners = {name: block for block, names in body.items() for name in names}
        except (ValueError, KeyError, TypeError, AttributeError):
            genuine = False
        if not genuine:
            raise AgentMisconfigured(
                f"the block register {self._path} is damaged, or was written under another key; "
                "restore it from a copy. Without it nobody knows which records are new"
            )
        return owners

    def _write(self, owners: Mapping[str, str]) -> None:
        body: dict[str, list[str]] = {}
        for name in sorted(owners):
            body.setdefault(owners[name], []).append(name)
        mac = self._mac(b"register\n" + canonical_json(body))
        data = canonical_json({"register": body, "hmac": mac}) + b"\n"
        write_atomic(self._path, data, mode=0o600)

    def _mac(self, data: bytes) -> str:
        return hmac.new(self._key, b"intramural/block-register-1 " + data, "sha256").hexdigest()
