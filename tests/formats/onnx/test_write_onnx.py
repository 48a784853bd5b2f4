"""Written files, re-opened by real runtimes: the decoded weights, the integer kernels, the folded constants."""

import collections
import math

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import change_weights, make, make_node, relative_error, run
from lowbit.engines import installed_engines, open_session
from lowbit.formats.onnx.ledger import count_bytes, read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.graph.ops import layers
from lowbit.quantization.planning.recipes import RECIPES, parse_recipe

EVERY = [make(bits) for widths, make, _ in RECIPES.values() for bits in widths]
WEIGHT_ONLY = [
    recipe.name
    for recipe in EVERY
    if recipe.weights is not None and not recipe.integer and recipe.arithmetic == "float32"
]
UNPACKING = {"Cast", "Div", "Mod", "Gather", "Sub", "Mul", "Reshape", "Slice", "Add", "DequantizeLinear"}


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(24)), None)


@pytest.fixture(scope="module")
def int8(model, images, tmp_path_factory):
    """A file of integers after all steps."""
    return saved(model, "int8", tmp_path_factory.mktemp("int8"), calibration=images)[1]


def saved(model, recipe, path, **options):
    quantized = lowbit.quantize(model, recipe, **options)
    return quantized, quantized.save(path / "model.onnx")


def operators_run(path, folder):
    optimized = folder / "optimized.onnx"
    open_session(path, threads=1, optimized_to=optimized)
    return collections.Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.parametrize("recipe", WEIGHT_ONLY)
def test_every_runtime_decodes_the_weights_bit_for_bit(model, recipe, tmp_path):
    quantized, path = saved(model, recipe, tmp_path)
    weights = layer_weights(path)
    for layer in layers(model):
        codes = quantized.graph.weights.get(layer.weight)
        wanted = model.weights[layer.weight] if codes is None else codes.decode()
        np.testing.assert_array_equal(weights[layer.node], wanted, err_msg=layer.node)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("linear4", {"per": "tensor"}),
        ("linear4", {"symmetric": False}),
        ("linear8", {"symmetric": False}),
        ("linear11", {"symmetric": False, "per": "tensor"}),
        ("linear16", {"symmetric": False}),
        ("linear5", {"per": "group", "group_size": 4}),
        ("cluster3", {"per": "channel"}),
        ("cluster2", {"per": "group", "group_size": 5}),
    ],
)
def test_every_way_to_share_scales_decodes_bit_for_bit(recipe, options, tmp_path):
    generator = np.random.default_rng(3)
    weight = generator.normal(size=(22, 16, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "y", name="conv")]
    proto = make(nodes, {"x": [1, 16, 8, 8]}, ["y"], {"w": weight}, opset=13)
    quantized, path = saved(lowbit.load(proto), parse_recipe(recipe, **options), tmp_path)
    assert not quantized.plan.downgrades
    np.testing.assert_array_equal(layer_weights(path)["conv"], quantized.graph.weights["w"].decode())
    x = generator.normal(size=(1, 16, 8, 8)).astype(np.float32)
    outputs = [open_session(path, engine=engine).run({"x": x})["y"] for engine in installed_engines()[:2]]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=1e-4 * np.abs(outputs[0]).max())


@pytest.mark.parametrize("recipe", ["linear8", "linear16", "linear3", "cluster8", "cluster4", "cluster2", "cluster7"])
def test_no_unpacking_is_left_when_onnxruntime_runs(model, recipe, tmp_path):
    _, path = saved(model, recipe, tmp_path)
    found = operators_run(path, tmp_path)
    _, plain = saved(model, "float", tmp_path)
    assert found == operators_run(plain, tmp_path)


@pytest.mark.parametrize("recipe", ["linear8", "linear3", "cluster8", "cluster4", "cluster2", "cluster7"])
def test_no_unpacking_is_left_when_openvino_runs(model, recipe, tmp_path):
    openvino = pytest.importorskip("openvino")
    _, path = saved(model, recipe, tmp_path)
    compiled = openvino.Core().compile_model(str(path), "CPU")
    kinds = collections.Counter(
        op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()
    )
    assert kinds["Convolution"] >= 5
    assert not {"Gather", "Divide", "Mod", "Convert", "Eltwise_Div"} & set(kinds), kinds


