"""Preparation changes the graph, never what it computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import assert_close, conv_model, make, normal, run
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lowbit.engines import open_session
from lowbit.errors import EngineError, ModelError
from lowbit.graph.load import load
from lowbit.graph.ops import layers, not_layers, single_consumer


def operators(model):
    return [node.op_type for node in model.graph]


def norm(channels, seed=9):
    """Scale, shift, mean and variance of a batch norm, by name."""
    rng = np.random.default_rng(seed)
    scale, shift, mean = rng.standard_normal((3, channels)).astype(np.float32)
    return {"g": scale, "s": shift, "m": mean, "v": rng.uniform(0.1, 2, channels).astype(np.float32)}


NORM = ["g", "s", "m", "v"]


def assert_same(model, feeds, relative=3e-6):
    loaded = load(model)
    for found, wanted in zip(run(loaded.to_bytes(), feeds), run(model, feeds), strict=True):
        assert_close(found, wanted, relative)
    return loaded


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("op", "shape", "attributes", "outputs"),
    [
        ("Conv", (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}, 6),
        ("Conv", (4, 1, 3, 3), {"group": 4}, 4),
        ("Conv", (5, 4, 1, 1), {}, 5),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}, 6),
        ("ConvTranspose", (4, 5, 3, 3), {}, 5),
    ],
)
def test_batch_norm_folds_into_convolutions(op, shape, attributes, outputs, bias):
    weights = {"w": normal(1, *shape)} | ({"b": normal(2, outputs)} if bias else {})
    nodes = [
        (op, ["x", *weights], ["c"], attributes),
        ("BatchNormalization", ["c", *NORM], ["y"], {"epsilon": 1e-3}),
    ]
    model = make(nodes, {"x": ["n", 4, 7, 7]}, ["y"], weights | norm(outputs))
    loaded = assert_same(model, {"x": normal(3, 2, 4, 7, 7)})
    assert operators(loaded) == [op]
    assert [info.name for info in loaded.outputs] == ["y"]
    assert loaded.trained_parameters == int(np.prod(shape)) + outputs * (3 if bias else 2)
    assert layers(loaded)[0].bias is not None
    assert load(loaded.to_bytes()).trained_parameters == loaded.trained_parameters


@pytest.mark.parametrize("op", ["Gemm", "Gemm transposed", "MatMul"])
def test_batch_norm_folds_into_products(op):
    weights = {"w": normal(1, *((4, 6) if op == "Gemm transposed" else (6, 4))), "b": normal(2, 4)} | norm(4)
    first = [("Gemm", ["x", "w", "b"], ["c"], {"alpha": 0.5, "beta": 2.0, "transB": int(op == "Gemm transposed")})]
    if op == "MatMul":
        first = [("MatMul", ["x", "w"], ["p"], {}), ("Add", ["b", "p"], ["c"], {})]
    model = make([*first, ("BatchNormalization", ["c", *NORM], ["y"], {})], {"x": ["n", 6]}, ["y"], weights)
    loaded = assert_same(model, {"x": normal(3, 5, 6)})
    assert "BatchNormalization" not in operators(loaded)
    assert loaded.trained_parameters == 24 + 4 + 8


def test_two_batch_norms_in_a_row_fold():
    second = {f"{name}2": array for name, array in norm(4, 10).items()}
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("BatchNormalization", ["c", *NORM], ["d"], {}),
        ("BatchNormalization", ["d", *second], ["y"], {}),
    ]
    loaded = assert_same(
        make(nodes, {"x": ["n", 3, 5, 5]}, ["y"], {"w": normal(1, 4, 3, 3, 3)} | norm(4) | second),
        {"x": normal(3, 1, 3, 5, 5)},
    )
    assert operators(loaded) == ["Conv"]


SHARED = {
    "one of two normed": [("Conv", ["x", "w", "b"], ["c2"], {"strides": [2, 2]}), ("Relu", ["c2"], ["y2"], {})],
    "another norm": [
        ("Conv", ["x", "w", "b"], ["c2"], {"strides": [2, 2]}),
        ("BatchNormalization", ["c2", "s", "g", "m", "v"], ["y2"], {}),
    ],
    "read as a table": [("Gather", ["w", "i"], ["y2"], {})],
}


@pytest.mark.parametrize("other", SHARED)
def test_a_weight_that_layers_share_stays_and_is_stored_once(other):
    nodes = [("Conv", ["x", "w", "b"], ["c1"], {}), ("BatchNormalization", ["c1", *NORM], ["y1"], {}), *SHARED[other]]
    weights = (
        {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4)} | norm(4) | ({"i": np.array(0)} if "table" in other else {})
    )
    loaded = assert_same(make(nodes, {"x": ["n", 3, 8, 8]}, ["y1", "y2"], weights), {"x": normal(3, 1, 3, 8, 8)})
    assert [array.shape for array in loaded.weights.values()].count((4, 3, 3, 3)) == 1
    np.testing.assert_array_equal(loaded.weights["w"], weights["w"])
    assert loaded.trained_parameters == 4 * 27 + 4 + 8


@pytest.mark.parametrize("written_out", [False, True])
def test_layers_that_share_weight_and_norm_are_folded_together(written_out):
    """Two inputs go through one network: siamese."""
    nodes = []
    for way in "12":
        c, m, z = (f"{letter}{way}" for letter in "cmz")
        nodes.append(("Conv", [f"x{way}", "w"], [c], {}))
        if written_out:
            nodes += [("Mul", [c, "f"], [m], {}), ("Add", [m, "t"], [z], {})]
        else:
            nodes.append(("BatchNormalization", [c, *NORM], [z], {}))
    nodes.append(("Sub", ["z1", "z2"], ["y"], {}))
    weights = {"f": normal(4, 4, 1, 1), "t": normal(5, 4, 1, 1)} if written_out else norm(4)
    model = make(nodes, {"x1": ["n", 3, 8, 8], "x2": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)} | weights)
    loaded = assert_same(model, {"x1": normal(3, 1, 3, 8, 8), "x2": normal(4, 1, 3, 8, 8)})
    assert operators(loaded) == ["Conv", "Conv", "Sub"]
    assert [array.shape for array in loaded.weights.values()].count((4, 3, 3, 3)) == 1


@pytest.mark.parametrize("reason", ["two readers", "output", "three dimensions", "computed"])
def test_a_batch_norm_that_cannot_fold_stays(reason):
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("BatchNormalization", ["c", *NORM], ["y"], {})]
    weights, outputs, inputs = {"w": normal(1, 4, 3, 3)} | norm(4), ["y"], {"x": [2, 3, 9]}
    feeds = {"x": normal(3, 2, 3, 9)}
    if reason == "two readers":
        nodes.append(("Relu", ["c"], ["z"], {}))
        outputs = ["y", "z"]
    elif reason == "output":
        outputs = ["y", "c"]
    elif reason == "three dimensions":
        nodes[0] = ("MatMul", ["x", "w"], ["p"], {})
        nodes.insert(1, ("Add", ["p", "b"], ["c"], {}))
        weights |= {"w": normal(1, 9, 3), "b": normal(2, 3)} | norm(3)
    else:
        nodes.insert(0, ("Abs", ["s0"], ["s"], {}))
        weights["s0"] = weights.pop("s")
        inputs["s0"] = [4]
        feeds["s0"] = weights.pop("s0")
    loaded = assert_same(make(nodes, inputs, outputs, weights), feeds)
    assert "BatchNormalization" in operators(loaded)


@pytest.mark.filterwarnings("error")
def test_an_infinite_bias_times_zero_is_no_warning():
    weights = {"w": normal(1, 4, 3, 3, 3), "b": np.array([np.inf, 0, 1, 1], np.float32), "a": np.zeros((4, 1, 1), "f4")}
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Mul", ["c", "a"], ["y"], {})]
    with pytest.raises(ModelError, match="infinite"):
        load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights))


def test_a_negative_variance_is_named():
    weights = {"w": normal(1, 4, 3, 3, 3)} | norm(4) | {"v": np.full(4, -1, np.float32)}
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("BatchNormalization", ["c", *NORM], ["y"], {})]
    with pytest.raises(ModelError, match=r"batch norm .* not finite.*variance"):
        load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights))


@pytest.mark.parametrize("op", ["BatchNormalization", "Dropout"])
def test_training_mode_is_refused(op):
    last = ("BatchNormalization", ["c", *NORM], ["y", "rm", "rv"], {"training_mode": 1})
    if op == "Dropout":
        last = ("Dropout", ["c", "ratio", "on"], ["y"], {})
    weights = {"w": normal(1, 4, 3, 3, 3), "ratio": np.float32(0.5), "on": np.bool_(True)} | norm(4)
    with pytest.raises(ModelError, match=rf"{op} .* training mode.*model.eval"):
        load(make([("Conv", ["x", "w"], ["c"], {}), last], {"x": ["n", 3, 8, 8]}, ["y"], weights))


def test_nothing_to_fold_comes_back_bit_identical():
    model = conv_model()
    before = model.SerializeToString()
    feeds = {"x": normal(3, 2, 3, 8, 8)}
    loaded = load(model)
    np.testing.assert_array_equal(run(loaded.to_bytes(), feeds)[0], run(model, feeds)[0])
    assert model.SerializeToString() == before
    assert loaded.to_bytes() == load(model).to_bytes() == load(before).to_bytes() == load(loaded.to_bytes()).to_bytes()
    assert loaded.sha256 == load(model).sha256
    with pytest.raises(ValueError, match="read-only"):
        loaded.weights["w"][:] = 0


def test_no_ops_and_constants_go_and_names_stay():
    nodes = [
        ("Identity", ["x"], ["i"], {}),
        ("Cast", ["i"], ["k"], {"to": onnx.TensorProto.FLOAT}),
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(1, 4, 3, 3, 3))),
        ("Conv", ["k", "w"], ["c"], {}),
        ("Dropout", ["c", "ratio"], ["d"], {}),
        ("Identity", ["d"], ["y"], {}),
        ("Identity", ["x"], ["z"], {}),
        ("Identity", ["d"], ["y2"], {}),
    ]
    model = make(nodes, {"x": ["n", 3, 5, 5]}, ["y", "z", "y2"], {"ratio": np.float32(0.5)})
    loaded = assert_same(model, {"x": normal(3, 2, 3, 5, 5)})
    assert operators(loaded) == ["Conv", "Identity", "Identity"]
    assert [info.name for info in loaded.outputs] == ["y", "z", "y2"]
    assert list(loaded.weights) == ["w"]


def test_dropout_whose_mask_is_used_stays():
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Dropout", ["c"], ["y", "mask"], {})]
    model = make(nodes, {"x": ["n", 3, 5, 5]}, ["y"], {"w": normal(1, 4, 3, 3, 3)})
    model.graph.output.append(helper.make_tensor_value_info("mask", onnx.TensorProto.BOOL, None))
    assert operators(assert_same(model, {"x": normal(3, 2, 3, 5, 5)})) == ["Conv", "Dropout"]


def test_weights_that_are_computed_become_constants():
    """Transposed, and unpacked from 2-bit codes as lowbit's own files do it."""
    packed = np.random.default_rng(1).integers(0, 256, 9, dtype=np.uint8)
    nodes = [
        ("Transpose", ["t"], ["w1"], {"perm": [1, 0]}),
        ("MatMul", ["x", "w1"], ["h"], {}),
        ("Cast", ["packed"], ["p"], {"to": onnx.TensorProto.INT32}),
        ("Div", ["p", "powers"], ["q"], {}),
        ("Mod", ["q", "four"], ["codes"], {}),
        ("Reshape", ["codes", "shape"], ["r"], {}),
        ("Gather", ["book", "r"], ["w2"], {}),
        ("MatMul", ["h", "w2"], ["y"], {}),
    ]
    weights = {
        "t": normal(1, 6, 4),
        "packed": packed.reshape(9, 1),
        "powers": np.array([1, 4, 16, 64], np.int32),
        "four": np.int32(4),
        "shape": np.array([6, 6], np.int64),
        "book": normal(2, 4),
    }
    loaded = assert_same(make(nodes, {"x": ["n", 4]}, ["y"], weights), {"x": normal(3, 5, 4)})
    assert operators(loaded) == ["MatMul", "MatMul"]
    codes = (packed[:, np.newaxis] // [1, 4, 16, 64] % 4).reshape(6, 6)
    np.testing.assert_array_equal(loaded.weights[layers(loaded)[1].weight], weights["book"][codes])


def test_a_target_is_constant_whether_the_batch_is_known_or_open():
    for shape, target in (([2, 4, 3, 3], [2, -1]), (["n", 4, 3, 3], [0, -1])):
        nodes = [
            ("Conv", ["x", "w"], ["c"], {}),
            ("Shape", ["c"], ["s"], {}),
            ("Gather", ["s", "zero"], ["n"], {}),
            ("Unsqueeze", ["n", "axis"], ["u"], {}),
            ("Concat", ["u", "rest"], ["t"], {"axis": 0}),
            ("Reshape", ["c", "t"], ["y"], {}),
        ]
        weights = {"w": normal(1, 5, 4, 3, 3), "zero": np.int64(0), "axis": np.array([0]), "rest": np.array([-1])}
        loaded = assert_same(make(nodes, {"x": shape}, ["y"], weights), {"x": normal(3, 2, 4, 3, 3)})
        assert operators(loaded) == ["Conv", "Reshape"]
        (shape_tensor,) = [array for array in loaded.weights.values() if array.dtype == np.int64]
        assert shape_tensor.tolist() == target


def test_a_small_file_cannot_grow_into_memory():
    huge = np.array([1 << 20, 1 << 20], np.int64)
    nodes = [
        ("ConstantOfShape", ["huge"], ["z"], {}),
        ("Expand", ["one", "huge"], ["e"], {}),
        ("Tile", ["row", "huge"], ["t"], {}),
        ("Range", ["from", "to", "step"], ["r"], {}),
        ("Conv", ["x", "w"], ["c"], {}),
    ]
    sums = [("ReduceSum", [name], [f"{name}s"], {"keepdims": 0}) for name in "zetr"]
    adds = [("Sum", ["c", *(f"{name}s" for name in "zetr")], ["y"], {})]
    weights = {"huge": huge, "one": np.ones((1, 1), np.float32), "row": np.ones((1, 1), np.float32)}
    weights |= {"from": np.float32(0), "to": np.float32(1e12), "step": np.float32(1), "w": normal(1, 4, 3, 3, 3)}
    small = make([*nodes, *sums, *adds], {"x": ["n", 3, 5, 5]}, ["y"], weights)
    loaded = load(small, input_sizes={"": (None, 3, 5, 5)})  # or it would be refused for its size
    assert {"ConstantOfShape", "Expand", "Tile", "Range"} <= set(operators(loaded))


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 21])
def test_old_operator_sets_are_converted(opset):
    nodes = [
        ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["c", *NORM], ["d"], {}),
        ("Relu", ["d"], ["e"], {}),
        ("Dropout", ["e"], ["f"], {}),
        ("GlobalAveragePool", ["f"], ["pooled"], {}),
        ("Flatten", ["pooled"], ["h"], {}),
        ("Gemm", ["h", "v2", "b2"], ["y"], {}),
    ]
    weights = {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4), "v2": normal(4, 4, 5), "b2": normal(5, 5)} | norm(4)
    # Before IR version 4 weights had to be inputs too.
    old = {name: array.shape for name, array in weights.items()} if opset < 9 else {}
    model = make(nodes, {"x": [1, 3, 8, 8]} | old, ["y"], weights, opset=opset, ir_version=3 if old else 8)
    model.graph.output[0].type.tensor_type.shape.SetInParent()
    for size in (1, 5):
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = size
    loaded = assert_same(model, {"x": normal(3, 1, 3, 8, 8)})
    assert loaded.ir.opset_imports[""] == max(opset, 13)
    assert operators(loaded) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert [info.name for info in loaded.inputs] == ["x"]
    assert loaded.classes == 5


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_other_float_types_become_float32(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("BatchNormalization", ["c", *NORM], ["d"], {}),
        ("Cast", ["d"], ["e"], {"to": onnx.TensorProto.FLOAT}),
        ("Cast", ["e"], ["f"], {"to": kind}),
        ("Add", ["f", "half"], ["y"], {}),
    ]
    weights = {"w": normal(1, 4, 3, 3, 3), "half": np.array([0.5], np.float32)} | norm(4)
    model = make(
        nodes, {"x": ["n", 3, 5, 5]}, ["y"], {name: array.astype(dtype) for name, array in weights.items()}, dtype=kind
    )
    x = normal(3, 2, 3, 5, 5).astype(dtype)
    loaded = load(model)
    assert loaded.input.dtype == loaded.outputs[0].dtype == np.float32
    assert {array.dtype for array in loaded.weights.values()} == {np.dtype(np.float32)}
    (found,) = run(loaded.to_bytes(), {"x": x.astype(np.float32)})
    # ONNX Runtime has no float64 convolution.
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert_close(found, wanted.astype(np.float32), 1e-5 if kind == onnx.TensorProto.DOUBLE else 1e-2)


