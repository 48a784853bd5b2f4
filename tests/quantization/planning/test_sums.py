"""Which sums compute in integers: those of convolutions, and those of codes that a layer reads."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node, relative_error
from lowbit.engines import open_session

WIDTH, TOKENS = 16, 9


def normal(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def transformer():
    """Tokens beside which one for the class is small, as in XCiT; its answer alone is read."""
    weights = {
        "p": normal(0, 3, WIDTH),
        "w": normal(1, WIDTH, WIDTH),
        "v": normal(2, WIDTH, WIDTH),
        "o": normal(3, WIDTH, 5),
    }
    weights |= {"class": 0.02 * normal(4, 1, 1, WIDTH), "g": np.ones(WIDTH, np.float32), "zero": np.int64(0)}
    weights |= {"at": np.array([0]), "end": np.array([1]), "axis": np.array([1]), "small": np.float32(0.02)}
    weights |= {"far": np.float32(20)}
    nodes = [make_node("MatMul", "x p", "e0"), make_node("Mul", "e0 far", "e")]
    nodes += [make_node("ReduceMean", "e", "m", axes=[1], keepdims=1), make_node("Mul", "m small", "ms")]
    nodes += [make_node("Mul", "ms small", "mss"), make_node("Add", "mss class", "c")]
    nodes += [
        make_node("Concat", "c e", "t", axis=1, name="join"),
        make_node("LayerNormalization", "t g", "n", axis=-1),
    ]
    nodes += [make_node("MatMul", "n w", "a"), make_node("Relu", "a", "r"), make_node("MatMul", "r v", "b0")]
    nodes += [make_node("Mul", "b0 small", "b"), make_node("Add", "t b", "s", name="residual")]
    nodes += [make_node("Slice", "s at end axis", "k"), make_node("LayerNormalization", "k g", "kn", axis=-1)]
    nodes += [make_node("MatMul", "kn o", "y")]
    return make(nodes, {"x": ["n", TOKENS, 3]}, ["y"], weights, opset=17)


def sums(proto):
    """How the Add, Mul and Concat nodes with names compute."""
    plan = lowbit.plan(lowbit.load(proto), "int8")
    return {node.node: node.arithmetic for node in plan.nodes if node.op in ("Add", "Mul", "Concat")}


def test_sums_between_norms_are_float_and_keep_a_small_token(tmp_path):
    proto = transformer()
    assert {name: how for name, how in sums(proto).items() if name in ("join", "residual")} == {
        "join": "float",
        "residual": "float",
    }
    x = normal(7, 24, TOKENS, 3)
    quantized = lowbit.quantize(proto, "int8", calibration={"x": x}, effort="fast")
    exact = open_session(proto.SerializeToString(), threads=1).run({"x": x})["y"]
    for engine in ("onnxruntime", "openvino"):
        form = lowbit.FileForm(to="openvino" if engine == "openvino" else "onnx")
        path = quantized.save(tmp_path / f"{engine}.onnx", form)
        assert relative_error(open_session(path, engine=engine, threads=1).run({"x": x})["y"], exact) < 0.05


def convolutions(*middle, last="s"):
    """Two convolutions `a` and `b`, what is in question, and a convolution of its result."""
    weights = {name: normal(seed, 8, 8, 3, 3) / 3 for seed, name in enumerate("wvu")}
    nodes = [make_node("Conv", "x w", "a", pads=[1] * 4), make_node("Conv", "a v", "b", pads=[1] * 4), *middle]
    nodes += [make_node("Conv", f"{last} u", "y", pads=[1] * 4)]
    return make(nodes, {"x": ["n", 8, 6, 6]}, ["y"], weights)


@pytest.mark.parametrize(
    ("middle", "last", "how"),
    [
        ([make_node("Add", "a b", "s", name="sum")], "s", {"sum": "integer"}),
        # One branch is codes, the other float.
        ([make_node("Erf", "a", "e"), make_node("Add", "e b", "s", name="sum")], "s", {"sum": "integer"}),
        # Both are float, but the layer reads codes.
        (
            [make_node("Erf", "a", "e"), make_node("Tanh", "b", "t"), make_node("Add", "e t", "s", name="sum")],
            "s",
            {"sum": "integer"},
        ),
        # So does another that is float.
        (
            [
                make_node("Erf", "a", "e"),
                make_node("Tanh", "b", "t"),
                make_node("Add", "e t", "z", name="sum"),
                make_node("Erf", "z", "f"),
                make_node("Conv", "f w", "g", pads=[1] * 4),
                make_node("Add", "g z", "s", name="last"),
            ],
            "s",
            {"sum": "float", "last": "integer"},
        ),
        # A sum of a sum and a convolution, and one of two sums.
        (
            [
                make_node("Add", "a b", "c", name="first"),
                make_node("Add", "c b", "d", name="second"),
                make_node("Add", "c d", "s", name="sum"),
            ],
            "s",
            {"first": "integer", "second": "integer", "sum": "integer"},
        ),
        # No layer reads it: codes of a convolution are summed as codes, sums of sums are not.
        (
            [
                make_node("Add", "a b", "c", name="first"),
                make_node("Erf", "c", "e"),
                make_node("Add", "c e", "d", name="second"),
                make_node("Tanh", "d", "s"),
            ],
            "s",
            {"first": "integer", "second": "float"},
        ),
    ],
)
def test_sums_of_convolutions(middle, last, how):
    assert sums(convolutions(*middle, last=last)) == how