def test_float_file_gives_bit_identical_outputs(model, tmp_path):
    _, path = saved(model, "float", tmp_path)
    x = networks.inputs(4)
    expected = open_session(model.to_bytes(), threads=1).run({"x": x})["logits"]
    np.testing.assert_array_equal(open_session(path, threads=1).run({"x": x})["logits"], expected)


def test_integer_file_runs_on_integer_kernels_only(int8, tmp_path):
    found = operators_run(int8, tmp_path)
    assert found["QLinearConv"] == 6
    assert found["QLinearAdd"] == 1
    assert found["QGemm"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert not set(found) & {"Conv", "Clip", "Relu", "Add", "Gemm", "ReduceMean"}, found
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == 0


def test_integer_file_agrees_with_float(model, int8):
    x = networks.inputs(64, seed=9)
    expected = open_session(model.to_bytes()).run({"x": x})["logits"]
    found = open_session(int8).run({"x": x})["logits"]
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < 0.05


def test_integer_bias_of_a_nearly_dead_channel_does_not_overflow(images, tmp_path):
    dying = {"deep.weight": 1e-12, "deep.bias": 4.0}
    model = lowbit.load(change_weights(networks.residual_network(), 3, dying))
    quantized, path = saved(model, "int8", tmp_path, calibration=images)
    wanted = quantized.model.weights["deep.bias"][3]  # 4.0, but for equalization and bias correction
    assert 2.0 < wanted < 8.0
    assert quantized.graph.biases["deep"].decode()[3] == pytest.approx(wanted, rel=1e-3)
    x = networks.inputs(16)
    expected = open_session(model.to_bytes()).run({"x": x})["logits"]
    found = open_session(path).run({"x": x})["logits"]
    assert np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)) < 0.05


@pytest.mark.parametrize("recipe", ["float", "int8", *WEIGHT_ONLY])
def test_ledger_sums_to_the_file(model, images, recipe, tmp_path):
    # What steps change are codes and biases, whatever their scheme: two recipes go through all of them.
    steps = None if recipe in ("linear4", "cluster3") else ()
    quantized, path = saved(model, recipe, tmp_path, calibration=images, steps=steps)
    ledger = read_ledger(path)
    assert sum(ledger.bytes.values()) == ledger.total == path.stat().st_size
    assert ledger.weight_count == sum(model.weights[layer.weight].size for layer in layers(model))
    counted = "float_weights" if recipe.endswith("float16w") else "codes"
    assert ledger.counts[counted] == sum(math.prod(codes.shape) for codes in quantized.graph.weights.values())


def test_counting_takes_no_longer_for_a_product_of_activations_behind_many_sums():
    """Sixty doublings in a row: a walk through every path behind the product would never end."""
    nodes = [make_node("MatMul", "x w", "t0"), *(make_node("Add", f"t{i} t{i}", f"t{i + 1}") for i in range(60))]
    nodes += [make_node("Transpose", "t60", "u"), make_node("MatMul", "t60 u", "y")]
    ledger = count_bytes(make(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"w": np.eye(4)}), 1000)
    assert [layer.op for layer in ledger.layers] == ["MatMul"]
    assert ledger.bytes["float_weights"] == 64


@pytest.mark.parametrize("given", [[], ["zero"]])
def test_codes_are_padded_with_the_code_of_zero(given):
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(3, 3, 1, 1)), "b": np.full(3, 0.7), "p": np.array([0, 0, 1, 2, 0, 0, 0, 1])}
    nodes = [make_node("Conv", "x w b", "c"), make_node("Pad", " ".join(["c", "p", *given]), "d")]
    # A convolution that finds its own padding leaves the Pad where it is.
    nodes += [make_node("Conv", "d w", "y", auto_pad="SAME_UPPER")]
    model = lowbit.load(make(nodes, {"x": ["n", 3, 5, 6]}, ["y"], weights | {"zero": np.float32(0)}))
    x = rng.normal(size=(16, 3, 5, 6)).astype(np.float32)
    content = lowbit.quantize(model, "int8", calibration=list(x), steps=()).to_bytes()
    pad = next(node for node in onnx.load_from_string(content).graph.node if node.op_type == "Pad")
    assert len(pad.input) == 3
    found, wanted = (open_session(data, threads=1).run({"x": x})["y"] for data in (content, model.to_bytes()))
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    np.testing.assert_array_equal(found[wanted == 0], 0)


