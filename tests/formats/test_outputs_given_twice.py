"""A network may give one tensor twice; every recipe's file then does, in every form."""

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.formats.file_form import FileForm


def convolutions():
    """Two convolutions with biases, the last of which gives the output."""
    shapes = {"w": (16, 3, 3, 3), "a": (16,), "v": (8, 16, 3, 3), "b": (8,)}
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape) / 4 for name, shape in shapes.items()}
    nodes = [make_node("Conv", "x w a", "h"), make_node("Relu", "h", "r"), make_node("Conv", "r v b", "y")]
    return make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("recipe", ["float", "int8", "int4", "dynamic8", "a16w8", "linear4", "cluster3", "float16"])
@pytest.mark.parametrize("network", [networks.residual_network, convolutions])
def test_an_output_that_is_given_twice(network, recipe, to):
    proto = network()
    x = networks.inputs(4) if network is networks.residual_network else np.ones((4, 3, 16, 16), np.float32)
    proto.graph.output.append(proto.graph.output[0])
    calibration = {"x": x} if recipe.startswith(("int", "a16")) else None
    quantized = lowbit.quantize(lowbit.load(proto), recipe, calibration=calibration, effort="fast", steps=[])
    written = onnx.load_from_string(quantized.to_bytes(FileForm(to)))
    assert [value.name for value in written.graph.output] == 2 * [proto.graph.output[0].name]
    made = {name for node in written.graph.node for name in node.output}
    assert {value.name for value in written.graph.output} <= made
    answers = lowbit.open_session(quantized).run(np.asarray(x[:2]))
    assert all(np.isfinite(array).all() for array in answers.values())
