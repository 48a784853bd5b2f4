import dataclasses
import sys

import numpy as np
import onnx
import pytest

import litert_cases as cases
import networks
from graphs import make, make_node
from lowbit.data.images import open_images
from lowbit.engines import open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import EngineError, ModelError
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.litert import file as litert_file
from lowbit.formats.litert.write import to_litert
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import UINT8, QuantizedGraph
from lowbit.graph.load import load
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.quantize import quantize

pytest.importorskip("ai_edge_litert")


def run(content, x, engine):
    session = open_session(content, engine=engine, threads=1)
    return session.run({session.input_names[0]: x})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", cases.CASES)
def test_every_operator_in_float_gives_what_onnx_runtime_gives(name, seed):
    rng = np.random.default_rng([seed, len(name)])
    model = cases.CASES[name](rng)
    x = cases.inputs(model, rng)
    wanted = run(model.to_bytes(), x, "onnxruntime")
    found = run(to_litert(QuantizedGraph(model)), x, "litert")
    assert found.keys() == wanted.keys()
    for output in wanted:
        assert found[output].shape == wanted[output].shape
        np.testing.assert_allclose(found[output], wanted[output], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", cases.CASES)
def test_every_operator_in_integers_gives_what_onnx_runtime_gives(name, seed):
    rng = np.random.default_rng([seed, len(name), 8])
    model = cases.CASES[name](rng)
    x = cases.inputs(model, rng, 8)
    encoded = cases.integer(model, rng)
    exact = run(model.to_bytes(), x, "onnxruntime")
    wanted = run(to_onnx(encoded), x, "onnxruntime")
    found = run(to_litert(encoded), x, "litert")
    for output in wanted:
        # Rounding may fall to the other side here and there; the error against float must not be larger.
        size = np.abs(exact[output]).max()
        worst = np.abs(wanted[output] - exact[output]).max()
        assert np.abs(found[output] - wanted[output]).max() <= 0.03 * size + worst
        error = np.sqrt(np.mean((wanted[output] - exact[output]) ** 2))
        assert np.sqrt(np.mean((found[output] - exact[output]) ** 2)) <= 1.3 * error + 0.003 * size


@pytest.mark.parametrize("name", ["Conv", "Conv/depthwise", "Conv/grouped", "ConvTranspose", "Flatten+Gemm", "MatMul"])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_weights_only_are_stored_as_codes_and_computed_as_decoded(name, per):
    rng = np.random.default_rng(len(name))
    model = cases.CASES[name](rng)
    quantized = quantize(model, parse_recipe("linear8", per=per))
    x = cases.inputs(model, rng)
    content = to_litert(quantized.graph)
    wanted = run(quantized.to_bytes(), x, "onnxruntime")
    for output, found in run(content, x, "litert").items():
        np.testing.assert_allclose(found, wanted[output], rtol=1e-4, atol=1e-5)
    codes = quantized.graph.weights
    assert codes
    stored = sum(np.prod(tensor.shape) for tensor in stored_weights(content) if tensor.dtype == "int8")
    assert stored >= sum(weight.codes.size for weight in codes.values())


def stored_weights(content):
    file = read_litert(content, "test")
    return [tensor for tensor in file.graphs[0].tensors if tensor.buffer and tensor.name and len(tensor.shape) > 1]


def small_network(rng):
    """Convolutions with the strides, pads and shortcut of a residual network, and a classifier."""
    nodes = [
        ("Conv", ["x", "w0", "b0"], ["a"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Relu", ["a"], ["r"], {}),
        ("Conv", ["r", "w1", "b1"], ["c"], {"pads": [1, 1, 1, 1], "group": 8}),
        ("Clip", ["c", "zero", "six"], ["d"], {}),
        ("Conv", ["d", "w2", "b2"], ["e"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Slice", ["r", "start", "end", "axis2", "two"], ["s"], {}),
        ("Slice", ["s", "start", "end", "axis3", "two"], ["t"], {}),
        ("Pad", ["t", "pads"], ["p"], {}),
        ("Add", ["e", "p"], ["f"], {}),
        ("Relu", ["f"], ["g"], {}),
        ("AveragePool", ["g"], ["h"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ReduceMean", ["h"], ["m"], {"axes": [2, 3], "keepdims": 0}),
        ("Gemm", ["m", "w3", "b3"], ["y"], {}),
    ]
    weights = {"w0": cases.normal(rng, 8, 3, 3, 3) / 4, "b0": cases.normal(rng, 8)}
    weights |= {"w1": cases.normal(rng, 8, 1, 3, 3) / 2, "b1": cases.normal(rng, 8)}
    weights |= {"w2": cases.normal(rng, 12, 8, 3, 3) / 6, "b2": cases.normal(rng, 12)}
    weights |= {"w3": cases.normal(rng, 12, 5), "b3": cases.normal(rng, 5), "zero": np.float32(0), "six": np.float32(6)}
    weights |= {"start": np.array([0]), "end": np.array([99]), "two": np.array([2]), "axis2": np.array([2])}
    weights |= {"axis3": np.array([3]), "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0])}
    return cases.make(nodes, ["n", 3, 16, 16], weights)


@pytest.fixture(scope="module")
def network():
    return small_network(np.random.default_rng(5))


@pytest.fixture(scope="module")
def quantized(network):
    return cases.integer(network, np.random.default_rng(6))


@pytest.mark.parametrize("recipe", ["float", "linear8", "int8"])
def test_a_whole_network_is_one_part_run_by_xnnpack(network, quantized, recipe, tmp_path):
    encoded = quantized if recipe == "int8" else quantize(network, recipe).graph
    open_session(to_litert(encoded), engine="litert", optimized_to=tmp_path / "ran.txt")
    assert (tmp_path / "ran.txt").read_text() == "DELEGATE\n"


def test_integer_networks_hold_int8_weights_by_channel_and_int32_biases(quantized):
    file = read_litert(to_litert(quantized), "test")
    tensors = file.graphs[0].tensors
    convolutions = [op for op in file.graphs[0].operators if op.code in (3, 4) and tensors[op.inputs[1]].name]
    assert len(convolutions) == 3
    for op in convolutions:
        x, weight, bias = (tensors[index] for index in op.inputs)
        assert (x.dtype, weight.dtype, bias.dtype) == ("int8", "int8", "int32")
        assert weight.axis == (0 if op.code == 3 else 3)
        assert weight.scale.size == bias.scale.size == 4 * weight.shape[weight.axis]
        scales = file.array(x.scale, "<f4") * file.array(weight.scale, "<f4")
        np.testing.assert_array_equal(file.array(bias.scale, "<f4"), scales)
        assert file.buffers[weight.buffer].start % 16 == 0


def transposed_network(rng, attributes, tail):
    """A convolution, a transposed one with this geometry, and what reads it."""
    weights = cases.conv(rng, 3, 6, [3, 3]) | {"t": cases.normal(rng, 6, 4, 3, 3) / 6, "tb": cases.normal(rng, 4)}
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Relu", ["c"], ["r"], {})]
    nodes += [("ConvTranspose", ["r", "t", "tb"], ["d" if tail else "y"], attributes)]
    if tail:
        weights["v"] = cases.normal(rng, 5, 4, 1, 1) / 2
        nodes += [("Relu", ["d"], ["e"], {}), ("Conv", ["e", "v"], ["y"], {})]
    return cases.make(nodes, ["n", 3, 9, 8], weights)


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 2], "pads": [0, 0, 0, 1], "output_padding": [1, 1]},
        {"strides": [1, 2], "pads": [0, 1, 1, 0]},
        {"dilations": [2, 1]},
    ],
)
def test_transposed_convolutions_run_in_integers_on_the_codes_of_the_onnx_file(attributes, tail, tmp_path):
    rng = np.random.default_rng(3)
    model = transposed_network(rng, attributes, tail)
    encoded = cases.integer(model, rng)
    content = to_litert(encoded)
    open_session(content, engine="litert", optimized_to=tmp_path / "ran.txt")
    assert (tmp_path / "ran.txt").read_text() == "DELEGATE\n"
    graph = read_litert(content, "test").graphs[0]
    (op,) = (op for op in graph.operators if op.code == 67)
    _, weight, x, bias = (graph.tensors[index] for index in op.inputs)
    assert (x.dtype, weight.dtype, bias.dtype) == ("int8", "int8", "int32")
    assert graph.tensors[op.outputs[0]].dtype == "int8"
    assert weight.axis == 0
    assert weight.scale.size == bias.scale.size == 4 * 4
    x = cases.normal(rng, 4, 3, 9, 8)
    wanted, found = run(to_onnx(encoded), x, "onnxruntime")["y"], run(content, x, "litert")["y"]
    steps = np.abs(wanted - found) / encoded.activations["y"].scale
    # A value that lies between two codes may fall to either side, in each layer.
    assert steps.max() <= (2.01 if tail else 1.01)
    assert (steps > 0.5).mean() < 0.01


def test_grouped_transposed_convolutions_stay_float():
    rng = np.random.default_rng(4)
    weights = cases.conv(rng, 3, 4, [3, 3]) | {"t": cases.normal(rng, 4, 3, 3, 3)}
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("ConvTranspose", ["c", "t"], ["y"], {"group": 2})]
    encoded = cases.integer(cases.make(nodes, ["n", 3, 8, 8], weights), rng)
    assert encoded.integer == {"Conv0"}
    graph = read_litert(to_litert(encoded), "test").graphs[0]
    kinds = {graph.tensors[op.inputs[1]].dtype for op in graph.operators if op.code == 67}
    assert kinds == {"float32"}
    with pytest.raises(ModelError, match="in groups has no integer form"):
        to_litert(dataclasses.replace(encoded, integer=frozenset(("Conv0", "ConvTranspose1"))))


def test_a_weight_shared_with_a_grouped_transposed_convolution_stays_float():
    rng = np.random.default_rng(9)
    weights = cases.conv(rng, 3, 4, [3, 3]) | {"t": cases.normal(rng, 4, 4, 3, 3)}
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("ConvTranspose", ["c", "t"], ["d"], {})]
    nodes += [("ConvTranspose", ["d", "t"], ["y"], {"group": 2})]
    model = cases.make(nodes, ["n", 3, 8, 8], weights)
    decision = plan(model, "int8")
    assert [node.arithmetic for node in decision.nodes] == ["integer", "float", "float"]
    assert decision.nodes[1].reason == "it shares its weight with a layer of other groups"
    assert run(to_onnx(cases.integer(model, rng)), cases.normal(rng, 1, 3, 8, 8), "onnxruntime")["y"].shape[1] == 8


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_transposed_convolutions_take_part_in_every_step(effort):
    rng = np.random.default_rng(8)
    model = transposed_network(rng, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, True)
    x = cases.normal(rng, 32, 3, 9, 8)
    quantized = quantize(model, "int8", calibration=list(x), effort=effort)
    assert not quantized.plan.downgrades
    exact = run(model.to_bytes(), x, "onnxruntime")["y"]
    wanted = run(to_onnx(quantized.graph), x, "onnxruntime")["y"]
    assert np.sqrt(np.mean((wanted - exact) ** 2)) < 0.03 * exact.std()
    step = quantized.graph.activations["y"].scale
    assert np.abs(run(to_litert(quantized.graph), x, "litert")["y"] - wanted).max() <= 2.01 * step
    codes = run(to_litert(quantized.graph, output_type="int8"), x, "litert")["y"]
    assert np.abs(codes - wanted).max() <= 2.01 * step


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_inputs_and_outputs_can_be_integers(network, quantized, kind):
    rng = np.random.default_rng(7)
    x = cases.inputs(network, rng, 4)
    wanted = run(to_onnx(quantized), x, "onnxruntime")["y"]
    low, high = float(wanted.min()) * 1.1, float(wanted.max()) * 1.1
    activations = {**quantized.activations, "y": UINT8.codes(low, high)}
    encoded = dataclasses.replace(quantized, activations=activations)
    content = to_litert(encoded, input_type=kind, output_type=kind)
    tensors, graph = read_litert(content, "test").graphs[0].tensors, read_litert(content, "test").graphs[0]
    assert {tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {kind}
    found = run(content, x, "litert")["y"]
    assert np.abs(found - wanted).max() <= 2 * activations["y"].scale + 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("recipe", ["int8", "linear8", "float"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_image_bytes_give_what_the_onnx_file_gives(recipe, layout):
    """Up to the border: the same codes, the same constant channel, the same padding."""
    proto = networks.residual_network(first=16)
    if layout == "NHWC":
        turned = onnx.helper.make_node("Transpose", ["x"], ["turned"], name="turn", perm=[0, 3, 1, 2])
        proto.graph.node.insert(0, turned)
        proto.graph.node[1].input[0] = "turned"
        for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim[1:], (16, 16, 3), strict=True):
            dim.dim_value = size
    how = Preprocessing(16, 16, layout=layout, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = dataclasses.replace(load(proto), preprocessing=how)
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 16, 4, 3), np.uint8), 4, axis=2)
    images = open_images((pixels, np.zeros(16, np.int64)), how)
    quantized = quantize(model, recipe, calibration=images, steps=())
    encoded = with_byte_input(quantized.graph)
    assert bool(encoded.byte_input.layers) == (recipe == "int8" and layout == "NCHW")
    content = to_litert(encoded)
    found, wanted = run(content, pixels, "litert")["logits"], run(to_onnx(encoded), pixels, "onnxruntime")["logits"]
    np.testing.assert_allclose(found, wanted, atol=(0.02 if recipe == "int8" else 1e-4) * np.abs(wanted).max())
    floats = np.stack([how.apply(image) for image in pixels])
    plain = run(to_litert(quantized.graph), floats, "litert")["logits"]
    assert np.abs(found - plain).max() < 0.1 * np.abs(plain).max()
    file = read_litert(content, "test")
    tensors, graph = file.graphs[0].tensors, file.graphs[0]
    assert [(tensors[i].dtype, tensors[i].shape[1:]) for i in graph.inputs] == [("uint8", (16, 16, 3))]
    assert Preprocessing.from_json(file.text("lowbit.preprocessing")).layout == "NHWC"


def two_readers(pads):
    """Convolutions that read the same image, each with its own padding."""
    rng = np.random.default_rng(4)
    weights, nodes = {}, []
    for index, (before, after) in enumerate(pads):
        weights |= {f"w{index}": cases.normal(rng, 16, 3, 3, 3) / 5, f"b{index}": cases.normal(rng, 16) / 5}
        kept = {"pads": [before, before, after, after], "strides": [2, 2]}
        given, result = ["x", f"w{index}", f"b{index}"], "y" if len(pads) == 1 else f"c{index}"
        nodes.append(("Conv", given, [result], kept))
    if len(pads) > 1:
        nodes.append(("Concat", [f"c{index}" for index in range(len(pads))], ["y"], {"axis": 1}))
    return cases.make(nodes, ["n", 3, 16, 16], weights)


@pytest.mark.parametrize(
    ("pads", "folded"),
    [
        ([(1, 1)], True),
        ([(0, 0)], True),
        ([(2, 1)], True),
        ([(1, 1), (1, 1)], True),
        # The second pads more behind, which no window reaches.
        ([(1, 1), (1, 0)], True),
        ([(1, 1), (0, 2)], False),
    ],
)
def test_bytes_are_exact_up_to_the_border_and_stay_in_xnnpack(pads, folded, tmp_path):
    how = Preprocessing(16, 16, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = dataclasses.replace(two_readers(pads), preprocessing=how)
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 16, 4, 3), np.uint8), 4, axis=2)
    quantized = quantize(model, "int8", calibration=open_images((pixels, np.zeros(16, np.int64)), how), steps=())
    floats = np.stack([how.apply(image) for image in pixels])
    expected = run(model.to_bytes(), floats, "onnxruntime")["y"]
    content = to_litert(with_byte_input(quantized.graph))
    found = run(content, pixels, "litert")["y"]
    plain = run(to_litert(quantized.graph), floats, "litert")["y"]
    for part in (np.s_[:], np.s_[:, :, 0], np.s_[:, :, :, 0], np.s_[:, :, -1], np.s_[:, :, :, -1]):
        worse = 1.05 if part == np.s_[:] else 1.3
        assert np.std(found[part] - expected[part]) < worse * np.std(plain[part] - expected[part])
    listed = tmp_path / "operators"
    open_session(content, engine="litert", threads=1, optimized_to=listed)
    assert set(listed.read_text().split()) <= {"DELEGATE"}
    graph = read_litert(content, "test").graphs[0]
    # Where it is folded in no image is multiplied on the way (MUL is 18 in the schema), only what the border grows
    # from.
    products = [graph.tensors[op.outputs[0]].shape for op in graph.operators if op.code == 18]
    assert all(shape[2] == 1 for shape in products) == folded


