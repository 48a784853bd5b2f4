"""Integer weights of fewer than 8 bits: stored at their own width, and the same kernels and bits as in whole bytes."""

import collections
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node, run
from lowbit.engines import open_session
from lowbit.formats.onnx import decode_nodes
from lowbit.formats.onnx.archive import pack, stored_symbols, unpack
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.onnx.saturation import saturating
from lowbit.graph.ops import layers
from lowbit.quantization.planning.recipes import RECIPES, parse_recipe
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear

NARROW = [f"{family}{bits}" for family in ("int", "icluster") for bits in RECIPES[family][0] if bits < 8]
INTEGER_KERNELS = {"QLinearConv", "QGemm", "MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat", "ConvTranspose"}
rng = np.random.default_rng(5)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def model_of(nodes, shape, **weights):
    return make([make_node(*node[:3], **node[3]) for node in nodes], {"x": ["n", *shape]}, ["y"], weights)


def convolution(shape, weight, **attributes):
    outputs = weight[1] * attributes.get("group", 1) if attributes.pop("turned", False) else weight[0]
    op = attributes.pop("op", "Conv")
    return model_of([(op, "x w b", "y", attributes)], shape, w=normal(*weight), b=normal(outputs))


def shared():
    """Two convolutions and a float sum read one weight."""
    weight = normal(6, 6, 3, 3)
    nodes = [("Conv", "x w", "a", {"pads": [1] * 4}), ("Conv", "a w", "c", {"pads": [1] * 4})]
    nodes += [("ReduceSum", "w", "s", {"keepdims": 0}), ("Mul", "c s", "y", {})]
    return model_of(nodes, (6, 7, 7), w=weight)


def pair(between, channels):
    """Two convolutions, with something between them that has no codes of its own in OpenVINO's file."""
    nodes = [("Conv", "x w b", "c", {}), between, ("Conv", "p v d", "y", {})]
    return model_of(nodes, (5, 8, 8), w=normal(32, 5, 3, 3), b=normal(32), v=normal(32, channels, 3, 3), d=normal(32))


CASES = {
    "lines": lambda: convolution((5, 9), (7, 5, 3)),
    "images": lambda: convolution((16, 7, 7), (32, 16, 3, 3)),
    "volumes": lambda: convolution((9, 5, 5, 5), (6, 9, 3, 3, 3)),
    "colors": lambda: convolution((3, 8, 8), (16, 3, 3, 3)),
    "groups": lambda: convolution((6, 7, 7), (9, 2, 3, 3), group=3),
    "depthwise": lambda: convolution((40, 7, 7), (40, 1, 3, 3), group=40),
    "transposed": lambda: convolution((5, 6, 6), (5, 7, 3, 3), op="ConvTranspose", turned=True, strides=[2, 2]),
    "one value": lambda: convolution((1, 4, 4), (1, 1, 1, 1)),
    "product": lambda: model_of([("MatMul", "x w", "y", {})], (35,), w=normal(35, 7)),
    "gemm": lambda: model_of([("Gemm", "x w b", "y", {"transB": 1})], (33,), w=normal(40, 33), b=normal(40)),
    "turned": lambda: model_of(
        [("Transpose", "w", "t", {"perm": [1, 0]}), ("MatMul", "x t", "y", {})], (12,), w=normal(9, 12)
    ),
    "shared": shared,
    "pooled": lambda: pair(("MaxPool", "c", "p", {"kernel_shape": [2, 2]}), 32),
    "joined": lambda: pair(("Concat", "c c", "p", {"axis": 1}), 64),
}


@pytest.fixture
def always_packed(monkeypatch):
    """Also where the nodes take more than they save, so that small tensors show what large ones do."""
    monkeypatch.setattr(decode_nodes, "UNPACK_BYTES", dict.fromkeys((1, 2, 3), -(10**9)))


def quantized(model, recipe, samples=6, **options):
    model = lowbit.load(model)
    recipe = parse_recipe(recipe) if parse_recipe(recipe).bits >= 7 else parse_recipe(recipe, extra_bits=0)
    x = normal(samples, *model.input.shape[1:])
    return lowbit.quantize(model, parse_recipe(recipe, **options), calibration=x, steps=()), x


def in_bytes(made):
    return replace(made, graph=replace(made.graph, packed=frozenset()))


def operators_run(content, folder):
    optimized = folder / "optimized.onnx"
    open_session(content, threads=1, optimized_to=optimized)
    return collections.Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.usefixtures("always_packed")
