"""Operators with many ways: one file for all ways of each, and the numbers of ONNX Runtime."""

import itertools

import numpy as np
import pytest

import litert_cases as cases
from lowbit.engines import open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph

pytest.importorskip("ai_edge_litert")

# (height, width) after, of 4 x 8 before: scales that float32 holds
SIZES = [(8, 16), (12, 24), (7, 9), (2, 4), (3, 5), (1, 1), (4, 8), (9, 4)]
WHERE = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
ROUNDING = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
GATHER, BILINEAR, NEAREST, PAD, PADV2, RELU, RELU6 = 36, 23, 97, 34, 60, 19, 21


def compared(rows, shape, weights, opset=17):
    """The LiteRT file of nodes that all read x, once all its outputs are those of ONNX Runtime."""
    outputs = [f"y{index}" for index in range(len(rows))]
    nodes = [(op, ["x", *reads], [out], kw) for (op, reads, kw), out in zip(rows, outputs, strict=True)]
    return same_answers(cases.make(nodes, shape, weights, outputs=tuple(outputs), opset=opset), rows)


def same_answers(model, rows):
    content = to_litert(QuantizedGraph(model))
    x = cases.inputs(model, np.random.default_rng(0))
    wanted, answers = (
        open_session(data, engine=engine, threads=1).run({"x": x})
        for data, engine in ((model.to_bytes(), "onnxruntime"), (content, "litert"))
    )
    for (output, values), row in zip(wanted.items(), rows, strict=True):
        np.testing.assert_allclose(answers[output], values, rtol=1e-4, atol=1e-5, err_msg=str(row))
    return content


def operators(content):
    return [op.code for op in read_litert(content, "test").graphs[0].operators]


def resized(how, sizes, *, scaled):
    """Rows of Resize to these sizes, given as such or as scales, and their constants."""
    rows, weights = [], {}
    for (where, kw), size in itertools.product(how, sizes):
        name = f"{'s' if scaled else 'n'}{size[0]}x{size[1]}"
        weights[name] = np.float32([1, 1, size[0] / 4, size[1] / 8]) if scaled else np.array([1, 2, *size])
        reads = ["", name] if scaled else ["", "", name]
        rows.append(("Resize", reads, {"coordinate_transformation_mode": where, **kw}))
    return rows, weights


@pytest.mark.parametrize("scaled", [False, True])
def test_every_way_to_take_the_nearest(scaled):
    how = [(where, {"mode": "nearest", "nearest_mode": mode}) for where in WHERE for mode in ROUNDING]
    rows, weights = resized(how, SIZES, scaled=scaled)
    found = operators(compared(rows, [1, 2, 4, 8], weights))
    # LiteRT's own operator wherever it takes the same values, which three pairs of formulas do for some sizes.
    assert found.count(NEAREST) == 75
    assert found.count(NEAREST) + found.count(GATHER) // 2 == len(rows)


def test_scales_count_where_they_are_not_the_ratio_of_the_sizes():
    how = [(where, {"mode": "nearest", "nearest_mode": mode}) for where in WHERE for mode in ROUNDING]
    rows = [("Resize", ["", "s"], {"coordinate_transformation_mode": where, **kw}) for where, kw in how]
    compared(rows, [1, 2, 4, 8], {"s": np.float32([1, 1, 1.9, 2.45])})