def test_channels_first_bytes_are_refused(network):
    how = Preprocessing(*network.input.shape[2:], channels=network.input.shape[1], mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ModelError, match="channels-last"):
        to_litert(with_byte_input(QuantizedGraph(network), preprocessing=how, layout="NCHW"))


@pytest.mark.parametrize("tail", [("Relu",), ("Relu", "Softmax"), ("Softmax",), ()])
@pytest.mark.parametrize("kind", ["float32", "int8", "uint8"])
def test_what_a_last_product_gives_is_the_same_in_onnx_and_litert(tail, kind):
    """An activation that the product absorbs is done in both, and answers can be integers without further ado."""
    rng = np.random.default_rng(0)
    weights = cases.conv(rng, 3, 4, [3, 3]) | {"m": cases.normal(rng, 4 * 4 * 4, 6) / 8, "mb": cases.normal(rng, 6)}
    names = [f"t{index}" for index in range(len(tail) + 1)]
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Flatten", ["c"], ["f"], {"axis": 1})]
    nodes += [("Gemm", ["f", "m", "mb"], ["t0"], {})]
    nodes += [(op, [names[index]], [names[index + 1]], {}) for index, op in enumerate(tail)]
    model = cases.make(nodes, ["n", 3, 6, 6], weights, outputs=(names[-1],))
    x = cases.normal(rng, 16, 3, 6, 6)
    encoded = quantize(model, "int8", calibration=list(x), steps=()).graph
    wanted = run(model.to_bytes(), x, "onnxruntime")[names[-1]]
    found = run(to_onnx(encoded), x, "onnxruntime")[names[-1]]
    lite = run(to_litert(encoded, output_type=kind), x, "litert")[names[-1]]
    step = 1 / 256 if tail[-1:] == ("Softmax",) else encoded.activations[names[-1]].scale
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max() + step
    assert np.abs(lite - found).max() <= (1e-4 if kind == "float32" else step)


