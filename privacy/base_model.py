"""The identity of a base model: nodes, hub and service must mean the same weights."""

import hashlib
from collections.abc import Mapping
from typing import Any


def model_digest(tensors: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, over a model's float32 PyTorch tensors: name, shape, bytes.

    Of the float32 weights, so that it depends neither on the file they came in nor on the
    precision that a machine computes with.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