@pytest.mark.parametrize(
    ("name", "recipe"),
    [*(("images", recipe) for recipe in NARROW), *product(CASES, ("int4", "int7", "icluster1", "icluster3"))],
)
def test_packed_and_whole_are_the_same_network(name, recipe, tmp_path):
    made, x = quantized(CASES[name](), recipe)
    content, whole = made.to_bytes(), in_bytes(made).to_bytes()
    np.testing.assert_array_equal(run(content, x), run(whole, x))
    assert "Gather" in {node.op_type for node in onnx.load_from_string(content).graph.node}
    found = operators_run(content, tmp_path)
    assert found == operators_run(whole, tmp_path)
    assert found.keys() & INTEGER_KERNELS
    assert not found.keys() & {"Mod", "Div", "Gather"}
    (tmp_path / "model.onnx").write_bytes(content)
    weights = layer_weights(tmp_path / "model.onnx")
    for layer in layers(made.model):
        np.testing.assert_array_equal(weights[layer.node], made.graph.weights[layer.weight].decode())


@pytest.mark.usefixtures("always_packed")
@pytest.mark.parametrize("recipe", ["int7", "icluster3"])
@pytest.mark.parametrize("name", CASES)
def test_openvino_gives_the_same_bits(name, recipe):
    pytest.importorskip("openvino")
    made, x = quantized(CASES[name](), recipe)
    contents = [one.to_bytes(lowbit.FileForm(to="openvino")) for one in (made, in_bytes(made))]
    np.testing.assert_array_equal(*(run(content, x, "openvino") for content in contents))