BYTES = ["Cast", "Div", "Mod"]  # a table of what each byte holds
FIELDS = ["Cast", "Gather", "Reshape"]  # codes by that table


@pytest.mark.parametrize(
    ("recipe", "outputs", "tables", "unpacking"),
    [
        # A plane that fills its bytes gets its shape at once; else its last byte has fields that are cut off.
        ("linear4", 8, BYTES, FIELDS),
        ("linear4", 7, BYTES, [*FIELDS, "Slice", "Reshape"]),
        ("cluster2", 8, BYTES, FIELDS),
        ("cluster2", 7, BYTES, [*FIELDS, "Slice", "Reshape"]),
        # Planes are joined, from the second on at their places, which their tables know.
        ("linear3", 8, [*BYTES, "Div", "Mod", "Mul"], [*FIELDS, *FIELDS, "Add"]),
        ("linear3", 7, [*BYTES, "Div", "Mod", "Mul"], [*FIELDS, "Slice", *FIELDS, "Slice", "Add", "Reshape"]),
        (
            "linear7", 8, [*BYTES, "Sub", "Div", "Mod", "Mul", "Div", "Mod", "Mul"],
            [*FIELDS, *FIELDS, "Add", *FIELDS, "Add"],
        ),
        ("linear12", 8, [*BYTES, "Mul"], ["Cast", "Sub", *FIELDS, "Add", "Reshape"]),
        ("linear12", 7, [*BYTES, "Mul"], ["Cast", "Sub", *FIELDS, "Slice", "Add", "Reshape"]),
        # Whole bytes need nothing of the sort.
        ("linear8", 7, [], ["Cast"]),
    ],
)  # fmt: skip
def test_no_more_nodes_than_unpacking_needs(recipe, outputs, tables, unpacking):
    weight = np.random.default_rng(0).normal(size=(outputs, 5, 3, 3))
    proto = make([make_node("Conv", "x w", "y")], {"x": [1, 5, 9, 9]}, ["y"], {"w": weight})
    nodes = onnx.load_from_string(lowbit.quantize(lowbit.load(proto), recipe).to_bytes()).graph.node
    ops = [node.op_type for node in nodes]
    assert ops[: len(tables)] == tables
    ops = ops[len(tables) :]
    assert ops[: len(unpacking)] == unpacking
    assert set(ops[len(unpacking) :]) <= {"Cast", "Sub", "Mul", "Gather", "Conv"}


@pytest.mark.parametrize(("recipe", "bits"), [("linear4", 4), ("cluster2", 2), ("cluster3", 3), ("linear12", 12)])
def test_codes_take_their_bits_and_no_more(model, recipe, bits, tmp_path):
    quantized, path = saved(model, recipe, tmp_path)
    ledger = read_ledger(path)
    weights = quantized.graph.weights
    widths = {codes.bits for codes in weights.values()}
    assert widths == {bits} if bits > 8 else min(widths) == bits < max(widths) <= 8  # small weights get more
    wanted = sum(np.prod(codes.shape) * codes.bits for codes in weights.values())
    assert wanted / 8 <= ledger.bytes["codes"] <= wanted / 8 + len(weights) * 4


