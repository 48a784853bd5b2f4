"""Products of known sizes keep their integer kernels in ONNX Runtime, whatever is added to them."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import lowbit
from graphs import make, make_node, relative_error
from lowbit.engines import open_session
from lowbit.formats.onnx.ledger import read_ledger

WIDTH = 64


def network(batch, *, left=False):
    """Three products, each with a bias; two read the same bias, and one bias has another reader."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 8 for name in ("w0", "w1", "w2")}
    weights |= {name: generator.normal(size=WIDTH).astype(np.float32) for name in ("b0", "b1")}
    nodes, x = [], "x"
    for at, bias in enumerate(("b0", "b0", "b1")):
        operands = f"{bias} m{at}" if left else f"m{at} {bias}"
        nodes += [make_node("MatMul", f"{x} w{at}", f"m{at}", name=f"product{at}")]
        nodes += [make_node("Add", operands, f"a{at}"), make_node("Tanh", f"a{at}", f"t{at}")]
        x = f"t{at}"
    nodes += [make_node("Mul", f"{x} b1", "y")]
    return make(nodes, {"x": [batch, 10, WIDTH]}, ["y"], weights)


def samples(count=24, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 10, WIDTH)).astype(np.float32)


def kernels(content, folder):
    """What ONNX Runtime makes of a file."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_products_with_a_bias_compute_in_integers(recipe, batch, left, tmp_path):
    proto = network(batch, left=left)
    path = lowbit.quantize(proto, recipe, calibration={"x": samples()}).save(tmp_path / "q.onnx")
    found = kernels(path.read_bytes(), tmp_path)
    assert found["Gemm"] == 0
    assert found["MatMulIntegerToFloat"] == 3
    assert sum(read_ledger(path).bytes.values()) == path.stat().st_size
    given = {"x": samples(1, seed=1)}
    exact, answer = (open_session(content, threads=1).run(given)["y"] for content in (proto.SerializeToString(), path))
    assert answer.shape == exact.shape
    assert relative_error(answer, exact) < {"int8": 0.03, "int4": 0.3}[recipe]


def test_a_bias_that_something_else_reads_stays_a_vector(tmp_path):
    path = lowbit.quantize(network(1), "int8", calibration={"x": samples()}).save(tmp_path / "q.onnx")
    graph = onnx.load(path).graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    added = [sizes[name] for node in graph.node if node.op_type == "Add" for name in node.input if name in sizes]
    (factor,) = [sizes[name] for node in graph.node if node.op_type == "Mul" for name in node.input if name in sizes]
    assert added == [[1, WIDTH]] * 3
    assert factor == [WIDTH]