def test_subgraphs_are_left_alone():
    def branch(name, weight):
        weights = {weight: normal(7, 4, 4, 1, 1)} if weight != "outer" else {}
        return make([("Conv", ["c", weight], [f"{name}_out"], {})], {}, [f"{name}_out"], weights).graph

    choice = ("If", ["flag"], ["y"], {"then_branch": branch("then", "inner"), "else_branch": branch("else", "outer")})
    nodes = [
        ("Conv", ["x", "w"], ["c0"], {}),
        ("BatchNormalization", ["c0", *NORM], ["c"], {}),
        ("ReduceMax", ["x"], ["top"], {"keepdims": 0}),
        ("Greater", ["top", "zero"], ["flag"], {}),
        choice,
    ]
    weights = {"w": normal(1, 4, 3, 3, 3), "zero": np.float32(0), "outer": normal(8, 4, 4, 1, 1)} | norm(4)
    model = make(nodes, {"x": ["n", 3, 5, 5]}, ["y"], weights)
    for sign in (1, -1):
        loaded = assert_same(model, {"x": sign * np.abs(normal(3, 1, 3, 5, 5))})
    assert len(layers(loaded)) == 1
    assert {(item.weight, item.reason) for item in not_layers(loaded)} == {
        ("inner", "inside an If or Loop"),
        ("outer", "inside an If or Loop"),
    }


