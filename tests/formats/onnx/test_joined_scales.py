"""Files for OpenVINO where tensors are joined, or nothing reads their codes: fewer kernels, and as near to float."""

import dataclasses

import numpy as np
import onnx
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.engines import installed_engines
from lowbit.formats.onnx.joined_scales import LARGEST_GROWTH, with_joined_scales
from lowbit.formats.onnx.openvino import for_openvino

FOR_OPENVINO = FileForm("openvino")
x = np.random.default_rng(3).normal(size=(24, 3, 12, 12)).astype(np.float32)


def network(nodes, last, *, side=3, **more):
    """A first convolution "a" of 8 channels, what is in question, and a convolution "y" of 8 channels behind it."""
    rng = np.random.default_rng(2)
    shapes = {"w1": (8, 3, 3, 3), "wy": (8, 16 if last == "j" else 8, side, side), **more}
    weights = {name: rng.normal(scale=0.2, size=shape) for name, shape in shapes.items()}
    weights["b1"] = rng.normal(scale=0.1, size=8)
    first = make_node("Conv", "x w1 b1", "a", pads=[1] * 4)
    return make([first, *nodes, make_node("Conv", f"{last} wy", "y")], {"x": ["n", 3, 12, 12]}, ["y"], weights)


def quantized(proto):
    return lowbit.quantize(lowbit.load(proto), "int8", calibration=list(x), steps=())


def joined(*, relu):
    """What is read twice and joined to what a second convolution makes of it."""
    nodes = [make_node("Relu", "a", "r")] if relu else []
    source = "r" if relu else "a"
    nodes += [make_node("MaxPool", source, "p", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)]
    nodes += [make_node("Conv", "p w2 b1", "c", pads=[1] * 4), make_node("Concat", f"{source} c", "j", axis=1)]
    return network(nodes, "j", w2=(8, 8, 3, 3))


