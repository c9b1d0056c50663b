"""Hidden states of records on disk: bounded, encrypted, gone with the process that made them.

States are as private as the records they come from. The file has no name (it is unlinked as soon
as it is made, so that not even a killed process leaves one), and what it holds is encrypted under
a key that exists in memory only.
"""

import os
import secrets
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import IO

import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DEFAULT_BYTES = 4 * 2**30
_NONCE_BYTES = 12


class StateCache:
    """Tensors by key, written once each; AES-256-GCM (NIST SP 800-38D), one nonce a tensor.

    ``folder``: where the nameless file is made; the system's temporary folder by default.
    ``bytes_bound``: most bytes of the file; what does not fit is not kept.
    """

    def __init__(self, folder: Path | None = None, bytes_bound: int = DEFAULT_BYTES) -> None:
        self._folder = folder
        self._bound = bytes_bound
        self._file: IO[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._places: dict[Hashable, tuple[int, int, torch.Size, torch.dtype]] = {}
        self._cipher = AESGCM(secrets.token_bytes(32))
        self._end = 0

    def put(self, key: Hashable, tensor: torch.Tensor) -> None:
        """Keep a copy, unless it is kept already or would pass the bound."""
        plain = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
        size = plain.nbytes + 16  # the tag
        if key in self._places or self._end + size > self._bound:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        # Each place is written once under this key, so its offset never repeats as a nonce.
        nonce = self._end.to_bytes(_NONCE_BYTES, "big")
        sealed = self._cipher.encrypt(nonce, plain.tobytes(), None)
        written = 0
        try:
            while written < size:
                written += os.pwrite(
                    self._file.fileno(), memoryview(sealed)[written:], self._end + written
                )
        except OSError:
            return  # a full disk: this state is computed again whenever it is needed
        finally:
            # A place that was written in part is never written again under its nonce.
            place, self._end = self._end, self._end + size
        self._places[key] = (place, size, tensor.shape, tensor.dtype)

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The tensor that was kept under ``key``; None where there is none."""
        found = self._places.get(key)
        if found is None or self._file is None:
            return None
        place, size, shape, dtype = found
        sealed = os.pread(self._file.fileno(), size, place)
        plain = self._cipher.decrypt(place.to_bytes(_NONCE_BYTES, "big"), sealed, None)
        return torch.frombuffer(bytearray(plain), dtype=dtype).view(shape)

    def __len__(self) -> int:
        return len(self._places)

    def clear(self) -> None:
        """Forget everything: file, key and places."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._begin()