def test_integer_types_without_a_scale_are_refused(network):
    with pytest.raises(ModelError, match="output 'y' has no scale"):
        to_litert(QuantizedGraph(network), output_type="int8")
    with pytest.raises(ModelError, match="input 'x' has no scale"):
        to_litert(QuantizedGraph(network), input_type="uint8")
    with pytest.raises(ModelError, match="not 'int4'"):
        to_litert(QuantizedGraph(network), input_type="int4")


def test_the_same_input_gives_the_same_bytes(quantized):
    assert to_litert(quantized) == to_litert(quantized)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("cluster4", "would decode at every inference"),
        ("linear4", "zero points"),
        ("linear16", "16-bit weights"),
        (parse_recipe("linear8", per="group", group_size=3), "scales per group"),
        (parse_recipe("linear8", symmetric=False), "zero points"),
    ],
)
def test_weights_that_litert_cannot_hold_are_refused_by_name(network, recipe, message):
    with pytest.raises(ModelError, match=message) as caught:
        to_litert(quantize(network, recipe).graph)
    assert "Conv0" in caught.value.where
    assert "choose int8 or linear8" in (caught.value.remedy or "")
    assert ("--symmetric" in (caught.value.remedy or "")) == ("zero points" in message)


def test_what_symmetric_brings_can_be_written(network):
    assert to_litert(quantize(network, parse_recipe("linear4", symmetric=True)).graph)


