"""OpenVINO runs files in which axes are appended to what an integer product gives."""

import numpy as np
import onnx
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.engines import installed_engines

ROWS, WIDTH = 6, 24
SAMPLES = np.random.default_rng(0).normal(size=(24, ROWS, 16)).astype(np.float32)
REST = np.random.default_rng(1).normal(size=(16, WIDTH)).astype(np.float32) / 4


def network(middle, batch="n", **more):
    nodes = [make_node("MatMul", "x w", "a"), *middle, make_node("Tanh", "m", "y")]
    return make(nodes, {"x": [batch, ROWS, 16]}, ["y"], {"w": REST, **more})


CASES = {
    "Reshape": ([make_node("Reshape", "a to", "m")], {"to": np.array([-1, ROWS, WIDTH, 1])}),
    "two axes": ([make_node("Reshape", "a to", "m")], {"to": np.array([-1, ROWS, WIDTH, 1, 1])}),
    "Unsqueeze": ([make_node("Unsqueeze", "a at", "m")], {"at": np.array([-1])}),
    "a bias": (
        [make_node("Add", "a b", "c"), make_node("Unsqueeze", "c at", "m")],
        {"at": np.array([3]), "b": np.ones(WIDTH, np.float32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_openvino_takes_the_file(name):
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    middle, more = CASES[name]
    proto = network(middle, **more)
    content = lowbit.quantize(proto, "int8", calibration={"x": SAMPLES}, steps=()).to_bytes(FileForm("openvino"))
    assert "Clip" in {node.op_type for node in onnx.load_from_string(content).graph.node}
    wanted = run(proto.SerializeToString(), SAMPLES)
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(run(content, SAMPLES, engine), wanted) < 0.05, engine


def test_other_shapes_and_other_files_stay_as_they_are():
    proto = network([make_node("Reshape", "a to", "m")], to=np.array([-1, ROWS, 3, 8]))
    quantized = lowbit.quantize(proto, "int8", calibration={"x": SAMPLES}, steps=())
    for form in ("onnx", "openvino"):
        content = quantized.to_bytes(FileForm(form))
        assert "Clip" not in {node.op_type for node in onnx.load_from_string(content).graph.node}
