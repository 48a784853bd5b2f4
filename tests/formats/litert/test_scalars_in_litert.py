"""Operators over an axis of a tensor that has none, which ONNX's own checker lets pass."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.errors import ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "PRelu"])
def test_an_operator_that_needs_an_axis_is_refused_of_a_number(operator):
    nodes = [
        make_node("MatMul", "x w", "a"),
        make_node("ReduceSum", "a", "b", keepdims=0),
        make_node(operator, "b slope" if operator == "PRelu" else "b", "y"),
    ]
    weights = {"w": np.ones((4, 4), np.float32), "slope": np.float32([0.5])}
    model = lowbit.load(make(nodes, {"x": [1, 4]}, {"y": []}, weights))
    with pytest.raises(ModelError, match="no axis"):
        to_litert(QuantizedGraph(model))
