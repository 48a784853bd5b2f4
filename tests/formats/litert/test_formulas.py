"""Operators that LiteRT has no form of its own for: the numbers of ONNX Runtime, from several operators."""

import numpy as np
import pytest

import litert_cases as cases
from graphs import make as make_model
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.formats.file_form import FileForm
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph

pytest.importorskip("ai_edge_litert")

SHAPES = {"image": ["n", 8, 4, 6], "sequence": ["n", 5, 8], "row": ["n", 8], "one image": [1, 8, 4, 6]}


def same(rows, shape, weights=None, opset=20, outputs=None):
    """Rows of (operator, further inputs, attributes) that all read x: outputs are those of ONNX Runtime."""
    outputs = outputs or tuple(f"y{index}" for index in range(len(rows)))
    nodes = [(op, ["x", *reads], [out], kw) for (op, reads, kw), out in zip(rows, outputs, strict=True)]
    compare(cases.make(nodes, shape, weights or {}, outputs=outputs, opset=opset))


def compare(model):
    content = to_litert(QuantizedGraph(model))
    x = cases.inputs(model, np.random.default_rng(0))
    wanted = open_session(model.to_bytes(), threads=1).run({"x": x})
    given = open_session(content, engine="litert", threads=1).run({"x": x})
    for name, values in wanted.items():
        assert given[name].dtype == values.dtype
        np.testing.assert_allclose(given[name], values, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_functions_of_each_value(shape):
    rows = [(op, [], {}) for op in ("Softplus", "Mish", "Softsign", "Erf", "Selu", "Elu", "Celu", "Reciprocal", "Tan")]
    rows += [(op, [], {}) for op in ("Sin", "Cos", "Floor", "Ceil", "Sign")]
    rows += [("Elu", [], {"alpha": 0.3}), ("Celu", [], {"alpha": 2.0}), ("Selu", [], {"alpha": 1.1, "gamma": 0.7})]
    same(rows, shape)


def test_functions_stay_right_far_from_zero():
    nodes = [("Mul", ["x", "far"], ["u"], {})] + [
        (op, ["u"], [f"y{op}"], {}) for op in ("Softplus", "Mish", "Erf", "Softsign")
    ]
    outputs = ("ySoftplus", "yMish", "yErf", "ySoftsign")
    compare(cases.make(nodes, ["n", 8], {"far": np.float32(200)}, outputs=outputs, opset=20))


@pytest.mark.parametrize("shape", [["n", 8, 4, 6], ["n", 5, 8], [1, 8, 4, 6]], ids=str)
def test_norms(shape):
    rng = np.random.default_rng(1)
    weights = {name: cases.normal(rng, 8) for name in ("s8", "b8")}
    weights |= {"last": cases.normal(rng, shape[-1]), "b": cases.normal(rng, shape[-1])}
    weights |= {"wide": cases.normal(rng, *shape[1:])}
    rows = [("LayerNormalization", ["last", "b"], {}), ("LayerNormalization", ["last"], {"epsilon": 0.1})]
    rows += [("LayerNormalization", ["wide"], {"axis": 1})]
    if shape[1] == 8:
        rows += [("InstanceNormalization", ["s8", "b8"], {}), ("GroupNormalization", ["s8", "b8"], {"num_groups": 2})]
        rows += [("MeanVarianceNormalization", [], {"axes": [2, 3]})]
    same(rows, shape, weights, opset=21)


@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(keep):
    ops = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMin", "ReduceProd", "ReduceMax", "ReduceSum", "ReduceMean")
    rows = [(op, [axes], {"keepdims": keep}) for op in ops for axes in ("channels", "sides")]
    same(rows, ["n", 8, 4, 6], {"channels": np.array([1]), "sides": np.array([2, -1])})
    nodes = [("Abs", ["x"], ["a"], {}), ("ReduceLogSum", ["a", "channels"], ["y"], {"keepdims": keep})]
    compare(cases.make(nodes, ["n", 8, 4, 6], {"channels": np.array([1])}, opset=20))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_in_both_orders(mode):
    same([("DepthToSpace", [], {"blocksize": 2, "mode": mode})], ["n", 8, 4, 6])


def test_codes_move_from_depth_to_space_in_torchs_order():
    rng = np.random.default_rng(2)
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("DepthToSpace", ["c"], ["d"], {"blocksize": 2, "mode": "CRD"})]
    nodes += [("Conv", ["d", "v"], ["y"], {})]
    model = cases.make(nodes, ["n", 3, 4, 6], cases.conv(rng, 3, 8, [1, 1]) | {"v": cases.normal(rng, 2, 2, 1, 1)})
    made = cases.integer(model, rng)
    x = cases.inputs(model, rng)
    wanted = open_session(model.to_bytes(), threads=1).run({"x": x})["y"]
    given = open_session(to_litert(made), engine="litert", threads=1).run({"x": x})["y"]
    assert np.square(given - wanted).mean() < 1e-3 * np.square(wanted).mean()


@pytest.mark.parametrize("keep", [0, 1])
def test_positions_of_extremes(keep):
    rows = [(op, [], {"axis": axis, "keepdims": keep}) for op in ("ArgMax", "ArgMin") for axis in (1, 2, -1)]
    nodes = [(op, ["x"], [f"p{i}"], kw) for i, (op, _, kw) in enumerate(rows)]
    nodes += [("Cast", [f"p{i}"], [f"y{i}"], {"to": 1}) for i in range(len(rows))]
    compare(cases.make(nodes, ["n", 8, 4, 6], {}, outputs=tuple(f"y{i}" for i in range(len(rows))), opset=20))


