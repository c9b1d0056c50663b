"""A department's own adapter beside the shared one. It stays on the node; the hub never gets it.

Shared and personal adapter have the same frozen A, so what a department serves is B + P with the
run's B and its own P. A round trains P where it will be used, on top of the B that the hub sent
(personal layers: Arivazhagan et al. 2019, arXiv 1912.00818; residual form with LoRA: Wu et al.
2024, FedLoRA, arXiv 2403.11848, section 3). The same clipping, noise and steps as for the shared
update are charged to the same ledger once more: whoever may use the department's service learns
of P.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from client.errors import FrameInvalid
from client.frames import Frame, pack, unpack
from privacy.composition import added
from privacy.exchange import Array
from privacy.files import write_atomic

_log = logging.getLogger(__name__)
LEDGER_SUFFIX = ".personal"
"""What the ledger adds to the run id, to tell the two charges of a round apart."""


class PersonalAdapters:
    """The personal B of each run, one file in ``folder``, which must exist; mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def read(self, run_id: str) -> Mapping[str, Array]:
        """The tensors P, by the names of the B that they are added to; none before round 1."""
        path = self._path(run_id)
        try:
            return unpack(path.read_bytes()).tensors
        except FileNotFoundError:
            return {}
        except FrameInvalid as error:
            _log.warning("the personal adapter %s is ignored: %s", path.name, error)
            return {}

    def composed(self, run_id: str, shared: Mapping[str, Array]) -> dict[str, Array]:
        """The shared adapter with P added: what the next round trains, and what is served."""
        return added(shared, self.read(run_id))

    def keep(
        self, run_id: str, shared: Mapping[str, Array], trained: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Store P = trained - shared, durable once this returns; gives P."""
        personal = {name: np.subtract(tensor, shared[name]) for name, tensor in trained.items()}
        # A crash before: the round of P is charged and lost, the one before it stands.
        write_atomic(self._path(run_id), pack(Frame({}, personal)), mode=0o600)
        return personal

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.personal"
