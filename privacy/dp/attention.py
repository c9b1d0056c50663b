"""Scaled dot-product attention with its core in float32, for base models in bfloat16.

On CPUs the bfloat16 backward pass of PyTorch's attention is several times slower than the float32
one, and softmax is where bfloat16 loses most. The projections around it stay in bfloat16.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

FLOAT32_ATTENTION = "sdpa_float32"


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **options
    )
    return output.to(query.dtype), None


def register() -> None:
    """Make the implementation known to transformers under :data:`FLOAT32_ATTENTION`."""
    AttentionInterface.register(FLOAT32_ATTENTION, _attention)
    AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
