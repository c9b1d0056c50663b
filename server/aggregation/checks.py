"""Which contributions count: exactly what was asked for, finite, and no farther than steps can reach."""

import math
from collections.abc import Mapping

import numpy as np

from privacy.dp.adapter_config import AdapterConfig
from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, RoundReply, RoundRequest, adapter_digest, check_tensors
from privacy.receipts import Receipt
from privacy.signing import VerifyKey
from server.errors import UpdateRejected

Shapes = Mapping[str, tuple[int, ...]]

_ADAM_REACH = 2.0


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


def check_norm(
    department: str,
    update: Mapping[str, Array],
    before: Mapping[str, Array],
    *,
    request: RoundRequest,
    maximum_norm: float | None,
) -> None:
    """Return when the update is no farther from ``before`` than is allowed.

    The distance is the L2 norm of the difference over all trained tensors together. With
    ``maximum_norm`` None it is bounded by what the steps that were asked for can reach at most: one
    value moves by less than 2 learning rates in a step of Adam with betas (0.9, 0.98), by
    Cauchy-Schwarz (1 - b1) / sqrt((1 - b2) (1 - b1²/b2)) = 1.70 (Kingma and Ba 2015, section 2.1).
    SGD has no such bound.

    Raises:
        UpdateRejected: names the department, the norm and its bound.
    """
    bound, origin = maximum_norm, "training.maximum_update_norm"
    if bound is None:
        if request.optimiser != "adam":
            return
        values = sum(tensor.size for tensor in update.values())
        bound = _ADAM_REACH * request.learning_rate * request.steps * math.sqrt(values)
        origin = f"what {request.steps} steps of Adam at rate {request.learning_rate!r} reach"
    norm = math.sqrt(
        sum(
            float(np.sum(np.subtract(tensor, before[name], dtype=np.float64) ** 2))
            for name, tensor in update.items()
        )
    )
    if norm > bound:
        raise UpdateRejected(department, f"its norm={norm:.6g} is beyond {bound:.6g}, {origin}")


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
