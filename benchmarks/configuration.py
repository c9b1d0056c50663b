"""What all variants of the training step have in common."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
CLIPPING_NORM, NOISE_MULTIPLIER, LEARNING_RATE = 0.5, 0.6, 1e-4
COMPLETION_SHARE = 4
"""The last quarter of a sequence is its completion."""


@dataclass(frozen=True)
class Configuration:
    """One setting of the comparison. ``units`` is the size of the data set, ``batch`` of a step.

    ``fastdp`` and ``peers``: folders that hold software which is not a dependency.
    """

    model: str
    sequence: int
    batch: int
    dtype: str
    threads: int = 1
    units: int = 0
    fastdp: str | None = None
    peers: str | None = None

    @property
    def name(self) -> str:
        """As it is written on the command line: ``<sequence>x<batch>:<dtype>``."""
        return f"{self.sequence}x{self.batch}:{self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """Precision of the base model."""
        return torch.bfloat16 if self.dtype == "bf16" else torch.float32

    @property
    def completion_start(self) -> int:
        """First token that the loss counts."""
        return self.sequence - max(1, self.sequence // COMPLETION_SHARE)


def random_tokens(configuration: Configuration, rows: int) -> torch.Tensor:
    """Tokens ``(rows, sequence)``, the same for every variant."""
    size = AutoConfig.from_pretrained(configuration.model).vocab_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, size, (rows, configuration.sequence), generator=generator)


def device() -> str:
    """Where all variants run."""
    return "cuda" if torch.cuda.is_available() else "cpu"
