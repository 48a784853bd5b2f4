"""Files that take image bytes: the folded normalization is exact up to the border, and the other way bit for bit."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import lowbit
import networks
from graphs import change_weights, make, make_node, relative_error, run
from lowbit.engines import installed_engines, open_session
from lowbit.errors import ModelError
from lowbit.formats.input_bytes import (
    FACTORS_KEY,
    byte_layout,
    computed_values,
    in_float_units,
    reads_bytes,
    with_byte_input,
    with_exact_input,
)
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.ops import layers
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lowbit.schemes.linear import Linear

SIDE = networks.SIDE
HOW = Preprocessing(SIDE, SIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def pictures(count, *, channels=3, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, size=(count, 4, 4, channels), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, SIDE // 4, axis=1), SIDE // 4, axis=2)


def encoded(recipe="int8", proto=None, how=HOW):
    proto = proto or networks.residual_network(first=16)
    model = dataclasses.replace(lowbit.load(proto), preprocessing=how)
    images = [how.apply(image) for image in pictures(16, channels=how.channels, seed=5)]
    return lowbit.quantize(model, recipe, calibration=images, effort="fast").graph


@pytest.fixture(scope="module")
def int8():
    return encoded()


def one_convolution(channels, *, pads, bias=True, seed=0, outputs=16):
    generator = np.random.default_rng(seed)
    weights = {"w": generator.normal(size=(outputs, channels, 3, 3))}
    if bias:
        weights["b"] = generator.normal(size=outputs)
    nodes = [make_node("Conv", "x w b" if bias else "x w", "y", name="c", pads=pads, strides=[2, 1])]
    return make(nodes, {"x": ["n", channels, SIDE, SIDE]}, ["y"], weights)


@settings(max_examples=25)
@given(
    channels=st.sampled_from([1, 3, 4]),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    bias=st.booleans(),
    mean=st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4),
    std=st.lists(st.floats(0.1, 2), min_size=4, max_size=4),
    scale=st.sampled_from([1 / 255, 2 / 255, 1.0]),
    seed=st.integers(0, 99),
)
def test_folding_is_exact_in_the_corners_too(channels, pads, bias, mean, std, scale, seed):
    """With weights of 16 bits nothing is left but float32's own rounding: the borders are no approximation."""
    how = Preprocessing(
        SIDE, SIDE, channels=channels, scale=scale, std=tuple(std[:channels]),
        mean=tuple(value * (255 * scale) for value in mean[:channels]),
    )  # fmt: skip
    model = dataclasses.replace(
        lowbit.load(one_convolution(channels, pads=pads, bias=bias, seed=seed)), preprocessing=how
    )
    fine = Linear(16, per="channel").encode(model.weights["w"])
    whole = lowbit.formats.quantized_graph.QuantizedGraph(model, weights={"w": fine}, integer=frozenset({"c"}))
    found = with_byte_input(whole, layout="NCHW").byte_input
    layer = found.layers["c"]
    # The convolution of integers, evaluated in floating point: pixels less the zero point, padded with zeros.
    image = pictures(1, channels=channels, seed=seed)
    wide = np.full((1, layer.weight.codes.shape[1], SIDE, SIDE), float(found.fill))
    wide[:, :channels] = image.transpose(0, 3, 1, 2)
    values = {"w": layer.weight.decode(), "b": layer.bias.decode()}
    proto = change_weights(one_convolution(wide.shape[1], pads=pads), ..., values)
    result = run(proto.SerializeToString(), (wide - found.zero_point).astype(np.float32))
    expected = run(model.to_bytes(), how.apply(image[0])[None])
    # Terms of thousands may cancel where the normalization is extreme: the error is relative to them.
    size = np.abs(layer.weight.decode()).sum(axis=(1, 2, 3)).max() * 255 + np.abs(expected).max()
    np.testing.assert_allclose(result, expected, atol=3e-5 * size)


@pytest.mark.parametrize("mean", [IMAGENET_MEAN, (0.0,) * 3])
def test_what_a_convolution_on_pixels_computes_is_known_in_units_of_the_float_network(mean):
    """Coarse codes, so that what they compute is far from the trained layer."""
    how = dataclasses.replace(HOW, mean=mean)
    model = dataclasses.replace(lowbit.load(one_convolution(3, pads=[0] * 4)), preprocessing=how)
    codes = Linear(4, per="channel").encode(model.weights["w"])
    whole = lowbit.formats.quantized_graph.QuantizedGraph(model, weights={"w": codes}, integer=frozenset({"c"}))
    found = with_byte_input(whole, layout="NCHW").byte_input
    own = found.layers["c"]
    image = pictures(1, seed=1)
    wide = np.full((1, own.weight.codes.shape[1], SIDE, SIDE), float(found.fill))
    wide[:, :3] = image.transpose(0, 3, 1, 2)
    values = {"w": own.weight.decode(), "b": own.bias.decode()}
    proto = change_weights(one_convolution(wide.shape[1], pads=[0] * 4), ..., values)
    expected = run(proto.SerializeToString(), (wide - found.zero_point).astype(np.float32))
    told = computed_values(found, layers(model)[0])
    floats = how.apply(image[0])[None]
    result = run(model.with_weights(told).to_bytes(), floats)
    assert relative_error(result, expected) < 1e-5
    assert relative_error(run(model.to_bytes(), floats), expected) > 1e-2


