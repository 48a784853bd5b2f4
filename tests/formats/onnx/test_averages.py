"""Average pools as integer convolutions: the same averages, and nobody takes the ones for weights."""

import numpy as np
import onnx
import pytest
from onnx import helper

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit.engines import installed_engines, open_session
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.measure import measure

SIZE = (12, 10)


def network(*, size=SIZE, **pool):
    """A convolution, the pool, and a convolution."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(scale=0.3, size=(16, 3, 3, 3)).astype(np.float32),
        "v": generator.normal(scale=0.3, size=(5, 16, 1, 1)).astype(np.float32),
    }
    nodes = [
        make_node("Conv", "x w", "c", name="first", pads=[1] * 4),
        make_node("AveragePool", "c", "p", name="pool", **pool),
        make_node("Conv", "p v", "d", name="last"),
        make_node("GlobalAveragePool", "d", "g", name="mean"),
        make_node("Flatten", "g", "y", name="flat"),
    ]
    return make(nodes, {"x": ["n", 3, *size]}, ["y"], weights, opset=19, ir_version=9)


def images(count=12, size=SIZE):
    return np.random.default_rng(1).normal(size=(count, 3, *size)).astype(np.float32)


def quantized(proto, x):
    model = lowbit.load(proto)
    return lowbit.quantize(model, "int8", calibration=lowbit.open_images(list(x), None), steps=())


def kinds(content, folder):
    open_session(content, threads=1, optimized_to=folder / "optimized.onnx")
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


POOLS = {
    "plain": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel_shape": [3, 3]},
    "counted padding": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    "padding": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    "uneven padding": {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]},
    "dilated": {"kernel_shape": [2, 3], "pads": [1, 2, 1, 2], "dilations": [2, 2]},
    "whole": {"kernel_shape": list(SIZE)},
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_averages_are_the_same_everywhere(name, engine, tmp_path):
    """Against float between conversions, position by position: at most one code off, two at borders."""
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    x = images()
    made = quantized(network(**POOLS[name]), x)
    proto = onnx.load_from_string(made.to_bytes())
    codes = made.graph.activations
    assert not [node for node in proto.graph.node if node.op_type == "AveragePool"]
    producers = {output: node for node in proto.graph.node for output in node.output}
    (last,) = [node for node in proto.graph.node if node.name == "last"]
    (first,) = [node for node in proto.graph.node if node.name == "pool"]
    inside, outside = producers[first.input[0]].input[0], producers[last.input[0]].input[0]
    for tensor in (inside, outside):
        proto.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None))
    found = open_session(proto.SerializeToString(), engine=engine, threads=1).run({"x": x})
    before = (found[inside].astype(np.float32) - codes["c"].zero_point) * np.float32(codes["c"].scale)
    pool = [make_node("AveragePool", "c", "p", **POOLS[name])]
    reference = make(pool, {"c": before.shape}, ["p"], {}, opset=19, ir_version=9)
    exact = open_session(reference.SerializeToString(), threads=1).run({"c": before})["p"]
    wanted = np.clip(np.rint(exact / np.float32(codes["p"].scale)) + codes["p"].zero_point, 0, 255)
    off = np.abs(found[outside].astype(int) - wanted.astype(int))
    # Small images are mostly border, where a second rounding is multiplied by up to 3.
    bordered = name in ("padding", "uneven padding", "dilated")
    assert off.max() <= (2 if bordered else 1)
    assert (off == 0).mean() > (0.6 if bordered else 0.9)


@pytest.mark.parametrize("name", ["plain", "padding"])
def test_the_runtime_has_fast_kernels_for_all_of_it(name, tmp_path):
    x = images()
    found = kinds(quantized(network(**POOLS[name]), x).to_bytes(), tmp_path)
    assert "QLinearAveragePool" not in found
    assert "ConstantOfShape" not in found
    assert not {"Conv", "AveragePool", "Mul"} & set(found)
    assert found.count("QLinearConv") == 3


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, SIZE),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, SIZE),
        ({"kernel_shape": [3, 3], "pads": [1] * 4}, ("h", "w")),
        ({"kernel_shape": [3, 2], "pads": [2, 0, 1, 1]}, SIZE),
        ({"kernel_shape": [9, 9], "pads": [4, 4, 4, 4]}, SIZE),
    ],
)
def test_what_has_no_such_form_stays_a_pool(pool, size, tmp_path):
    content = quantized(network(size=size, **pool), images()).to_bytes()
    assert [node.op_type for node in onnx.load_from_string(content).graph.node].count("AveragePool") == 1
    assert "QLinearAveragePool" in kinds(content, tmp_path)


UP = {"ceil_mode": 1, "count_include_pad": 1}
OVERHANGING = {
    "as PyTorch says it": ({"kernel_shape": [3, 3], "strides": [2, 2], **UP}, "integer"),
    "5x5": ({"kernel_shape": [5, 5], "strides": [5, 5], **UP}, "integer"),
    "no padding": ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID", **UP}, "integer"),
    "dilations of 1": ({"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [1, 1], **UP}, "integer"),
    "uncounted": ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}, "integer"),
    "same": ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER", **UP}, "integer"),
    "padded": ({"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1] * 4, **UP}, "float"),
    "padded unevenly": ({"kernel_shape": [4, 4], "strides": [3, 3], "pads": [0, 1, 1, 0], **UP}, "float"),
    "dilated": ({"kernel_shape": [2, 3], "strides": [2, 2], "dilations": [2, 1], "ceil_mode": 1}, "float"),
}


@pytest.mark.parametrize("size", [SIZE, (13, 16), ("h", "w")])
@pytest.mark.parametrize("name", OVERHANGING)
def test_windows_over_the_border_are_divided_by_what_they_count(name, size):
    """In ONNX Runtime as it runs by default, against the float model; what its kernel cannot do stays float."""
    pool, arithmetic = OVERHANGING[name]
    proto = network(size=size, **pool)
    # All positions, so that the border weighs what it is.
    del proto.graph.node[3:]
    proto.graph.output[0].name = "d"
    x = images(size=(13, 16) if "h" in size else size)
    made = quantized(proto, x)
    (planned,) = [node for node in made.plan.nodes if node.op == "AveragePool"]
    assert (planned.arithmetic, bool(planned.reason)) == (arithmetic, arithmetic == "float")
    assert relative_error(run(made.to_bytes(), x), run(proto.SerializeToString(), x)) < 0.03


def test_a_pool_that_stays_float_is_as_it_was_in_files_of_weights_only():
    model = lowbit.load(network(**OVERHANGING["padded"][0]))
    content = lowbit.quantize(model, "linear8").to_bytes()
    assert "Sum" not in [node.op_type for node in onnx.load_from_string(content).graph.node]


@pytest.mark.usefixtures("quick_measuring")
def test_ones_are_no_weights(tmp_path):
    proto, x = network(**POOLS["padding"]), images()
    onnx.save(proto, tmp_path / "float.onnx")
    path = quantized(proto, x).save(tmp_path / "int8.onnx")
    assert set(layer_weights(path)) == {"first", "last"}
    ledger = read_ledger(path)
    assert [layer.node for layer in ledger.layers] == ["first", "last"]
    assert ledger.counts["codes"] == 16 * 27 + 5 * 16
    assert sum(ledger.bytes.values()) == path.stat().st_size
    conditions = Conditions(runs=0, with_memory=False)
    row = measure([tmp_path / "float.onnx", path], lowbit.open_images(list(x), None), conditions=conditions).rows[1]
    assert row.weight_mse < 1e-4
    assert row.kl < 1e-3
