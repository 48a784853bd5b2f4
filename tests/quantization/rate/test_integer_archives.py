"""Archives of files in integers: the goal is kept, kernels are integer ones, codes are what these can take."""

import collections
from dataclasses import replace

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node, run
from lowbit.calibration.divergence import mean_kl
from lowbit.engines import open_session
from lowbit.errors import SchemeError
from lowbit.formats.onnx.archive import pack_counted, stored_symbols, unpack
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.ops import layers
from lowbit.packing.entropy import entropy_bits
from lowbit.quantization.pack import pack
from lowbit.quantization.passes.activations import INT32_LIMIT
from lowbit.quantization.rate.biases import integer_bias
from lowbit.quantization.rate.goal import Goal

FLOAT_KERNELS = {"Conv", "FusedConv", "Gemm", "MatMul", "ConvTranspose"}
SIZE = 2900


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network(first=24))


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(networks.inputs(12, seed=5), None)


@pytest.fixture(scope="module")
def packed(model, images):
    return pack(model, Goal(size=SIZE, activations="int8"), calibration=images, effort="fast")


def operators_run(content, folder):
    open_session(content, threads=1, optimized_to=folder / "optimized.onnx")
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def integer_layers(content, folder):
    """How many layers OpenVINO computes in integers."""
    openvino = pytest.importorskip("openvino")
    (folder / "model.onnx").write_bytes(content)
    compiled = openvino.Core().compile_model(str(folder / "model.onnx"), "CPU")
    said = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [info["runtimePrecision"].astype(str) for info in said if "runtimePrecision" in info]
    kinds = [info["layerType"].astype(str) for info in said if "runtimePrecision" in info]
    chosen = [kernel for kernel, kind in zip(kernels, kinds, strict=True) if kind in ("Convolution", "FullyConnected")]
    return sum(kernel in ("i8", "u8") for kernel in chosen), len(chosen)


def test_the_goal_is_kept_and_the_file_runs_in_integer_kernels(model, packed, tmp_path):
    assert 0.95 * SIZE <= len(packed.archive) <= SIZE
    assert packed.trials[-1].archive_bytes == len(packed.archive)
    path = packed.save(tmp_path / "m.lowbit")
    assert unpack(path.read_bytes()) == packed.content
    found = operators_run(packed.content, tmp_path)
    assert found["QLinearConv"] == 6
    assert not found.keys() & FLOAT_KERNELS
    assert integer_layers(packed.content, tmp_path) == (7, 7)
    x = networks.inputs(16, seed=9)
    ours, theirs = run(packed.content, x), run(packed.content, x, "openvino")
    # Rounding differs by a step here and there.
    assert np.abs(ours - theirs).mean() < 0.02 * ours.std()
    assert mean_kl(run(model.to_bytes(), x), ours) < 0.1


def test_codes_are_seen_as_codes_and_have_one_scale_for_a_layer_or_a_channel(packed):
    graph = packed.quantized.graph
    symbols = stored_symbols(packed.content)
    assert sorted(found.size for found in symbols.values()) == sorted(
        codes.levels().size for codes in graph.weights.values()
    )
    for layer in layers(packed.quantized.model):
        codes = graph.weights[layer.weight]
        assert codes.scale.size in (1, layer.out_channels)
        assert codes.zero_point is None
    counted = pack_counted(packed.content)[1]
    assert sum(counted.values()) == len(packed.archive)
    # Small tensors have learned little by their end.
    assert counted["codes"] < 1.1 * sum(entropy_bits(found) for found in symbols.values()) / 8 + 64


def test_the_same_call_gives_the_same_bytes(model, images, packed):
    again = pack(model, Goal(size=SIZE, activations="int8"), calibration=images, effort="fast")
    assert again.archive == packed.archive