def test_bytes_in_answers_out(int8, tmp_path):
    images = pictures(64, seed=9)
    x = np.stack([HOW.apply(image) for image in images])
    expected = run(int8.model.to_bytes(), x)
    last = with_byte_input(int8, layout="NHWC")
    answers = run(to_onnx(last), images)
    assert relative_error(answers, expected) < max(0.03, 1.5 * relative_error(run(to_onnx(int8), x), expected))
    first = to_onnx(with_byte_input(int8, layout="NCHW"))
    np.testing.assert_array_equal(run(first, np.ascontiguousarray(images.transpose(0, 3, 1, 2))), answers)
    for engine in set(installed_engines()) & {"openvino"}:
        assert relative_error(run(to_onnx(last), images, engine), expected) < 0.05


def test_no_float_tensor_before_the_classifier(int8, tmp_path):
    path = tmp_path / "optimized.onnx"
    for layout in ("NHWC", "NCHW"):
        open_session(to_onnx(with_byte_input(int8, layout=layout)), threads=1, optimized_to=path)
        graph = onnx.load(path).graph
        kinds = [node.op_type for node in graph.node]
        assert not {"QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Conv"} & set(kinds), kinds
        assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_file_says_what_it_takes_and_its_weights_are_read_as_before(int8, tmp_path):
    path = tmp_path / "bytes.onnx"
    path.write_bytes(to_onnx(with_byte_input(int8)))
    assert byte_layout(path) == byte_layout(path.read_bytes()) == "NHWC"
    assert byte_layout(to_onnx(with_byte_input(int8, layout="NCHW"))) == "NCHW"
    assert byte_layout(to_onnx(int8)) is None
    assert byte_layout(b"not onnx") is None
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    said = Preprocessing.from_json(metadata["lowbit.preprocessing"])
    np.testing.assert_array_equal(said.apply(pictures(1)[0]), pictures(1)[0].astype(np.float32))
    weights, floats = layer_weights(path), int8.model.weights
    assert relative_error(weights["stem"], floats["stem.weight"]) < 0.02
    np.testing.assert_array_equal(weights["wide"], int8.weights["wide.weight"].decode())
    ledger = read_ledger(path)
    assert sum(ledger.bytes.values()) == ledger.total == path.stat().st_size


