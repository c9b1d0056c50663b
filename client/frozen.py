"""The frozen factors of a run, kept so that the hub sends them to a node once.

With A frozen, three fifths of an adapter never change during a run. They are public, and the receipt
states the digest of the whole adapter: a node that completed it differently is found by the hub.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from client.errors import FrameInvalid
from client.frames import Frame, pack, unpack
from privacy.dp.adapter_config import AdapterConfig
from privacy.exchange import Array, adapter_digest
from privacy.files import write_atomic

_log = logging.getLogger(__name__)


class FrozenFactors:
    """One file a run in ``folder``, which must exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def complete(
        self, run_id: str, adapter: Mapping[str, Array], config: AdapterConfig
    ) -> Mapping[str, Array]:
        """The adapter, with the run's frozen tensors where it came without any.

        Where this node does not have them either, it is returned as it came.
        """
        if any(not config.is_trained(name) for name in adapter):
            return adapter
        return {**self._load(run_id), **adapter}

    def keep(self, run_id: str, adapter: Mapping[str, Array], config: AdapterConfig) -> None:
        """Remember the frozen tensors of a whole adapter: durable once this returns."""
        frozen = {name: array for name, array in adapter.items() if not config.is_trained(name)}
        if not frozen or adapter_digest(frozen) == adapter_digest(self._load(run_id)):
            return
        # A crash before: the node declines a round that comes without them, and is sent all.
        write_atomic(self._path(run_id), pack(Frame({}, frozen)), mode=0o600)

    def _load(self, run_id: str) -> Mapping[str, Array]:
        path = self._path(run_id)
        try:
            return unpack(path.read_bytes()).tensors
        except FileNotFoundError:
            return {}
        except FrameInvalid as error:
            _log.warning("the stored factors %s are ignored: %s", path.name, error)
            return {}

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.frozen"