def with_branches(nodes, branches, weights):
    """Nodes, and an If with one node named "twice" in each branch, given as operator and inputs."""
    graphs = [make([(op, reads, [op], {"name": "twice"})], {}, [op], {}).graph for op, reads in branches]
    nodes = [
        *nodes,
        ("ReduceMax", ["x"], ["top"], {"keepdims": 0}),
        ("Greater", ["top", "zero"], ["flag"], {}),
        ("If", ["flag"], ["y"], {"then_branch": graphs[0], "else_branch": graphs[1]}),
    ]
    return make(nodes, {"x": ["n", 6]}, ["y"], weights | {"zero": np.float32(0)})


def test_no_node_of_a_body_has_the_name_of_another():
    nodes = [("MatMul", ["x", "w"], ["product"], {"name": "twice"})]
    model = with_branches(nodes, [("Abs", ["product"]), ("Neg", ["product"])], {"w": normal(1, 6, 4)})
    loaded = assert_same(model, {"x": normal(3, 2, 6)})
    names = [node.name for node in loaded.ir.graph.all_nodes()]
    assert len(names) == len(set(names)) == 6
    assert loaded.nodes["twice"].op_type == "MatMul"


def test_a_sum_in_a_body_is_no_bias_of_a_product_outside():
    nodes = [("MatMul", ["x", "w"], ["product"], {}), ("MatMul", ["x", "v"], ["second"], {})]
    weights = {"w": normal(1, 6, 4), "v": normal(2, 6, 4), "b": normal(4, 4)}
    model = with_branches(nodes, [("Add", ["product", "b"]), ("Neg", ["second"])], weights)
    loaded = assert_same(model, {"x": normal(3, 2, 6)})
    assert [layer.bias_node for layer in layers(loaded)] == [None, None]
    assert single_consumer(loaded, "product") is None