@pytest.mark.parametrize("recipe", ["float", "cluster4"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_float_first_layers_get_the_normalization_in_front_bit_for_bit(recipe, layout):
    whole = encoded(recipe)
    taking = with_byte_input(whole, layout=layout)
    assert not taking.byte_input.layers
    images = pictures(4)
    x = np.stack([HOW.apply(image) for image in images])
    turned = images if layout == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(run(to_onnx(taking), turned), run(to_onnx(whole), x))


def test_an_input_that_something_else_reads_too_is_normalized_in_front():
    proto = networks.residual_network()
    proto.graph.node.append(helper.make_node("ReduceMax", ["x"], ["brightest"], name="brightest", keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("brightest", 1, None))
    taking = with_byte_input(encoded(proto=proto))
    assert not taking.byte_input.layers
    images = pictures(3)
    expected = np.stack([HOW.apply(image) for image in images]).max()
    session = open_session(to_onnx(taking), threads=1)
    assert session.run({"x": images})["brightest"] == pytest.approx(expected, abs=0.02)  # a step


def test_a_mean_image_gives_what_the_bias_says(int8):
    """The residue of rounding on the mean color is in the bias: the image that is zero must stay zero."""
    layer = with_byte_input(int8).byte_input.layers["stem"]
    found = with_byte_input(int8).byte_input
    pixel = np.full(4, found.fill - found.zero_point, np.float64)
    pixel[:3] = np.asarray(HOW.mean) * 255 - found.zero_point
    answer = layer.weight.decode().astype(np.float64).sum(axis=(2, 3)) @ pixel + layer.bias.decode()
    np.testing.assert_allclose(answer, int8.model.weights["stem.bias"], atol=float(layer.bias.scale.max()))


def test_pixels_count_from_the_mean_color_where_the_normalization_is_folded_in(int8):
    folded = with_byte_input(int8).byte_input
    assert folded.zero_point == round(255 * (0.485 + 0.456 + 0.406) / 3)
    each = with_byte_input(int8, by_color=True).byte_input
    assert each.zero_points == tuple(round(255 * mean) for mean in IMAGENET_MEAN)
    in_front = with_byte_input(encoded("float")).byte_input
    assert (in_front.zero_point, in_front.layers) == (0, {})


def test_what_cannot_be_folded_is_refused_in_words(int8):
    bare = dataclasses.replace(int8, model=dataclasses.replace(int8.model, preprocessing=None))
    with pytest.raises(ModelError, match="not known how images become"):
        with_byte_input(bare)
    with pytest.raises(ModelError, match="no layout is called 'HWCN'"):
        with_byte_input(int8, layout="HWCN")
    with pytest.raises(ModelError, match="no batch of images"):
        with_byte_input(int8, preprocessing=Preprocessing(8, 8))


STRANGE = ("", "[", "[]", "3", '{"other": [1]}', '{"stem": "x"}', '{"stem": [0, 1, 1]}', '{"stem": [1, 1, 1, 1, 1]}')


@pytest.mark.parametrize("text", [*STRANGE, json.dumps({"stem": [[1.0]]}), '{"stem": [NaN]}', "[" * 99999])
def test_strange_metadata_leaves_weights_alone(text):
    weights = {"stem": np.ones((2, 4, 1, 1), np.float32)}
    with np.errstate(divide="ignore"):
        assert in_float_units(weights, text)["stem"].shape == (2, 4, 1, 1), FACTORS_KEY


@pytest.mark.parametrize("engine", [engine for engine in installed_engines() if engine != "litert"])
@pytest.mark.parametrize(
    ("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)]
)
def test_floats_are_taken_as_the_bytes_they_were_made_from(mean, std, engine):
    """The file of floats gives to the bit what the file of bytes gives, halves between two bytes included."""
    how = Preprocessing(SIDE, SIDE, mean=mean, std=std)
    given = encoded(how=how)
    assert given.byte_input is not None
    assert given.byte_input.takes_floats
    pixels = pictures(8, seed=3)
    floats = np.stack([how.apply(image) for image in pixels])
    bytewise = to_onnx(with_byte_input(given, layout="NCHW"))
    wanted = run(bytewise, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), engine)
    np.testing.assert_array_equal(run(to_onnx(given), floats, engine), wanted)


def test_input_is_left_as_it_is_where_bytes_cannot_be_found():
    model = dataclasses.replace(lowbit.load(networks.residual_network(first=16)), preprocessing=HOW)
    steps = lowbit.plan(model, "int8").steps
    assert steps[0] == "input as image bytes"
    others = steps[1:]
    assert lowbit.plan(dataclasses.replace(model, preprocessing=None), "int8").steps == others
    dark = dataclasses.replace(model, preprocessing=dataclasses.replace(HOW, mean=(-1.0,) * 3))
    assert lowbit.plan(dark, "int8").steps == others
    assert "input as image bytes" not in lowbit.plan(model, "int4").steps
    assert not reads_bytes(model, ())


def test_codes_of_an_exact_input_are_read_in_float_units(tmp_path):
    given = encoded()
    path = tmp_path / "exact.onnx"
    path.write_bytes(to_onnx(with_exact_input(given)))
    first = next(iter(given.byte_input.layers))
    found = layer_weights(path)[first]
    trained = given.model.weights[next(layer.weight for layer in layers(given.model) if layer.node == first)]
    assert np.abs(found - trained).max() < 0.02 * np.abs(trained).max()


def test_a_file_of_bytes_takes_them_in_the_order_of_the_network(tmp_path):
    """Blue first, as OpenCV reads them; lowbit turns the images that it reads."""
    how = dataclasses.replace(HOW, colors="BGR")
    quantized = encoded(how=how)
    images = pictures(4, seed=3)
    floats = run(to_onnx(quantized), np.stack([how.apply(image) for image in images]))
    content = to_onnx(with_byte_input(quantized))
    assert relative_error(run(content, np.ascontiguousarray(images[..., ::-1])), floats) < 1e-2
    (tmp_path / "bytes.onnx").write_bytes(content)
    model = lowbit.load(tmp_path / "bytes.onnx")
    batch = next(iter(lowbit.open_data(images, model).batches(4)))
    np.testing.assert_array_equal(batch.x, images[..., ::-1])
