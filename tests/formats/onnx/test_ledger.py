"""Bytes of small ONNX files, counted by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lowbit
import networks
from graphs import make, make_node
from lowbit.errors import ModelError
from lowbit.formats.onnx.ledger import count_bytes, read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.opening import pack_file

KERNELS = np.arange(6 * 4 * 3 * 3, dtype=np.int8).reshape(6, 4, 3, 3)


def counted(nodes, weights, shape=(1, 4, 8, 8), size=10_000):
    return count_bytes(make(nodes, {"x": list(shape)}, ["y"], weights, opset=21), size)


def check(ledger, *, size=10_000, **wanted):
    """All that holds numbers is one of these: kind -> (bytes, numbers)."""
    holding = {kind: (ledger.bytes[kind], ledger.counts[kind]) for kind in ledger.counts if ledger.bytes[kind]}
    assert holding == wanted
    assert ledger.bytes["graph"] == size - sum(size for size, _ in wanted.values())


def test_float_layers():
    nodes = [
        make_node("Conv", "x w b", "c"),
        make_node("ConvTranspose", "c t", "d"),
        make_node("Flatten", "d", "f"),
        make_node("Gemm", "f g h", "p"),
        make_node("MatMul", "p m", "q"),
        make_node("Add", "q k", "y"),
    ]
    weights = {"w": np.ones((6, 4, 3, 3)), "b": np.ones(6), "t": np.ones((6, 2, 1, 1)), "g": np.ones((72, 5))}
    weights |= {"h": np.ones(5), "m": np.ones((5, 7)), "k": np.ones(7)}
    ledger = counted(nodes, weights)
    numbers = [216, 12, 360, 35]
    check(ledger, float_weights=(4 * sum(numbers), sum(numbers)), biases=(4 * 11, 11), constants=(4 * 7, 7))
    assert [(layer.node, layer.op) for layer in ledger.layers] == [
        ("c", "Conv"),
        ("d", "ConvTranspose"),
        ("p", "Gemm"),
        ("q", "MatMul"),
    ]
    assert [layer.weights for layer in ledger.layers] == numbers
    assert [layer.code_bytes for layer in ledger.layers] == [4 * number for number in numbers]
    assert {layer.side_bytes for layer in ledger.layers} == {0}
    assert {layer.bits_per_weight for layer in ledger.layers} == {32} == {ledger.bits_per_weight}
    assert ledger.weight_bytes == 4 * ledger.weight_count == 4 * sum(numbers)


def test_codes_between_conversions():
    nodes = [
        make_node("QuantizeLinear", "x sx zx", "xq"),
        make_node("DequantizeLinear", "xq sx zx", "xd"),
        make_node("DequantizeLinear", "w sw zw", "wd", axis=0),
        make_node("DequantizeLinear", "b sb", "bd", axis=0),
        make_node("Conv", "xd wd bd", "y"),
    ]
    weights = {"w": KERNELS, "sw": np.ones(6), "zw": np.zeros(6, np.int8), "b": np.ones(6, np.int32), "sb": np.ones(6)}
    weights |= {"sx": np.float32(0.1), "zx": np.uint8(3)}
    ledger = counted(nodes, weights)
    # The scales of the input and of the bias count as scales, too; only those of the weight are the layer's.
    check(ledger, codes=(216, 216), scales=(4 * 13, 13), zero_points=(7, 7), biases=(24, 6))
    (layer,) = ledger.layers
    assert (layer.weights, layer.code_bytes, layer.side_bytes) == (216, 216, 4 * 6 + 6)
    assert layer.bits_per_weight == pytest.approx(8 * 246 / 216)
    assert ledger.bits_per_weight == pytest.approx(8 * (216 + 52 + 7) / 216)
    assert layer.initializers == ("w", "sw", "zw")


def test_codes_that_are_looked_up_and_scaled():
    nodes = [make_node("Cast", "w", "i", to=TensorProto.INT32), make_node("Gather", "book i", "g")]
    nodes += [make_node("Mul", "g s", "m"), make_node("Reshape", "m shape", "r"), make_node("Conv", "x r", "y")]
    weights = {"w": KERNELS.reshape(6, 36), "book": np.ones(256), "s": np.ones((6, 1)), "shape": np.array([6, 4, 3, 3])}
    ledger = counted(nodes, weights)
    check(ledger, codes=(216, 216), code_books=(1024, 256), scales=(24, 6), constants=(32, 4))
    (layer,) = ledger.layers
    assert (layer.weights, layer.code_bytes, layer.side_bytes) == (216, 216, 1024 + 24)


def test_codes_in_planes():
    """3 bits in planes of 2 and 1, zero points of 4 bits taken off: weights are those of the shape."""
    nodes, stored = [], {"shape": np.array([6, 4, 3, 3]), "flat": np.array([-1]), "s": np.float32(0.1)}
    for name, bits, count in (("low", 2, 54), ("high", 1, 27), ("zero", 4, 3)):
        stored |= {name: np.ones((count, 1), np.uint8), f"{name}D": np.int32([1 << i for i in range(0, 8, bits)])}
        stored |= {f"{name}M": np.int32(1 << bits)}
        nodes += [make_node("Cast", name, f"{name}1", to=TensorProto.INT32)]
        nodes += [make_node("Div", f"{name}1 {name}D", f"{name}2"), make_node("Mod", f"{name}2 {name}M", f"{name}3")]
    stored |= {"four": np.int32(4), "channels": np.array([6, 1, 1, 1])}
    nodes += [make_node("Reshape", "low3 flat", "l"), make_node("Reshape", "high3 flat", "h")]
    nodes += [make_node("Mul", "h four", "h4"), make_node("Add", "l h4", "a"), make_node("Reshape", "a shape", "r")]
    nodes += [make_node("Reshape", "zero3 channels", "z"), make_node("Sub", "r z", "d")]
    nodes += [make_node("Cast", "d", "f", to=TensorProto.FLOAT), make_node("Mul", "f s", "w")]
    ledger = counted([*nodes, make_node("Conv", "x w", "y")], stored)
    constants = 4 * (4 + 8 + 2 + 3 * 1) + 4 + 8 * (4 + 1 + 4)
    check(ledger, codes=(81, 216), zero_points=(3, 6), scales=(4, 1), constants=(constants, 4 + 8 + 2 + 3 + 1 + 9))
    (layer,) = ledger.layers
    assert (layer.weights, layer.code_bytes, layer.side_bytes) == (216, 81, 3 + 4)


def test_weights_that_two_layers_read_are_stored_once():
    nodes = [make_node("DequantizeLinear", "w s", "wd"), make_node("MatMul", "x wd", "a"), make_node("Relu", "a", "r")]
    ledger = counted([*nodes, make_node("MatMul", "r wd", "y")], {"w": np.ones((8, 8), np.int8), "s": np.float32(1)})
    check(ledger, codes=(64, 64), scales=(4, 1))
    assert [(layer.weights, layer.code_bytes) for layer in ledger.layers] == [(64, 64), (64, 64)]


def test_constants_in_nodes_and_what_is_no_weight():
    value = numpy_helper.from_array(np.ones((8, 8), np.float32))
    nodes = [
        make_node("Constant", "", "w", value=value),
        make_node("Constant", "", "k", value_ints=[1] * 8),
        make_node("Constant", "", "i", value_int=3),
        make_node("Constant", "", "u", value_ints=[1, 2]),
        make_node("MatMul", "x w", "a"),
        make_node("Add", "a k", "b"),
        make_node("ConstantOfShape", "shape", "ones"),
        make_node("MatMul", "b ones", "c"),
        make_node("Transpose", "c", "t"),
        make_node("MatMul", "c t", "y"),
    ]
    ledger = counted(nodes, {"shape": np.array([8, 8])}, (8, 8))
    check(ledger, float_weights=(256, 64), constants=(8 * (8 + 1 + 2 + 2), 8 + 1 + 2 + 2))
    assert [layer.node for layer in ledger.layers] == ["a"]


@pytest.mark.parametrize("field", ["float_data", "raw_data"])
def test_numbers_take_the_bytes_of_their_field(field):
    model = make([make_node("MatMul", "x w", "y")], {"x": [2, 8]}, ["y"], {})
    numbers = np.ones((8, 8), np.float32)
    data = numbers.tobytes() if field == "raw_data" else numbers.ravel().tolist()
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [8, 8], data, raw=field == "raw_data"))
    spent = count_bytes(model, 1000).bytes["float_weights"]
    # A packed field notes its type and length in front.
    assert spent == 256 if field == "raw_data" else spent == 256 + 3


@pytest.mark.parametrize("noted", [False, True])
def test_external_data_and_its_padding(noted, tmp_path):
    weights = {"w": np.ones((8, 8), np.float16), "v": np.ones((8, 4), np.float16)}
    model = make([make_node("MatMul", "x w", "a"), make_node("MatMul", "a v", "y")], {"x": [2, 8]}, ["y"], weights)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="data", size_threshold=0)
    with (tmp_path / "data").open("ab") as file:
        file.write(bytes(100 + 192 - file.tell()))
    if not noted:
        # Without a length a tensor takes what its shape needs.
        model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            kept = [entry for entry in tensor.external_data if entry.key != "length"]
            del tensor.external_data[:]
            tensor.external_data.extend(kept)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    ledger = read_ledger(tmp_path / "m.onnx")
    size = (tmp_path / "m.onnx").stat().st_size
    assert (ledger.bytes["float_weights"], ledger.bytes["padding"], ledger.bytes["graph"]) == (192, 100, size)
    assert ledger.total == size + 292
    (tmp_path / "data").unlink()
    with pytest.raises(ModelError, match="'data', which is not beside it"):
        read_ledger(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda node: node.ClearField("input"), "has no inputs"),
        (lambda node: node.ClearField("output"), "has no outputs"),
    ],
)
@pytest.mark.parametrize("op", ["Cast", "Conv", "Constant"])
def test_nodes_without_inputs_or_outputs_are_refused(op, damage, match, tmp_path):
    quantized = lowbit.quantize(lowbit.load(networks.residual_network()), "linear4")
    proto = onnx.load_from_string(quantized.to_bytes())
    if op == "Constant":
        proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value_int=1))
        damage, match = (lambda node: node.ClearField("output")), "has no outputs"
    damage(next(node for node in proto.graph.node if node.op_type == op))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    for read in (read_ledger, layer_weights, pack_file):
        with pytest.raises(ModelError, match=match):
            read(path)
