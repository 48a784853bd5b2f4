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
from lowbit.packing.entropy import entropy_bits
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.schemes.clusters import Clusters

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
        wanted = np.asarray(codes.codes if recipe.startswith("linear") else codes.indices, np.int64).reshape(-1)
        assert name in symbols or len(symbols) == len(quantized.graph.weights), name
        if name in symbols:
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
    content = written(model, "int8", tmp_path, calibration=images)[1]
    assert unpack(pack(content)) == content
    assert sum(symbols.size for symbols in stored_symbols(content).values()) == 1436, "all weights, no zero points"
    content = networks.residual_network().SerializeToString()
    assert unpack(pack(content)) == content
    assert stored_symbols(content) == {}
    assert len(pack(content)) < 0.95 * len(content)


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
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        pack(b"\xff\xfe not a model")
    model = networks.residual_network()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(ModelError, match=r"is in another file.*one file first"):
        pack((tmp_path / "m.onnx").read_bytes())


@pytest.mark.parametrize("recipe", ["linear4", "linear8", "cluster4"])
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
