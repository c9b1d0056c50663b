"""What a finished run must have come to, from the nodes' own files."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from fault_kit import DEPARTMENTS, Federation

from privacy.exchange import adapter_digest
from privacy.receipts import SignedReceipt
from privacy.release import VerifiedRelease


def check_run(
    there: Federation,
    told: Mapping[str, Any],
    charges: Mapping[str, Mapping[int, int]] | None = None,
) -> VerifiedRelease:
    """A finished run has the right adapter, and the ledgers say what it cost, to the round.

    ``charges``: how often rounds were charged where that is not once per contribution.

    The oracle is the nodes' own stored replies: the adapter that each round was asked with, and the
    one that was released, must be their mean in float64, rounded to float32.
    """
    run_id = str(told["run_id"])
    release, signed = there.release(told), there.receipts(run_id)
    rounds = int(told["rounds"])
    stored = {name: there.replies(name, run_id) for name in DEPARTMENTS}
    final = release.tensors()
    for number in range(1, rounds + 1):
        parts = [s.receipt for s in signed if s.receipt.round == number]
        assert len({part.adapter_before for part in parts}) == 1
        updates = [stored[part.department][part.adapter_after] for part in parts]
        assert len(updates) == len(parts) >= int(told["minimum_nodes"])
        mean = {
            name: np.mean([u[name].astype(np.float64) for u in updates], axis=0).astype(np.float32)
            for name in updates[0]
        }
        result = {name: mean.get(name, tensor) for name, tensor in final.items()}
        if number < rounds:
            (before,) = {s.receipt.adapter_before for s in signed if s.receipt.round == number + 1}
            assert adapter_digest(result) == before
        else:
            assert adapter_digest(result) == adapter_digest(final)
    check_ledgers(there, run_id, signed, charges or {})
    return release


def check_ledgers(
    there: Federation,
    run_id: str,
    signed: tuple[SignedReceipt, ...],
    charges: Mapping[str, Mapping[int, int]],
) -> None:
    """Each contribution is noted once, every reading of records is charged, nothing else is."""
    for department in DEPARTMENTS:
        history = there.ledger(department)
        noted = Counter(entry.receipt_digest for entry in history.entries if entry.receipt_digest)
        given = [s for s in signed if s.receipt.department == department]
        assert all(noted[receipt.digest] == 1 for receipt in given)
        expected = dict(Counter(receipt.receipt.round for receipt in given))
        expected |= charges.get(department, {})
        assert there.charged(department, run_id) == expected, department
