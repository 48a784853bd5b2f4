"""First convolutions over volumes: float in ONNX Runtime's file, integers in OpenVINO's, the same weights in both."""

import numpy as np
import onnx
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.formats.opening import file_weights


def network(channels, *, axes=3, kernel=3):
    rng = np.random.default_rng(channels)
    weights = {
        "w1": rng.normal(scale=0.2, size=(8, channels, *[kernel] * axes)).astype(np.float32),
        "b1": rng.normal(size=8).astype(np.float32),
        "w2": rng.normal(scale=0.1, size=(4, 8, *[3] * axes)).astype(np.float32),
    }
    nodes = [
        make_node("Conv", "x w1 b1", "c", name="first"),
        make_node("Relu", "c", "r"),
        make_node("Conv", "r w2", "d", name="second"),
        make_node("GlobalAveragePool", "d", "y"),
    ]
    return make(nodes, {"x": ["n", channels, *[8] * axes]}, ["y"], weights)


@pytest.mark.parametrize(
    ("channels", "axes", "kernel", "in_float"),
    [(1, 3, 3, True), (8, 3, 3, True), (9, 3, 3, False), (1, 3, 1, False), (1, 2, 3, False), (1, 1, 3, False)],
)
def test_few_channels_are_read_as_they_are(channels, axes, kernel, in_float, tmp_path):
    proto = network(channels, axes=axes, kernel=kernel)
    x = np.random.default_rng(4).normal(size=(16, channels, *[8] * axes)).astype(np.float32)
    made = lowbit.quantize(lowbit.load(proto), "int8", calibration=list(x), effort="fast", steps=())
    path = made.save(tmp_path / "ort.onnx")
    first = next(node for node in onnx.load(path).graph.node if node.name == "first")
    assert (first.input[0] == "x") == in_float
    wanted = run(proto.SerializeToString(), x)
    assert relative_error(run(path.read_bytes(), x), wanted) < 0.03
    other = made.save(tmp_path / "openvino.onnx", FileForm("openvino"))
    second = next(node for node in onnx.load(other).graph.node if node.name == "first")
    assert second.input[0] != "x"
    here, there = file_weights(path), file_weights(other)
    for name in ("first", "second"):
        np.testing.assert_array_equal(here[name], there[name])