def squeezed(x, at, known):
    """`torch.squeeze(x, 2)` as PyTorch's exporter writes it; branches of all have the same names, but their outputs."""
    branches = [
        make(
            [("Relu", [x], ["inner"], {}), (op, ["inner", *more], [f"{op}{at}"], {})], {}, [f"{op}{at}"], {"two": TWO}
        ).graph
        for op, more in (("Squeeze", ["two"]), ("Identity", []))
    ]
    rank = [("Shape", [x], [f"s{at}"], {}), ("Size", [f"s{at}"], [f"r{at}"], {})]
    size = [("Shape", [x], [f"s{at}"], {}), ("Gather", [f"s{at}", "second"], [f"r{at}"], {})]
    return [
        *(rank if known == "rank" else size),
        ("Equal", [f"r{at}", "three" if known == "rank" else "one"], [f"flag{at}"], {}),
        ("If", [f"flag{at}"], [f"y{at}"], {"then_branch": branches[0], "else_branch": branches[1]}),
    ]


TWO = np.array([2])
NUMBERS = {"one": np.int64(1), "three": np.int64(3), "second": np.int64(2)}


@pytest.mark.parametrize("known", ["rank", "size"])
def test_a_branch_that_is_known_is_taken(known):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        *squeezed("c", 0, known),
        ("MatMul", ["y0", "m"], ["p"], {}),
        ("Reshape", ["p", "column"], ["q"], {}),
        *squeezed("q", 1, known),
    ]
    weights = NUMBERS | {"w": normal(1, 6, 3, 2), "m": normal(2, 6, 5), "column": np.array([-1, 5, 1])}
    loaded = assert_same(make(nodes, {"x": [4, 3, 2]}, {"y1": [4, 5]}, weights), {"x": normal(3, 4, 3, 2)})
    assert operators(loaded) == ["Conv", "Relu", "Squeeze", "MatMul", "Reshape", "Relu", "Squeeze"]
    assert [layer.op for layer in layers(loaded)] == ["Conv", "MatMul"]


