"""Which rows there are, and what a reader of them must know."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.errors import EngineError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.load import load
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.entries import entries


def classifier(*last):
    """A matrix product, and some operators behind it."""
    names = ["a", *(f"{op}.out" for op in last)]
    nodes = [make_node("MatMul", "x w", "a", name="product")]
    nodes += [make_node(op, names[at], names[at + 1], name=op, axis=-1) for at, op in enumerate(last)]
    weights = {"w": np.random.default_rng(0).standard_normal((6, 4))}
    return load(make(nodes, {"x": [1, 6]}, {names[-1]: [1, 4]}, weights, ir_version=9))


@pytest.mark.usefixtures("quick_measuring")
@pytest.mark.parametrize(("last", "outside"), [((), ()), (("Softmax",), ()), (("LogSoftmax",), ("1 LOG_SOFTMAX",))])
def test_operators_that_litert_runs_outside_xnnpack_are_named(tmp_path, last, outside):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "net.tflite"
    path.write_bytes(to_litert(QuantizedGraph(classifier(*last))))
    images = lowbit.open_images(list(np.zeros((2, 6), np.float32)), None, values="model")
    found, passed = entries([path], images, Conditions(engine="auto"))
    assert passed == ()
    assert [entry.notes for entry in found] == [
        tuple(
            f"LiteRT runs these operators in its own slower kernels instead of XNNPACK: {names}." for names in outside
        )
    ]


@pytest.fixture
def deadly(tmp_path):
    """A LiteRT file whose first scale is not a number: its runtime divides by it, and the process ends."""
    pytest.importorskip("ai_edge_litert")
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((4, 3))}
    nodes = [make_node("Conv", "x w", "c"), make_node("GlobalAveragePool", "c", "p"), make_node("Flatten", "p", "f")]
    model = load(make([*nodes, make_node("Gemm", "f v", "y")], {"x": [1, 3, 8, 8]}, {"y": [1, 3]}, weights))
    images = lowbit.open_images(list(rng.standard_normal((8, 3, 8, 8)).astype(np.float32)), None, values="model")
    quantized = lowbit.quantize(model, "int8", calibration=images, effort="fast")
    content = quantized.to_bytes(lowbit.FileForm(to="litert"))
    path = tmp_path / "deadly.tflite"
    for codes in quantized.graph.activations.values():
        content = content.replace(np.float32(codes.scale).tobytes(), np.float32(np.nan).tobytes())
    path.write_bytes(content)
    return path, images


def test_a_file_that_ends_its_runtime_ends_no_measurement(deadly):
    path, images = deadly
    with pytest.raises(EngineError, match=r"ends the process of the runtime.*SIG"):
        entries([path], images, Conditions(engine="litert"))
    with pytest.raises(EngineError, match="no installed engine") as caught:
        entries([path], images, Conditions(engine="auto"))
    assert "SIG" in caught.value.remedy
