"""A network may give one tensor twice; every recipe's file then does, in every form."""

import numpy as np
import onnx
import pytest

import lowbit
import networks
from lowbit.formats.file_form import FileForm


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("recipe", ["float", "int8", "int4", "dynamic8", "a16w8", "linear4", "cluster3", "float16"])
def test_an_output_that_is_given_twice(recipe, to):
    proto = networks.residual_network()
    proto.graph.output.append(proto.graph.output[0])
    calibration = {"x": networks.inputs(4)} if recipe.startswith(("int", "a16")) else None
    quantized = lowbit.quantize(lowbit.load(proto), recipe, calibration=calibration, effort="fast", steps=[])
    written = onnx.load_from_string(quantized.to_bytes(FileForm(to)))
    assert [value.name for value in written.graph.output] == 2 * [proto.graph.output[0].name]
    made = {name for node in written.graph.node for name in node.output}
    assert {value.name for value in written.graph.output} <= made
    answers = lowbit.open_session(quantized).run(np.asarray(networks.inputs(2)))
    assert all(np.isfinite(array).all() for array in answers.values())