def test_a_branch_that_is_taken_may_give_what_the_graph_gives():
    nodes = [("Conv", ["x", "w"], ["c"], {}), *squeezed("c", 0, "size")]
    proto = make(nodes, {"x": ["n", 3, 2]}, {"y0": ["n", 6]}, NUMBERS | {"w": normal(1, 6, 3, 2)})
    loaded = assert_same(proto, {"x": normal(3, 4, 3, 2)})
    assert operators(loaded) == ["Conv", "Relu", "Squeeze"]
    assert [info.name for info in loaded.outputs] == ["y0"]


def test_a_branch_whose_condition_is_not_known_stays():
    nodes = [("Conv", ["x", "w"], ["c"], {}), *squeezed("c", 0, "size")]
    proto = make(nodes, {"x": ["n", 3, "t"]}, ["y0"], NUMBERS | {"w": normal(1, 6, 3, 2)})
    for length in (2, 5):
        loaded = assert_same(proto, {"x": normal(3, 4, 3, length)})
        assert operators(loaded)[-1] == "If"


def test_local_functions_are_inlined():
    function = helper.make_function(
        "own",
        "Block",
        ["a", "k"],
        ["o"],
        [helper.make_node("Conv", ["a", "k"], ["t"]), helper.make_node("Relu", ["t"], ["o"])],
        [helper.make_opsetid("", 17)],
    )
    calls = [
        helper.make_node("Block", ["x", "w1"], ["h"], domain="own"),
        helper.make_node("Block", ["h", "w2"], ["y"], domain="own"),
    ]
    model = make(calls, {"x": ["n", 3, 6, 6]}, ["y"], {"w1": normal(1, 4, 3, 3, 3), "w2": normal(2, 5, 4, 1, 1)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    loaded = assert_same(model, {"x": normal(3, 1, 3, 6, 6)})
    assert operators(loaded) == ["Conv", "Relu", "Conv", "Relu"]
    assert len(loaded.nodes) == 4
    assert len(layers(loaded)) == 2


def test_nodes_without_names_or_with_the_same_get_their_own():
    model = conv_model()
    for node in model.graph.node:
        node.name = "same"
    for name in ("same", ""):
        for node in model.graph.node:
            node.name = name
        assert len(set(load(model).nodes)) == 2
        assert all(load(model).nodes)


def test_descriptions_are_dropped_and_the_metadata_of_the_model_stays():
    model = conv_model()
    model.graph.node[0].doc_string = "/home/somebody/secret.py"
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "stack", "/home/somebody/secret.py"
    helper.set_model_props(model, {"author": "someone"})
    loaded = load(model)
    assert b"secret" not in loaded.to_bytes()
    assert loaded.ir.metadata_props["author"] == "someone"


def test_batch_norms_that_pytorch_folded_are_counted():
    for bias, expected in (("w_bias", 4 * 27 + 8), ("b", 4 * 27 + 12)):
        weights = {"w": normal(1, 4, 3, 3, 3), bias: normal(2, 4)}
        model = make([("Conv", ["x", "w", bias], ["y"], {})], {"x": ["n", 3, 8, 8]}, ["y"], weights)
        entry = model.graph.node[0].metadata_props.add()
        entry.key, entry.value = "pkg.onnxscript.rewriter.rule_name", "FuseBatchNormIntoConv, Other"
        assert load(model).trained_parameters == expected


def test_equal_parameters_that_pytorch_merged_are_counted():
    nodes = [
        ("Identity", ["g"], ["g2"], {}),
        ("Conv", ["x", "w"], ["c"], {}),
        ("BatchNormalization", ["c", *NORM], ["d"], {}),
        ("BatchNormalization", ["d", "g2", "s", "m", "v"], ["y"], {}),
    ]
    loaded = assert_same(
        make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)} | norm(4)), {"x": normal(3, 1, 3, 8, 8)}
    )
    assert operators(loaded) == ["Conv"]
    assert loaded.trained_parameters == 108 + 4 + 4 + 4


