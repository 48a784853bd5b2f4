"""Networks that need the size of an open batch: OpenVINO computes what ONNX Runtime does, biases included."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit import FileForm
from lowbit.engines import installed_engines
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.shares import bytes_by_weight

CHANNELS, SIDE = 32, 6  # so many that int4 packs biases
SAMPLES = np.random.default_rng(1).normal(size=(24, 3, SIDE, SIDE)).astype(np.float32)
NUMBERS = {
    "zero": np.array([0]), "one": np.array([1]), "channels": np.array([CHANNELS]),
    "half": np.float32(0.5), "start": np.int64(0), "step": np.int64(1),
}  # fmt: skip


def network(*nodes, last="r", sides=2, op="Conv", group=1, bias=True, mean=True):
    """Two convolutions with biases, what is in question, and a layer that reads their mean and `t` [n, CHANNELS]."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape).astype(np.float32)

    window = (3,) * sides
    weights = {
        "w": normal(CHANNELS, 3, *window), "v": normal(CHANNELS, CHANNELS // group, *window),
        "u": normal(5, CHANNELS + CHANNELS * (1 if mean else SIDE**sides)),
        "b": normal(CHANNELS, 1)[:, 0], "c": normal(CHANNELS, 1)[:, 0] + 1,
        "gates": normal(1, 3 * CHANNELS, CHANNELS), "again": normal(1, 3 * CHANNELS, CHANNELS),
        "row": normal(1, CHANNELS, 1, 1) + 1,
    }  # fmt: skip
    nodes = [
        make_node("Conv", "x w b", "first", pads=[1] * 2 * sides),
        make_node("Relu", "first", "relu"),
        make_node(op, "relu v c" if bias else "relu v", "r", pads=[1] * 2 * sides, group=group),
        *nodes,
        *([make_node("GlobalAveragePool", last, "g")] if mean else []),
        make_node("Flatten", "g" if mean else last, "f"),
        make_node("Concat", "f t", "both", axis=1),
        make_node("Gemm", "both u", "y", transB=1),
    ]
    read = {name for node in nodes for name in node.input}
    weights = {name: array for name, array in (weights | NUMBERS).items() if name in read}
    return make(nodes, {"x": ["n", 3, *[SIDE] * sides]}, ["y"], weights)


def zeros_for(value):
    """Rows of one half, as many as the batch of a tensor is large."""
    return (
        make_node("Shape", value, "s"),
        make_node("Slice", "s zero one", "n"),
        make_node("Concat", "n channels", "size", axis=0),
        make_node("Expand", "half size", "t"),
    )


def places(value):
    """The means of the first convolution, picked sample by sample."""
    return (
        make_node("Shape", value, "s"),
        make_node("Gather", "s start", "n"),
        make_node("Range", "start n step", "at"),
        make_node("GlobalAveragePool", "relu", "means"),
        make_node("Flatten", "means", "rows"),
        make_node("Gather", "rows at", "t", axis=0),
    )


def recurrent():
    """Rows of the image, read one after the other: the file reads no shape, but OpenVINO needs zeros to begin with."""
    return (
        make_node("ReduceMean", "r", "mean", axes=[3], keepdims=0),
        make_node("Transpose", "mean", "steps", perm=[2, 0, 1]),
        make_node("GRU", "steps gates again", " state", hidden_size=CHANNELS),
        make_node("Squeeze", "state zero", "t"),
    )


SUM = make_node("Add", "r relu", "sum")
POOL = make_node("MaxPool", "r", "pool", kernel_shape=[2, 2])
ADDED = make_node("Add", "r row", "added")
RELU = make_node("Relu", "r", "second")
CASES = {
    "size of the input": lambda: network(*zeros_for("x")),
    "of a convolution": lambda: network(*zeros_for("r")),
    "of the first one": lambda: network(*zeros_for("first")),
    "of what is rectified": lambda: network(RELU, *zeros_for("second"), last="second"),
    "of what is pooled": lambda: network(POOL, *zeros_for("pool"), last="pool"),
    "of a sum": lambda: network(SUM, *zeros_for("sum"), last="sum"),
    "lines": lambda: network(RELU, *zeros_for("second"), last="second", sides=1),
    "places in the batch": lambda: network(RELU, *places("second"), last="second"),
    "a GRU": lambda: network(*recurrent()),
    # Of a mean OpenVINO would ask for the shape, too, and first.
    "before a bias": lambda: network(*zeros_for("r"), ADDED, last="added", bias=False, mean=False),
    "depthwise": lambda: network(*zeros_for("x"), group=CHANNELS),
    "transposed": lambda: network(*zeros_for("x"), op="ConvTranspose"),
    "transposed lines": lambda: network(*zeros_for("x"), op="ConvTranspose", sides=1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_openvino_keeps_biases_where_the_size_of_the_batch_is_read(name):
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    proto = CASES[name]()
    x = SAMPLES[..., 0] if "lines" in name else SAMPLES
    content = quantized(proto, x).to_bytes(FileForm("openvino"))
    for some in (x, x[:1]):
        wanted = run(proto.SerializeToString(), some)
        for engine in ("onnxruntime", "openvino"):
            assert relative_error(run(content, some, engine), wanted) < 0.05, engine


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_biases_are_counted_where_they_are_added(recipe, tmp_path):
    made = quantized(CASES["of a sum"](), SAMPLES, recipe)
    here, there = (made.save(tmp_path / f"{to}.onnx", FileForm(to)) for to in ("onnx", "openvino"))
    first, second = (read_ledger(path) for path in (here, there))
    assert second.counts["biases"] == first.counts["biases"] == 2 * CHANNELS
    assert second.bytes["biases"] == first.bytes["biases"]
    assert abs(bytes_by_weight(there.read_bytes())["r"] - bytes_by_weight(here.read_bytes())["r"]) < 80
    if "openvino" in installed_engines():
        assert relative_error(run(there, SAMPLES, "openvino"), run(there, SAMPLES)) < 0.001


def quantized(proto, x, recipe="int8"):
    return lowbit.quantize(lowbit.load(proto), recipe, calibration=list(x), effort="fast", steps=())


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("op", "function"), [("Mul", "Sigmoid"), ("Sub", "Tanh"), ("Mul", "Exp")])
def test_what_one_reader_does_to_the_channels_of_a_convolution_reaches_no_other(op, function, sides):
    """x * sigmoid(v * x): OpenVINO computed v * x in the kernel, and gave it to both."""
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(CHANNELS, 3, *[3] * sides)).astype(np.float32) / 5}
    weights["v"] = generator.normal(size=(1, CHANNELS, *[1] * sides)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "a", pads=[1] * 2 * sides), make_node(op, "a v", "b")]
    nodes += [make_node(function, "b", "c"), make_node("Mul", "a c", "y")]
    proto = make(nodes, {"x": ["n", 3, *[SIDE] * sides]}, ["y"], weights)
    x = SAMPLES[..., 0] if sides == 1 else SAMPLES
    content = quantized(proto, x).to_bytes(FileForm("openvino"))
    wanted = run(proto.SerializeToString(), x)
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(run(content, x, engine), wanted) < 0.05, engine
