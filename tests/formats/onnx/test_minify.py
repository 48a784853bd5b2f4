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


def test_every_name_that_is_not_kept_is_shortened():
    """Of tensors that nobody reads, sparse ones, inputs with a default, and constants that inner graphs give."""
    values = onnx.numpy_helper.from_array(np.float32([3]), "sparse_tensor")
    where = onnx.numpy_helper.from_array(np.array([1]), "sparse_tensor_places")
    outer = make([make_node("Identity", "from_outside", "inside")], {}, ["inside"], {}).graph
    other = make([], {}, ["given_at_once"], {"given_at_once": np.float32([1, 2, 3])}).graph
    nodes = [
        make_node("Relu", "a", "from_outside"),
        make_node("If", "b", "chosen", then_branch=outer, else_branch=other),
        make_node("Add", "chosen sparse_tensor", "c"),
        make_node("Neg", "c", "never_read"),
        make_node("Clip", "c  d", "e"),
    ]
    weights = {"nobody_reads_this": np.ones(2), "d": np.float32(2)}
    inputs, types = {"a": [3], "b": [], "d": []}, {"b": TensorProto.BOOL}
    model = make(nodes, inputs, {"e": [3], "c": [3]}, weights, types=types)
    unread = onnx.numpy_helper.from_array(np.float32([3]), "sparse_and_unread")
    model.graph.sparse_initializer.extend(
        onnx.helper.make_sparse_tensor(tensor, where, [3]) for tensor in (values, unread)
    )
    short = shortened(model.SerializeToString())
    graph = onnx.load_from_string(short).graph
    assert [value.name for value in graph.input] == ["a", "b", "d"]
    assert [value.name for value in graph.output] == ["e", "c"]
    names = {name for node in graph.node for name in (*node.input, *node.output)} - {""}
    names |= {tensor.name for tensor in graph.initializer} | {part.values.name for part in graph.sparse_initializer}
    # Two more are in the inner graphs.
    assert names < set("abcdefghijklm")
    assert len(names) == 11
    for flag in (True, False):
        x = {"a": np.array([-1, 2, 3], np.float32), "b": np.array(flag)}
        np.testing.assert_array_equal(answers(short, **x), answers(model.SerializeToString(), **x))


def test_the_most_used_names_are_the_shortest():
    count = 60
    nodes = [make_node("Add", f"{'x' if i == 0 else f't{i - 1}'} w{i % 54}", f"t{i}") for i in range(count)]
    weights = {f"w{i}": np.float32(i) for i in range(54)}
    content = make(nodes, {"x": [1]}, ["t59"], weights).SerializeToString()
    names = [tensor.name for tensor in onnx.load_from_string(shortened(content)).graph.initializer]
    # w0 to w5 are read twice; t0 to t58 made once and read once; those read once come last, after 112 others.
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert names[:6] == list(letters[:6])
    assert len(set(names)) == 54
    assert not {"x", "t59"} & set(names)
    used = {name for node in onnx.load_from_string(shortened(content)).graph.node for name in node.output} | set(names)
    longer = [first + second for first in letters for second in letters + "0123456789"]
    taken = [name for name in (*letters, *longer) if name not in ("x", "t59")]
    assert used == {*taken[: 54 + 59], "t59"}


def test_attributes_that_differ_from_what_is_assumed_stay():
    window = {"strides": [1, 2], "pads": [0, 1, 0, 0], "dilations": [2, 1], "kernel_shape": [3, 3]}
    nodes = [
        make_node("Conv", "x w", "a", group=1, auto_pad="NOTSET", **window),
        make_node("MaxPool", "a", "p", kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4, ceil_mode=0, storage_order=0),
        make_node("Flatten", "p", "f", axis=1),
        make_node("Gemm", "f m", "g", alpha=1.0, beta=0.5, transA=0, transB=1),
        make_node("Other", "g", "y", alpha=1.0),
    ]
    nodes[-1].domain = "strides.of.others"
    weights = {"w": np.ones((1, 1, 3, 3)), "m": np.ones((4, 12))}
    graph = onnx.load_from_string(shortened(make(nodes, {"x": [1, 1, 8, 8]}, ["y"], weights).SerializeToString())).graph
    kept = [{attribute.name for attribute in node.attribute} for node in graph.node]
    assert kept == [set(window), {"kernel_shape"}, set(), {"beta", "transB"}, {"alpha"}]


def test_what_is_no_file_is_refused():
    with pytest.raises(ModelError, match="is not an ONNX file"):
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


def test_it_is_said_where_names_are_much_of_a_file(tmp_path):
    def written(prefix, form):
        nodes = [make_node("Sin", f"{prefix}{at}", f"{prefix}{at + 1}") for at in range(20)]
        weight = {"w": np.eye(3, dtype=np.float32)}
        nodes = [make_node("MatMul", "x w", f"{prefix}0"), *nodes, make_node("MatMul", f"{prefix}20 w", "y")]
        quantized = lowbit.quantize(lowbit.load(make(nodes, {"x": [1, 3]}, ["y"], weight)), "linear8")
        return quantized.notes_on(quantized.save(tmp_path / "model.onnx", form))

    long = "a/name/as/a/converter/makes/one/of/all/that/was/fused/" * 5
    (said,) = written(long, lowbit.FileForm())
    assert said.startswith("Names take 9")
    assert "--short-names makes it 23 kB smaller" in said
    assert written(long, lowbit.FileForm(short_names=True)) == ()
    assert written("tensor", lowbit.FileForm()) == ()