def test_biases_are_multiples_that_take_a_byte_or_two(packed):
    graph = packed.quantized.graph
    small = [np.abs(bias.codes // max(1, np.gcd.reduce(bias.codes))).max() for bias in graph.biases.values()]
    assert max(small) <= 32767
    assert np.median(small) <= 127
    # The file computes them again, to the bit.
    in_full = to_onnx(replace(graph, packed=frozenset()))
    x = networks.inputs(8, seed=9)
    np.testing.assert_array_equal(run(packed.content, x), run(in_full, x))
    assert 32 in [codes.codes.size for codes in graph.biases.values()]
    stored = onnx.load_from_string(packed.content).graph.initializer
    narrow = (onnx.TensorProto.INT8, onnx.TensorProto.INT16)
    assert any(tensor.data_type in narrow and list(tensor.dims) == [32] for tensor in stored)


def test_without_vnni_codes_are_within_63(model, images):
    goal = Goal(bits_per_weight=40, activations="int8", target="x86")
    packed = pack(model, goal, calibration=images, effort="fast")
    weights = packed.quantized.graph.weights
    largest = {layer.node: np.abs(weights[layer.weight].levels().astype(int)).max() for layer in layers(model)}
    assert largest.pop("deep") > 63  # depthwise: summed in 32 bits
    assert 31 < max(largest.values()) <= 63


def test_at_the_size_of_a_packed_recipe_the_archive_is_as_close(tmp_path):
    """Channels a hundred apart, so that rows do not fit into 8 bits at the step that the multiplier asks for."""
    model = lowbit.load(networks.depthwise_network(clip=6.0))
    seen, unseen = lowbit.open_images(networks.inputs(60, seed=5), None), networks.inputs(100, seed=9)
    reference = run(model.to_bytes(), unseen)
    fixed = lowbit.quantize(model, "int3", calibration=seen, effort="fast").save(tmp_path / "fixed.onnx")
    size = len(pack(fixed).archive)
    packed = pack(model, Goal(size=size, activations="int8"), calibration=seen, effort="fast")
    assert len(packed.archive) <= size
    assert {"rate"} < {trial.recipe for trial in packed.trials}
    assert mean_kl(reference, run(packed.content, unseen)) <= 1.001 * mean_kl(
        reference, run(fixed.read_bytes(), unseen)
    )


@pytest.mark.parametrize(("step", "bits"), [(0.1, 8), (1e-3, 16), (1e-9, 16)])
def test_an_integer_bias_is_as_fine_as_asked(step, bits):
    bias = np.random.default_rng(0).normal(size=64)
    unit = np.float32([2e-5])
    codes, stored = integer_bias(bias, unit, step)
    assert stored.bits == bits
    reach = max(1.5 * step, float(unit[0]), 2 * np.abs(bias).max() / 32767)
    np.testing.assert_allclose(codes.decode(), bias, atol=0.51 * reach)
    np.testing.assert_array_equal(codes.codes, stored.codes.astype(np.int64) * int(stored.scale[0]))


def test_a_bias_of_nothing_and_one_that_is_far_too_large():
    assert not integer_bias(np.zeros(3), np.float32([1e-3]), 0.0)[0].codes.any()
    codes, _ = integer_bias(np.array([1.0, -1e9]), np.float32([1e-3, 1e-3]), 0.0)
    assert -INT32_LIMIT <= codes.codes[1] < -0.9 * INT32_LIMIT


def crowded():
    """A channel of next to no weights and a large bias, as batch norms of tiny variance leave it."""
    proto = networks.residual_network(first=24)
    for tensor in proto.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name == "deep.weight":
            value[3] = 1e-11
        if tensor.name == "deep.bias":
            value[3] = 4.0
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return proto


def mixed():
    """A transposed convolution in groups, a weight read along two axes, a bias that is added behind its product."""
    generator = np.random.default_rng(0)
    weights = {
        "w0": 0.3 * generator.normal(size=(8, 3, 3, 3)),
        "b0": 0.1 * generator.normal(size=8),
        "w1": 0.3 * generator.normal(size=(8, 4, 2, 2)),
        "w2": 0.3 * generator.normal(size=(8, 8)),
        "b2": 0.1 * generator.normal(size=8),
    }
    nodes = [
        make_node("Conv", "x w0 b0", "a", pads=[1] * 4, strides=[2, 2]),
        make_node("Relu", "a", "b"),
        make_node("ConvTranspose", "b w1", "c", strides=[2, 2], group=2),
        make_node("Relu", "c", "d"),
        make_node("GlobalAveragePool", "d", "e"),
        make_node("Flatten", "e", "f"),
        make_node("MatMul", "f w2", "g"),
        make_node("Add", "g b2", "h"),
        make_node("Relu", "h", "i"),
        make_node("Gemm", "i w2", "y", transB=1),
    ]
    return make(nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 8]}, weights)


