"""Transposes move past operators and cancel where fewer are left, and stay where not."""

import numpy as np
import onnx
import pytest
from graph_models import make, normal
from simplified import count, simplified

NHWC, NCHW = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
X = {"x": ["n", 4, 6, 6]}
FEEDS = {"x": normal(7, 2, 4, 6, 6)}
FIRST = ("Conv", ["x", "w1"], ["c"], {})
WEIGHTS = {"w1": normal(1, 4, 4, 1, 1), "w2": normal(2, 3, 4, 1, 1)}


def between(*nodes, last="t", **weights):
    """Nodes in NHWC, from `t` on, between two convolutions in NCHW."""
    rows = [FIRST, ("Transpose", ["c"], ["t"], NHWC), *nodes]
    rows += [("Transpose", [last], ["back"], NCHW), ("Conv", ["back", "w2"], ["y"], {})]
    return make(rows, X, ["y"], WEIGHTS | weights)


STEPS = {
    "activation": [("Sigmoid", ["t"], ["a"], {})],
    "swish": [("Sigmoid", ["t"], ["s"], {}), ("Mul", ["t", "s"], ["a"], {})],
    "slopes": [("PRelu", ["t", "row"], ["a"], {})],
    "constant in front": [("Sub", ["row", "t"], ["s"], {}), ("Tanh", ["s"], ["a"], {})],
    "whole constant": [("Add", ["t", "image"], ["a"], {})],
    "softmax": [("Softmax", ["t"], ["a"], {})],
    "softmax of rows": [("Softmax", ["t"], ["a"], {"axis": 1})],
    "padding": [("Pad", ["t", "pads"], ["a"], {"mode": "reflect"})],
    "part of the columns": [("Slice", ["t", "from", "to", "axes"], ["a"], {})],
    "mean": [("ReduceMean", ["t"], ["m"], {"axes": [1, 2]}), ("Sub", ["t", "m"], ["a"], {})],
    "squeeze and excite": [
        ("ReduceMean", ["t"], ["m"], {"axes": [1, 2]}),
        ("Transpose", ["m"], ["mt"], NCHW),
        ("Conv", ["mt", "w1"], ["e"], {}),
        ("Transpose", ["e"], ["et"], NHWC),
        ("Sigmoid", ["et"], ["s"], {}),
        ("Mul", ["t", "s"], ["a"], {}),
    ],
    "parts": [
        ("Split", ["t"], ["p", "q"], {"axis": 3}),
        ("Relu", ["p"], ["pr"], {}),
        ("Concat", ["q", "pr"], ["a"], {"axis": -1}),
    ],
    "comparison": [("Greater", ["t", "zero"], ["g"], {}), ("Where", ["g", "t", "zero"], ["a"], {})],
}
CONSTANTS = {
    "row": normal(3, 4),
    "image": normal(4, 6, 6, 4),
    "pads": np.array([0, 1, 2, 0, 0, 3, 1, 0]),
    "from": np.array([1]),
    "to": np.array([5]),
    "axes": np.array([-2]),
    "zero": np.float32(0),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_stands_between_two_transposes_runs_in_the_other_layout(step):
    reads = {name for node in STEPS[step] for name in node[1]}
    proto = between(*STEPS[step], last="a", **{name: CONSTANTS[name] for name in CONSTANTS if name in reads})
    assert count(simplified(proto, FEEDS))["Transpose"] == 0


def test_all_axes_of_a_mean_without_them():
    rows = [FIRST, ("Transpose", ["c"], ["t"], NHWC), ("ReduceMean", ["t"], ["m"], {"axes": [1, 2], "keepdims": 0})]
    model = simplified(
        make([*rows, ("MatMul", ["m", "w"], ["y"], {})], X, ["y"], WEIGHTS | {"w": normal(3, 4, 2)}), FEEDS
    )
    assert count(model) == {"Conv": 1, "ReduceMean": 1, "MatMul": 1}


def test_a_mean_that_leaves_axes_in_another_order_stays():
    rows = [FIRST, ("Transpose", ["c"], ["t"], NHWC), ("ReduceMean", ["t"], ["m"], {"axes": [1], "keepdims": 0})]
    model = simplified(
        make([*rows, ("MatMul", ["m", "w"], ["y"], {})], X, ["y"], WEIGHTS | {"w": normal(3, 4, 2)}), FEEDS
    )
    assert count(model)["Transpose"] == 1


def test_a_residual_network_in_the_other_layout():
    """Conv, batch norm as Mul and Add, sum with what came before: in NHWC but for the convolutions."""
    rows, weights, last = (
        [("Conv", ["x", "w"], ["c"], {}), ("Transpose", ["c"], ["s0"], NHWC)],
        {"w": normal(1, 4, 4, 1, 1)},
        "s0",
    )
    for block in range(3):
        names = {name: f"{name}{block}" for name in ("in", "c", "t", "m", "a", "r", "w", "f", "b")}
        rows += [
            ("Transpose", [last], [names["in"]], NCHW),
            ("Conv", [names["in"], names["w"]], [names["c"]], {"pads": [1, 1, 1, 1]}),
            ("Transpose", [names["c"]], [names["t"]], NHWC),
            ("Mul", [names["t"], names["f"]], [names["m"]], {}),
            ("Add", [names["m"], names["b"]], [names["a"]], {}),
            ("Relu", [names["a"]], [names["r"]], {}),
            ("Add", [names["r"], last], [f"s{block + 1}"], {}),
        ]
        weights |= {
            names["w"]: normal(block, 4, 4, 3, 3) / 6,
            names["f"]: normal(9 + block, 1, 1, 1, 4),
            names["b"]: normal(20 + block, 4),
        }
        last = f"s{block + 1}"
    rows += [("ReduceMean", [last], ["p"], {"axes": [1, 2], "keepdims": 0}), ("MatMul", ["p", "d"], ["y"], {})]
    model = simplified(make(rows, X, ["y"], weights | {"d": normal(5, 4, 3)}), FEEDS)
    assert count(model) == {"Conv": 4, "Relu": 3, "Add": 3, "ReduceMean": 1, "MatMul": 1}


def test_what_another_node_reads_in_its_layout_keeps_one_transpose():
    """The Reshape needs the pixels channels last."""
    proto = between(
        ("Relu", ["t"], ["a"], {}), ("Reshape", ["a", "rows"], ["z"], {}), last="a", rows=np.array([-1, 36, 4])
    )
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    assert count(simplified(proto, FEEDS))["Transpose"] == 1


@pytest.mark.parametrize(
    "nodes",
    [
        [("Transpose", ["c"], ["t"], NHWC), ("Relu", ["t"], ["y"], {})],
        [("Transpose", ["c"], ["t"], NHWC), ("Reshape", ["t", "rows"], ["y"], {})],
        [("Transpose", ["c"], ["t"], NHWC), ("Transpose", ["t"], ["y"], {"perm": [0, 2, 1, 3]})],
    ],
)
def test_one_transpose_that_nothing_undoes_stays(nodes):
    weights = WEIGHTS | ({"rows": np.array([-1, 36, 4])} if nodes[-1][0] == "Reshape" else {})
    assert count(simplified(make([FIRST, *nodes], X, ["y"], weights), FEEDS))["Transpose"] == 1


def test_transposed_outputs_keep_their_names():
    nodes = [FIRST, ("Transpose", ["c"], ["t"], NHWC), ("Transpose", ["t"], ["y"], NCHW)]
    model = simplified(make(nodes, X, ["y", "t"], WEIGHTS), FEEDS)
    assert [info.name for info in model.outputs] == ["y", "t"]


def test_a_transpose_of_two_axes_is_its_own_inverse():
    """[n, 5, 4] -> MatMul, turned, added to, turned back; and turned between two nodes that hang together."""
    turn = {"perm": [0, 2, 1]}
    nodes = [
        ("MatMul", ["x", "w"], ["p"], {}),
        ("Transpose", ["p"], ["t"], turn),
        ("Sigmoid", ["t"], ["s"], {}),
        ("Transpose", ["s"], ["u"], turn),
        ("MatMul", ["u", "w"], ["q"], {}),
        ("Relu", ["q"], ["r"], {}),
        ("Transpose", ["r"], ["v"], turn),
        ("Exp", ["v"], ["e"], {}),
        ("Softmax", ["e"], ["y"], {}),
    ]
    model = simplified(make(nodes, {"x": ["n", 5, 4]}, ["y"], {"w": normal(1, 4, 4)}), {"x": normal(2, 3, 5, 4)})
    assert count(model)["Transpose"] == 1


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("flatten", [("Flatten", ["t"], ["f"], {}), ("Reshape", ["t", "flat"], ["f"], {})])
def test_a_flattened_image_is_read_in_the_order_it_has(flatten, transposed):
    weights = WEIGHTS | ({"flat": np.array([0, 144])} if flatten[0] == "Reshape" else {})
    weights |= {"rows": normal(4, *((2, 144) if transposed else (144, 2))), "b": normal(5, 2)}
    product = ("Gemm", ["f", "rows", "b"], ["y"], {"transB": 1}) if transposed else ("MatMul", ["f", "rows"], ["y"], {})
    if not transposed:
        del weights["b"]
    model = simplified(make([FIRST, ("Transpose", ["c"], ["t"], NHWC), flatten, product], X, ["y"], weights), FEEDS)
    assert count(model)["Transpose"] == 0


def test_a_flattened_image_that_others_read_stays_as_it_is():
    nodes = [
        FIRST,
        ("Transpose", ["c"], ["t"], NHWC),
        ("Flatten", ["t"], ["f"], {}),
        ("MatMul", ["f", "rows"], ["y"], {}),
    ]
    proto = make([*nodes, ("Relu", ["f"], ["z"], {})], X, ["y", "z"], WEIGHTS | {"rows": normal(4, 144, 2)})
    assert count(simplified(proto, FEEDS))["Transpose"] == 1
