"""Shape arithmetic of which only the batch is open, and chains of reshapes."""

import numpy as np
import onnx
import pytest
from graph_models import make, normal
from simplified import count, simplified

from lowbit.errors import ModelError
from lowbit.graph.cost import cost
from lowbit.graph.load import load

X = {"x": ["n", 4, 6, 6]}
FEEDS = {"x": normal(7, 2, 4, 6, 6)}
FIRST = ("Conv", ["x", "w"], ["c"], {})
NUMBERS = {
    "w": normal(1, 4, 4, 1, 1),
    "zero": np.int64(0),
    "two": np.int64(2),
    "first": np.array([0]),
    "minus": np.array([-1]),
    "four": np.array([4]),
    "last": np.array([2**31]),
    "second": np.array([2]),
    "third": np.array([3]),
    "half": np.array([2]),
    "groups": np.array([2, 2]),
    "zeros": np.zeros(4, np.int64),
    "pairs": np.array([-1, 2]),
    "back": np.array([-(2**62)]),
}


def network(*nodes, inputs=X, opset=17):
    reads = {name for node in (FIRST, *nodes) for name in node[1]}
    weights = {name: NUMBERS[name] for name in NUMBERS if name in reads}
    return make([FIRST, *nodes], inputs, ["y"], weights, opset=opset)


SHAPE = ("Shape", ["c"], ["s"], {})
BATCH = [SHAPE, ("Gather", ["s", "zero"], ["b"], {}), ("Unsqueeze", ["b", "first"], ["n1"], {})]
TARGETS = {
    "torch: view(n, -1)": [*BATCH, ("Concat", ["n1", "minus"], ["t"], {"axis": 0})],
    "Paddle: a slice of the shape, in 32 bits": [
        SHAPE,
        ("Cast", ["s"], ["s32"], {"to": onnx.TensorProto.INT32}),
        ("Slice", ["s32", "first", "one"], ["b32"], {}),
        ("Cast", ["b32"], ["n1"], {"to": onnx.TensorProto.INT64}),
        ("Concat", ["n1", "minus"], ["t"], {"axis": 0}),
    ],
    "the product of all others": [
        *BATCH,
        ("Slice", ["s", "one", "last"], ["rest"], {}),
        ("ReduceProd", ["rest"], ["p"], {"axes": [0]}),
        ("Concat", ["n1", "p"], ["t"], {"axis": 0}),
    ],
    "channels in two groups": [
        *BATCH,
        ("Gather", ["s", "at"], ["ch"], {}),
        ("Div", ["ch", "groups"], ["half2"], {}),
        ("Slice", ["s", "half", "last"], ["sides"], {}),
        ("Concat", ["n1", "half2", "sides"], ["t"], {"axis": 0}),
    ],
    "neither is known": [
        *BATCH,
        ("Mul", ["n1", "half"], ["m"], {}),
        ("Concat", ["m", "half", "minus3"], ["t"], {"axis": 0}),
    ],
}
NUMBERS |= {"one": np.array([1]), "at": np.array([1, 1]), "minus3": np.array([36])}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_with_an_open_batch_is_constant(target):
    model = simplified(network(*TARGETS[target], ("Reshape", ["c", "t"], ["y"], {})), FEEDS)
    assert count(model) == {"Conv": 1, "Reshape": 1}


def test_two_open_dimensions_stay_computed():
    nodes = [*BATCH, ("Mul", ["n1", "half"], ["m"], {}), ("Concat", ["m", "minus"], ["t"], {"axis": 0})]
    assert count(simplified(network(*nodes, ("Reshape", ["c", "t"], ["y"], {})), FEEDS))["Shape"] == 1