def test_the_last_of_equal_values_is_refused():
    nodes = [("ArgMax", ["x"], ["p"], {"select_last_index": 1}), ("Cast", ["p"], ["y"], {"to": 1})]
    with pytest.raises(ModelError, match="gives the last of equal values"):
        to_litert(QuantizedGraph(cases.make(nodes, ["n", 8], {}, opset=20)))


@pytest.mark.parametrize(
    ("left", "right", "equation"),
    [
        ([0, 4, 6], [0, 4, 6], "nik,njk->nij"),
        ([0, 4, 6], [0, 6, 4], "nij,njk->nik"),
        ([0, 2, 3, 4], [0, 2, 3, 4], "nhqd,nhkd->nhqk"),
        ([0, 2, 3, 4], [0, 2, 3, 4], "nhqd,nhkd->nqhk"),
        ([0, 2, 3, 4], [0, 2, 12], "nhqd,nhe->nqde"),
    ],
)
def test_einsum_as_a_product(left, right, equation):
    nodes = [("Reshape", ["x", "l"], ["a"], {}), ("Reshape", ["x", "r"], ["b"], {})]
    nodes += [("Einsum", ["a", "b"], ["y"], {"equation": equation})]
    compare(cases.make(nodes, ["n", 24], {"l": np.array(left), "r": np.array(right)}))


@pytest.mark.parametrize(
    ("equation", "message"),
    [("nij,njk->nk", "sums over letters"), ("nii,nij->nj", "not a product"), ("...ij,...jk->...ik", "not a product")],
)
def test_other_sums_are_refused(equation, message):
    nodes = [("Reshape", ["x", "square"], ["a"], {}), ("Reshape", ["x", "square"], ["b"], {})]
    nodes += [("Einsum", ["a", "b"], ["y"], {"equation": equation})]
    with pytest.raises(ModelError, match=message):
        to_litert(QuantizedGraph(cases.make(nodes, ["n", 16], {"square": np.array([0, 4, 4])})))


def test_repeated_values():
    nodes = [
        ("Unsqueeze", ["x", "one"], ["u"], {}),
        ("Expand", ["u", "to"], ["y0"], {}),
        ("Tile", ["x", "times"], ["y1"], {}),
    ]
    weights = {"one": np.array([1]), "to": np.array([1, 3, 1, 1]), "times": np.array([1, 2, 3])}
    compare(cases.make(nodes, ["n", 5, 8], weights, outputs=("y0", "y1")))


def test_comparisons_and_choices():
    ops = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    nodes = [(op, ["x", "k"], [f"b{op}"], {}) for op in ops]
    nodes += [("And", ["bGreater", "bLess"], ["b0"], {}), ("Or", ["bGreater", "bEqual"], ["b1"], {})]
    nodes += [("Not", ["bLess"], ["b2"], {}), ("Relu", ["x"], ["r"], {})]
    chosen = ["b0", "b1", "b2", *(f"b{op}" for op in ops)]
    nodes += [("Where", [name, "r", "k"], [f"y{i}"], {}) for i, name in enumerate(chosen)]
    weights = {"k": np.float32([0.1, -0.2, 0.3]).reshape(3, 1, 1)}
    compare(cases.make(nodes, ["n", 3, 4, 5], weights, outputs=tuple(f"y{i}" for i in range(len(chosen)))))


@pytest.mark.parametrize("recipe", ["float", "linear8", "int8", "icluster4"])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_ids_of_words_and_their_table(recipe, kind):
    import lowbit

    rng = np.random.default_rng(3)
    weights = {"table": cases.normal(rng, 40, 16), "w": cases.normal(rng, 16, 5), "to": np.array([1, 1, 16])}
    weights |= {"first": cases.normal(rng, 1, 1, 16)}
    nodes = [
        ("Gather", ["table", "ids"], ["e"], {}),
        ("Shape", ["ids"], ["s"], {"end": 1}),
        ("MatMul", ["e", "w"], ["y"], {}),
    ]
    types = {"ids": 7 if kind is np.int64 else 6}
    proto = make_model(nodes, {"ids": ["n", 6]}, ["y"], weights, types=types)
    ids = rng.integers(0, 40, size=(24, 6)).astype(kind)
    made = lowbit.quantize(lowbit.load(proto), recipe, calibration=[{"ids": row} for row in ids], effort="fast")
    content = made.to_bytes(FileForm(to="litert"))
    wanted = open_session(made.to_bytes(), threads=1).run({"ids": ids})["y"]
    given = open_session(content, engine="litert", threads=1).run({"ids": ids})["y"]
    np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=0.05 if made.plan.integer else 1e-4)
    if recipe != "float":
        assert len(content) < len(lowbit.load(proto).to_bytes()) + 2500


def test_a_table_in_a_code_book_is_refused():
    import lowbit

    weights = {
        "table": np.ones((400, 16), np.float32) * np.arange(16, dtype=np.float32),
        "w": np.ones((16, 5), np.float32),
    }
    nodes = [("Gather", ["table", "ids"], ["e"], {}), ("MatMul", ["e", "w"], ["y"], {})]
    made = lowbit.quantize(
        lowbit.load(make_model(nodes, {"ids": ["n", 6]}, ["y"], weights, types={"ids": 7})), "cluster4"
    )
    with pytest.raises(ModelError, match="has a table 'table' as cluster"):
        made.to_bytes(FileForm(to="litert"))
