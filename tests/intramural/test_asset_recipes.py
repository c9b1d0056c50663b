"""Conversions keep what a model computes."""

from pathlib import Path

import numpy as np
import pytest

from intramural.asset_recipes import _dequantise, q4_to_int8


def four_bit_model(path: Path, zero_points: bool) -> None:
    """A one-layer ONNX model with a 4-bit weight, written to ``path``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows, columns, block = 6, 80, 32
    blocks = -(-columns // block)
    dice = np.random.default_rng(1)
    arrays = {
        "packed": dice.integers(0, 256, (rows, blocks, block // 2)).astype(np.uint8),
        "scales": dice.normal(0, 0.1, rows * blocks).astype(np.float32),
    }
    if zero_points:
        arrays["points"] = dice.integers(0, 256, rows * (-(-blocks // 2))).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits",
        ["x", *arrays],
        ["y"],
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=4,
        block_size=block,
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, rows])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    onnx.save(model, path)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("zero_points", [False, True])
def test_dequantised_weights_compute_the_same(tmp_path: Path, zero_points: bool) -> None:
    """The float32 graph gives the 4-bit operator's answers, with and without zero points."""
    import onnx

    four_bit_model(tmp_path / "model_q4.onnx", zero_points)
    model = onnx.load(tmp_path / "model_q4.onnx")
    _dequantise(model.graph)
    onnx.save(model, tmp_path / "float.onnx")
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    x = np.random.default_rng(2).normal(size=(5, 80)).astype(np.float32)
    expected = run(tmp_path / "model_q4.onnx", x)
    np.testing.assert_allclose(run(tmp_path / "float.onnx", x), expected, rtol=1e-3, atol=1e-3)


def test_int8_stays_close(tmp_path: Path) -> None:
    """The int8 model differs from the 4-bit one by about a hundredth of its range."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    four_bit_model(raw / "model_q4.onnx", zero_points=False)
    (raw / "LICENSE").write_text("licence")
    (raw / "config.json").write_text('{"num_attention_heads": 2, "hidden_size": 80}')
    q4_to_int8(raw, out)
    assert {item.name for item in out.iterdir()} == {"model.onnx", "LICENSE", "config.json"}
    x = np.random.default_rng(3).normal(size=(64, 80)).astype(np.float32)
    expected, found = run(raw / "model_q4.onnx", x), run(out / "model.onnx", x)
    assert np.abs(found - expected).max() <= 0.03 * np.ptp(expected)
