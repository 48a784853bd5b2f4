"""A network as different exporters write it becomes the same graph; random graphs keep their numbers."""

import numpy as np
import onnx
import pytest
from graph_models import make, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from simplified import count, simplified

import lowbit
from graphs import relative_error, run
from lowbit.engines import open_session

NHWC, NCHW = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
IMAGES = normal(7, 2, 8, 8, 3)
WEIGHTS = {
    "w1": normal(1, 8, 3, 3, 3) / 4,
    "w2": normal(2, 8, 1, 3, 3) / 2,
    "w3": normal(3, 5, 8, 1, 1),
    "d": normal(4, 5, 3),
    "bias": normal(5, 3),
}
NORMS = {
    f"{part}{n}": normal(10 * n + at, width) for n, width in ((1, 8), (2, 8), (3, 5)) for at, part in enumerate("mt")
}
NORMS |= {
    f"f{n}": np.random.default_rng(n).uniform(0.5, 1.5, width).astype("f") for n, width in ((1, 8), (2, 8), (3, 5))
}
BOUNDS = {"low": np.float32(0), "six": np.float32(6)}
DEPTHWISE = {"group": 8, "pads": [1, 1, 1, 1]}


def keras():
    """Keras 3 by way of torch: NHWC outside, batch norms as Sub, Mul and Add, pads from Shape, copies by Identity."""
    wide = {name: array.reshape(1, 1, 1, -1) for name, array in NORMS.items()}
    pad = [
        ("Shape", ["i"], ["s"], {}),
        ("Gather", ["s", "two"], ["height"], {}),
        ("Div", ["height", "eight"], ["one1"], {}),
        ("Unsqueeze", ["one1", "first"], ["one"], {}),
        ("Concat", ["zeros", "one", "one", "zeros", "one", "one"], ["pads"], {"axis": 0}),
        ("Pad", ["i", "pads"], ["p"], {}),
    ]
    rows = [("Identity", ["w1"], ["w1.copy"], {}), ("Transpose", ["x"], ["i"], NCHW), *pad]
    last = "p"
    for n, more in ((1, {"strides": [2, 2]}), (2, DEPTHWISE), (3, {})):
        if n > 1:
            rows.append(("Transpose", [last], [f"i{n}"], NCHW))
        rows += [
            ("Conv", [last if n == 1 else f"i{n}", "w1.copy" if n == 1 else f"w{n}"], [f"c{n}"], more),
            ("Transpose", [f"c{n}"], [f"o{n}"], NHWC),
            ("Cast", [f"o{n}"], [f"k{n}"], {"to": onnx.TensorProto.FLOAT}),
            ("Sub", [f"k{n}", f"m{n}"], [f"z{n}"], {}),
            ("Mul", [f"z{n}", f"f{n}"], [f"g{n}"], {}),
            ("Add", [f"g{n}", f"t{n}"], [f"n{n}"], {}),
            ("Clip", [f"n{n}", "low", "six"], [f"r{n}"], {}),
        ]
        last = f"r{n}"
    rows += [("ReduceMean", [last], ["a"], {"axes": [1, 2], "keepdims": 0})]
    numbers = {"two": np.int64(2), "eight": np.int64(8), "first": np.array([0]), "zeros": np.zeros(2, np.int64)}
    return rows, wide | numbers, "x", ["n", 8, 8, 3], IMAGES


def tf2onnx():
    """Weights as they are, padding by Pad in NHWC, batch norms as Mul and Add behind the Transpose."""
    wide = {name: array for name, array in NORMS.items() if name[0] == "f"}
    wide |= {f"t{n}": NORMS[f"t{n}"] - NORMS[f"m{n}"] * NORMS[f"f{n}"] for n in (1, 2, 3)}
    rows, last = [("Pad", ["x", "pads"], ["p"], {}), ("Transpose", ["p"], ["i1"], NCHW)], "i1"
    for n, more in (
        (1, {"strides": [2, 2], "auto_pad": "VALID"}),
        (2, {"group": 8, "auto_pad": "SAME_UPPER"}),
        (3, {}),
    ):
        rows += [
            ("Conv", [last, f"w{n}"], [f"c{n}"], more),
            ("Transpose", [f"c{n}"], [f"o{n}"], NHWC),
            ("Mul", [f"o{n}", f"f{n}"], [f"g{n}"], {}),
            ("Add", [f"t{n}", f"g{n}"], [f"n{n}"], {}),
            ("Clip", [f"n{n}", "low", "six"], [f"r{n}"], {}),
            ("Transpose", [f"r{n}"], [f"i{n + 1}"], NCHW),
        ]
        last = f"i{n + 1}"
    rows += [("GlobalAveragePool", [last], ["q"], {}), ("Squeeze", ["q", "sides"], ["a"], {})]
    numbers = {"pads": np.array([0, 1, 1, 0, 0, 1, 1, 0]), "sides": np.array([2, 3])}
    return rows, wide | numbers, "x", ["unk__6", 8, 8, 3], IMAGES