@pytest.mark.parametrize("make_network", [crowded, mixed])
def test_networks_of_other_kinds_are_close(make_network, images):
    model = lowbit.load(make_network())
    packed = pack(model, Goal(bits_per_weight=40, activations="int8"), calibration=images, effort="fast")
    x = networks.inputs(8, seed=9)
    wanted = run(model.to_bytes(), x)
    for engine in ("onnxruntime", "openvino"):
        assert np.abs(run(packed.content, x, engine) - wanted).max() < 0.15 * wanted.std()
    for bias in packed.quantized.graph.biases.values():
        assert np.abs(bias.codes.astype(np.int64)).max() < INT32_LIMIT


def test_a_layer_that_reads_image_bytes_stays_exact(tmp_path):
    model = lowbit.load(networks.residual_network(first=24))
    model = replace(model, preprocessing=lowbit.Preprocessing(16, 16, scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3))
    generator = np.random.default_rng(0)
    x = ((generator.integers(0, 256, (12, 3, 16, 16)) / 255 - 0.5) / 0.5).astype(np.float32)
    packed = pack(model, Goal(bits_per_weight=40, activations="int8"), calibration=x, effort="fast")
    graph = packed.quantized.graph
    assert graph.byte_input is not None
    assert list(graph.byte_input.layers) == ["stem"]
    assert "QLinearConv" in operators_run(packed.content, tmp_path)
    reference = run(model.to_bytes(), x)
    assert mean_kl(reference, run(packed.content, x)) < 0.05


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"activations": "int7"}, "unknown activations 'int7'"),
        ({"target": "x86"}, "the same for every target"),
        ({"activations": "int8", "target": "x68"}, "unknown target 'x68'"),
        ({"activations": "int8", "target": "qnn"}, "whose compiler stores codes"),
    ],
)
def test_what_cannot_be_says_so(options, says):
    with pytest.raises(SchemeError, match=says):
        Goal(size=3000, **options)


@pytest.mark.parametrize("recipe", ["int4", "icluster3"])
def test_codes_of_a_packed_recipe_take_their_entropy(recipe, tmp_path):
    """A weight large enough to be packed: the coder has to find its codes behind the nodes that unpack them."""
    generator = np.random.default_rng(0)
    proto = make(
        [make_node("Conv", "x w b", "y", pads=[1] * 4)],
        {"x": ["n", 16, 8, 8]},
        ["y"],
        {"w": generator.normal(size=(64, 16, 3, 3)), "b": generator.normal(size=64)},
    )
    seen = generator.normal(size=(8, 16, 8, 8)).astype(np.float32)
    path = lowbit.quantize(lowbit.load(proto), recipe, calibration=seen, steps=()).save(tmp_path / "m.onnx")
    assert "Mod" in {node.op_type for node in onnx.load(path).graph.node}
    (symbols,) = stored_symbols(path.read_bytes()).values()
    assert symbols.size == 64 * 16 * 9
    counted = pack_counted(path.read_bytes())[1]
    assert counted["codes"] < 1.03 * entropy_bits(symbols) / 8
