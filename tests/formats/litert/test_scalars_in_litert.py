"""Operators over an axis of a tensor that has none, which ONNX's own checker lets pass."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.errors import ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_a_number_is_refused(operator):
    nodes = [
        make_node("MatMul", "x w", "a"),
        make_node("ReduceSum", "a", "b", keepdims=0),
        make_node(operator, "b", "y"),
    ]
    model = lowbit.load(make(nodes, {"x": [1, 4]}, {"y": []}, {"w": np.ones((4, 4), np.float32)}))
    with pytest.raises(ModelError, match="no axis"):
        to_litert(QuantizedGraph(model))