def test_a_batch_that_is_not_that_of_the_tensor_stays_computed():
    """The name of the dimension says so: z has another batch, and the rows of c become so many."""
    nodes = [
        ("Shape", ["z"], ["s"], {}),
        ("Gather", ["s", "first"], ["n1"], {}),
        ("Concat", ["n1", "minus"], ["t"], {"axis": 0}),
    ]
    proto = network(*nodes, ("Reshape", ["c", "t"], ["y"], {}), inputs=X | {"z": ["m", 1]})
    assert count(simplified(proto, FEEDS | {"z": normal(1, 4, 1)}))["Shape"] == 1


def test_a_sum_is_folded_into_a_convolution_whose_shape_is_read():
    """The shape stays what it was; read by anything else, the convolution keeps its values."""
    NUMBERS["row"] = normal(5, 1, 4, 1, 1)
    nodes = [
        *BATCH,
        ("Concat", ["n1", "one", "one", "one"], ["t"], {"axis": 0}),
        ("Cast", ["n1"], ["size"], {"to": onnx.TensorProto.FLOAT}),
        ("Expand", ["size", "t"], ["e"], {}),
        ("Add", ["c", "row"], ["a"], {}),
    ]
    assert count(simplified(network(*nodes, ("Mul", ["a", "e"], ["y"], {})), FEEDS))["Add"] == 0
    nodes = [*nodes, ("Mul", ["a", "e"], ["m"], {}), ("Mul", ["m", "c"], ["y"], {})]
    assert count(simplified(network(*nodes), FEEDS))["Add"] == 1


def test_what_a_caller_decides_stays():
    proto = network(("Reshape", ["c", "t"], ["y"], {}), inputs=X | {"t": [2]})
    proto.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    assert count(simplified(proto, FEEDS | {"t": np.array([8, -1])})) == {"Conv": 1, "Reshape": 1}


def test_pads_that_torch_computes_become_constants():
    nodes = [
        SHAPE,
        ("Gather", ["s", "two"], ["h"], {}),
        ("Sub", ["h", "two"], ["less"], {}),
        ("Div", ["less", "two"], ["p0"], {}),
        ("Unsqueeze", ["p0", "first"], ["p1"], {}),
        ("Concat", ["p1", "one", "one", "p1"], ["some"], {"axis": 0}),
        ("Concat", ["some", "zeros"], ["eight"], {"axis": 0}),
        ("Reshape", ["eight", "pairs"], ["rows"], {}),
        ("Slice", ["rows", "minus", "back", "first", "minus"], ["turned"], {}),
        ("Transpose", ["turned"], ["columns"], {"perm": [1, 0]}),
        ("Reshape", ["columns", "minus"], ["pads"], {}),
        ("Pad", ["c", "pads"], ["padded"], {}),
        ("Conv", ["padded", "w"], ["y"], {}),
    ]
    assert count(simplified(network(*nodes), FEEDS)) == {"Conv": 2}


@pytest.mark.parametrize(("height", "left"), [(6, 0), ("h", 1)])
def test_sizes_of_a_resize_become_scales_where_only_the_batch_is_open(height, left):
    nodes = [
        SHAPE,
        ("Slice", ["s", "first", "second"], ["nc"], {}),
        ("Slice", ["s", "second", "last"], ["hw"], {}),
        ("Mul", ["hw", "half"], ["hw2"], {}),
        ("Concat", ["nc", "hw2"], ["sizes"], {"axis": 0}),
        ("Resize", ["c", "", "", "sizes"], ["r"], {"mode": "linear"}),
        ("Relu", ["r"], ["y"], {}),
    ]
    model = simplified(network(*nodes, inputs={"x": ["n", 4, height, 6]}), FEEDS)
    assert count(model)["Shape"] == left