def kernels(content):
    """How many kernels of each kind OpenVINO makes of a file."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    return {kind: kinds.count(kind) for kind in kinds}


def check(made, proto):
    """The file for OpenVINO is as near to float as the other, and both engines give the same."""
    wanted = run(proto.SerializeToString(), x)
    usual = relative_error(run(made.to_bytes(), x), wanted)
    for engine in sorted({"onnxruntime", "openvino"} & set(installed_engines())):
        assert relative_error(run(made.to_bytes(FOR_OPENVINO), x, engine), wanted) < 1.15 * usual + 0.001, engine


def operators(content):
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def with_steps(graph, names, factor):
    """The same integers with tensors whose steps are larger or smaller."""
    changed = {
        name: dataclasses.replace(graph.activations[name], scale=graph.activations[name].scale * factor)
        for name in names
    }
    return dataclasses.replace(graph, activations={**graph.activations, **changed})


def test_parts_that_are_alike_get_one_scale_and_what_is_joined_no_pair():
    proto = joined(relu=False)
    made = quantized(proto)
    graph = made.graph
    factor = graph.activations["j"].scale / graph.activations["a"].scale / 1.2
    near = with_steps(graph, "ap", factor)
    assert near.activations["a"] == near.activations["p"] != near.activations["j"]
    together = with_joined_scales(near)
    assert len({together.activations[name] for name in "apcj"}) == 1
    assert together.activations["a"].scale >= near.activations["j"].scale
    assert "j" not in for_openvino(near).activations
    # The bias that reads the pool is in new units, and means the same.
    before, after = near.biases["c"], together.biases["c"]
    assert not np.array_equal(before.scale, after.scale)
    np.testing.assert_allclose(after.decode(), before.decode(), atol=float(after.scale.max()))
    check(made, proto)


def test_a_part_that_would_lose_much_keeps_its_own_scale():
    graph = quantized(joined(relu=False)).graph
    factor = graph.activations["j"].scale / graph.activations["a"].scale / (1.02 * LARGEST_GROWTH)
    far = with_steps(graph, "ap", factor)
    assert with_joined_scales(far) == far
    assert "j" in for_openvino(far).activations


def test_a_relu_is_written_where_the_new_range_reaches_below_zero():
    proto = joined(relu=True)
    made = quantized(proto)
    graph = made.graph
    assert "r" in graph.absorbed
    assert graph.activations["r"].zero_point == 0 < graph.activations["j"].zero_point
    # A range of the Concat that reaches little below zero.
    wide = dataclasses.replace(graph.activations["j"], zero_point=20)
    narrow = dataclasses.replace(wide, scale=wide.scale * 0.92, zero_point=0)
    changed = {"r": narrow, "p": narrow, "c": wide, "j": wide}
    alike = dataclasses.replace(graph, activations={**graph.activations, **changed})
    together = with_joined_scales(alike)
    assert "r" not in together.absorbed
    assert together.activations["r"].zero_point > 0
    check(made, proto)


@pytest.mark.parametrize("relu", [True, False])
def test_openvino_makes_no_kernels_of_conversions(relu):
    made = quantized(joined(relu=relu))
    found = kernels(made.to_bytes(FOR_OPENVINO))
    assert not {"Convert", "Eltwise"} & set(found), found
    assert found["FakeQuantize"] <= 2  # of the image, and of a part whose range differs


def test_zero_points_are_written_as_floats_bit_for_bit():
    proto = joined(relu=False)
    made = quantized(proto)
    graph = onnx.load_from_string(made.to_bytes(FOR_OPENVINO)).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in constants]
    assert all(not constants[node.input[2]].any() for node in pairs)
    casts = {node.output[0] for node in graph.node if node.op_type == "Cast"}
    subtractions = [node for node in graph.node if node.op_type == "Sub" and node.input[0] in casts]
    assert subtractions
    assert all(constants[node.input[1]].dtype == np.float32 for node in subtractions)
    check(made, proto)


def test_what_no_layer_reads_is_float_outputs_included():
    """A sum behind the last layers, a Relu before an output, and what only a norm reads."""
    nodes = [
        make_node("Conv", "x w1 b1", "a", pads=[1] * 4),
        make_node("Conv", "a w2 b1", "c", pads=[1] * 4),
        make_node("Conv", "a w3 b1", "d", pads=[1] * 4),
        make_node("Add", "c d", "s"),
        make_node("Relu", "s", "y"),
    ]
    rng = np.random.default_rng(2)
    weights = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "b1": (8,)}
    values = {name: rng.normal(scale=0.2, size=shape) for name, shape in weights.items()}
    proto = make(nodes, {"x": ["n", 3, 12, 12]}, ["y"], values)
    made = quantized(proto)
    assert {"a", "y"} <= set(made.graph.activations)
    kept = for_openvino(made.graph)
    assert set(kept.activations) == {"x", "a"}
    assert "y" in made.graph.absorbed
    assert "y" not in kept.absorbed
    assert operators(made.to_bytes(FOR_OPENVINO)).count("Relu") == 1
    check(made, proto)


def test_lines_stay_images_between_convolutions():
    rng = np.random.default_rng(0)
    sizes = {"w1": (8, 3, 5), "w2": (8, 8, 3), "w3": (4, 8, 3)}
    names = ["x", "a", "b", "y"]
    nodes = [make_node("Conv", f"{names[i]} w{i + 1}", names[i + 1], pads=[1, 1]) for i in range(3)]
    weights = {name: rng.normal(scale=0.2, size=shape) for name, shape in sizes.items()}
    proto = make(nodes, {"x": ["n", 3, 64]}, ["y"], weights)
    lines = rng.normal(size=(16, 3, 64)).astype(np.float32)
    made = lowbit.quantize(lowbit.load(proto), "int8", calibration=list(lines), steps=())
    content = made.to_bytes(FOR_OPENVINO)
    graph = onnx.load_from_string(content).graph
    constants = {tensor.name for tensor in graph.initializer} | {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0].startswith("w")
    }
    turned = [
        node for node in graph.node if node.op_type in ("Squeeze", "Unsqueeze") and node.input[0] not in constants
    ]
    assert [node.op_type for node in turned] == ["Unsqueeze", "Squeeze"]
    assert operators(content).count("QuantizeLinear") == 3  # once for what each convolution reads
    wanted = run(proto.SerializeToString(), lines)
    for engine in sorted({"onnxruntime", "openvino"} & set(installed_engines())):
        assert relative_error(run(content, lines, engine), wanted) < 0.03, engine


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean", "AveragePool"])
def test_a_mean_that_is_the_answer_is_float(op):
    how = {"ReduceMean": {"axes": [2, 3], "keepdims": 0}, "AveragePool": {"kernel_shape": [2, 2]}}.get(op, {})
    rng = np.random.default_rng(2)
    weights = {"w1": rng.normal(scale=0.2, size=(8, 3, 3, 3)), "w2": rng.normal(scale=0.2, size=(8, 8, 3, 3))}
    nodes = [make_node("Conv", "x w1", "a"), make_node("Conv", "a w2", "c"), make_node(op, "c", "y", **how)]
    proto = make(nodes, {"x": ["n", 3, 12, 12]}, ["y"], weights, opset=13)
    made = quantized(proto)
    assert operators(made.to_bytes(FOR_OPENVINO)).count("QuantizeLinear") == 2  # of what the convolutions read
    check(made, proto)


def test_a_mean_of_lines_whose_codes_only_moved():
    rng = np.random.default_rng(2)
    weights = {"w1": rng.normal(scale=0.2, size=(8, 3, 3)), "v": rng.normal(size=(8, 4))}
    nodes = [
        make_node("Conv", "x w1", "a"),
        make_node("MaxPool", "a", "p", kernel_shape=[2], strides=[2]),
        make_node("GlobalAveragePool", "p", "g"),
        make_node("Flatten", "g", "f"),
        make_node("MatMul", "f v", "y"),
    ]
    proto = make(nodes, {"x": ["n", 3, 24]}, ["y"], weights)
    lines = rng.normal(size=(16, 3, 24)).astype(np.float32)
    made = lowbit.quantize(lowbit.load(proto), "int8", calibration=list(lines), steps=())
    wanted = run(proto.SerializeToString(), lines)
    for engine in sorted({"onnxruntime", "openvino"} & set(installed_engines())):
        assert relative_error(run(made.to_bytes(FOR_OPENVINO), lines, engine), wanted) < 0.05, engine
