"""Packed models: the same ONNX file comes back, the codes in it are recognized, and it is as small as their entropy."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lowbit
import networks
from graphs import make, make_node
from lowbit.errors import ModelError
from lowbit.formats.onnx.archive import is_archive, pack, stored_symbols, unpack
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.ops import layers
from lowbit.packing.archive import section_bytes
from lowbit.packing.bits import pack as pack_bits
from lowbit.packing.entropy import entropy_bits
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import LinearCodes

WEIGHT_ONLY = [f"linear{bits}" for bits in range(2, 17)] + [f"cluster{bits}" for bits in range(1, 9)]


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


def written(model, recipe, folder, **options):
    quantized = lowbit.quantize(model, recipe, **options)
    return quantized, quantized.save(folder / "model.onnx").read_bytes()


@pytest.mark.parametrize("recipe", WEIGHT_ONLY)
def test_the_file_comes_back_and_its_codes_are_recognized(model, recipe, tmp_path):
    quantized, content = written(model, recipe, tmp_path)
    data = pack(content)
    assert is_archive(data)
    assert unpack(data) == content
    assert pack(content) == data
    symbols = stored_symbols(content)
    for name, codes in quantized.graph.weights.items():
        # Depthwise layers of narrow recipes have linear codes, whatever the others have.
        wanted = np.asarray(codes.codes if isinstance(codes, LinearCodes) else codes.indices, np.int64).reshape(-1)
        assert name in symbols or len(symbols) == len(quantized.graph.weights), name
        if name in symbols:
            assert symbols[name].shape == (*codes.shape, 1, 1)[:4]
            found = symbols[name].astype(np.int64).reshape(-1)
            np.testing.assert_array_equal(found - found.min(), wanted - wanted.min(), err_msg=name)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("linear4", {"symmetric": False}),
        ("linear5", {"per": "group", "group_size": 4}),
        ("cluster3", {"per": "channel"}),
        ("cluster2", {"per": "group", "group_size": 5}),
    ],
)
def test_other_forms_come_back_too(recipe, options, tmp_path):
    weight = np.random.default_rng(3).normal(size=(22, 16, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "y", name="conv")]
    proto = make(nodes, {"x": [1, 16, 8, 8]}, ["y"], {"w": weight}, opset=13)
    content = written(lowbit.load(proto), parse_recipe(recipe, **options), tmp_path)[1]
    assert unpack(pack(content)) == content
    assert next(iter(stored_symbols(content).values())).size >= weight.size, "padding of groups counts as codes"


def test_integer_and_float_models(model, tmp_path):
    images = lowbit.open_images(list(networks.inputs(8)), None)
    content = written(model, "int8", tmp_path, calibration=images, steps=())[1]
    assert unpack(pack(content)) == content
    assert sum(symbols.size for symbols in stored_symbols(content).values()) == 1436, "all weights, no zero points"
    content = networks.residual_network().SerializeToString()
    assert unpack(pack(content)) == content
    assert stored_symbols(content) == {}
    assert len(pack(content)) < 0.95 * len(content)


@pytest.mark.parametrize("shape", [(17, 15), (6, 4, 3), (6, 4, 5, 3), (6, 4, 3, 2, 5)])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_symbols_stand_as_rows_columns_and_kernels(shape, bits):
    kernel = shape[2:]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight = values if kernel else np.ascontiguousarray(values.T)
    node = make_node("Conv" if kernel else "MatMul", "x w", "y")
    model = lowbit.load(make([node], {"x": [1, shape[1], *(9 for _ in kernel)]}, ["y"], {"w": weight}))
    quantized = lowbit.quantize(model, f"linear{bits}")
    ((name, codes),) = quantized.graph.weights.items()
    symbols = stored_symbols(quantized.to_bytes())[name]
    high, wide = kernel[:-1], (kernel or (1,))[-1]
    assert symbols.shape == (*weight.shape[:2], int(np.prod(high)), wide)
    wanted = codes.codes.astype(np.int64).reshape(symbols.shape)
    np.testing.assert_array_equal(symbols.astype(np.int64) - int(symbols.min()), wanted - wanted.min())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("shape", [(320,), (2, 448), (3, 1, 320)])
def test_stored_codes_of_any_shape_and_type_are_rows_of_something(shape, dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    table = np.random.default_rng(0).integers(low, high, shape, dtype, endpoint=True)
    model = make([make_node("Identity", "x", "y")], {"x": [1]}, ["y"], {"table": table})
    symbols = stored_symbols(model.SerializeToString(), None)["table"]
    np.testing.assert_array_equal(symbols.reshape(shape), table.astype(np.int64) - low)
    assert symbols.shape == ((*shape, 1, 1, 1)[:4] if len(shape) < 3 else (*shape[:2], 1, shape[2]))


def joined(planes, target):
    """A network with a weight of 5 channels of 3x3x3 that is joined of planes: rows of (codes, bits, shift, cuts)."""
    stored, nodes, parts = {"places": np.array(target), "step": np.float32(0.1)}, [], []

    def then(op, value, constants, **attributes):
        names = [f"{value}{op}{i}" for i in range(len(constants))]
        stored.update(zip(names, constants, strict=True))
        nodes.append(make_node(op, " ".join([value, *names]), f"{value}{op}", **attributes))
        return f"{value}{op}"

    for index, (codes, bits, shift, cuts) in enumerate(planes):
        stored[f"plane{index}"] = pack_bits(codes, bits).reshape(-1, 1)
        value = then("Cast", f"plane{index}", (), to=TensorProto.INT32)
        value = then("Div", value, [np.int32([1 << place for place in range(0, 8, bits)])])
        value = then("Reshape", then("Mod", value, [np.int32([1 << bits])]), [np.array([-1])])
        for end in cuts:
            value = then("Slice", value, [np.array([0]), np.array([end])])
        parts.append(then("Mul", value, [np.int32(1 << shift)]) if shift else value)
    nodes += [make_node("Add", f"{parts[0]} {part}", "sum") for part in parts[1:]]
    nodes += [make_node("Reshape", f"{'sum' if parts[1:] else parts[0]} places", "w"), make_node("Conv", "x d", "y")]
    nodes[-1:-1] = [make_node("Cast", "w", "c", to=TensorProto.FLOAT), make_node("Mul", "c step", "d")]
    return make(nodes, {"x": [1, 3, 9, 9]}, ["y"], stored).SerializeToString()


LOW, HIGH = np.random.default_rng(4).integers(0, [[16], [4]], (2, 135)).astype(np.uint8)
MORE = np.append(LOW, np.uint8([7, 1, 5]))
KERNELS = (5, 3, 3, 3)


@pytest.mark.parametrize(
    ("planes", "target", "wanted", "shape"),
    [
        ([(LOW, 4, 0, [135])], KERNELS, LOW, KERNELS),
        ([(LOW, 4, 0, [135]), (HIGH, 2, 4, [135])], KERNELS, LOW + 16 * HIGH, KERNELS),
        ([(HIGH, 2, 4, [135]), (LOW, 4, 0, [135])], KERNELS, LOW + 16 * HIGH, KERNELS),
        ([(HIGH, 2, 0, [135]), (LOW, 4, 2, [135])], KERNELS, HIGH + 4 * LOW, KERNELS),
        # The last cut says how many there are; a shape with an open extent says nothing.
        ([(MORE[:136], 4, 0, [136, 135])], KERNELS, LOW, KERNELS),
        ([(LOW, 4, 0, [135])], (5, 3, -1, 3), LOW, (135, 1, 1, 1)),
        # Left as they are: a gap between the planes, planes that overlap, one with another byte behind.
        ([(LOW, 4, 0, [135]), (HIGH, 2, 5, [135])], KERNELS, None, None),
        ([(LOW, 4, 0, [135]), (HIGH, 2, 3, [135])], KERNELS, None, None),
        ([(HIGH, 2, 1, [135])], KERNELS, None, None),
        ([(MORE, 4, 0, [135])], KERNELS, None, None),
    ],
)
def test_planes_of_other_tools_are_joined_where_they_fit(planes, target, wanted, shape):
    content = joined(planes, target)
    assert unpack(pack(content)) == content
    symbols = stored_symbols(content)
    assert ("d" in symbols) == (wanted is not None)
    if wanted is None:
        return
    assert symbols["d"].shape == shape
    np.testing.assert_array_equal(symbols["d"].reshape(-1), wanted)


def foreign() -> bytes:
    """What other tools write: 4-bit types, constants in nodes, typed data fields, embeddings, a string."""
    rng = np.random.default_rng(0)
    four = helper.make_tensor("w", TensorProto.INT4, (6, 4, 3, 3), rng.bytes(108), raw=True)
    odd = helper.make_tensor("v", TensorProto.UINT4, (3, 45), bytes(rng.integers(0, 16, 68).astype(np.uint8)), raw=True)
    scale = helper.make_tensor("s", TensorProto.FLOAT, (), [0.1])
    constant = numpy_helper.from_array(np.ones((4, 4), np.float32))
    nodes = [
        make_node("Constant", "", "c", value=constant),
        make_node("DequantizeLinear", "w s", "wf"),
        make_node("Conv", "x wf", "y", name="conv"),
    ]
    weights = {"table": rng.integers(0, 9, (50, 4)).astype(np.uint8), "half": rng.normal(size=300).astype(np.float16)}
    model = make(nodes, {"x": [1, 4, 8, 8]}, ["y"], weights, opset=21)
    packed = [four, odd, scale, *model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(packed)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("kind", "most"),
    [("FLOAT", 1160), ("DOUBLE", 1125), ("FLOAT16", 1038), ("BFLOAT16", 812)]
    + [(f"{sign}INT{bits}", most) for sign in ("", "U") for bits, most in ((32, 1043), (64, 1055))],
)
def test_numbers_are_split_into_their_own_bytes(kind, most):
    """600 numbers that differ in their low bytes: of another width, the archive would be larger than this."""
    code = getattr(TensorProto, kind)
    numbers = (np.random.default_rng(0).permutation(600) + 1000).astype(helper.tensor_dtype_to_np_dtype(code))
    model = make([make_node("Identity", "x", "y")], {"x": [1]}, ["y"], {})
    model.graph.initializer.append(helper.make_tensor("t", code, [600], numbers.tobytes(), raw=True))
    content = model.SerializeToString()
    assert unpack(pack(content)) == content
    assert len(pack(content)) <= most


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_layers_without_a_weight_are_no_obstacle(op):
    content = make([make_node(op, "x", "y")], {"x": [1]}, ["y"], {"table": np.zeros(300)}).SerializeToString()
    assert unpack(pack(content)) == content
    assert stored_symbols(content) == {}


def test_files_of_other_tools():
    content = foreign()
    assert unpack(pack(content)) == content
    symbols = stored_symbols(content, None)
    assert "v" not in stored_symbols(content)
    assert symbols["wf"].shape == tuple(onnx.load_from_string(content).graph.initializer[0].dims)
    assert symbols["wf"].size == 216
    assert symbols["v"].size == 135
    assert symbols["table"].size == 200
    wanted = numpy_helper.to_array(onnx.load_from_string(content).graph.initializer[0]).astype(np.int64)
    np.testing.assert_array_equal(symbols["wf"].astype(np.int64) - 8, wanted)


def test_fields_that_protobuf_would_order_otherwise():
    # The graph first and an unknown field last: serialized again by protobuf, the order would change.
    model = onnx.load_from_string(foreign())
    graph = model.graph.SerializeToString()
    del model.graph.node[:], model.graph.initializer[:], model.graph.input[:], model.graph.output[:]
    model.ClearField("graph")
    length = len(graph)
    varint = bytes([length & 127 | 128, length >> 7])
    assert 128 <= length < 1 << 14
    content = b"\x3a" + varint + graph + model.SerializeToString() + b"\xfa\x7f\x03abc"
    assert onnx.load_from_string(content).SerializeToString() != content
    assert unpack(pack(content)) == content
    assert "wf" in stored_symbols(content)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not an ONNX file"):
        pack(b"\xff\xfe not a model")
    model = networks.residual_network()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(ModelError, match=r"is in another file.*one file first"):
        pack((tmp_path / "m.onnx").read_bytes())


@pytest.mark.parametrize("recipe", ["linear8", "cluster4"])
def test_within_a_percent_of_the_entropy_on_a_real_network(shared_data, recipe, tmp_path):
    model = lowbit.load(shared_data / "rps128" / "mobilenet_v2.onnx")
    content = written(model, recipe, tmp_path)[1]
    data = pack(content)
    symbols = stored_symbols(content, None)
    assert sum(item.size for item in symbols.values()) > 2_190_000
    bound = sum(entropy_bits(item) for item in symbols.values()) / 8
    parts = section_bytes(data)
    assert parts["codes"] + parts["header"] + parts["plan"] <= 1.01 * bound


def test_contexts_pay_on_a_network_of_kernels(shared_data, tmp_path):
    model = lowbit.load(shared_data / "cifar10" / "resnet20.onnx")
    content = written(model, "linear4", tmp_path)[1]
    bound = sum(entropy_bits(item) for item in stored_symbols(content).values()) / 8
    assert len(pack(content)) < bound, "the whole file is smaller than the entropy of its codes"


@pytest.mark.parametrize("scheme", [Clusters(4, "channel", half=True), Clusters(3, "group", group_size=2), Clusters(2)])
def test_layers_that_share_a_look_up_are_all_counted(scheme, tmp_path):
    """Where each channel's code book begins is no code, and no reason to count a layer twice or not at all."""
    model = lowbit.load(networks.residual_network())
    weights = {layer.weight: model.weights[layer.weight] for layer in layers(model)}
    codes = {layer.weight: scheme.encode(weights[layer.weight], layer.channel_axis) for layer in layers(model)}
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(QuantizedGraph(model, weights=codes)))
    ledger = read_ledger(path)
    assert ledger.counts["codes"] == sum(weight.size for weight in weights.values())
    assert ledger.counts["code_books"] == sum(found.code_books.size for found in codes.values())
    assert sum(ledger.bytes.values()) == path.stat().st_size
