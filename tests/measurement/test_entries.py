"""Which rows there are, and what a reader of them must know."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
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
