"""Small ONNX models for the tests of this room."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort

from graphs import make


def run(model: bytes | onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, optimize: bool = False) -> list[np.ndarray]:
    """Outputs by ONNX Runtime; without its optimizations, so that what is compared is the graph itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return list(ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, dict(feeds)))


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(found: np.ndarray, wanted: np.ndarray, relative: float = 2e-6) -> None:
    """Equal up to `relative` of the largest value wanted."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    difference = np.abs(found.astype(np.float64) - wanted)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    assert difference[worst] <= relative * np.abs(wanted).max(), f"differs by {difference[worst]} at {worst}"


def conv_model(**changes: object) -> onnx.ModelProto:
    """One 3x3 convolution and a Relu, the smallest model that loads."""
    return make(
        [("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}), ("Relu", ["c"], ["y"], {})],
        {"x": ["n", 3, 8, 8]},
        ["y"],
        {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4)},
        **changes,  # type: ignore[arg-type]
    )