def test_every_way_to_interpolate():
    sizes = [size for size in SIZES if 1 not in size]
    for scaled in (False, True):
        rows, weights = resized([(where, {"mode": "linear"}) for where in WHERE], sizes, scaled=scaled)
        found = operators(compared(rows, [1, 2, 4, 8], weights))
        assert found.count(BILINEAR) == len(rows)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"mode": "cubic"}, "resizes by cubic with half_pixel"),
        ({"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, "by linear with tf_crop"),
        ({"mode": "linear", "antialias": 1}, "smooths first"),
        ({"mode": "linear", "scales": [1, 1, 1.9, 2]}, "scale that is not the ratio"),
        ({"mode": "linear", "scales": [1, 1, 2, 1.4]}, "scale that is not the ratio"),
        ({"mode": "nearest", "scales": [1, 2, 2, 2]}, "resizes batch or channels"),
        (
            {"mode": "linear", "scales": [1, 1, 0.25, 1], "coordinate_transformation_mode": "pytorch_half_pixel"},
            "single",
        ),
    ],
)
def test_other_ways_to_resize_are_refused(op, message):
    kw = {key: value for key, value in op.items() if key != "scales"}
    weights = {"r": np.float32([0, 0, 0, 0, 1, 1, 1, 1]), "s": np.float32(op.get("scales", [1, 1, 2, 2]))}
    model = cases.make([("Resize", ["x", "r", "s"], ["y"], kw)], [1, 2, 4, 8], weights, opset=18)
    with pytest.raises(ModelError, match=message):
        to_litert(QuantizedGraph(model))


@pytest.mark.parametrize(("activation", "code"), [("Relu", RELU), ("Clip", RELU6)])
def test_arithmetic_does_the_activation_behind_it(activation, code):
    ops = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum"]
    nodes = [(op, ["x", "k"], [f"v{op}"], {}) for op in ops] + [("Sum", ["x", "k", "x"], ["vMore"], {})]
    outputs = tuple(made[0].replace("v", "y") for _, _, made, _ in nodes)
    bounds = ["zero", "six"] if activation == "Clip" else []
    nodes += [(activation, [output.replace("y", "v"), *bounds], [output], {}) for output in outputs]
    weights = {"k": np.full((1, 3, 1, 1), 2, np.float32), "zero": np.float32(0), "six": np.float32(6)}
    model = cases.make(nodes, ["n", 3, 4, 5], weights, outputs=outputs)
    # LiteRT's MAXIMUM, MINIMUM and POW have no such option.
    assert operators(same_answers(model, outputs)).count(code) == 3


def test_every_way_to_slice():
    bounds = {
        "one axis": ([1], [3], [2]),
        "an axis from behind": ([1], [3], [-1]),
        "several": ([1, 0, 2], [9, 3, -1], [3, 1, 2]),
        "a step": ([0], [99], [2], [2]),
        "steps": ([1, 1], [9, 9], [2, 3], [2, 3]),
        "a step and none": ([1, 1], [3, 9], [1, 3], [1, 2]),
        "steps of channels": ([1, 0], [99, 99], [1, 2], [2, 2]),
        "backwards": ([-1], [-99], [3], [-1]),
        "backwards to before the end": ([-1], [1], [2], [-2]),
        "backwards and forwards": ([-1, 1], [-99, 99], [2, 3], [-1, 2]),
        "all": ([0], [99], [1]),
    }
    rows, weights = [], {}
    for index, parts in enumerate(bounds.values()):
        names = [f"{part}{index}" for part in ("starts", "ends", "axes", "steps")][: len(parts)]
        weights |= {name: np.array(part) for name, part in zip(names, parts, strict=True)}
        rows.append(("Slice", names, {}))
    compared(rows, [1, 3, 7, 8], weights)


def test_slices_without_axes_cut_the_first_ones():
    weights = {"a": np.array([0, 1]), "e": np.array([1, 3]), "a4": np.array([0, 1, 2, 1]), "e4": np.array([9, 9, 9, 4])}
    model = cases.make([("Slice", ["x", "a4", "e4"], ["y"], {})], ["n", 3, 7, 8], weights)
    with pytest.raises(ModelError, match="cuts along the batch"):
        to_litert(QuantizedGraph(model))


WINDOWS = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [0, 2, 1, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [2, 3], "auto_pad": "VALID"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
]


@pytest.mark.parametrize("before", ["Relu", "Sigmoid", "Neg", None])
def test_every_window_of_a_maximum(before):
    nodes = [(before, ["x"], ["v"], {})] if before else []
    outputs = tuple(f"y{index}" for index in range(len(WINDOWS)))
    read = "v" if before else "x"
    nodes += [("MaxPool", [read], [output], kw) for output, kw in zip(outputs, WINDOWS, strict=True)]
    model = cases.make(nodes, [1, 2, 7, 8], {}, outputs=outputs)
    found = operators(same_answers(model, WINDOWS))
    # Zeros do no harm to what is never negative, and XNNPACK pads with nothing else.
    assert (PADV2 in found, PAD in found) == ((False, True) if before in ("Relu", "Sigmoid") else (True, False))