def test_operators_outside_the_table_are_refused_by_name():
    model = cases.make([("Conv", ["x", "w"], ["c"], {}), ("Det", ["c"], ["y"], {})], ["n", 3, 4, 4], EYE)
    with pytest.raises(ModelError, match="operator Det") as caught:
        to_litert(QuantizedGraph(model))
    assert "Det1" in caught.value.where


EYE = {"w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}


def test_windows_on_which_runtimes_differ_are_refused():
    pool = ("MaxPool", ["c"], ["y"], {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1})
    model = cases.make([("Conv", ["x", "w"], ["c"], {}), pool], ["n", 3, 6, 6], EYE)
    with pytest.raises(ModelError, match="outside the image"):
        to_litert(QuantizedGraph(model))


def test_a_size_that_is_not_known_is_refused_and_taken_from_the_preprocessing():
    model = cases.make([("Conv", ["x", "w"], ["y"], {})], ["n", 3, "h", "w"], EYE)
    with pytest.raises(ModelError, match="dimension 2 of input 'x'"):
        to_litert(QuantizedGraph(model))
    known = dataclasses.replace(model, preprocessing=Preprocessing(5, 6))
    file = read_litert(to_litert(QuantizedGraph(known)), "test")
    assert file.graphs[0].tensors[file.graphs[0].inputs[0]].shape == (1, 5, 6, 3)


def test_metadata_tells_preprocessing_as_the_file_has_it(network):
    known = dataclasses.replace(network, preprocessing=Preprocessing(16, 16, mean=(0.5, 0.4, 0.3)))
    file = read_litert(to_litert(QuantizedGraph(known, metadata={"lowbit.recipe": "float"})), "test")
    found = Preprocessing.from_json(file.text("lowbit.preprocessing"))
    assert found == Preprocessing(16, 16, mean=(0.5, 0.4, 0.3), layout="NHWC")
    assert file.text("lowbit.recipe") == "float"


def test_shape_arithmetic_is_left_out():
    """As older exporters write `x.view(x.size(0), -1)`."""
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Shape", ["c"], ["s"], {}), ("Gather", ["s", "zero"], ["n"], {})]
    nodes += [("Unsqueeze", ["n", "zeros"], ["u"], {}), ("Concat", ["u", "rest"], ["t"], {"axis": 0})]
    nodes += [("Reshape", ["c", "t"], ["y"], {})]
    weights = EYE | {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])}
    model = cases.make(nodes, ["n", 3, 4, 5], weights)
    x = cases.inputs(model, np.random.default_rng(0))
    wanted = run(model.to_bytes(), x, "onnxruntime")["y"]
    np.testing.assert_allclose(run(to_litert(QuantizedGraph(model)), x, "litert")["y"], wanted, rtol=1e-5)


