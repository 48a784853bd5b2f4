"""Files made for OpenVINO: integers where it has them, as near to float as the others, the image to the byte."""

import collections
import dataclasses

import numpy as np
import onnx
import pytest

import litert_cases as cases
import lowbit
import networks
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.engines import installed_engines
from lowbit.errors import OutputError
from lowbit.formats.onnx.openvino import for_openvino
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SIDE = networks.SIDE
HOW = Preprocessing(SIDE, SIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
FORMS = {"floats": FileForm(), "NHWC": FileForm(input="uint8"), "NCHW": FileForm(input="uint8", layout="NCHW")}
FOR_OPENVINO = FileForm("openvino")


def pictures(count, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, size=(count, 4, 4, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, SIDE // 4, axis=1), SIDE // 4, axis=2)


@pytest.fixture(scope="module")
def int8():
    model = dataclasses.replace(lowbit.load(networks.residual_network(first=16)), preprocessing=HOW)
    return lowbit.quantize(
        model, "int8", calibration=[HOW.apply(image) for image in pictures(16, seed=5)], effort="fast"
    )


def given(form, count=48):
    images = pictures(count, seed=9)
    if form == "floats":
        return np.stack([HOW.apply(image) for image in images])
    return images if form == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_as_near_to_float_as_the_other_file(int8, form, engine):
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    expected = run(int8.model.to_bytes(), given("floats"), "onnxruntime")
    usual = relative_error(run(int8.to_bytes(FORMS[form]), given(form), "onnxruntime"), expected)
    content = int8.to_bytes(dataclasses.replace(FORMS[form], to="openvino"))
    assert relative_error(run(content, given(form), engine), expected) < 1.2 * usual + 0.002


@pytest.mark.parametrize("name", cases.CASES)
def test_every_operator_runs_in_openvino_as_near_to_float_as_in_onnxruntime(name):
    pytest.importorskip("openvino")
    rng = np.random.default_rng([len(name), 5])
    model = cases.CASES[name](rng)
    x = cases.inputs(model, rng, 8)
    encoded = cases.integer(model, rng)
    expected = run(model.to_bytes(), x, "onnxruntime")
    usual = relative_error(run(to_onnx(encoded), x, "onnxruntime"), expected)
    for to in ("onnx", "openvino"):
        assert relative_error(run(to_onnx(encoded, to=to), x, "openvino"), expected) < 1.5 * usual + 0.01, to


@pytest.mark.parametrize("form", FORMS)
def test_openvino_computes_all_of_it_in_integers(int8, form):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    network = core.read_model(int8.to_bytes(dataclasses.replace(FORMS[form], to="openvino")))
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = collections.defaultdict(list)
    for node in compiled.get_runtime_model().get_ops():
        information = node.get_rt_info()
        kinds[information["layerType"].astype(str)].append(information["primitiveType"].astype(str))
    convolutions = kinds["Convolution"] + kinds["GroupConvolution"]
    assert len(convolutions) == 6
    assert all(kind.endswith("I8") for kind in convolutions), convolutions
    # The sum is done inside a convolution, and no channel is added to the image.
    assert not {"Eltwise", "Add", "Pad"} & set(kinds), dict(kinds)


def test_what_differs_from_the_file_for_onnxruntime(int8):
    graph = onnx.load_from_string(int8.to_bytes(FOR_OPENVINO)).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    sums = [{producers[name].op_type for name in node.input} for node in graph.node if node.op_type == "Add"]
    biases = [parts for parts in sums if parts == {"Conv", "DequantizeLinear"}]
    # One operand comes from a convolution and its bias directly, as float.
    assert [parts for parts in sums if parts not in biases] == [{"Add", "DequantizeLinear"}]
    assert len(biases) == sum(node.op_type == "Conv" for node in graph.node)
    first = next(node for node in graph.node if node.op_type == "Conv")
    image = producers[first.input[0]]
    assert list(weights[producers[first.input[1]].input[0]].dims)[1] == 3
    found = onnx.numpy_helper.to_array(weights[image.input[2]])
    np.testing.assert_array_equal(found, np.rint(np.array(IMAGENET_MEAN) * 255))


def test_a_mean_that_no_pixel_has_keeps_one_zero_point(int8):
    how = Preprocessing(SIDE, SIDE, mean=(-0.1, 0.5, 1.2), std=IMAGENET_STD)
    model = dataclasses.replace(int8.model, preprocessing=how)
    quantized = lowbit.quantize(
        model, "int8", calibration=[how.apply(image) for image in pictures(16, seed=5)], steps=()
    )
    images = pictures(32, seed=9)
    expected = run(model.to_bytes(), np.stack([how.apply(image) for image in images]), "onnxruntime")
    content = quantized.to_bytes(FileForm("openvino", input="uint8"))
    assert relative_error(run(content, images, "onnxruntime"), expected) < 0.05


def test_other_recipes_are_the_same_for_both():
    quantized = lowbit.quantize(lowbit.load(networks.residual_network()), "cluster4")
    assert quantized.to_bytes(FOR_OPENVINO) == quantized.to_bytes() == to_onnx(quantized.graph)


def shortcut_network(*, relu):
    """A shortcut of every second pixel and more channels, as in ResNet20, of positive values or not."""
    generator = np.random.default_rng(0)
    nodes, weights = [], {"from": np.array([0, 0]), "to": np.array([99, 99]), "axes": np.array([2, 3])}
    weights |= {"step": np.array([2, 2]), "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0])}

    def convolution(source, name, shape, stride):
        weights[f"{name}.w"] = generator.normal(scale=np.prod(shape[1:]) ** -0.5, size=shape).astype(np.float32)
        weights[f"{name}.b"] = generator.normal(scale=0.2, size=shape[0]).astype(np.float32)
        nodes.append(make_node("Conv", f"{source} {name}.w {name}.b", name, strides=[stride] * 2, pads=[1] * 4))

    convolution("x", "a", (16, 3, 3, 3), 1)
    if relu:
        nodes.append(make_node("Relu", "a", "r"))
    source = "r" if relu else "a"
    convolution(source, "b", (20, 16, 3, 3), 2)
    nodes.append(make_node("Slice", f"{source} from to axes step", "few"))
    nodes.append(make_node("Pad", "few pads", "more"))
    nodes.append(make_node("Add", "more b", "s"))
    convolution("s", "y", (4, 20, 3, 3), 1)
    inputs, outputs = {"x": ["n", 3, SIDE, SIDE]}, {"y": ["n", 4, SIDE // 2, SIDE // 2]}
    return make(nodes, inputs, outputs, weights, opset=13)


@pytest.mark.parametrize("relu", [True, False])
def test_what_only_moves_has_no_codes_of_its_own_unless_padding_has_another_code(relu):
    model = lowbit.load(shortcut_network(relu=relu))
    x = networks.inputs(32)
    quantized = lowbit.quantize(model, "int8", calibration=lowbit.open_images(list(x), None), steps=())
    assert {"few", "more"} <= set(quantized.graph.activations)
    assert (quantized.graph.activations["more"].zero_point == 0) == relu
    content = quantized.to_bytes(FOR_OPENVINO)
    graph = onnx.load_from_string(content).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    (pad,) = (node for node in graph.node if node.op_type == "Pad")
    assert producers[pad.input[0]] == ("Slice" if relu else "QuantizeLinear")
    expected = run(model.to_bytes(), x, "onnxruntime")
    usual = relative_error(run(quantized.to_bytes(), x, "onnxruntime"), expected)
    for engine in {"onnxruntime", "openvino"} & set(installed_engines()):
        assert relative_error(run(content, x, engine), expected) < 1.2 * usual + 0.002


@pytest.mark.parametrize(("to", "said"), [("tensorrt", "no format"), ("litert", "does not match")])
def test_formats_that_are_none_are_refused(int8, to, said, tmp_path):
    with pytest.raises(OutputError, match=said):
        int8.save(tmp_path / "a.onnx", FileForm(to))
    assert not list(tmp_path.iterdir())


def test_a_class_token_keeps_its_values():
    """What a float Concat joins to patches is not rounded to their codes."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(scale=0.2, size=(16, 3, 4, 4)).astype(np.float32), "flat": np.array([0, 16, -1])}
    weights |= {
        "token": (0.01 * generator.normal(size=(1, 1, 16))).astype(np.float32),
        "scale": np.ones(16, np.float32),
    }
    weights |= {"v": generator.normal(size=(16, 5)).astype(np.float32), "first": np.array([0])}
    nodes = [
        make_node("Conv", "x w", "c", strides=[4, 4]),
        make_node("Reshape", "c flat", "r"),
        make_node("Transpose", "r", "t", perm=[0, 2, 1]),
        make_node("Concat", "token t", "j", axis=1),
        make_node("LayerNormalization", "j scale", "n"),
        make_node("Gather", "n first", "f", axis=1),
        make_node("MatMul", "f v", "y"),
    ]
    proto = make(nodes, {"x": [1, 3, 8, 8]}, ["y"], weights)
    x = generator.normal(size=(24, 3, 8, 8)).astype(np.float32)
    made = lowbit.quantize(lowbit.load(proto), "int8", calibration=list(x), steps=())
    expected = run(proto.SerializeToString(), x[:1], "onnxruntime")
    assert relative_error(run(made.to_bytes(FOR_OPENVINO), x[:1], "openvino"), expected) < 0.02


FUNCTIONS = {
    "SiLU": [make_node("Sigmoid", "a", "s"), make_node("Mul", "a s", "f")],
    "Mish": [make_node("Softplus", "a", "p"), make_node("Tanh", "p", "t"), make_node("Mul", "a t", "f")],
    "GELU": [
        make_node("Div", "a root", "d"),
        make_node("Erf", "d", "e"),
        make_node("Add", "e one", "o"),
        make_node("Mul", "a o", "m"),
        make_node("Mul", "m half", "f"),
    ],
    "Sigmoid": [make_node("Sigmoid", "a", "f")],
    "LeakyRelu": [make_node("LeakyRelu", "a", "f", alpha=0.1)],
}
NUMBERS = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}


def with_function(nodes, *, last="f w2"):
    rng = np.random.default_rng(2)
    weights = {name: rng.normal(size=(8, 8 if name == "w2" else 3, 3, 3)).astype(np.float32) for name in ("w1", "w2")}
    used = " ".join(" ".join(node.input) for node in nodes).split()
    numbers = {name: np.array(value) for name, value in NUMBERS.items() if name in used}
    every = [make_node("Conv", "x w1", "a", name="first"), *nodes, make_node("Conv", last, "y", name="last")]
    return lowbit.load(make(every, {"x": ["n", 3, 10, 10]}, ["y"], weights | numbers))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_what_a_layer_gives_is_computed_in_its_kernel(name):
    pytest.importorskip("openvino")
    model = with_function(FUNCTIONS[name])
    x = np.random.default_rng(3).normal(size=(16, 3, 10, 10)).astype(np.float32)
    quantized = lowbit.quantize(model, "int8", calibration=x, steps=())
    usual, made = quantized.to_bytes(), quantized.to_bytes(FOR_OPENVINO)
    rounded = [onnx.load_from_string(content).graph.node for content in (usual, made)]
    counts = [sum(node.op_type == "QuantizeLinear" for node in nodes) for nodes in rounded]
    assert counts[0] > counts[1] == 2  # of the input and behind the function
    expected = run(model.to_bytes(), x, "onnxruntime")
    errors = [relative_error(run(content, x, "openvino"), expected) for content in (usual, made)]
    assert errors[1] < 1.05 * errors[0]


def test_what_others_read_inside_a_function_keeps_its_codes():
    model = with_function([*FUNCTIONS["SiLU"], make_node("Mul", "f s", "g")], last="s w2")
    x = np.random.default_rng(3).normal(size=(16, 3, 10, 10)).astype(np.float32)
    quantized = lowbit.quantize(model, "int8", calibration=x, steps=()).graph
    assert "s" in for_openvino(quantized).activations
    assert "a" not in for_openvino(quantized).activations


COPIES = {
    "reflected": [make_node("Pad", "r pads", "f", mode="reflect")],
    "zeros around": [make_node("Pad", "r pads", "f")],
    "zeros said": [make_node("Pad", "r pads zero", "f")],
    "ones around": [make_node("Pad", "r pads one", "f")],
    "larger": [make_node("Resize", "r  scales", "f", mode="nearest")],
    "both": [make_node("Resize", "r  scales", "u", mode="nearest"), make_node("Pad", "u pads", "f", mode="edge")],
    "linear": [make_node("Resize", "r  scales", "f", mode="linear")],
    "read twice": [
        make_node("Pad", "r pads", "p", mode="edge"),
        make_node("Pad", "r pads", "q", mode="reflect"),
        make_node("Add", "p q", "f"),
    ],
}
GIVEN = {
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "zero": np.float32(0),
    "one": np.float32(1),
}


def with_copies(name):
    """A norm that stays float, and what copies its values, in front of a convolution."""
    rng = np.random.default_rng(2)
    weights = {key: rng.normal(size=(8, 8 if key == "w2" else 3, 3, 3)).astype(np.float32) for key in ("w1", "w2")}
    used = " ".join(" ".join(node.input) for node in COPIES[name]).split()
    constants = {key: np.array(value) for key, value in GIVEN.items() if key in used}
    constants |= {"ones": np.ones(8, np.float32), "shift": rng.normal(size=8).astype(np.float32)}
    nodes = [
        make_node("Conv", "x w1", "a"),
        make_node("InstanceNormalization", "a ones shift", "b"),
        make_node("Relu", "b", "r"),
        *COPIES[name],
        make_node("Conv", "f w2", "y"),
    ]
    return lowbit.load(make(nodes, {"x": ["n", 3, 10, 10]}, ["y"], weights | constants))


@pytest.mark.parametrize("name", COPIES)
def test_floats_are_rounded_before_they_are_copied(name):
    model = with_copies(name)
    x = np.random.default_rng(3).normal(size=(16, 3, 10, 10)).astype(np.float32)
    quantized = lowbit.quantize(model, "int8", calibration=x, steps=())
    usual, made = quantized.to_bytes(), quantized.to_bytes(FOR_OPENVINO)
    rounded = {node.input[0] for node in onnx.load_from_string(made).graph.node if node.op_type == "QuantizeLinear"}
    assert ("r" in rounded) == (name not in ("ones around", "linear", "read twice"))
    expected = run(model.to_bytes(), x, "onnxruntime")
    for engine in {"onnxruntime", "openvino"} & set(installed_engines()):
        errors = [relative_error(run(content, x, engine), expected) for content in (usual, made)]
        assert errors[1] < 1.1 * errors[0] + 0.002
