"""ONNX Runtime sessions with a bounded number of threads."""

from pathlib import Path
from typing import Any

from privacy.pii.errors import DetectorNotReady


def open_session(model: Path | bytes, threads: int) -> Any:
    """An inference session on the CPU, of a file or of a model in memory.

    Idle threads sleep instead of spinning: a service shares its cores with the
    language model.

    Raises:
        DetectorNotReady: the file is absent or is no model.
    """
    import onnxruntime

    if threads < 1:
        raise ValueError(f"threads={threads} must be at least 1")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no public base class
        name = "the model" if isinstance(model, bytes) else model
        raise DetectorNotReady(f"{name} cannot be loaded as an ONNX model") from error