@pytest.mark.usefixtures("always_packed")
@pytest.mark.parametrize(
    ("recipe", "short"), [*((recipe, False) for recipe in NARROW), ("int5", True), ("icluster3", True)]
)
def test_the_ledger_counts_true_bits_and_archives_hold_the_codes(recipe, short, tmp_path):
    made, _ = quantized(CASES["images"](), recipe)
    content = made.to_bytes(lowbit.FileForm(short_names=short))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    ledger, codes = read_ledger(path), made.graph.weights["w"]
    assert sum(ledger.bytes.values()) == ledger.total == len(content)
    assert ledger.counts["codes"] == 32 * 16 * 9
    assert ledger.bytes["codes"] == 32 * 16 * 9 * codes.bits // 8
    assert ledger.layers[0].code_bytes == ledger.bytes["codes"]
    assert ledger.bytes["code_books"] == (1 << codes.bits if recipe.startswith("icluster") else 0)
    assert ledger.bytes["scales"] < 3 * 32 + 16
    archive = pack(content)
    assert unpack(archive) == content
    ((_, symbols),) = stored_symbols(content).items()
    wanted = codes.unsigned()[0] if recipe.startswith("int") else codes.indices
    np.testing.assert_array_equal(symbols.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("recipe", ["int4", "int3", "int6", "icluster4", "icluster3"])
def test_nodes_take_what_the_plan_counts_for_them(recipe):
    """Few channels, whose scales and biases stay as they are; constants that all weights share are counted once."""
    nodes = [("Conv", "x w", "a", {}), ("Conv", "a v", "y", {})]
    made, _ = quantized(model_of(nodes, (24, 9, 9), w=normal(24, 24, 3, 3), v=normal(24, 24, 3, 3)), recipe)
    one, both = (
        len(replace(made, graph=replace(made.graph, packed=frozenset(names))).to_bytes()) for names in ("w", "wv")
    )
    count = 24 * 24 * 9
    counted = count - decode_nodes.integer_bytes(made.graph.weights["v"].scheme, count)
    assert one - both == pytest.approx(counted, abs=40)


@pytest.mark.parametrize(
    ("recipe", "values", "packed"), [("int4", 1200, True), ("int4", 1000, False), ("int7", 4000, 0)]
)
def test_small_weights_take_whole_bytes_and_the_plan_says_so(recipe, values, packed):
    made, _ = quantized(convolution((values // 10, 3, 3), (10, values // 10, 1, 1)), recipe)
    nodes = {node.op_type for node in onnx.load_from_string(made.to_bytes()).graph.node}
    assert ("Gather" in nodes) == packed
    said = [sentence for sentence in made.plan.adaptations if "take a byte each" in sentence]
    assert len(said) == (not packed)
    for sentence in said:
        assert sentence.startswith("1 of 1 weights, 100 % of the values")
    made.plan.require_all()


def test_large_weights_are_slow_to_load_and_the_plan_says_so(monkeypatch):
    monkeypatch.setattr(decode_nodes, "UNPACK_SECONDS", 1e-4)
    model = lowbit.load(model_of([("MatMul", "x w", "y", {})], (64,), w=np.ones((64, 192), np.float32)))
    for recipe, seconds in {"int4": "about 1 s", "int7": "about 4 s", "int8": None}.items():
        said = [sentence for sentence in lowbit.plan(model, recipe).adaptations if "each time" in sentence]
        assert len(said) == (seconds is not None)
        assert all(str(seconds) in sentence for sentence in said)


@pytest.mark.parametrize("target", ["x86", "x86-vnni"])
def test_int8_files_stay_as_other_tools_read_them(target):
    made, _ = quantized(convolution((64, 5, 5), (64, 64, 3, 3)), "int8", target=target)
    graph = onnx.load_from_string(made.to_bytes()).graph
    stored = {tensor.name for tensor in graph.initializer}
    decoders = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert sum(set(node.input) <= stored for node in decoders) == 2
    assert {node.op_type for node in graph.node} == {"QuantizeLinear", "DequantizeLinear", "Conv"}


def test_small_layers_of_integer_files_get_the_bits_that_cost_nothing():
    nodes = [("Conv", "x w", "a", {}), ("Conv", "a d", "c", {"group": 64}), ("Conv", "c v", "y", {})]
    model = lowbit.load(
        model_of(nodes, (64, 9, 9), w=normal(64, 64, 3, 3), d=normal(64, 1, 1, 1), v=normal(16, 64, 1, 1))
    )
    decision = lowbit.plan(model, "int4")
    bits = {tensor.tensor: tensor.given.bits for tensor in decision.quantized}
    assert (bits["w"], bits["d"]) == (4, 7), "64 codes take 64 bytes whatever their width"
    assert bits["v"] > 4


@pytest.mark.parametrize("recipe", ["int5", "icluster2"])
def test_whole_networks_after_all_steps(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(decode_nodes, "UNPACK_BYTES", dict.fromkeys((1, 2, 3), -(10**9)))
    model, images = lowbit.load(networks.residual_network()), networks.inputs(12)
    made = lowbit.quantize(model, recipe, calibration=images, effort="fast", steps=["bias", "rounding"])
    assert made.graph.packed == {tensor.tensor for tensor in made.plan.quantized}
    np.testing.assert_array_equal(run(made.to_bytes(), images), run(in_bytes(made).to_bytes(), images))
    exact, rounded = run(model.to_bytes(), images), run(made.to_bytes(), images)
    assert 0 < np.square(rounded - exact).mean() < np.square(exact).mean()
    path = made.save(tmp_path / "made.onnx")
    assert unpack(pack(path.read_bytes())) == path.read_bytes()


@pytest.mark.usefixtures("always_packed")
def test_saturation_is_emulated_behind_code_books():
    made, x = quantized(CASES["images"](), "icluster4", target="x86-vnni")
    packed, whole = (saturating(one.to_bytes()) for one in (made, in_bytes(made)))
    assert packed.risky == whole.risky
    assert sum(packed.risky.values()) > 0
    np.testing.assert_array_equal(run(packed.content, x), run(whole.content, x))


@pytest.mark.parametrize("name", ["images", "depthwise"])
def test_levels_for_x86_cannot_saturate(name):
    made, _ = quantized(CASES[name](), "icluster4", target="x86")
    largest = 127 if name == "depthwise" else 63
    assert made.graph.weights["w"].scheme == IntegerClusters(4, largest)
    assert np.abs(made.graph.weights["w"].levels()).max() == largest
    assert not saturating(made.to_bytes()).risky
    assert len([line for line in made.plan.adaptations if "VNNI" in line]) == (name == "images")


def test_bytes_of_images_are_read_by_narrow_weights_too():
    how = lowbit.Preprocessing(height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = replace(lowbit.load(CASES["colors"]()), preprocessing=how)
    pixels = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    x = ((pixels / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    for recipe in ("int4", "icluster4"):
        made = lowbit.quantize(model, recipe, calibration=x, steps=())
        found = run(made.to_bytes(lowbit.FileForm(input="uint8")), pixels)
        wanted = run(model.to_bytes(), x)
        assert np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()


def test_schemes_by_name():
    assert parse_recipe("int4").weights == Linear(4)
    assert parse_recipe("icluster4").weights == IntegerClusters(4)