def test_parts_of_parts_have_known_sizes():
    """Two times torch's chunk, each from the shape of what it cuts: the second needs what the first comes to."""

    def halves(given, name):
        return [
            ("Shape", [given], [f"{name}s"], {}),
            ("Gather", [f"{name}s", "one"], [f"{name}n"], {}),
            ("Div", [f"{name}n", "half"], [f"{name}h"], {}),
            ("Slice", [given, "first", f"{name}h", "one"], [f"{name}1"], {}),
            ("Slice", [given, f"{name}h", "last", "one"], [f"{name}2"], {}),
            ("Add", [f"{name}1", f"{name}2"], [name], {}),
        ]

    NUMBERS["w1"] = normal(3, 2, 1, 3, 3)
    model = simplified(network(*halves("c", "p"), *halves("p", "q"), ("Conv", ["q", "w1"], ["y"], {})), FEEDS)
    assert count(model) == {"Conv": 2, "Slice": 4, "Add": 2}
    assert [layer.macs for layer in cost(model).layers] == [4 * 4 * 36, 2 * 9 * 16]


def test_a_batch_of_minus_one_is_an_open_one():
    model = simplified(network(("Relu", ["c"], ["y"], {}), inputs={"x": [-1, 4, 6, 6]}), FEEDS)
    assert model.inputs[0].shape == (None, 4, 6, 6)


def test_inspecting_says_what_is_not_fixed():
    """The input is fixed; what NonZero finds is not."""
    proto = network(
        ("NonZero", ["c"], ["z"], {}),
        ("Cast", ["z"], ["f"], {"to": onnx.TensorProto.FLOAT}),
        ("MatMul", ["w5", "f"], ["p"], {}),
        ("ReduceSum", ["p"], ["y"], {}),
        inputs={"x": [1, 4, 6, 6]},
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 5, 4), "w5"))
    with pytest.raises(ModelError, match="depends on the values of the input") as error:
        cost(load(proto))
    assert "image size" not in str(error.value)


CHAINS = {
    "two reshapes": [("Reshape", ["c", "groups4"], ["r"], {}), ("Reshape", ["r", "flat"], ["y"], {})],
    "back again": [
        ("Reshape", ["c", "groups4"], ["r"], {}),
        ("Reshape", ["r", "shape"], ["v"], {}),
        ("Relu", ["v"], ["y"], {}),
    ],
    "unsqueeze and squeeze": [
        ("Unsqueeze", ["c", "half"], ["r"], {}),
        ("Squeeze", ["r", "half"], ["v"], {}),
        ("Relu", ["v"], ["y"], {}),
    ],
    "flattened twice": [("Flatten", ["c"], ["r"], {"axis": 2}), ("Reshape", ["r", "flat"], ["y"], {})],
    "pooled, turned and flattened": [
        ("GlobalAveragePool", ["c"], ["g"], {}),
        ("Transpose", ["g"], ["r"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", ["r", "flat4"], ["y"], {}),
    ],
}
NUMBERS |= {
    "groups4": np.array([0, 2, 2, 6, 6]),
    "flat": np.array([-1, 144]),
    "shape": np.array([-1, 4, 6, 6]),
    "flat4": np.array([0, 4]),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_reshapes_is_one_or_none(chain):
    left = count(simplified(network(*CHAINS[chain]), FEEDS))
    assert left["Reshape"] + left["Flatten"] == (0 if "Relu" in left else 1)
    assert not left.keys() & {"Squeeze", "Unsqueeze", "Transpose"}


@pytest.mark.parametrize(("axis", "left"), [("third", 1), ("second", 2)])
def test_cuts_along_two_axes_are_one(axis, left):
    """Along the same axis the second counts from what the first leaves."""
    nodes = [("Slice", ["c", "one", "last", "second"], ["r"], {}), ("Slice", ["r", "one", "third", axis], ["y"], {})]
    assert count(simplified(network(*nodes), FEEDS))["Slice"] == left


def test_a_transpose_that_moves_pixels_stays_before_a_reshape():
    nodes = [("Transpose", ["c"], ["r"], {"perm": [0, 2, 3, 1]}), ("Reshape", ["r", "flat"], ["y"], {})]
    assert count(simplified(network(*nodes), FEEDS))["Transpose"] == 1
