"""The identity of a base model: nodes, hub and service must mean the same weights."""

import hashlib
from collections.abc import Mapping
from typing import Any

HEADS = ("classifier", "score")
"""What transformers calls the head of a sequence classifier."""


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


def load_classifier(
    source: str, labels: int | None = None, **options: Any
) -> tuple[Any, frozenset[str]]:
    """A sequence classifier over a pretrained model, and the names of its head's new parameters.

    What is neither pretrained nor trained, such as a pooler that the files do not hold, is part of
    the digest and so must be the same on every machine: it is drawn from a fixed seed.

    Args:
        source: folder or name of the model.
        labels: of a new head; ``None`` takes the number that the model names.
        options: passed on to ``from_pretrained``.

    Raises:
        OSError, ValueError: transformers cannot load it.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if labels is not None:
        options["num_labels"] = labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loaded, told = AutoModelForSequenceClassification.from_pretrained(
            source, output_loading_info=True, **options
        )
    return loaded, frozenset(n for n in told["missing_keys"] if n.partition(".")[0] in HEADS)