def test_what_is_no_layer_is_named_with_its_reason():
    nodes = [
        ("MatMul", ["left", "x"], ["a"], {}),
        ("Gemm", ["a", "w"], ["b"], {"transA": 1}),
        ("MatMul", ["b", "w3"], ["c"], {}),
        ("Gemm", ["b", "w4", "row"], ["d"], {}),
        ("MatMul", ["b", "w4"], ["y2"], {}),
        ("Sum", ["c", "d"], ["y"], {}),
    ]
    weights = {"left": normal(1, 5, 4), "w": normal(2, 5, 3), "w3": normal(3, 1, 3, 3), "w4": normal(4, 3, 3)}
    loaded = load(make(nodes, {"x": [4, 3]}, ["y", "y2"], weights | {"row": normal(5, 3, 3)}))
    assert {item.weight: item.reason for item in not_layers(loaded)} == {
        "left": "the constant is the left factor",
        "w": "transA, or a factor that cannot be folded",
        "w3": "the weight has 3 dimensions, not 2",
        "w4": "the bias does not have one value per channel",
    }
    assert [layer.weight for layer in layers(loaded)] == ["w4"]


def test_the_only_reader_of_a_tensor():
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("Conv", ["c", "w2"], ["g"], {}),
        ("Add", ["r", "g"], ["y"], {}),
    ]
    weights = {"w": normal(1, 4, 3, 1, 1), "w2": normal(3, 4, 4, 1, 1)}
    model = load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights))
    assert single_consumer(model, "g").op_type == "Add"
    assert single_consumer(model, "c") is None, "two read it"
    assert single_consumer(model, "y") is None, "an output of the model"


def test_a_light_model_only_names_its_large_weights_and_answers_alike():
    proto = conv_model()
    weight = normal(5, 64, 3, 8, 8)
    proto.graph.node.append(helper.make_node("Conv", ["x", "large"], ["z"], name="wide"))
    proto.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    proto.graph.initializer.append(numpy_helper.from_array(weight, "large"))
    model = load(proto)
    light = model.light()
    assert set(light.weights) == {"large"}
    assert np.shares_memory(light.weights["large"], model.weights["large"])
    assert len(light.content) < weight.nbytes / 4 < len(model.to_bytes())
    x = normal(3, 2, 3, 8, 8)
    whole, found = (open_session(each, threads=1).run({"x": x}) for each in (model.to_bytes(), light))
    assert whole.keys() == found.keys()
    for name, y in whole.items():
        np.testing.assert_array_equal(found[name], y)
    with pytest.raises(EngineError, match=r"'openvino': the engine takes whole models only.*to_bytes"):
        open_session(light, engine="openvino")


def test_a_copy_can_change_without_the_model():
    model = load(conv_model())
    before = model.to_bytes()
    changed = model.copy()
    for node in changed.graph:
        for value in node.outputs:
            value.dtype = ir.DataType.UINT8
            value.shape = None
    changed.graph.initializers.clear()
    assert model.to_bytes() == before


def test_quantized_models_are_recognized():
    nodes = [
        ("QuantizeLinear", ["x", "scale", "zero"], ["q"], {}),
        ("DequantizeLinear", ["q", "scale", "zero"], ["d"], {}),
        ("Conv", ["d", "w"], ["y"], {}),
    ]
    weights = {"scale": np.float32(0.1), "zero": np.uint8(128), "w": normal(1, 4, 3, 3, 3)}
    assert load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights)).quantized
    assert not load(conv_model()).quantized


@pytest.mark.parametrize("opset", [13, 17, 19, 21, 23])
def test_quantized_weights_are_seen_as_the_runtime_sees_them(opset):
    codes = np.random.default_rng(1).integers(-128, 128, (4, 3, 3, 3), dtype=np.int8)
    scale, zero = np.float32([0.1, 0.02, 0.3, 0.7]), np.int8([0, 5, -7, 1])
    nodes = [
        ("DequantizeLinear", ["codes", "scale", "zero"], ["w"], {"axis": 0}),
        ("DequantizeLinear", ["b32", "bscale"], ["b"], {"axis": 0}),
        ("Conv", ["x", "w", "b"], ["y"], {}),
    ]
    weights = {
        "codes": codes,
        "scale": scale,
        "zero": zero,
        "b32": np.int32([9, -9, 1 << 24, 3]),
        "bscale": scale * 0.5,
    }
    loaded = assert_same(
        make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights, opset=opset), {"x": normal(3, 1, 3, 8, 8)}, 1e-6
    )
    (layer,) = layers(loaded)
    shape = (4, 1, 1, 1)
    wanted = (codes.astype(np.int32) - zero.reshape(shape)).astype(np.float32) * scale.reshape(shape)
    np.testing.assert_array_equal(loaded.weights[layer.weight], wanted)
    assert loaded.trained_parameters == 108 + 4


@pytest.mark.parametrize("name", ["rps128/mobilenet_v2.onnx", "cifar10/resnet20.onnx"])
def test_real_models_compute_the_same(shared_data, name):
    path = shared_data / name
    loaded = load(path)
    x = normal(3, 2, 3, 128, 128) if "rps" in name else normal(3, 2, 3, 32, 32)
    (found,), (wanted,) = run(loaded.to_bytes(), {"x": x}), run(path.read_bytes(), {"x": x})
    np.testing.assert_array_equal(found, wanted)
    assert loaded.to_bytes() == load(path).to_bytes()


AXES = {
    "two": ([2, 3], ["n", 3, 8, 6]),
    "turned": ([3, 2], ["n", 3, 8, 6]),
    "from the end": ([-1, -2], ["n", 3, 8, 6]),
    "known sizes": ([3, 1], [2, 3, 8, 6]),
    "unknown sizes": ([2, 3], ["n", 3, "h", "w"]),
}
AMOUNTS = {
    "pads": ("Pad", "c amounts zero axes", [1, 2, 0, -1]),
    "scales": ("Resize", "c none amounts", [1.5, 2.0]),
    "sizes": ("Resize", "c none none amounts", [11, 5]),
}
# A layer, for a network has one.
BEFORE = [("Conv", ["x", "w"], ["c"], {})]
BY_TWO = {"w": 2 * np.eye(3, dtype=np.float32)[:, :, None, None]}


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("where", AXES)
@pytest.mark.parametrize("what", AMOUNTS)
def test_pads_and_sizes_of_some_axes_become_those_of_all(what, where, computed):
    """The same numbers exactly, also where what is asked for is an input of the network."""
    axes, shape = AXES[where]
    op, reads, amounts = AMOUNTS[what]
    values = np.array(amounts, np.float32 if what == "scales" else np.int64)
    names = ["" if name == "none" else name for name in reads.split(" ")]
    attributes = {} if op == "Pad" else {"axes": axes, "mode": "nearest", "nearest_mode": "floor"}
    weights = {"zero": np.float32(0), "axes": np.array(axes)} if op == "Pad" else {}
    inputs = {"x": shape, **({"amounts": [len(amounts)]} if computed else {})}
    types = {"amounts": helper.np_dtype_to_tensor_dtype(values.dtype)}
    weights |= {} if computed else {"amounts": values}
    proto = make([*BEFORE, (op, names, ["y"], attributes)], inputs, ["y"], weights | BY_TWO, opset=18, types=types)
    feeds = {"x": normal(1, 2, 3, 8, 6), **({"amounts": values} if computed else {})}
    loaded = assert_same(proto, feeds, 0)
    last = next(node for node in loaded.graph if node.op_type == op)
    assert "axes" not in last.attributes
    assert len(last.inputs) < 4 or op == "Resize"
    assert operators(loaded).count("ScatterElements") == computed
    # Sizes that are given become scales where these come to the same.
    if computed or what != "sizes" or where == "known sizes":
        assert ("Shape" in operators(loaded)) == (what == "sizes" and where != "known sizes")


def test_a_resize_that_keeps_proportions_keeps_its_axes():
    attributes = {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    nodes = [*BEFORE, ("Resize", ["c", "", "", "sizes"], ["y"], attributes)]
    proto = make(nodes, {"x": ["n", 3, 8, 6]}, ["y"], {"sizes": np.array([12, 12]), **BY_TWO}, opset=18)
    loaded = assert_same(proto, {"x": normal(1, 2, 3, 8, 6)}, 0)
    assert loaded.graph[1].attributes.get_ints("axes") == (2, 3)


def test_a_region_of_some_axes_becomes_one_of_all():
    attributes = {"axes": [3, 2], "coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    nodes = [*BEFORE, ("Resize", ["c", "region", "", "sizes"], ["y"], attributes)]
    weights = BY_TWO | {"region": np.array([0.1, 0.2, 0.7, 1.0], np.float32), "sizes": np.array([5, 4])}
    loaded = assert_same(make(nodes, {"x": ["n", 3, 8, 6]}, ["y"], weights, opset=18), {"x": normal(1, 2, 3, 8, 6)}, 0)
    region = loaded.graph.initializers["region"].const_value.numpy()
    np.testing.assert_array_equal(region, np.array([0, 0, 0.2, 0.1, 1, 1, 1, 0.7], np.float32))


@pytest.mark.parametrize("size", [(16, 16), (13, 11)])
@pytest.mark.parametrize("pads", [{}, {"auto_pad": "VALID"}, {"pads": [1] * 4}, {"auto_pad": "SAME_UPPER"}])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 2), ((5, 5), 5), ((2, 2), 2), ((4, 2), 3)])
def test_pools_that_round_up_count_padding_only_where_there_is_some(size, pads, kernel, stride):
    attributes = {"kernel_shape": kernel, "strides": [stride] * 2, "ceil_mode": 1, "count_include_pad": 1, **pads}
    nodes = [*BEFORE, ("AveragePool", ["c"], ["y"], attributes)]
    proto = make(nodes, {"x": ["n", 3, "h", "w"]}, ["y"], BY_TWO, opset=19, ir_version=9)
    loaded = assert_same(proto, {"x": normal(1, 2, 3, *size)}, 0)
    counts = pads not in ({}, {"auto_pad": "VALID"})
    assert ("count_include_pad" in loaded.graph[1].attributes) == counts