def test_every_window_of_an_average():
    rows = [("AveragePool", [], kw | {"count_include_pad": n}) for kw in WINDOWS for n in (0, 1)]
    rows = [row for row in rows if not (row[2].get("ceil_mode") and row[2]["count_include_pad"])]
    compared(rows, [1, 2, 7, 8], {}, opset=19)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
def test_every_reduction(op):
    axes = [[2, 3], [1], [3], [-1], [1, 2], [-2, -1], [1, 2, 3]]
    rows = [(op, [f"a{i}"], {"keepdims": keeps}) for i in range(len(axes)) for keeps in (0, 1)]
    compared(rows, ["n", 3, 4, 5], {f"a{i}": np.array(numbers) for i, numbers in enumerate(axes)}, opset=18)


def test_operators_behind_turned_and_flattened_values():
    """As these are stored in the order of ONNX, others channels last."""
    nodes = [("Transpose", ["x"], ["t"], {"perm": [0, 2, 3, 1]}), ("Flatten", ["x"], ["f"], {"axis": 1})]
    nodes += [("MaxPool", ["t"], ["y0"], {"kernel_shape": [2, 2]})]
    nodes += [("AveragePool", ["t"], ["y1"], {"kernel_shape": [2, 3]})]
    nodes += [("Resize", ["t", "", "s"], ["y2"], {"mode": "linear"}), ("ReduceMax", ["t"], ["y3"], {"axes": [1]})]
    nodes += [("ReduceMean", ["f"], ["y4"], {"axes": [1], "keepdims": 0}), ("Slice", ["f", "a", "e", "i"], ["y5"], {})]
    nodes += [("Softmax", ["f"], ["y6"], {"axis": -1}), ("Add", ["f", "k"], ["y7"], {})]
    nodes += [("Slice", ["t", "a", "e", "i"], ["y8"], {}), ("Gather", ["f", "e"], ["y9"], {"axis": 1})]
    weights = {"s": np.float32([1, 1, 2, 2]), "a": np.array([3]), "e": np.array([5]), "i": np.array([1])}
    weights["k"] = np.arange(60, dtype=np.float32)
    outputs = tuple(f"y{index}" for index in range(10))
    same_answers(cases.make(nodes, [1, 3, 4, 5], weights, outputs=outputs), outputs)


def test_every_way_to_pad():
    amounts = [[0, 0, 1, 2, 0, 0, 2, 1], [0, 0, 0, 3, 0, 0, 0, 0], [0, 0, 2, 2, 0, 0, 2, 2], [0, 1, 0, 1, 0, 2, 1, 0]]
    weights = {f"p{i}": np.array(amount) for i, amount in enumerate(amounts)} | {"zero": np.float32(0)}
    rows = [("Pad", [f"p{i}"], {"mode": mode}) for i in range(len(amounts)) for mode in ("constant", "reflect")]
    weights |= {"cut": np.array([0, 0, -1, 2, 0, 0, 1, -2]), "two": np.array([1, 2, -1, 3]), "axes": np.array([3, -2])}
    rows += [("Pad", ["cut", "zero"], {}), ("Pad", ["two", "", "axes"], {})]
    compared(rows, ["n", 3, 5, 6], weights, opset=18)


@pytest.mark.parametrize(
    ("pads", "value", "mode", "message"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], -1.5, "constant", "something other than zero"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0, "edge", "pads by edge"),
    ],
)
def test_other_ways_to_pad_are_refused(pads, value, mode, message):
    nodes = [("Pad", ["x", "p", "v"], ["y"], {"mode": mode})]
    model = cases.make(nodes, ["n", 3, 5, 6], {"p": np.array(pads), "v": np.float32(value)})
    with pytest.raises(ModelError, match=message):
        to_litert(QuantizedGraph(model))