def paddle():
    """A batch of -1, batch norms as operators, a reshape by a slice of the shape, scales of one."""
    norms = {f"v{n}": 1 / NORMS[f"f{n}"] ** 2 - np.float32(1e-5) for n in (1, 2, 3)}
    norms |= {name: array for name, array in NORMS.items() if name[0] != "f"}
    norms |= {f"g{n}": np.ones_like(NORMS[f"m{n}"]) for n in (1, 2, 3)}
    rows, last = [("Mul", ["x", "unit"], ["x1"], {})], "x1"
    for n, more in ((1, {"strides": [2, 2], "pads": [1, 1, 1, 1]}), (2, DEPTHWISE), (3, {})):
        rows += [
            ("Conv", [last, f"w{n}"], [f"c{n}"], more),
            ("BatchNormalization", [f"c{n}", f"g{n}", f"t{n}", f"m{n}", f"v{n}"], [f"n{n}"], {}),
            ("Clip", [f"n{n}", "low", "six"], [f"r{n}"], {}),
        ]
        last = f"r{n}"
    rows += [
        ("GlobalAveragePool", [last], ["q"], {}),
        ("Shape", ["q"], ["s"], {}),
        ("Cast", ["s"], ["s32"], {"to": onnx.TensorProto.INT32}),
        ("Slice", ["s32", "first", "one"], ["b32"], {}),
        ("Cast", ["b32"], ["b"], {"to": onnx.TensorProto.INT64}),
        ("Concat", ["b", "minus"], ["to"], {"axis": 0}),
        ("Reshape", ["q", "to"], ["a"], {}),
    ]
    numbers = {"unit": np.float32(1), "first": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    return rows, norms | numbers, "x", [-1, 3, 8, 8], np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))


STYLES = (keras, tf2onnx, paddle)


def written(style):
    rows, constants, name, shape, images = style()
    rows = [*rows, ("MatMul", ["a", "d"], ["h"], {}), ("Add", ["h", "bias"], ["y"], {})]
    reads = {read for row in rows for read in row[1]}
    weights = {name: array for name, array in (WEIGHTS | BOUNDS | constants).items() if name in reads}
    return make(rows, {name: shape}, ["y"], weights), {name: images}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_becomes_the_same_graph(style):
    proto, feeds = written(style)
    left = count(simplified(proto, feeds))
    assert left["Transpose"] == (0 if style is paddle else 1)
    del left["Transpose"]
    pooled = left.pop("ReduceMean", 0) + left.pop("GlobalAveragePool", 0)
    assert pooled == 1
    assert left.pop("Squeeze", 0) + left.pop("Reshape", 0) <= 1
    assert left == {"Conv": 3, "Clip": 3, "Gemm": 1}


def test_every_style_gives_the_same_answers():
    answers = [run(lowbit.load(proto).to_bytes(), next(iter(feeds.values()))) for proto, feeds in map(written, STYLES)]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_quantized_for_every_engine(style, engine, tmp_path):
    proto, feeds = written(style)
    images = feeds["x"]
    calibration = np.concatenate([images, normal(8, *images.shape), normal(9, *images.shape)])
    quantized = lowbit.quantize(lowbit.load(proto), "int8", calibration=calibration, steps=())
    path = quantized.save(tmp_path / ("q.tflite" if engine == "litert" else "q.onnx"))
    session = open_session(path, engine=engine, threads=1)
    found = np.concatenate(
        [session.run({session.input_names[0]: images[at : at + 1]})[session.output_names[0]] for at in (0, 1)]
    )
    assert relative_error(found, run(proto.SerializeToString(), images)) < 0.1


UNARY = ("Relu", "Sigmoid", "Tanh", "Abs", "Transpose", "Transpose back", "Pad", "Identity", "Neg", "Mean")
JOINT = ("Add", "Mul", "Concat", "Sub", "Constant")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from((*UNARY, *JOINT, "Conv")), st.integers(0, 30), st.integers(0, 30)), max_size=14)
)
def test_random_graphs_keep_their_numbers_and_gain_no_transposes(steps):
    """Nodes that read earlier ones at random; each tensor is [n, 4, 4, 4] in one layout or the other."""
    rows, weights, tensors = [("Conv", ["x", "w"], ["v0"], {})], {"w": normal(1, 4, 4, 1, 1)}, ["v0"]
    for number, (op, first, second) in enumerate(steps, 1):
        a, b, out = tensors[first % len(tensors)], tensors[second % len(tensors)], f"v{number}"
        if op == "Transpose":
            rows.append((op, [a], [out], NHWC))
        elif op == "Transpose back":
            rows.append(("Transpose", [a], [out], NCHW))
        elif op == "Pad":
            # One more on a side, cut away from the other.
            weights[f"p{number}"] = np.roll(np.array([0, 1, 0, 0, 0, -1, 0, 0]), second % 3)
            rows.append((op, [a, f"p{number}"], [out], {}))
        elif op == "Mean":
            rows += [
                ("ReduceMean", [a], [f"m{number}"], {"axes": [1 + second % 3]}),
                ("Sub", [a, f"m{number}"], [out], {}),
            ]
        elif op == "Concat":
            weights |= {"half": np.array([2, 2])}
            axis = 1 + second % 3
            rows += [("Split", [a, "half"], [f"s{number}", f"t{number}"], {"axis": axis})]
            rows += [(op, [f"t{number}", f"s{number}"], [out], {"axis": axis})]
        elif op == "Constant":
            weights[f"k{number}"] = normal(second, *[(4,), (4, 1, 1), (1, 4, 1, 4), ()][second % 4])
            rows.append(
                (("Mul", "Add", "Sub")[first % 3], [a, f"k{number}"] if second % 2 else [f"k{number}", a], [out], {})
            )
        elif op == "Conv":
            weights[f"w{number}"] = normal(second, 4, 4, 1, 1) / 2
            rows.append((op, [a, f"w{number}"], [out], {}))
        else:
            rows.append((op, [a, b] if op in JOINT else [a], [out], {}))
        tensors.append(out)
    outputs = [tensors[-1], tensors[len(tensors) // 2]] if len(tensors) > 2 else [tensors[-1]]
    proto = make(rows, {"x": ["n", 4, 4, 4]}, outputs, weights)
    model = simplified(proto, {"x": normal(3, 2, 4, 4, 4)}, 2e-4)
    assert count(model)["Transpose"] <= sum(row[0] == "Transpose" for row in rows)
