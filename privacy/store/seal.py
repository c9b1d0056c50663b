"""The signed file beside a database that says in which state it was left.

``<db>.seal`` is one line of canonical JSON, ``{"seal":{…},"signature":"<base64>"}``. Its state is

- ``open``: somebody writes, or was killed while writing. Says with which logical head it was opened.
- ``closed``: nobody writes. Says size and SHA-256 of the database file, so that any changed byte,
  slack space included, is found; and the logical head.

A database without this file was not left so by us: a crash leaves ``open``, a clean end ``closed``.

What no file on the same disk can show: that database and seal were both put back to an earlier,
genuine pair. Only a head remembered elsewhere (a receipt, a checkpoint) shows that.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import CanonicalError, SignatureInvalid, TamperedStore
from privacy.files import sha256_file, write_atomic
from privacy.signing import SigningKey, VerifyKey, decode_base64

_TYPE = "intramural/seal"
_VERSION = 1
_FIELDS = {
    "type",
    "version",
    "kind",
    "state",
    "entries",
    "head",
    "size",
    "sha256",
    "created",
    "key_id",
}


@dataclass(frozen=True)
class Head:
    """The logical end of a store: how many entries, and the digest (hex) that covers them all."""

    entries: int
    digest: str


@dataclass(frozen=True)
class Seal:
    """What a seal file says.

    Attributes:
        kind: what the store is, for example "ledger".
        state: "open" or "closed".
        head: logical end, at the opening or at the close.
        size, sha256: of the database file when closed, in bytes and hexadecimal; else None.
        created: False while the database file may not exist yet.
        key_id: who signed.
    """

    kind: str
    state: Literal["open", "closed"]
    head: Head
    size: int | None
    sha256: str | None
    created: bool
    key_id: str

    @classmethod
    def opened(cls, kind: str, head: Head, key: SigningKey, *, created: bool) -> Self:
        """The state of a store that is being written from ``head`` on."""
        return cls(kind, "open", head, None, None, created, key.key_id)

    @classmethod
    def closed(cls, kind: str, head: Head, key: SigningKey, database: Path) -> Self:
        """The state of a store that nobody writes, over its bytes as they are now."""
        size = database.stat().st_size
        return cls(kind, "closed", head, size, sha256_file(database), True, key.key_id)

    def signed(self, key: SigningKey) -> bytes:
        """Its one line."""
        body = self._body()
        signature = base64.b64encode(key.sign(canonical_json(body))).decode()
        return canonical_json({"seal": body, "signature": signature}) + b"\n"

    def write(self, path: Path, key: SigningKey) -> None:
        """Sign and write, atomically and durably."""
        write_atomic(path, self.signed(key))

    @classmethod
    def read(cls, path: Path, kind: str, key: VerifyKey | None) -> Self:
        """Read a seal file.

        Args:
            path: the seal file.
            kind: the kind of store that must be named in it.
            key: who must have signed it; None reads without any trust (for display only).

        Raises:
            TamperedStore: missing, malformed, of another store, or not signed by ``key``.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise TamperedStore(
                f"{path.name} is missing; a clean end and a crash both leave it, so it was removed"
            ) from None
        return cls.of(data, path.name, kind, key)

    @classmethod
    def of(cls, data: bytes, name: str, kind: str, key: VerifyKey | None) -> Self:
        """The seal that :meth:`signed` wrote; ``name`` is what the errors call it.

        Raises:
            TamperedStore: malformed, of another store, or not signed by ``key``.
        """
        try:
            seal, signature = cls._parse(data)
        except (CanonicalError, KeyError, TypeError) as error:
            raise TamperedStore(f"{name} is malformed: {error}") from None
        if seal.kind != kind:
            raise TamperedStore(f"{name} seals a store of kind {seal.kind!r}, not {kind!r}")
        if key is not None:
            try:
                key.verify(signature, canonical_json(seal._body()))
            except SignatureInvalid as error:
                raise TamperedStore(f"{name}: {error}") from None
        return seal

    def _body(self) -> dict[str, Any]:
        return {
            "type": _TYPE,
            "version": _VERSION,
            "kind": self.kind,
            "state": self.state,
            "entries": self.head.entries,
            "head": self.head.digest,
            "size": self.size,
            "sha256": self.sha256,
            "created": self.created,
            "key_id": self.key_id,
        }

    @classmethod
    def _parse(cls, data: bytes) -> tuple[Self, bytes]:
        """The seal and its signature; the bytes must be the one spelling of them."""
        if not data.endswith(b"\n"):
            raise CanonicalError("the line has no end")
        value = parse_canonical(data[:-1])
        body, signature = value["seal"], value["signature"]
        if set(value) != {"seal", "signature"} or set(body) != _FIELDS:
            raise CanonicalError("its fields are not those of a seal")
        texts = [body[name] for name in ("kind", "state", "head", "key_id")] + [signature]
        numbers = [body["entries"], body["version"]]
        if not all(type(text) is str for text in texts) or not all(type(n) is int for n in numbers):
            raise CanonicalError("a field has the wrong type")
        if (body["type"], body["version"]) != (_TYPE, _VERSION):
            raise CanonicalError("its type or version is unknown")
        if body["state"] == "closed":
            if type(body["size"]) is not int or type(body["sha256"]) is not str:
                raise CanonicalError("a closed seal states size and sha256")
        elif body["state"] != "open" or type(body["created"]) is not bool:
            raise CanonicalError("its state is unknown")
        seal = cls(
            kind=body["kind"],
            state=body["state"],
            head=Head(body["entries"], body["head"]),
            size=body["size"],
            sha256=body["sha256"],
            created=body["created"],
            key_id=body["key_id"],
        )
        return seal, decode_base64(signature, CanonicalError, "the signature")

    def faults(self, database: Path) -> list[str]:
        """What is wrong with the bytes of a ``closed`` store; empty when nothing is."""
        if not database.is_file():
            return [f"{database.name} is missing"]
        found = []
        size = database.stat().st_size
        if size != self.size:
            found.append(f"{database.name} has {size} bytes, its seal says {self.size}")
        elif (digest := sha256_file(database)) != self.sha256:
            found.append(
                f"{database.name} was changed after it was closed: "
                f"its SHA-256 is {digest}, its seal says {self.sha256}"
            )
        for suffix in ("-wal", "-journal"):
            # SQLite would replay such a file into the database at the next opening.
            side = database.with_name(database.name + suffix)
            if side.exists() and side.stat().st_size:
                found.append(f"{side.name} appeared after the store was closed")
        return found