def test_without_the_package_the_error_says_what_to_install(network, monkeypatch):
    monkeypatch.setitem(sys.modules, litert_file.SCHEMA, None)
    with pytest.raises(EngineError, match="ai_edge_litert") as caught:
        to_litert(QuantizedGraph(network))
    assert "lowbit[litert]" in caught.value.remedy


@pytest.mark.parametrize("recipe", ["float", "linear8", "int8"])
def test_trained_networks_answer_as_their_onnx_files(shared_data, recipe):
    model = load(shared_data / "cifar10" / "resnet20.onnx")
    model = dataclasses.replace(model, preprocessing=Preprocessing(32, 32, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    seen = open_images(shared_data / "cifar10" / "calibration", model.preprocessing, limit=64)
    made = cases.integer(model, None, images=seen) if recipe == "int8" else quantize(model, recipe).graph
    images = open_images(shared_data / "cifar10" / "test", model.preprocessing, limit=200)
    onnx, litert = to_onnx(made), to_litert(made)
    pairs = [(run(onnx, batch.x, "onnxruntime"), run(litert, batch.x, "litert")) for batch in images.batches(50)]
    wanted, found = (np.concatenate([pair[i]["logits"] for pair in pairs]) for i in (0, 1))
    assert np.mean(wanted.argmax(1) == found.argmax(1)) >= 0.99
    if recipe != "int8":
        assert np.abs(wanted - found).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("perm", [[2147483647, 0, 2], [0, 0, 1]])
def test_a_node_that_does_not_fit_what_it_reads_is_refused(perm):
    """onnx passes over it in silence, and infers no shape."""
    nodes = [make_node("MatMul", "x w", "m"), make_node("Transpose", "m", "t", perm=perm)]
    model = load(make(nodes, {"x": [1, 4, 5]}, ["t"], {"w": np.ones((5, 6))}))
    with pytest.raises(ModelError, match="does not name each axis once"):
        to_litert(QuantizedGraph(model))
