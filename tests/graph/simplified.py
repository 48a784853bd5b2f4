"""What preparation leaves of a graph, compared with the graph in ONNX Runtime."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from graph_models import run

from lowbit.graph.load import load
from lowbit.graph.model import Model

# Layers are needed for a model to load: this one stands behind everything, and nothing folds into it.
HEAD = ("Conv", ["head.in", "head.w"], ["y"], {})


def with_head(rank: int, channels: int) -> dict[str, np.ndarray]:
    """The weight of `HEAD` for a tensor of so many channels and axes."""
    return {"head.w": np.ones((1, channels, *[1] * (rank - 2)), np.float32)}


def simplified(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> Model:
    """The prepared model, once it is known to answer alike and to keep the interface of the graph."""
    model = load(proto)
    for found, wanted in zip(run(model.to_bytes(), feeds), run(proto, feeds), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(
            found, wanted, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(wanted).max()))
        )
    for before, after in ((proto.graph.input, model.inputs), (proto.graph.output, model.outputs)):
        kept = {value.name for value in before} - {tensor.name for tensor in proto.graph.initializer}
        assert {info.name for info in after} == kept
    assert load(model.to_bytes()).to_bytes() == model.to_bytes()
    return model


def count(model: Model) -> Counter[str]:
    """How many nodes there are of each operator."""
    return Counter(node.op_type for node in model.graph)
