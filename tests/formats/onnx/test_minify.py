"""Short names: the same answers bit for bit from a smaller file, whatever graphs are inside each other."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import lowbit
import networks
from graphs import make, make_node
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.formats.onnx.ledger import count_bytes
from lowbit.formats.onnx.minify import shortened


def answers(content, **inputs):
    session = open_session(content, threads=1)
    return session.run(inputs)[session.output_names[0]]


@pytest.mark.parametrize("recipe", ["float", "linear3", "cluster4", "int8"])
def test_the_answers_stay_and_the_file_shrinks(recipe):
    model = lowbit.load(networks.residual_network())
    x = networks.inputs(6)
    content = lowbit.quantize(model, recipe, calibration=x, effort="fast").to_bytes()
    short = shortened(content)
    assert len(short) < len(content) - 500
    assert shortened(short) == short
    np.testing.assert_array_equal(answers(short, x=x), answers(content, x=x))
    graph = onnx.load_from_string(short).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["x", "logits"]
    assert max(len(tensor.name) for tensor in graph.initializer) <= 2
    assert not graph.value_info
    assert not any(node.name for node in graph.node)
    before = onnx.load_from_string(content)
    assert list(onnx.load_from_string(short).metadata_props) == list(before.metadata_props)


def test_graphs_in_graphs_keep_their_meaning():
    long = "a_name_from_outside"
    branches = []
    for name, value in (("shadowing_then", 1), ("shadowing_else", 2)):
        sums = [make_node("Add", f"{long} {name}", f"{name}_result")]
        branches.append(make(sums, {}, [f"{name}_result"], {name: np.float32(value)}).graph)
    nodes = [
        make_node("Relu", "a", long),
        make_node("If", "b", "result", then_branch=branches[0], else_branch=branches[1]),
        make_node("Mul", f"result {long}", "c"),
    ]
    content = make(nodes, {"a": [3], "b": []}, {"c": [3]}, {}, types={"b": TensorProto.BOOL}).SerializeToString()
    short = shortened(content)
    assert b"shadowing" not in short
    assert long.encode() not in short
    for flag in (True, False):
        inputs = {"a": np.array([-1, 2, 3], np.float32), "b": np.array(flag)}
        np.testing.assert_array_equal(answers(short, **inputs), answers(content, **inputs))


def test_names_never_meet_those_of_inputs_and_outputs():
    nodes = [make_node("Relu", "a", "inner"), make_node("Neg", "inner", "b")]
    content = make(nodes, {"a": [2]}, {"b": [2]}, {}).SerializeToString()
    short = onnx.load_from_string(shortened(content))
    assert [list(node.output) for node in short.graph.node] == [["c"], ["b"]]


def test_what_is_no_file_is_refused():
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        shortened(b"\x00\x01 no")


@pytest.mark.parametrize("recipe", ["linear4", "linear3", "cluster4", "cluster3", "linear12"])
def test_weights_are_counted_without_noted_shapes(recipe):
    content = lowbit.quantize(lowbit.load(networks.residual_network(first=48)), recipe).to_bytes()
    counted = [count_bytes(onnx.load_from_string(data), len(data)) for data in (content, shortened(content))]
    assert counted[0].counts == counted[1].counts


def test_attributes_that_the_standard_assumes_are_dropped(tmp_path):
    model = networks.residual_network()
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.attribute.append(onnx.helper.make_attribute("auto_pad", "NOTSET"))
            node.attribute.append(onnx.helper.make_attribute("dilations", [1, 1]))
    short = onnx.load_from_string(shortened(model.SerializeToString()))
    said = [{attribute.name for attribute in node.attribute} for node in short.graph.node if node.op_type == "Conv"]
    assert said[0] == {"kernel_shape", "strides", "pads"}
    assert said[1] == {"kernel_shape"}
    assert said[3] == {"kernel_shape", "pads", "group"}
    x = networks.inputs(3)
    before, after = (open_session(m.SerializeToString(), threads=1).run({"x": x})["logits"] for m in (model, short))
    np.testing.assert_array_equal(before, after)