def test_same_input_gives_the_same_bytes(images, int8):
    model = lowbit.load(networks.residual_network())
    assert lowbit.quantize(model, "int8", calibration=images).to_bytes() == int8.read_bytes()
    first, second = (lowbit.quantize(model, "cluster3", calibration=images, effort="fast") for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


def test_padding_and_slicing_stay_on_codes(tmp_path):
    """The shortcut of a CIFAR ResNet: Slice, then Pad, then Add."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(scale=0.2, size=(8, 4, 3, 3)), "v": generator.normal(scale=0.3, size=(4, 3, 3, 3)),
        "starts": [0, 0], "ends": [16, 16], "axes": [2, 3], "steps": [2, 2], "pads": [0, 2, 0, 0, 0, 2, 0, 0],
    }  # fmt: skip
    nodes = [
        make_node("Conv", "x v", "a", name="first", pads=[1] * 4),
        make_node("Relu", "a", "b", name="relu"),
        make_node("Conv", "b w", "c", name="second", pads=[1] * 4, strides=[2, 2]),
        make_node("Slice", "b starts ends axes steps", "d", name="slice"),
        make_node("Pad", "d pads", "e", name="pad"),
        make_node("Add", "c e", "f", name="sum"),
        make_node("GlobalAveragePool", "f", "g", name="pool"),
        make_node("Flatten", "g", "y", name="flat"),
    ]
    model = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))
    images = lowbit.open_images(list(networks.inputs(16)), None)
    _, path = saved(model, "int8", tmp_path, calibration=images, steps=())
    found = operators_run(path, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["QLinearAdd"] == found["Pad"] == found["Slice"] == 1
    assert found["DequantizeLinear"] == 1
    x = networks.inputs(8, seed=5)
    expected = open_session(model.to_bytes()).run({"x": x})["y"]
    for engine in installed_engines()[:2]:
        result = open_session(path, engine=engine).run({"x": x})["y"]
        assert np.sqrt(np.mean((result - expected) ** 2) / np.mean(expected**2)) < 0.05


def test_three_colors_become_four_channels_where_the_kernel_wants_them(images, tmp_path):
    """ONNX Runtime's direct uint8 convolution takes multiples of four channels, and 16 outputs or more."""
    proto = networks.residual_network(first=16)
    model = lowbit.load(proto)
    quantized, path = saved(model, "int8", tmp_path, calibration=images, steps=())
    optimized = tmp_path / "optimized.onnx"
    open_session(path, threads=1, optimized_to=optimized)
    graph = onnx.load(optimized).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QLinearConv")
    assert constants[first.input[3]] == (16, 4, 3, 3)
    assert [node.op_type for node in graph.node].count("Pad") == 1
    # The file holds the weight in its own shape, and that is what is read from it.
    np.testing.assert_array_equal(layer_weights(path)["stem"], quantized.graph.weights["stem.weight"].decode())
    assert read_ledger(path).counts["codes"] == sum(model.weights[layer.weight].size for layer in layers(model))
    x = networks.inputs(8, seed=9)
    plain = onnx.load(path)
    reached = without_padding(plain)
    expected = open_session(reached.SerializeToString(), threads=1).run({"x": x})["logits"]
    np.testing.assert_array_equal(open_session(path, threads=1).run({"x": x})["logits"], expected)


def without_padding(proto):
    """The same file with every Pad taken out: what it would be for three channels."""
    padded = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Pad"}
    assert len(padded) == 2
    kept = [node for node in proto.graph.node if node.op_type != "Pad"]
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = padded.get(name, name)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    del proto.graph.value_info[:]
    return proto


def positions_network(*rest):
    """A convolution, MaxPool with its second output, which `rest` read, and a convolution."""
    nodes = [
        make_node("Conv", "x w", "c", pads=[1] * 4),
        make_node("Relu", "c", "r"),
        make_node("MaxPool", "r", "p at", kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Conv", "p v", "d", pads=[1] * 4),
        *rest,
    ]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(scale=0.3, size=(8, 3, 3, 3)),
        "v": rng.normal(scale=0.2, size=(8, 8, 3, 3)),
        "low": np.int64(0),
        "high": np.int64(1000),
        "rows": np.array([1, 8, -1]),
        "half": np.float32(0.01),
    }
    used = {name for item in nodes for name in item.input}
    weights = {name: value for name, value in weights.items() if name in used}
    output = "at" if not rest else rest[-1].output[0]
    types = {output: onnx.TensorProto.INT64} if output in ("at", "flat") else {}
    return make(nodes, {"x": [1, 3, 16, 16]}, ["d", output] if output != "d" else ["d"], weights, types=types)


@pytest.mark.parametrize(
    "rest",
    [
        (),
        (make_node("MaxUnpool", "d at", "y", kernel_shape=[2, 2], strides=[2, 2]),),
        (make_node("Clip", "at low high", "limited"), make_node("Reshape", "limited rows", "flat")),
        (
            make_node("Cast", "at", "float", to=1),
            make_node("Mul", "float half", "scaled"),
            make_node("Concat", "scaled d", "both", axis=1),
        ),
    ],
    ids=["output", "unpooled", "moved", "computed on"],
)
def test_positions_of_a_max_pool_stay_whole_numbers(rest):
    """A second output of int64 is no activation: it has no scale and no conversions."""
    proto = positions_network(*rest)
    x = networks.inputs(1)
    quantized = lowbit.quantize(lowbit.load(proto), "int8", calibration=networks.inputs(24), steps=())
    assert {"r", "p"} <= set(quantized.graph.activations)
    assert "at" not in quantized.graph.activations
    content = onnx.load_from_string(quantized.to_bytes())
    (pool,) = [node for node in content.graph.node if node.op_type == "MaxPool"]
    given = make_node("Identity", pool.output[1], "positions")
    content.graph.node.append(given)
    content.graph.output.append(onnx.helper.make_tensor_value_info("positions", onnx.TensorProto.INT64, None))
    found = open_session(content.SerializeToString(), threads=1).run({"x": x})
    proto.graph.node.append(make_node("Identity", "at", "positions"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("positions", onnx.TensorProto.INT64, None))
    wanted = open_session(proto.SerializeToString(), threads=1).run({"x": x})
    # Values that are rounded to one code may change places.
    assert (found["positions"] == wanted["positions"]).mean() > 0.9
    assert np.abs(found["d"] - wanted["d"]).max() < 0.05 * np.abs(wanted["d"]).max()


SOME_AXES = {
    "pad": ("Pad", "c by none at", {}, {"by": np.array([0, 1, 1, 0]), "at": np.array([2, 3])}),
    "reflecting pad": ("Pad", "c by none at", {"mode": "reflect"}, {"by": np.array([0, 1, 1, 0]), "at": [2, 3]}),
    "sizes": ("Resize", "c none none to", {"axes": [2, 3]}, {"to": np.array([13, 11])}),
    "turned scales": ("Resize", "c none by", {"axes": [-1, -2]}, {"by": np.array([1.5, 2.0])}),
    "linear sizes": ("Resize", "c none none to", {"axes": [3, 2], "mode": "linear"}, {"to": np.array([13, 11])}),
}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
@pytest.mark.parametrize("name", SOME_AXES)
def test_pads_and_sizes_of_some_axes_run_between_integer_layers(name, engine, tmp_path):
    """ONNX Runtime moves transpositions past them as if they spoke of all axes."""
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    op, reads, attributes, amounts = SOME_AXES[name]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(scale=0.3, size=(16, 3, 3, 3)),
        "v": rng.normal(scale=0.1, size=(8, 16, 3, 3)),
        **amounts,
    }
    moved = onnx.helper.make_node(
        op, [part if part != "none" else "" for part in reads.split(" ")], ["m"], **attributes
    )
    nodes = [make_node("Conv", "x w", "c", strides=[2, 2]), moved, make_node("Conv", "m v", "y")]
    proto = make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights, opset=18)
    quantized = lowbit.quantize(lowbit.load(proto), "int8", calibration=networks.inputs(24), steps=())
    ending = "tflite" if engine == "litert" else "onnx"
    path = quantized.save(tmp_path / f"int8.{ending}", lowbit.FileForm({"onnxruntime": "onnx"}.get(engine, engine)))
    x = networks.inputs(4, seed=3)
    wanted = run(proto.SerializeToString(), x)
    assert relative_error(run(path, x, engine), wanted) < 0.05
