"""Networks of a few hundred bytes that look small until they run: sizes computed from values, loops that go on."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
make_node = helper.make_node
WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
ROUNDS = 22  # of doubling 25 kB
EVER = 10**18
TRUE = np.array(True)
END = [make_node("Reshape", ["z", "flat"], ["zz"]), make_node("ReduceMax", ["zz"], ["y"], keepdims=1)]
DOUBLE = make_node("Concat", ["a", "a"], ["b"], axis=1)
RELU = make_node("Relu", ["a"], ["b"])


def value(name: str, kind: int = FLOAT, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def network(*nodes, opset=20, functions=(), texts=(), **constants) -> onnx.ModelProto:
    """One Conv, some nodes that make z of its output c, and the largest value of that."""
    given = {"w": WEIGHT, "flat": np.array([1, -1]), "yes": TRUE} | constants
    tensors = [*(numpy_helper.from_array(np.asarray(each), name) for name, each in given.items()), *texts]
    nodes = [make_node("Conv", ["x", "w"], ["c"]), *nodes, *END]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, ["n", 3, 16, 16])], [value("y")], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets[: 1 + len(functions)], ir_version=9, functions=functions)


def body(*nodes, kind=FLOAT, scanned=(), depth="") -> onnx.GraphProto:
    """Of a Loop that carries a, which becomes b."""
    names = [f"{name}{depth}" for name in ("i", "go", "a", "on", "b")]
    i, go, a, on, b = names
    inputs = [value(i, INT, []), value(go, BOOL, []), value(a, kind)]
    outputs = [value(on, BOOL, []), value(b, kind), *scanned]
    return helper.make_graph([make_node("Identity", [go], [on]), *nodes], "body", inputs, outputs)


def loop(inner: onnx.GraphProto, trips="trips", carried="c", outputs=("z",)) -> onnx.NodeProto:
    return make_node("Loop", [trips, "yes", carried], list(outputs), body=inner)


def nested() -> onnx.GraphProto:
    inner = body(RELU)
    for depth in range(5):
        inner = body(make_node("Loop", ["trips", "yes", f"a{depth}"], [f"b{depth}"], body=inner), depth=str(depth))
    return inner


def branches() -> onnx.NodeProto:
    then = helper.make_graph([make_node("Concat", ["a", "a"], ["t"], axis=1)], "then", [], [value("t")])
    other = helper.make_graph([make_node("Relu", ["a"], ["e"])], "else", [], [value("e")])
    return make_node("If", ["go"], ["b"], then_branch=then, else_branch=other)


def grown(*nodes, size: float, **constants) -> onnx.ModelProto:
    """With a size that is computed from the input: k, and the shape [k, 4, 14, 14]."""
    computed = [
        make_node("Mul", ["c", "zero"], ["c0"]),
        make_node("ReduceMax", ["c0"], ["c1"], keepdims=0),
        make_node("Add", ["c1", "size"], ["c2"]),
        make_node("Cast", ["c2"], ["k"], to=INT),
        make_node("Unsqueeze", ["k", "axis"], ["k1"]),
        make_node("Concat", ["k1", "rest"], ["shape"], axis=0),
        make_node("Concat", ["zeros", "k1", "k1"], ["pads"], axis=0),
        make_node("Concat", ["one", "four", "k1", "k1"], ["sizes"], axis=0),
    ]
    sizes = {"zero": np.float32(0), "size": np.float32(size), "axis": [0], "rest": [4, 14, 14], "zeros": [0] * 6}
    return network(*computed, *nodes, **(sizes | {"one": [1], "four": [4]} | constants))


def function() -> onnx.FunctionProto:
    trips, yes = (numpy_helper.from_array(np.array(each), name) for each, name in ((ROUNDS, "t"), (True, "y")))
    nodes = [make_node("Constant", [], ["trips"], value=trips), make_node("Constant", [], ["yes"], value=yes)]
    nodes.append(loop(body(DOUBLE), carried="q", outputs=["r"]))
    return helper.make_function("own", "Grow", ["q"], ["r"], nodes, [helper.make_opsetid("", 20)])


def sequence() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    nodes = [make_node("Relu", ["c"], ["d"]), make_node("SequenceInsert", ["a", "d"], ["b"])]
    inner = body(*nodes)
    for held in (inner.input[2], inner.output[1]):
        held.type.CopyFrom(kind)
    empty = make_node("SequenceEmpty", [], ["s0"], dtype=FLOAT)
    joined = make_node("ConcatFromSequence", ["s"], ["z"], axis=1)
    return network(empty, loop(inner, carried="s0", outputs=["s"]), joined, trips=10**7)


def strings() -> onnx.ModelProto:
    text = helper.make_tensor("text", STRING, [1], [b"x" * 64])
    grow = loop(body(make_node("StringConcat", ["a", "a"], ["b"]), kind=STRING), carried="text", outputs=["s"])
    ends = [make_node("Equal", ["s", "text"], ["e"]), make_node("Cast", ["e"], ["f"], to=FLOAT)]
    return network(grow, *ends, make_node("Add", ["c", "f"], ["z"]), texts=[text], trips=34)


def scan() -> onnx.ModelProto:
    nodes = [make_node("Relu", ["h"], ["h2"]), make_node("Expand", ["xi", "shape"], ["o"])]
    inner = helper.make_graph(nodes, "scan", [value("h"), value("xi")], [value("h2"), value("o")])
    whole = make_node("Squeeze", ["c", "axis"], ["r"])
    return grown(whole, make_node("Scan", ["zero", "r"], ["q", "z"], body=inner, num_scan_inputs=1), size=1 << 17)


def to_scalar(made: str) -> list[onnx.NodeProto]:
    nodes = [make_node("Cast", [made], ["f"], to=FLOAT), make_node("ReduceMax", ["f"], ["s"], keepdims=0)]
    return [*nodes, make_node("Add", ["c", "s"], ["z"])]


SCANNED = body(RELU, make_node("Identity", ["a"], ["o"]), scanned=[value("o")])
GROWING = {
    "a Loop that doubles": network(loop(body(DOUBLE)), trips=ROUNDS),
    "as long as a condition holds": network(loop(body(DOUBLE), trips="")),
    "as often as the input says": grown(loop(body(DOUBLE), trips="k"), size=ROUNDS),
    "in a branch": network(loop(body(branches())), trips=ROUNDS),
    "in a function": network(make_node("Grow", ["c"], ["z"], domain="own"), functions=[function()]),
    "of constants": network(
        loop(body(make_node("Concat", ["a", "a"], ["b"], axis=0)), carried="k", outputs=["l"]),
        *to_scalar("l"), trips=30, k=np.ones(1, np.float32),
    ),
    "outputs of all turns": network(loop(SCANNED, outputs=["q", "z"]), trips=10**7),
    "a sequence": sequence(),
    "texts": strings(),
    "Scan": scan(),
    "Expand": grown(make_node("Expand", ["c", "shape"], ["z"]), size=1 << 20),
    "Tile": grown(make_node("Tile", ["c", "shape"], ["z"]), size=1 << 8),
    "ConstantOfShape": grown(make_node("ConstantOfShape", ["shape"], ["l"]), *to_scalar("l"), size=1 << 20),
    "Range": grown(make_node("Range", ["zero0", "k", "one0"], ["l"]), *to_scalar("l"), size=1 << 29,
                   zero0=np.int64(0), one0=np.int64(1)),
    "Pad": grown(make_node("Pad", ["c", "pads"], ["z"]), size=20000),
    "Resize": grown(make_node("Resize", ["c", "", "", "sizes"], ["z"], mode="nearest"), size=20000),
    "OneHot": grown(make_node("Cast", ["c"], ["ci"], to=INT), make_node("OneHot", ["ci", "k", "values"], ["z"]),
                    size=1 << 20, values=np.array([0, 1], np.float32)),
}  # fmt: skip
ENDLESS = {
    "a Loop": network(loop(body(RELU)), trips=EVER),
    "as long as a condition holds": network(loop(body(RELU), trips="")),
    "Loops in Loops": network(loop(nested()), trips=1000),
    "of a constant": network(loop(body(RELU), carried="k", outputs=["l"]), *to_scalar("l"), trips=EVER,
                             k=np.float32(1)),
}  # fmt: skip
