"""Checking contributions and averaging them. Pure: arrays and receipts in, arrays out.

Weights are uniform or public policy values, never counts of private records. The noise is added on
each node for that node's own guarantee, so the weights change the utility of the average and no
department's epsilon.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from privacy.dp.adapter import AdapterConfig
from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, RoundReply, RoundRequest, adapter_digest, check_tensors
from privacy.receipts import Receipt
from privacy.signing import VerifyKey
from server.errors import UpdateRejected

Shapes = Mapping[str, tuple[int, ...]]


def trained_shapes(
    adapter: Mapping[str, Array], config: AdapterConfig
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a node sends back; the frozen ones stay home."""
    return {name: a.shape for name, a in sorted(adapter.items()) if config.is_trained(name)}


def verify_reply(
    department: str,
    reply: RoundReply,
    *,
    request: RoundRequest,
    sent_digest: str,
    shapes: Shapes,
    key: VerifyKey,
) -> Receipt:
    """The receipt of a contribution that is exactly what was asked for.

    ``sent_digest`` identifies the adapter that went with ``request``; ``shapes`` are those of
    :func:`trained_shapes`.

    Raises:
        UpdateRejected: names the department and the first thing that is wrong: the signature, a
            field of the receipt that differs from the request, or a tensor that is missing,
            unknown, of another shape or type, or not finite.
    """
    _check_update(department, reply.update, shapes)
    try:
        receipt = reply.receipt.verify(key)
    except ReceiptInvalid as error:
        raise UpdateRejected(department, str(error)) from None
    expected = {
        "department": department,
        "run_id": request.run_id,
        "round": request.round,
        "event": request.event(),
        "delta": request.expected_delta,
        "unit": request.unit,
        "policy_digest": request.policy_digest,
        "adapter_before": sent_digest,
        "adapter_after": adapter_digest(reply.update),
    }
    for name, value in expected.items():
        stated = getattr(receipt, name)
        if stated != value:
            raise UpdateRejected(
                department, f"its receipt states {name}={stated!r}, expected {value!r}"
            )
    return receipt


def mean_update(
    updates: Iterable[tuple[Mapping[str, Array], float]],
) -> dict[str, Array]:
    """The weighted mean of updates ``(tensors, weight)``, each tensor by name, in float32.

    Computed as a running sum in float64, so memory does not grow with the number of updates. With
    factors "B" and one frozen A this is exactly the mean of the products B A (FFA-LoRA,
    arXiv 2403.12313, section 3); with "AB" it is plain averaging of each factor, the baseline,
    which is not the mean of the products.

    Raises:
        ValueError: no update, a weight that is not finite and above 0, or different names.
    """
    total: dict[str, npt.NDArray[np.float64]] | None = None
    weights = 0.0
    for tensors, weight in updates:
        if not (np.isfinite(weight) and weight > 0):
            raise ValueError(f"weight={weight!r} must be a finite number above 0")
        if total is None:
            total = {name: np.zeros(a.shape, np.float64) for name, a in tensors.items()}
        if tensors.keys() != total.keys():
            raise ValueError(f"updates differ in {sorted(tensors.keys() ^ total.keys())}")
        for name, tensor in tensors.items():
            total[name] += np.multiply(tensor, weight, dtype=np.float64)
        weights += weight
    if total is None:
        raise ValueError("the mean of no update at all is undefined")
    return {name: (summed / weights).astype(np.float32) for name, summed in total.items()}


def apply_update(adapter: Mapping[str, Array], update: Mapping[str, Array]) -> dict[str, Array]:
    """The adapter with the trained tensors replaced; the frozen ones are kept as they are.

    Raises:
        ValueError: the update has a tensor that the adapter lacks.
    """
    unknown = sorted(update.keys() - adapter.keys())
    if unknown:
        raise ValueError(f"the adapter has no tensor {unknown}")
    return {name: update.get(name, tensor) for name, tensor in adapter.items()}


def _check_update(department: str, update: Mapping[str, Array], shapes: Shapes) -> None:
    for name in sorted(shapes.keys() - update.keys()):
        raise UpdateRejected(department, f"tensor {name!r} is missing")
    for name in sorted(update.keys() - shapes.keys()):
        raise UpdateRejected(department, f"tensor {name!r} was not asked for")
    for name, shape in shapes.items():
        if update[name].shape != shape:
            raise UpdateRejected(
                department, f"tensor {name!r} has shape {update[name].shape}, expected {shape}"
            )
    try:
        check_tensors(update)
    except ExchangeInvalid as error:
        raise UpdateRejected(department, str(error)) from None
