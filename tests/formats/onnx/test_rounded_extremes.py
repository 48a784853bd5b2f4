"""Greatest and least values of floats that are rounded next: OpenVINO computes what ONNX Runtime does."""

import numpy as np
import onnx
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.engines import installed_engines

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.normal(size=(24, 3, 10, 10)).astype(np.float32)
CHANNELS = 8


def network(*extremes):
    """A convolution, a function of it in float, what is in question, and a layer that reads that."""
    weights = {
        "w": RANDOM.normal(scale=0.3, size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "v": RANDOM.normal(size=(4, CHANNELS * len(extremes))).astype(np.float32),
    }
    nodes = [
        make_node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        make_node("Elu", "c", "e"),
        *extremes,
        make_node("Concat", " ".join(node.output[0] for node in extremes), "all", axis=1),
        make_node("Flatten", "all", "f"),
        make_node("Gemm", "f v", "y", transB=1),
    ]
    return make(nodes, {"x": ["n", 3, 10, 10]}, ["y"], weights)


EXTREMES = {
    "greatest": (make_node("ReduceMax", "e", "a", axes=[2, 3]), make_node("ReduceMean", "e", "b", axes=[2, 3])),
    "least": (make_node("ReduceMin", "e", "a", axes=[2, 3]), make_node("ReduceMean", "e", "b", axes=[2, 3])),
    "pool": (make_node("GlobalMaxPool", "e", "a"), make_node("GlobalAveragePool", "e", "b")),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_openvino_rounds_what_was_found(name):
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    proto = network(*EXTREMES[name])
    content = lowbit.quantize(lowbit.load(proto), "int8", calibration=list(SAMPLES), steps=()).to_bytes(
        FileForm("openvino")
    )
    wanted = run(proto.SerializeToString(), SAMPLES)
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(run(content, SAMPLES, engine), wanted) < 0.05, engine


@pytest.mark.parametrize(("form", "count"), [("onnx", 0), ("openvino", 1)])
def test_only_openvino_is_given_more_nodes(form, count):
    made = lowbit.quantize(lowbit.load(network(*EXTREMES["greatest"])), "int8", calibration=list(SAMPLES), steps=())
    content = made.to_bytes(FileForm(form))
    assert sum(node.op_type == "Max" for node in onnx.load_from_string(content).graph.node) == count
