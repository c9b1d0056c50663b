"""Tiny random models of the families that people fine-tune, in a folder each."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

_SMALL: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
_GROUPED = _SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": True}


@dataclass(frozen=True)
class Family:
    """How a family is made, and which of its projections are adapted: attention and MLP."""

    config: type
    options: dict[str, Any]
    targets: tuple[str, ...]
    head: str = "score"


_LLAMA_LIKE = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")

FAMILIES = {
    "llama": Family(hf.LlamaConfig, _GROUPED, _LLAMA_LIKE),
    "qwen2": Family(hf.Qwen2Config, _GROUPED, _LLAMA_LIKE),
    "mistral": Family(hf.MistralConfig, _GROUPED | {"sliding_window": None}, _LLAMA_LIKE),
    "phi": Family(
        hf.PhiConfig, _SMALL | {"num_key_value_heads": 4}, ("q_proj", "v_proj", "dense", "fc1")
    ),
    "gpt2": Family(
        hf.GPT2Config,
        {
            "vocab_size": 259,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 128,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
        },
        ("c_attn", "c_fc"),
    ),
    # Matrices large enough for the kernels that multiply 4-bit blocks of 64.
    "llama-wide": Family(
        hf.LlamaConfig, _GROUPED | {"hidden_size": 256, "intermediate_size": 512}, _LLAMA_LIKE
    ),
    "bert": Family(hf.BertConfig, _SMALL, ("query", "value", "dense"), "classifier"),
}
CAUSAL = ("llama", "qwen2", "mistral", "phi", "gpt2")
CLASSIFIERS = ("bert", "llama", "gpt2")


def make(name: str, folder: Path, tokenizer: Path, *, labels: int | None = None) -> Path:
    """The folder of a random model of ``name``, with the tokenizer that lies in ``tokenizer``."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    config = family.config(**family.options)
    if labels is None:
        model = hf.AutoModelForCausalLM.from_config(config)
    else:
        model = hf.AutoModel.from_config(config)  # without any head, as base models come
    model.save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder
