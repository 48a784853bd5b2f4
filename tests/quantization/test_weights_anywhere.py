"""Every operator with weights sits the same exam: codes, the same numbers in each runtime, every byte counted."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lowbit
from graphs import make, make_node, relative_error
from lowbit.engines import open_session
from lowbit.errors import DowngradeError, EngineError
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.size_report import sizes
from lowbit.graph.cost import cost
from lowbit.graph.weights import WEIGHT_INPUTS, all_weights
from lowbit.quantization.rate.goal import Goal
from speech import HIDDEN as STATE
from speech import SAMPLES, speech_network

HIDDEN = 48


def drawn(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def recurrent(op, gates, *, directions=1, **attributes):
    weights = {"w": drawn(1, directions, gates * HIDDEN, 64), "r": drawn(2, directions, gates * HIDDEN, HIDDEN)}
    weights["b"] = drawn(3, directions, 2 * gates * HIDDEN)
    how = {"hidden_size": HIDDEN, "direction": "bidirectional" if directions == 2 else "forward", **attributes}
    return make([make_node(op, "x w r b", "y h", name="node", **how)], {"x": [5, 2, 64]}, ["y", "h"], weights)


def product(op, reads, shape, weight, **attributes):
    return make([make_node(op, reads, "y", name="node", **attributes)], {"x": shape}, ["y"], {"w": weight})


def body(nodes, weights, output, inputs=()):
    """A body that gives `output` and takes inputs as (name, type, shape)."""
    infos = [helper.make_tensor_value_info(*item) for item in inputs]
    outputs = [helper.make_tensor_value_info(*item) for item in output]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_graph(nodes, "body", infos, outputs, tensors)


def branches():
    """Both bodies call their weight the same; one turns it."""
    one = body(
        [make_node("MatMul", "x wb", "z", name="in")], {"wb": drawn(1, 64, 40)}, [("z", TensorProto.FLOAT, None)]
    )
    turned = [make_node("Transpose", "wb", "t"), make_node("Gemm", "x t", "z", name="in")]
    two = body(turned, {"wb": drawn(2, 40, 64)}, [("z", TensorProto.FLOAT, None)])
    nodes = [
        make_node("ReduceMax", "x", "top", keepdims=0),
        make_node("Greater", "top zero", "flag"),
        make_node("If", "flag", "y", then_branch=one, else_branch=two),
    ]
    return make(nodes, {"x": [2, 64]}, ["y"], {"zero": np.float32(0)})


def gates_in_a_branch():
    """PyTorch's exporter puts the gates of an LSTM into ONNX's order where the LSTM stands: inside an If."""
    nodes: list[onnx.NodeProto] = []
    for weight in "wr":
        cuts = ((0, 1), (3, 4), (1, 3))  # input, output, forget and cell
        nodes += [make_node("Slice", f"{weight}t at{a} at{b} at0", f"{weight}{a}") for a, b in cuts]
        nodes += [make_node("Concat", f"{weight}0 {weight}3 {weight}1", f"{weight}c", axis=0)]
        nodes += [make_node("Unsqueeze", f"{weight}c at0", weight)]
    nodes += [make_node("LSTM", "x w r", "z", name="in", hidden_size=HIDDEN)]
    weights = {"wt": drawn(1, 4 * HIDDEN, 64), "rt": drawn(2, 4 * HIDDEN, HIDDEN)}
    sizes = {f"at{gate}": np.array([gate * HIDDEN]) for gate in (0, 1, 3, 4)}
    output = [("z", TensorProto.FLOAT, None)]
    other = body(
        [make_node("LSTM", "x wb rb", "z", name="other", hidden_size=HIDDEN)],
        {"wb": drawn(3, 1, 4 * HIDDEN, 64), "rb": drawn(4, 1, 4 * HIDDEN, HIDDEN)},
        output,
    )
    nodes = [
        make_node("ReduceMax", "x", "top", keepdims=0),
        make_node("Greater", "top zero", "flag"),
        make_node("If", "flag", "y", then_branch=body(nodes, weights | sizes, output), else_branch=other),
    ]
    return make(nodes, {"x": [5, 2, 64]}, ["y"], {"zero": np.float32(0)})


def loop():
    inner = body(
        [make_node("MatMul", "h wb", "m"), make_node("Tanh", "m", "h2"), make_node("Identity", "go", "go2")],
        {"wb": drawn(1, 64, 64)},
        [("go2", TensorProto.BOOL, []), ("h2", TensorProto.FLOAT, [2, 64])],
        [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("h", TensorProto.FLOAT, [2, 64])],
    )
    nodes = [make_node("Loop", "trips yes x", "y", body=inner)]
    return make(nodes, {"x": [2, 64]}, ["y"], {"trips": np.int64(3), "yes": np.bool_(True)})


def scan():
    inner = body(
        [make_node("MatMul", "h wb", "m"), make_node("Add", "m xi", "a"), make_node("Tanh", "a", "h2")],
        {"wb": drawn(1, 64, 64)},
        [("h2", TensorProto.FLOAT, [2, 64])],
        [("h", TensorProto.FLOAT, [2, 64]), ("xi", TensorProto.FLOAT, [2, 64])],
    )
    nodes = [make_node("Scan", "h0 x", "y", body=inner, num_scan_inputs=1)]
    return make(nodes, {"x": [7, 2, 64]}, ["y"], {"h0": np.zeros((2, 64), np.float32)})


def embedding(axis=0):
    shape = (100, 32) if axis == 0 else (32, 100)
    return make(
        [make_node("Gather", "e ids", "y", name="node", axis=axis)],
        {"ids": [2, 7]},
        ["y"],
        {"e": drawn(1, *shape)},
        types={"ids": TensorProto.INT64},
    )


def behind(*nodes):
    """A product with what some nodes make of the constant k [64, 48]."""
    return make([*nodes, make_node("MatMul", "x w", "y", name="node")], {"x": [3, 64]}, ["y"], {"k": drawn(1, 64, 48)})


def computed_bias():
    nodes = [
        make_node("ReduceMean", "x", "m", axes=[0, 2], keepdims=0),
        make_node("Conv", "x w m", "y", name="node"),
    ]
    return make(nodes, {"x": [1, 16, 50]}, ["y"], {"w": drawn(1, 16, 16, 5)})


NETWORKS = {
    "LSTM": lambda: recurrent("LSTM", 4),
    "LSTM, both ways": lambda: recurrent("LSTM", 4, directions=2),
    "GRU": lambda: recurrent("GRU", 3, linear_before_reset=1),
    "RNN": lambda: recurrent("RNN", 1),
    "Gather": embedding,
    "Gather, other axis": lambda: embedding(1),
    "MatMul": lambda: product("MatMul", "x w", [3, 5, 64], drawn(1, 64, 32)),
    "MatMul of three dimensions": lambda: product("MatMul", "x w", [4, 5, 64], drawn(1, 4, 64, 32)),
    "MatMul of four dimensions": lambda: product("MatMul", "x w", [2, 3, 5, 64], drawn(1, 2, 3, 64, 32)),
    "MatMul from the left": lambda: product("MatMul", "w x", [3, 64, 5], drawn(1, 32, 64)),
    "Gemm with factors": lambda: product("Gemm", "x w", [64, 5], drawn(1, 64, 32), transA=1),
    "Gemm from the left": lambda: product("Gemm", "w x", [64, 5], drawn(1, 64, 32), transA=1),
    "Einsum": lambda: product("Einsum", "x w", [3, 5, 64], drawn(1, 64, 32), equation="ncp,pk->nck"),
    "Einsum from the left": lambda: product("Einsum", "w x", [3, 5, 64, 2], drawn(1, 64, 32), equation="vw,ncvl->ncwl"),
    "Conv of one dimension": lambda: product("Conv", "x w", [1, 16, 50], drawn(1, 32, 16, 5)),
    "Conv of three dimensions": lambda: product("Conv", "x w", [1, 8, 6, 6, 6], drawn(1, 16, 8, 3, 3, 3)),
    "Conv with a computed bias": computed_bias,
    "ConvTranspose": lambda: product("ConvTranspose", "x w", [1, 16, 9, 9], drawn(1, 16, 16, 3, 3), strides=[2, 2]),
    "ConvTranspose of one dimension": lambda: product("ConvTranspose", "x w", [1, 16, 20], drawn(1, 16, 32, 4)),
    "behind a Transpose": lambda: make(
        [make_node("Transpose", "k", "w"), make_node("MatMul", "x w", "y", name="node")],
        {"x": [3, 48]},
        ["y"],
        {"k": drawn(1, 64, 48)},
    ),
    "behind an Identity": lambda: behind(make_node("Identity", "k", "w")),
    "behind a Cast": lambda: behind(
        make_node("Cast", "k", "d", to=TensorProto.DOUBLE), make_node("Cast", "d", "w", to=TensorProto.FLOAT)
    ),
    "If": branches,
    "If, gates put in order": gates_in_a_branch,
    "Loop": loop,
    "Scan": scan,
}
RECIPES = ["linear16", "linear8", "linear4", "linear3", "cluster8", "cluster4", "cluster1"]
MOST_ERROR = {"linear16": 1e-3, "linear8": 0.02, "linear4": 0.3, "linear3": 0.5, "cluster8": 0.05, "cluster4": 0.3}


def feeds(model, seed=0):
    generator = np.random.default_rng(seed)
    kinds = {info.name: (info.shape, info.dtype.kind) for info in model.inputs}
    return {
        name: generator.integers(0, 32, shape) if kind == "i" else generator.normal(size=shape).astype(np.float32)
        for name, (shape, kind) in kinds.items()
    }


def runs(content, given, engine="onnxruntime"):
    return open_session(content, engine=engine, threads=1).run(given)


def test_every_operator_with_weights_is_examined():
    used = {node.op_type for proto in NETWORKS.values() for node in all_nodes(proto().graph)}
    assert used >= WEIGHT_INPUTS.keys()


def all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


# Three recipes for each network, in turn: all recipes meet ten networks or more.
TOGETHER = [
    (name, recipe)
    for at, name in enumerate(NETWORKS)
    for place, recipe in enumerate(RECIPES)
    if (place - at) % len(RECIPES) in (0, 2, 4)
]


@pytest.mark.parametrize(("name", "recipe"), TOGETHER)
def test_weights_become_codes(name, recipe, tmp_path):
    proto = NETWORKS[name]()
    model = lowbit.load(proto)
    quantized = lowbit.quantize(model, recipe, strict=True)
    assert not quantized.plan.shortfall
    path = quantized.save(tmp_path / "q.onnx")
    decoded = {weight.node: quantized.graph.weights[weight.weight].decode() for weight in all_weights(model)}
    seen = layer_weights(path)
    assert seen.keys() == decoded.keys() != set()
    for key, values in decoded.items():
        np.testing.assert_array_equal(seen[key], values)
    ledger = read_ledger(path)
    stored = {weight.weight: model.weights[weight.weight].size for weight in all_weights(model)}
    assert sum(ledger.bytes.values()) == path.stat().st_size
    assert ledger.counts["codes"] == sum(stored.values())
    assert ledger.counts["float_weights"] == 0
    assert {layer.node for layer in ledger.layers} == decoded.keys()
    assert archive.unpack(archive.pack(path.read_bytes())) == path.read_bytes()
    given = feeds(model)
    exact, found = runs(proto.SerializeToString(), given), runs(path, given)
    for output, values in exact.items():
        assert relative_error(found[output], values) < MOST_ERROR.get(recipe, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_decodes_the_same(name, tmp_path):
    proto = NETWORKS[name]()
    given = feeds(lowbit.load(proto))
    try:
        runs(proto.SerializeToString(), given, "openvino")
    except EngineError:
        pytest.skip("OpenVINO does not run the float network")
    path = lowbit.quantize(proto, "linear4").save(tmp_path / "q.onnx")
    here, there = runs(path, given), runs(path, given, "openvino")
    for output, values in here.items():
        np.testing.assert_allclose(there[output], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_short_names_and_nothing_quantized_change_nothing(name, tmp_path):
    proto = NETWORKS[name]()
    given = feeds(lowbit.load(proto))
    plain = lowbit.quantize(proto, "float")
    content = lowbit.quantize(proto, "linear4").to_bytes()
    pairs = [(proto.SerializeToString(), plain.to_bytes()), (content, shortened(content))]
    for before, after in pairs:
        expected, found = runs(before, given), runs(after, given)
        for output, values in expected.items():
            np.testing.assert_allclose(found[output], values, atol=1e-6)


@pytest.mark.parametrize(("recipe", "most"), [("linear8", 0.01), ("cluster4", 0.1)])
def test_a_network_like_those_that_detect_speech_shrinks_to_a_third(recipe, most, tmp_path):
    proto = speech_network()
    path = lowbit.quantize(proto, recipe).save(tmp_path / "q.onnx")
    assert len(proto.SerializeToString()) > 3 * path.stat().st_size
    generator = np.random.default_rng(1)
    for rate in (16000, 8000):
        state = np.zeros((2, 1, STATE), np.float32)
        for _ in range(4):
            wave = generator.normal(size=(1, SAMPLES)).astype(np.float32)
            given = {"wave": wave, "state": state, "rate": np.array(rate)}
            exact, found = runs(proto.SerializeToString(), given), runs(path, given)
            assert np.abs(found["probability"] - exact["probability"]).max() < most
            state = exact["after"]


def mixed():
    """Layers with integer kernels around an LSTM without one."""
    weights = {"c": drawn(1, 8, 3, 3, 3), "shape": np.array([0, -1, 128]), "w": drawn(2, 1, 4 * HIDDEN, 128)}
    weights |= {"r": drawn(3, 1, 4 * HIDDEN, HIDDEN), "axis": np.array([0]), "g": drawn(4, HIDDEN, 64)}
    weights |= {"b": drawn(5, 64), "l": drawn(6, 64, 5)}
    nodes = [
        make_node("Conv", "x c", "conv", pads=[1, 1, 1, 1]),
        make_node("Relu", "conv", "active"),
        make_node("Transpose", "active", "rows", perm=[3, 0, 1, 2]),
        make_node("Reshape", "rows shape", "steps"),
        make_node("LSTM", "steps w r", "all last", name="lstm", hidden_size=HIDDEN),
        make_node("Squeeze", "last axis", "flat"),
        make_node("Gemm", "flat g b", "wide"),
        make_node("Relu", "wide", "wide2"),
        make_node("Gemm", "wide2 l", "y", name="fc"),
    ]
    return make(nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 5]}, weights)


@pytest.mark.parametrize(("recipe", "ratio", "most"), [("int8", 3.3, 0.05), ("int4", 4.5, 0.4), ("linear4", 5, 0.3)])
@pytest.mark.parametrize("steps", [(), None])
def test_integer_recipes_shrink_what_computes_in_float(recipe, ratio, most, steps, tmp_path):
    proto = mixed()
    x = np.random.default_rng(0).normal(size=(48, 3, 16, 16)).astype(np.float32)
    quantized = lowbit.quantize(proto, recipe, calibration=list(x), steps=steps, effort="fast")
    path = quantized.save(tmp_path / "q.onnx")
    assert len(proto.SerializeToString()) > ratio * path.stat().st_size
    named = any("lstm (LSTM) computes in float" in sentence for sentence in quantized.plan.downgrades)
    assert named == recipe.startswith("int")
    exact = runs(proto.SerializeToString(), {"x": x})["y"]
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(runs(path, {"x": x}, engine)["y"], exact) < most


@pytest.mark.parametrize("recipe", ["int8", "int4", "linear4"])
def test_a_weight_that_integers_and_floats_read_is_stored_once(recipe, tmp_path):
    nodes = [
        make_node("MatMul", "x w", "a"),
        make_node("Softmax", "a", "s"),
        make_node("Einsum", "s w", "e", equation="nk,kp->np"),
        make_node("MatMul", "e w", "y"),
    ]
    proto = make(nodes, {"x": ["n", 64]}, {"y": ["n", 64]}, {"w": drawn(1, 64, 64)})
    x = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)
    path = lowbit.quantize(proto, recipe, calibration=list(x), steps=()).save(tmp_path / "q.onnx")
    assert read_ledger(path).bytes["codes"] == (4096 if recipe == "int8" else 2048)


def silent():
    """A table that is added, sines that positions look up, and biases of more than 1,000 channels."""
    angles = np.outer(np.arange(64), np.arange(1, 33) / 32)
    weights = {"table": drawn(1, 1, 64, 32), "w": drawn(2, 32, 1200), "b": drawn(3, 1200), "sines": np.sin(angles)}
    nodes = [
        make_node("Add", "x table", "a"),
        make_node("Gather", "sines positions", "factors"),
        make_node("Mul", "a factors", "c"),
        make_node("MatMul", "c w", "m"),
        make_node("Add", "m b", "y"),
    ]
    inputs = {"x": [2, 64, 32], "positions": [64]}
    return make(nodes, inputs, ["y"], weights, types={"positions": TensorProto.INT64})


def test_what_stays_float_is_said_and_refused_by_strict():
    model = lowbit.load(silent())
    plan = lowbit.plan(model, "linear8")
    tensors = {tensor.tensor: tensor for tensor in plan.tensors}
    total = sum(array.nbytes for array in model.weights.values() if array.dtype == np.float32)
    assert {name: tensor.given is None for name, tensor in tensors.items()} == {
        "w": False, "table": True, "sines": True, "b": True
    }  # fmt: skip
    assert {name for name, tensor in tensors.items() if tensor.downgraded} == {"table", "sines"}
    for name, tensor in tensors.items():
        assert tensor.share == pytest.approx(model.weights[name].nbytes / total)
    share = tensors["table"].share + tensors["sines"].share
    assert plan.float_share == pytest.approx(share)
    assert plan.downgrades[0].startswith(
        f"table ({100 * tensors['table'].share:.2g} % of the weights' bytes) stays float"
    )
    assert plan.shortfall.startswith("less than asked")
    with pytest.raises(DowngradeError, match=r"table .* stays float: no weight; read by Add"):
        plan.require_all()
    assert dataclasses.replace(plan, tensors=()).shortfall == ""


@pytest.mark.parametrize(("dtype", "kind"), [(TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)])
@pytest.mark.parametrize("op", ["LSTM", "Gather", "Einsum", "MatMul"])
def test_other_float_types(op, dtype, kind, tmp_path):
    weights = {"w": drawn(1, 64, 48).astype(kind)}
    if op == "LSTM":
        weights = {"w": drawn(1, 1, 192, 64).astype(kind), "r": drawn(2, 1, 192, 48).astype(kind)}
        nodes = [make_node("LSTM", "x w r", "y", name="node", hidden_size=48)]
    elif op == "Gather":
        nodes = [make_node("Gather", "w x", "y", name="node")]
    else:
        how = {"equation": "nk,kp->np"} if op == "Einsum" else {}
        nodes = [make_node(op, "x w", "y", name="node", **how)]
    shape = {"LSTM": [5, 2, 64], "Gather": [4]}.get(op, [4, 64])
    types = {"x": TensorProto.INT64} if op == "Gather" else {}
    proto = make(nodes, {"x": shape}, ["y"], weights, dtype=dtype, types=types)
    model = lowbit.load(proto)
    path = lowbit.quantize(model, "linear8", strict=True).save(tmp_path / "q.onnx")
    assert read_ledger(path).counts["codes"] == sum(array.size for array in weights.values())
    given = feeds(model)
    # ONNX Runtime has no LSTM in double precision.
    exact = runs(lowbit.quantize(model, "float").to_bytes(), given)["y"]
    assert relative_error(runs(path, given)["y"], exact) < 0.02


def tied(form):
    """A small language model whose last layer is its embedding: turned, written twice, or read as it is."""
    table = drawn(1, 96, 32)
    weights = {"e": table, "w1": drawn(2, 32, 64), "w2": drawn(3, 64, 32)}
    first = [make_node("Gather", "e ids", "h", name="emb")]
    last = [make_node("Transpose", "e", "t"), make_node("MatMul", "d t", "y", name="last")]
    if form == "written twice":
        weights["copy"] = table.T.copy()
        last = [make_node("MatMul", "d copy", "y", name="last")]
    elif form == "as it is":
        weights["flat"] = np.array([-1, 32])
        last = [make_node("Reshape", "d flat", "r"), make_node("Gemm", "r e", "y", name="last", transB=1)]
    nodes = [*first, make_node("MatMul", "h w1", "a"), make_node("Relu", "a", "b"), make_node("MatMul", "b w2", "d")]
    proto = make([*nodes, *last], {"ids": ["n", 7]}, ["y"], weights, types={"ids": TensorProto.INT64})
    return proto, table


@pytest.mark.parametrize("form", ["turned", "written twice", "as it is"])
@pytest.mark.parametrize("recipe", ["linear8", "linear3", "cluster4"])
def test_a_tied_embedding_is_stored_once(form, recipe, tmp_path):
    proto, table = tied(form)
    model = lowbit.load(proto)
    assert sum(array.size for array in model.weights.values() if array.ndim == 2) == table.size + 2 * 32 * 64
    given = {"ids": np.random.default_rng(0).integers(0, 96, (4, 7))}
    exact = runs(proto.SerializeToString(), given)["y"]
    assert relative_error(runs(model.to_bytes(), given)["y"], exact) < 1e-5
    path = lowbit.quantize(model, recipe, strict=True).save(tmp_path / "q.onnx")
    assert read_ledger(path).counts["codes"] == table.size + 2 * 32 * 64
    assert layer_weights(path)["last"].shape == ((96, 32) if form == "as it is" else (32, 96))
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(runs(path, given, engine)["y"], exact) < {"linear8": 0.03, "linear3": 0.8}.get(
            recipe, 0.4
        )
    assert archive.unpack(archive.pack(path.read_bytes())) == path.read_bytes()


def test_a_tied_embedding_computes_in_integers_from_the_same_codes(tmp_path):
    """The table is looked up by constants of the graph's own, so that the input is float as calibration takes it."""
    table = drawn(1, 64, 40)
    nodes = [make_node("ArgMax", "x", "ids", axis=1, keepdims=0), make_node("Gather", "e ids", "h", name="emb")]
    nodes += [make_node("MatMul", "h w", "a"), make_node("Relu", "a", "r"), make_node("MatMul", "r t", "b")]
    nodes += [make_node("Relu", "b", "s"), make_node("MatMul", "s v", "y")]
    weights = {"e": table, "w": drawn(2, 40, 40), "t": table.T.copy(), "v": drawn(3, 64, 5)}
    proto = make(nodes, {"x": ["n", 64]}, {"y": ["n", 5]}, weights)
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    quantized = lowbit.quantize(proto, "int8", calibration=list(x), effort="fast")
    assert all(node.arithmetic != "float" for node in quantized.plan.nodes if node.op == "MatMul")
    path = quantized.save(tmp_path / "q.onnx")
    assert read_ledger(path).bytes["codes"] == 64 * 40 + 40 * 40 + 64 * 5
    exact = runs(proto.SerializeToString(), {"x": x})["y"]
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(runs(path, {"x": x}, engine)["y"], exact) < 0.05
    assert layer_weights(path)["b"].shape == (40, 64)
    operators = optimized(path)
    assert sum(operators[name] for name in ("QLinearMatMul", "MatMulIntegerToFloat", "QGemm")) == 3


def optimized(path):
    """Operators that ONNX Runtime makes of a file, counted."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_a_saved_scan_has_its_weights_in_its_body(tmp_path):
    proto = scan()
    path = lowbit.save(lowbit.load(proto), tmp_path / "float.onnx")
    given = feeds(lowbit.load(proto))
    assert [tensor.name for tensor in onnx.load(path).graph.initializer] == ["h0"]
    for engine in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(
            runs(path, given, engine)["y"], runs(proto.SerializeToString(), given)["y"], atol=1e-6
        )


def test_an_archive_of_a_given_size_counts_weights_that_are_in_no_layer():
    proto = mixed()
    model = lowbit.load(proto)
    x = np.random.default_rng(0).normal(size=(32, 3, 16, 16)).astype(np.float32)
    packed = lowbit.pack(model, Goal(size=39_000), calibration=list(x), effort="fast")
    assert len(packed.archive) <= 39_000
    content = archive.unpack(packed.archive)
    counted = sum(model.weights[weight.weight].size for weight in all_weights(model))
    assert sizes(content).counts["codes"] == counted
    assert packed.quantized.plan.downgrades == ()
    exact = runs(proto.SerializeToString(), {"x": x})["y"]
    assert relative_error(runs(content, {"x": x})["y"], exact) < 0.3


def test_a_litert_file_says_which_weights_it_holds_as_float(tmp_path):
    proto = make(
        [make_node("MatMul", "x w", "a"), make_node("MatMul", "k a", "y")],
        {"x": [64, 64]},
        ["y"],
        {"w": drawn(1, 64, 64), "k": drawn(2, 64, 64)},
    )
    quantized = lowbit.quantize(proto, "linear8")
    assert quantized.notes_on(tmp_path / "q.onnx") == ()
    assert quantized.notes_on(tmp_path / "q.tflite") == (
        "LiteRT files hold weights that belong to no layer as float: k.",
    )
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    path = quantized.save(tmp_path / "q.tflite")
    assert relative_error(runs(path, {"x": x}, "litert")["y"], runs(proto.SerializeToString(), {"x": x})["y"]) < 0.02


def test_files_of_others_are_counted_with_their_bodies(tmp_path):
    proto = speech_network()
    path = tmp_path / "float.onnx"
    onnx.save(proto, path)
    model, ledger, seen = lowbit.load(proto), read_ledger(path), layer_weights(path)
    wanted = {weight.node: model.weights[weight.weight] for weight in all_weights(model)}
    assert sum(ledger.bytes.values()) == path.stat().st_size
    assert ledger.counts["float_weights"] == sum(array.size for array in wanted.values())
    assert seen.keys() == wanted.keys() == {layer.node for layer in ledger.layers}
    for name, array in wanted.items():
        np.testing.assert_array_equal(seen[name], array)
    costs = {layer.node: layer for layer in cost(model).layers}
    assert costs.keys() == wanted.keys()
    assert costs["lstm.W"].macs == costs["lstm.R"].macs == 4 * STATE * STATE * costs["lstm.W"].input_shape[0]


def normalized_embedding():
    """A block as in Llama: what was looked up is divided by its size, its products turned by sines of positions."""
    weights = {"table": drawn(1, 96, 64), "w": drawn(2, 64, 64), "v": drawn(3, 64, 96), "one": np.float32(1e-5)}
    weights |= {"sines": drawn(4, 32, 64), "power": np.float32(2)}
    nodes = [make_node("Gather", "table ids", "h", name="words"), make_node("Gather", "sines places", "s", name="turn")]
    nodes += [make_node("Pow", "h power", "p"), make_node("ReduceMean", "p", "m", axes=[-1], keepdims=1)]
    nodes += [make_node("Add", "m one", "e"), make_node("Sqrt", "e", "r"), make_node("Reciprocal", "r", "i")]
    nodes += [make_node("Mul", "h i", "n"), make_node("MatMul", "n w", "a", name="first"), make_node("Mul", "a s", "b")]
    nodes += [make_node("Add", "h b", "c"), make_node("MatMul", "c v", "y", name="last")]
    shapes = {"ids": ["n", 7], "places": [1, 7]}
    types = dict.fromkeys(shapes, TensorProto.INT64)
    return make(nodes, shapes, {"y": ["n", 7, 96]}, weights, types=types)


@pytest.mark.parametrize("recipe", ["linear8", "int8"])
def test_an_embedding_that_is_divided_by_its_own_size_is_a_weight(recipe, tmp_path):
    """Sines of positions, which other activations are multiplied with, are none."""
    proto = normalized_embedding()
    model = lowbit.load(proto)
    assert "words" in {weight.node for weight in all_weights(model)}
    assert "turn" not in {weight.node for weight in all_weights(model)}
    given = {"ids": np.random.default_rng(0).integers(0, 96, (16, 7)), "places": np.arange(7)[None]}
    calibration = [{"ids": ids[None], "places": given["places"]} for ids in given["ids"]]
    path = lowbit.quantize(model, recipe, **({"calibration": calibration} if recipe == "int8" else {})).save(
        tmp_path / "q.onnx"
    )
    counted = read_ledger(path)
    assert counted.counts["codes"] == 96 * 64 + 64 * 64 + 64 * 96
    assert "words" in {layer.node for layer in counted.layers}
    assert {row.node for row in cost(model).layers} >= {"words", "first", "last"}
    exact = runs(proto.SerializeToString(), given)["y"]
    for engine in ("onnxruntime", "openvino"):
        assert relative_error(runs(path, given, engine)["y"], exact) < {"linear8": 0.02, "int8": 0.15}[recipe]
